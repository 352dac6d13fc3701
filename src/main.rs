//! Arguments in, exit status out.

use std::process::ExitCode;

fn main() -> ExitCode {
    keep_freed_memory();
    match transship::cli::parse() {
        Ok(cli) => transship::cli::run(cli).into(),
        Err(status) => status.into(),
    }
}

/// Keeps glibc from giving the buffers of blobs back to the kernel, which fetches and clears them anew for the next
/// bytes: a quarter of the processor time of a large copy. The largest block that was ever freed sets from which size
/// on blocks are mapped by themselves, and twice that how much free memory is kept (`M_MMAP_THRESHOLD` in mallopt(3)).
/// This one is nearly four of the HTTP client's buffers (408 KiB), and no longer, as every thread keeps so much free memory for
/// itself: with half of it a copy of 1 GiB has 60,000 page faults in place of some thousands, with more 200 images of 5 MiB take
/// a MiB or two more. It is never touched, so it costs no memory itself.
fn keep_freed_memory() {
    const BLOCK: usize = 1536 * 1024;
    drop(std::hint::black_box(Vec::<u8>::with_capacity(BLOCK)));
}
