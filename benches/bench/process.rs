//! One tool as a child process: its time, its processor time and its memory, as the kernel counts them.
//!
//! A process that has ended but was not waited for keeps its times in `/proc/PID/stat`, those of the children that it waited
//! for included. So the watcher looks until the state is `Z`, reads, and only then waits.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::Outcome;

/// Clock ticks a second of the times in `/proc` (proc(5): `sysconf(_SC_CLK_TCK)`, 100 on every Linux of today).
const TICKS: f64 = 100.0;

/// Longer than any tool may take; then it is ended and the run counts as failed.
const PATIENCE: Duration = Duration::from_secs(900);

/// Set once, when everything under way is to be ended.
static STOPPING: AtomicBool = AtomicBool::new(false);

/// Has every process that is waited for ended, soon.
pub fn stop_all() {
    STOPPING.store(true, Ordering::Relaxed);
}

/// What to start.
#[derive(Clone, Debug)]
pub struct Invocation {
    pub program: PathBuf,
    pub arguments: Vec<String>,
    /// Working directory and `HOME`; output goes into files there.
    pub home: PathBuf,
    shell: bool,
}

/// A process under way, ended on drop.
pub struct Running {
    child: Child,
    started: Instant,
    shell: bool,
    stdout: PathBuf,
    stderr: PathBuf,
}

/// What a process took.
#[derive(Debug)]
pub struct Finished {
    pub status: ExitStatus,
    pub seconds: f64,
    /// User and system time, of children too.
    pub cpu_seconds: f64,
    /// The most that was resident at a time, summed over what ran at that time; a shell around it is left out.
    pub resident_bytes: u64,
    pub stdout: PathBuf,
    pub stderr: PathBuf,
}

impl Invocation {
    pub fn new(program: impl Into<PathBuf>, home: &Path) -> Self {
        Self {
            program: program.into(),
            arguments: Vec::new(),
            home: home.to_owned(),
            shell: false,
        }
    }

    /// Commands of a shell that stops at the first failure, in pipes too.
    pub fn script(text: &str, home: &Path) -> Self {
        let mut invocation = Self::new("bash", home).arguments(["-euo", "pipefail", "-c", text]);
        invocation.shell = true;
        invocation
    }

    pub fn arguments<I: IntoIterator<Item = S>, S: Into<String>>(mut self, more: I) -> Self {
        self.arguments.extend(more.into_iter().map(Into::into));
        self
    }

    pub fn start(&self) -> Outcome<Running> {
        let stdout = self.home.join("stdout");
        let stderr = self.home.join("stderr");
        let mut command = std::process::Command::new(&self.program);
        command
            .args(&self.arguments)
            .current_dir(&self.home)
            // No proxies, no accounts of the machine's user.
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", &self.home)
            .env("DOCKER_CONFIG", &self.home)
            .env("TMPDIR", &self.home)
            .stdin(Stdio::null())
            .stdout(File::create(&stdout)?)
            .stderr(File::create(&stderr)?);
        let started = Instant::now();
        let child = command
            .spawn()
            .map_err(|error| format!("{}: {error}", self.program.display()))?;
        Ok(Running {
            child,
            started,
            shell: self.shell,
            stdout,
            stderr,
        })
    }

    /// Runs to the end.
    pub async fn run(&self) -> Outcome<Finished> {
        self.start()?.finish().await
    }
}

impl Running {
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn started(&self) -> Instant {
        self.started
    }

    /// `kill -9`, of what it started too.
    pub fn kill(&mut self) -> Outcome {
        let children = below(self.child.id());
        self.child.kill()?;
        for child in children {
            // It may have ended by itself.
            let _ = std::process::Command::new("kill")
                .args(["-9", &child.to_string()])
                .status();
        }
        Ok(())
    }

    /// True where it has not ended; does not wait for it.
    pub fn is_running(&self) -> bool {
        stat(self.child.id()).is_some_and(|stat| stat.state != 'Z')
    }

    /// Waits for the end.
    pub async fn finish(self) -> Outcome<Finished> {
        // In a thread of its own: neither proxies nor other tasks may delay the look at the clock.
        tokio::task::spawn_blocking(move || self.watch()).await?
    }

    fn watch(mut self) -> Outcome<Finished> {
        let pid = self.child.id();
        let mut resident = 0;
        for look in 0u32.. {
            let stat = stat(pid).ok_or("the process is not in /proc")?;
            let elapsed = self.started.elapsed();
            if stat.state == 'Z' {
                let status = self.child.wait()?;
                return Ok(Finished {
                    status,
                    seconds: elapsed.as_secs_f64(),
                    cpu_seconds: stat.cpu_seconds,
                    resident_bytes: resident,
                    stdout: std::mem::take(&mut self.stdout),
                    stderr: std::mem::take(&mut self.stderr),
                });
            }
            if elapsed > PATIENCE || STOPPING.load(Ordering::Relaxed) {
                self.kill()?;
            }
            // Reading memory costs more than reading the state, and most where there is a shell.
            if look % (if self.shell { 20 } else { 4 }) == 0 {
                resident = resident.max(resident_now(pid, self.shell));
            }
            // Short runs are looked at more often, so that the look adds less than 1 %.
            let pause = (elapsed / 200).clamp(Duration::from_micros(500), Duration::from_millis(5));
            std::thread::sleep(pause);
        }
        Err("unreachable: the loop above has no end".into())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only where it was waited for already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Stat {
    state: char,
    cpu_seconds: f64,
}

fn stat(pid: u32) -> Option<Stat> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold spaces and parentheses.
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    // proc(5): field 3 is the state; 14 to 17 are utime, stime, cutime, cstime.
    let ticks: u64 = fields
        .get(11..15)?
        .iter()
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    Some(Stat {
        state: fields.first()?.chars().next()?,
        cpu_seconds: ticks as f64 / TICKS,
    })
}

/// Processor time of this program so far, the proxies in it included.
pub fn own_cpu_seconds() -> f64 {
    stat(std::process::id()).map_or(0.0, |stat| stat.cpu_seconds)
}

/// All that descend from a process. Looks at every process there is: `/proc/PID/task/TID/children` is not in every kernel.
fn below(pid: u32) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let parents: Vec<(u32, u32)> = ids.filter_map(|id| Some((id, parent(id)?))).collect();
    let mut found = vec![pid];
    let mut at = 0;
    while let Some(next) = found.get(at).copied() {
        found.extend(parents.iter().filter(|(_, parent)| *parent == next).map(|(id, _)| *id));
        at += 1;
    }
    found.split_off(1)
}

fn parent(pid: u32) -> Option<u32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    text.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// Without a shell around it only the process itself is looked at, which is cheap. A shell becomes the last of its commands.
fn resident_now(pid: u32, shell: bool) -> u64 {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    if !shell || name.trim() != "bash" {
        return memory(pid, "VmHWM");
    }
    below(pid).into_iter().map(|child| memory(child, "VmHWM")).sum()
}

/// A field of `/proc/PID/status` that is counted in kB, in bytes; 0 where the process has ended.
pub fn memory(pid: u32, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    kibibytes.unwrap_or(0) * 1024
}

/// How often threads of a process gave the processor up of their own will, so far: its wake-ups.
pub fn wakeups(pid: u32) -> Outcome<u64> {
    let mut sum = 0;
    for thread in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let status = std::fs::read_to_string(thread?.path().join("status")).unwrap_or_default();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        sum += line.and_then(|line| line.trim().parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(sum)
}

/// The end of what a process said on standard error, for a message.
pub fn last_words(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let last = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("");
    last.chars().take(300).collect()
}
