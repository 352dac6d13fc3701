//! What all works share: folders, registries, tools, and one measured run.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

use tempfile::TempDir;

use crate::Outcome;
use crate::corpus::Corpus;
use crate::options::Options;
use crate::process::{self, Finished};
use crate::proxy::{Conditions, Proxy};
use crate::registry::{Family, Registry};
use crate::report::{Bytes, Requests, Row, Run};
use crate::tools::{Found, Task, Tool};
use crate::wire::{Gaps, Wire};

/// The place where everything is measured.
pub struct Lab {
    pub options: Options,
    /// Tools that copy whole repositories, ours first.
    pub tools: Vec<Tool>,
    pub registry3: Option<PathBuf>,
    /// The rules' keys that this build knows.
    schema: String,
    root: TempDir,
    next: AtomicU64,
}

impl Lab {
    pub fn new(options: Options, found: Found, storage: &Path) -> Outcome<Self> {
        std::fs::create_dir_all(storage)?;
        let root = TempDir::with_prefix_in("run-", storage)?;
        let mut tools = found.tools;
        if !options.tools.is_empty() {
            tools.retain(|tool| tool.is_transship() || options.tools.iter().any(|name| tool.name.contains(name)));
        }
        let ours = tools.first().ok_or("no tool")?;
        let home = root.path().join("schema");
        std::fs::create_dir_all(&home)?;
        let schema = Command::new(ours.program()).arg("schema").current_dir(&home).output()?;
        Ok(Self {
            registry3: std::env::var_os("REGISTRY3")
                .map(PathBuf::from)
                .filter(|path| path.is_file()),
            schema: String::from_utf8_lossy(&schema.stdout).into_owned(),
            options,
            tools,
            root,
            next: AtomicU64::new(0),
        })
    }

    pub fn ours(&self) -> Tool {
        self.tools[0].clone()
    }

    /// True where this build's rules have such a key.
    pub fn knows_key(&self, key: &str) -> bool {
        self.schema.contains(&format!("\"{key}\""))
    }

    /// Small numbers where only the working is shown.
    pub fn size(&self, real: u64, quick: u64) -> u64 {
        if self.options.quick { quick } else { real }
    }

    /// A folder that does not exist yet.
    pub fn fresh(&self, name: &str) -> PathBuf {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.root.path().join(format!("{number}-{name}"))
    }

    /// A new home for a tool.
    pub fn home(&self) -> Outcome<PathBuf> {
        let home = self.fresh("home");
        std::fs::create_dir_all(&home)?;
        Ok(home)
    }

    /// A registry with nothing in it.
    pub async fn empty(&self, family: &Family) -> Outcome<Registry> {
        Registry::start(family, self.fresh("registry")).await
    }

    /// A registry with this in it.
    pub async fn filled(&self, family: &Family, corpus: &Corpus) -> Outcome<Registry> {
        let registry = self.empty(family).await?;
        Wire::new(registry.host())?.push(corpus).await?;
        self.settle();
        Ok(registry)
    }

    /// Another registry that holds the same, made by copying its files.
    pub async fn twin(&self, family: &Family, of: &Registry) -> Outcome<Registry> {
        let folder = self.fresh("registry");
        std::fs::create_dir_all(&folder)?;
        let status = Command::new("cp").arg("-r").arg(of.storage()).arg(&folder).status()?;
        if !status.success() {
            return Err("cp of a registry's storage failed".into());
        }
        self.settle();
        Registry::start(family, folder).await
    }

    /// Lets the disk write what earlier runs left, so that the next does not pay for it.
    pub fn settle(&self) {
        // Where it fails, runs are noisier and nothing else.
        let _ = Command::new("sync").arg("-f").arg(self.root.path()).status();
    }

    /// One run of a tool from its start to its end. With `proxies` as its ends, their processor time is kept.
    pub async fn run(&self, tool: &Tool, task: &Task<'_>, home: &Path) -> Outcome<Run> {
        let invocation = tool.prepare(task, home)?;
        let before = process::own_cpu_seconds();
        let finished = invocation.run().await?;
        Ok(as_run(&finished, process::own_cpu_seconds() - before))
    }

    /// A run between the two proxies.
    pub async fn run_through(
        &self,
        tool: &Tool,
        corpus: &Corpus,
        src: &Proxy,
        dst: &Proxy,
        home: &Path,
    ) -> Outcome<Run> {
        let task = Task {
            corpus,
            source: &src.host(),
            destinations: &[&dst.host()],
        };
        self.run(tool, &task, home).await
    }

    /// Each tool in turn, again and again: a first copy into a new registry. Then each once more through counting proxies.
    pub async fn first_copies(
        &self,
        family: &Family,
        source: &Registry,
        corpus: &Corpus,
        tools: &[Tool],
        verify: impl AsyncFn(&str) -> Outcome<Option<String>>,
    ) -> Outcome<Vec<Row>> {
        let mut rows: Vec<Row> = tools.iter().map(|tool| Row::new(&tool.name)).collect();
        for round in 1..=self.options.rounds() {
            for (tool, row) in tools.iter().zip(&mut rows) {
                let destination = self.empty(family).await?;
                let home = self.home()?;
                let destinations = [destination.host()];
                let task = Task {
                    corpus,
                    source: source.host(),
                    destinations: &destinations,
                };
                let mut run = self.run(tool, &task, &home).await?;
                run.found(self.check(destination.host(), corpus).await?);
                if let Some(fault) = verify(destination.host()).await? {
                    run.fault(fault);
                }
                run.log(round, &row.tool);
                row.runs.push(run);
                drop(destination);
                remove(&home);
                self.settle();
            }
        }
        for (tool, row) in tools.iter().zip(&mut rows) {
            let destination = self.empty(family).await?;
            let home = self.home()?;
            self.counted(tool, row, source.host(), destination.host(), corpus, &home)
                .await?;
            remove(&home);
            drop(destination);
            self.settle();
        }
        Ok(rows)
    }

    /// One run whose requests and bytes are counted; its time is not kept.
    pub async fn counted(
        &self,
        tool: &Tool,
        row: &mut Row,
        source: &str,
        destination: &str,
        corpus: &Corpus,
        home: &Path,
    ) -> Outcome {
        let src = Proxy::start(source, Conditions::default()).await?;
        let dst = Proxy::start(destination, Conditions::default()).await?;
        let run = self.run_through(tool, corpus, &src, &dst, home).await?;
        if let Some(fault) = run.fault {
            row.notes.push(format!("counted run: {fault}"));
        }
        row.count(&src, &dst);
        Ok(())
    }

    /// What is missing at a destination, its blobs included.
    pub async fn check(&self, host: &str, corpus: &Corpus) -> Outcome<Option<String>> {
        let gaps = Wire::new(host)?.gaps(corpus, true).await?;
        Ok((gaps != Gaps::default()).then(|| {
            format!(
                "{} of {} tags wrong, {} blobs missing",
                gaps.tags,
                corpus.tags(),
                gaps.blobs
            )
        }))
    }
}

/// A run from what the kernel counted.
pub fn as_run(finished: &Finished, proxy_cpu_seconds: f64) -> Run {
    let mut run = Run {
        seconds: finished.seconds,
        cpu_seconds: finished.cpu_seconds,
        resident_bytes: finished.resident_bytes,
        proxy_cpu_seconds,
        fault: None,
        last_words: None,
    };
    if !finished.status.success() {
        run.fault(finished.status.to_string());
        run.last_words = Some(process::last_words(&finished.stderr));
    }
    run
}

/// Removes a folder that is not needed any more.
pub fn remove(folder: &Path) {
    // What stays is removed with the whole lab.
    let _ = std::fs::remove_dir_all(folder);
}

impl Row {
    /// Takes over what two proxies counted.
    pub fn count(&mut self, src: &Proxy, dst: &Proxy) {
        self.requests = Some(Requests {
            source: src.counts().all(),
            destination: dst.counts().all(),
            source_by: src.counts().table(),
            destination_by: dst.counts().table(),
        });
        self.bytes = Some(Bytes {
            from_source: src.received(),
            to_destination: dst.sent(),
        });
    }
}
