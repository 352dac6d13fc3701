//! The tools that are compared, and how each is told to do the same work.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::Outcome;
use crate::corpus::{Corpus, MANIFEST_TYPE};
use crate::process::Invocation;

/// A program, with the way it is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tool {
    pub name: String,
    kind: Kind,
    program: PathBuf,
    extras: Extras,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Transship,
    SkopeoSync,
    SkopeoCopy,
    Curl,
    BareRequests,
    Regsync,
    Crane,
    Ocync,
}

/// Lines that transship's rules have beside what the work needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Extras {
    /// Under the rule, such as `trust_destination: 6h`.
    rule: Vec<String>,
    /// At the top of the file, such as `spool: …`.
    top: Vec<String>,
}

/// What is to be copied, from where to where: `127.0.0.1:port`.
pub struct Task<'a> {
    pub corpus: &'a Corpus,
    pub source: &'a str,
    pub destinations: &'a [&'a str],
}

/// The peers that are on this machine, and why others are not measured.
pub struct Found {
    pub tools: Vec<Tool>,
    pub skipped: Vec<String>,
}

impl Tool {
    pub fn transship(program: &Path) -> Self {
        Self::new("transship", Kind::Transship, program)
    }

    /// The same program with one more line in its rule.
    pub fn with_rule_line(&self, name: &str, line: &str) -> Self {
        let mut tool = self.clone();
        tool.name = format!("transship, {name}");
        tool.extras.rule.push(line.to_owned());
        tool
    }

    /// The same program with one more line at the top of its rules.
    pub fn with_top_line(&self, name: &str, line: &str) -> Self {
        let mut tool = self.clone();
        tool.name = format!("transship, {name}");
        tool.extras.top.push(line.to_owned());
        tool
    }

    pub fn skopeo_copy() -> Self {
        Self::new("skopeo copy", Kind::SkopeoCopy, "skopeo")
    }

    pub fn curl() -> Self {
        Self::new("curl pipe", Kind::Curl, "curl")
    }

    pub fn bare_requests() -> Self {
        Self::new("curl, bare requests", Kind::BareRequests, "curl")
    }

    fn new(name: &str, kind: Kind, program: impl Into<PathBuf>) -> Self {
        Self {
            name: name.to_owned(),
            kind,
            program: program.into(),
            extras: Extras::default(),
        }
    }

    pub fn is_transship(&self) -> bool {
        self.kind == Kind::Transship
    }

    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Writes what the tool needs into `home` and says how to start it.
    pub fn prepare(&self, task: &Task<'_>, home: &Path) -> Outcome<Invocation> {
        let program = self.program.display();
        let destination = task.destinations.first().ok_or("no destination")?;
        let Task { corpus, source, .. } = task;
        Ok(match self.kind {
            Kind::Transship => {
                let rules = home.join("rules.yaml");
                std::fs::write(&rules, self.rules(task, home))?;
                Invocation::new(&self.program, home).arguments([
                    "--rules".to_owned(),
                    rules.display().to_string(),
                    "--state".to_owned(),
                    format!("sqlite:{}", home.join("transship.db").display()),
                    "sync".to_owned(),
                    "--format".to_owned(),
                    "json".to_owned(),
                ])
            }
            Kind::SkopeoSync => {
                let list = home.join("skopeo.yaml");
                let mut text = format!("{source:?}:\n  tls-verify: false\n  images:\n");
                // An empty list of tags means all (skopeo-sync(1)).
                for name in corpus.names() {
                    writeln!(text, "    {name}: []")?;
                }
                std::fs::write(&list, text)?;
                Invocation::new(&self.program, home).arguments([
                    "--insecure-policy",
                    "sync",
                    "--all",
                    "--keep-going",
                    "--preserve-digests",
                    "--src",
                    "yaml",
                    "--dest",
                    "docker",
                    "--dest-tls-verify=false",
                    &list.display().to_string(),
                    destination,
                ])
            }
            Kind::SkopeoCopy => {
                let (name, tag, _) = corpus.first().ok_or("nothing to copy")?;
                Invocation::new(&self.program, home).arguments([
                    "--insecure-policy",
                    "copy",
                    "--all",
                    "--preserve-digests",
                    "--src-tls-verify=false",
                    "--dest-tls-verify=false",
                    &format!("docker://{source}/{name}:{tag}"),
                    &format!("docker://{destination}/{name}:{tag}"),
                ])
            }
            Kind::Curl => Invocation::script(&curl_pipe(corpus, source, destination)?, home),
            Kind::BareRequests => {
                let config = home.join("requests.curl");
                std::fs::write(&config, bare_requests(corpus, &[source, destination])?)?;
                Invocation::new(&self.program, home).arguments(["--config", &config.display().to_string()])
            }
            Kind::Regsync => {
                let config = home.join("regsync.yaml");
                let mut text = format!(
                    "version: 1\ncreds:\n  - {{ registry: {source:?}, tls: disabled }}\n  \
                     - {{ registry: {destination:?}, tls: disabled }}\n\
                     defaults: {{ parallel: 4 }}\nsync:\n"
                );
                for name in corpus.names() {
                    writeln!(
                        text,
                        "  - {{ source: \"{source}/{name}\", target: \"{destination}/{name}\", type: repository }}"
                    )?;
                }
                std::fs::write(&config, text)?;
                Invocation::new(&self.program, home).arguments(["once", "-c", &config.display().to_string()])
            }
            Kind::Crane => {
                let mut script = String::new();
                for name in corpus.names() {
                    writeln!(
                        script,
                        "'{program}' copy --all-tags --insecure {source}/{name} {destination}/{name}"
                    )?;
                }
                Invocation::script(&script, home)
            }
            Kind::Ocync => {
                let config = home.join("ocync.yaml");
                let mut text = format!(
                    "global: {{ cache_dir: {:?} }}\nregistries:\n  \
                     src: {{ url: \"http://{source}\", auth_type: anonymous }}\n  \
                     dst: {{ url: \"http://{destination}\", auth_type: anonymous }}\n\
                     target_groups: {{ all: [dst] }}\n\
                     defaults: {{ source: src, targets: all, tags: {{ glob: \"*\" }} }}\nmappings:\n",
                    home.join("cache")
                );
                for name in corpus.names() {
                    writeln!(text, "  - {{ from: {name}, to: {name} }}")?;
                }
                std::fs::write(&config, text)?;
                Invocation::new(&self.program, home).arguments(["sync", "-c", &config.display().to_string(), "--json"])
            }
        })
    }

    /// The rules that copy the task's repositories by their names, so that no catalogue is asked for.
    fn rules(&self, task: &Task<'_>, home: &Path) -> String {
        let mut registries = json!({ "src": { "url": format!("http://{}", task.source) } });
        let mut names = Vec::new();
        for (number, host) in task.destinations.iter().enumerate() {
            let name = format!("dst{number}");
            registries[&name] = json!({ "url": format!("http://{host}") });
            names.push(name);
        }
        let repositories = json!(task.corpus.names());
        let top: String = self.extras.top.iter().map(|line| format!("{line}\n")).collect();
        let rule: String = self.extras.rule.iter().map(|line| format!("    {line}\n")).collect();
        // JSON is YAML, and needs no second way to quote.
        let text = format!(
            "version: 1\n{top}registries: {registries}\nrules:\n  - name: bench\n    source: src\n    \
             destinations: {}\n    repositories: {repositories}\n{rule}",
            json!(names)
        );
        text.replace("$HOME", &home.display().to_string())
    }

    /// What the program says of its version, for the record.
    pub fn version(&self) -> String {
        let flag = match self.kind {
            Kind::Regsync | Kind::Crane | Kind::Ocync => "version",
            _ => "--version",
        };
        let output = Command::new(&self.program).arg(flag).output();
        let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        let text = text.unwrap_or_else(|error| format!("{}: {error}", self.program.display()));
        text.lines().next().unwrap_or("").trim().to_owned()
    }
}

/// The least that any program could do: one stream read and one written at the same time, nothing hashed.
fn curl_pipe(corpus: &Corpus, source: &str, destination: &str) -> Outcome<String> {
    let (name, tag, image) = corpus.first().ok_or("nothing to copy")?;
    let mut script = String::from("unset http_proxy\n");
    for blob in image.blobs() {
        let digest = &blob.digest;
        write!(
            script,
            "location=$(curl -sSf -o /dev/null -D - -X POST http://{destination}/v2/{name}/blobs/uploads/ | tr -d '\\r' | sed -n 's/^[Ll]ocation: //p')\n\
             curl -sSf http://{source}/v2/{name}/blobs/{digest} | \
             curl -sSf -o /dev/null -X PUT -T - -H 'Transfer-Encoding:' -H 'Content-Length: {}' \
             -H 'Content-Type: application/octet-stream' \"$location&digest={digest}\"\n",
            blob.size
        )?;
    }
    writeln!(
        script,
        "curl -sSf -H 'Accept: {MANIFEST_TYPE}' http://{source}/v2/{name}/manifests/{tag} | \
         curl -sSf -o /dev/null -X PUT --data-binary @- -H 'Content-Type: {MANIFEST_TYPE}' \
         http://{destination}/v2/{name}/manifests/{tag}"
    )?;
    Ok(script)
}

/// The requests of a run that finds nothing to do, with nobody who waits for one to send the next: what the registries take
/// for them.
fn bare_requests(corpus: &Corpus, hosts: &[&str]) -> Outcome<String> {
    let mut heads = format!("head\nheader = \"Accept: {MANIFEST_TYPE}\"\n");
    let mut lists = String::new();
    for (name, images) in &corpus.repositories {
        for host in hosts {
            write!(lists, "{}", curl_url(&format!("http://{host}/v2/{name}/tags/list")))?;
            for (tag, _) in images {
                write!(
                    heads,
                    "{}",
                    curl_url(&format!("http://{host}/v2/{name}/manifests/{tag}"))
                )?;
            }
        }
    }
    // `next` begins a group of requests with options of its own; how many go at once holds for all.
    let each = "silent\nfail\n";
    Ok(format!(
        "parallel\nparallel-max = {CURL_REQUESTS_AT_ONCE}\n{each}{lists}next\n{each}{heads}"
    ))
}

fn curl_url(url: &str) -> String {
    format!("url = \"{url}\"\noutput = \"/dev/null\"\n")
}

/// As many as transship has at both registries together when it begins.
const CURL_REQUESTS_AT_ONCE: usize = 96;

/// Every tool that copies whole repositories: ours first.
pub fn find(ours: &Path) -> Found {
    let mut tools = vec![Tool::transship(ours)];
    let mut skipped = Vec::new();
    if on_path("skopeo") {
        tools.push(Tool::new("skopeo sync", Kind::SkopeoSync, "skopeo"));
    } else {
        skipped.push("skopeo: not installed, not measured".to_owned());
    }
    for (variable, name, kind) in [
        ("PEER_REGSYNC", "regsync", Kind::Regsync),
        ("PEER_CRANE", "crane", Kind::Crane),
        ("PEER_OCYNC", "ocync", Kind::Ocync),
    ] {
        match std::env::var_os(variable).map(PathBuf::from) {
            Some(path) if path.is_file() => {
                let path = path.canonicalize().unwrap_or(path);
                tools.push(Tool::new(name, kind, path));
            }
            Some(path) => skipped.push(format!("{name}: {variable} names {}, which is no file", path.display())),
            None => skipped.push(format!("{name}: {variable} names no binary, not measured")),
        }
    }
    Found { tools, skipped }
}

pub fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}
