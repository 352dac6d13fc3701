//! Arguments in, exit status out.

use std::process::ExitCode;

/// Blob bytes come in buffers of some hundred KiB, which the system's allocator gives back to the kernel and fetches anew:
/// a fifth of the processor time of a large copy was page faults.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match transship::cli::parse() {
        Ok(cli) => transship::cli::run(cli).into(),
        Err(status) => status.into(),
    }
}
