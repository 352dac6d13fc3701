//! `demo`: the main job on two registries inside the program, told as a story.

use std::collections::BTreeSet;
use std::sync::Arc;

use clap::Args;
use serde_json::Value;

use super::context::{Context, said};
use super::exit::{Exit, Stop, chain};
use super::folder::Folder;
use super::output::colours_on_stdout;
use super::report;
use super::signals::Signals;
use crate::config::{self, Mode};
use crate::demo::images::{self, SampleImage};
use crate::demo::registry::{Options, Registry, Running};
use crate::engine::{Control, Engine, RunReport, RunRequest};
use crate::oci::{Digest, InvalidName, RepositoryName, Tag, media_type};
use crate::registry::{LocalClient, NoAnswer, http_client};
use crate::store::{Store, Trigger};

/// Bytes of a sample layer: enough to see that something moves, little enough for any machine.
const LAYER: usize = 2 * 1024 * 1024;

/// See it work: two registries inside the program, a sync, a change, a second sync
///
/// Needs no network, no rules and no other program, and leaves nothing behind. What was copied is read from both sides and compared.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  transship demo")]
pub(super) struct Demo {}

impl Demo {
    pub(super) async fn run(self, context: &Context) -> Result<Exit, Stop> {
        let mut signals = Signals::listen()?;
        let folder = Folder::make(&context.clock, "demo")?;
        let failed = |error: std::io::Error| Stop::failed(format!("cannot start a registry on a free port: {error}"));
        let harbour = Registry::start(Options::default()).await.map_err(failed)?;
        let mirror = Registry::start(Options::default()).await.map_err(failed)?;
        let told = tokio::select! {
            told = Box::pin(story(context, &folder, &harbour, &mirror)) => told,
            signal = signals.next() => Ok(Exit::Stopped(signal)),
        };
        harbour.stop().await;
        mirror.stop().await;
        told
    }
}

/// Where the demo tells its story.
struct Teller<'a> {
    context: &'a Context,
    colours: bool,
}

impl Teller<'_> {
    fn chapter(&self, title: &str) -> Result<(), Stop> {
        if self.colours {
            self.context
                .output
                .raw(format!("\n\u{1b}[1m{title}\u{1b}[0m\n").as_bytes())
        } else {
            self.context.output.line(format!("\n{title}"))
        }
    }

    fn say(&self, text: impl AsRef<str>) -> Result<(), Stop> {
        let indented: Vec<String> = text.as_ref().lines().map(|line| format!("  {line}")).collect();
        self.context.output.line(indented.join("\n"))
    }

    /// A sentence that was checked just now.
    fn checked(&self, ok: bool, text: &str) -> Result<(), Stop> {
        let word = if ok { "ok" } else { "WRONG" };
        if self.colours {
            let colour = if ok { 32 } else { 31 };
            self.context
                .output
                .raw(format!("  \u{1b}[{colour}m{word}\u{1b}[0m {text}\n").as_bytes())
        } else {
            self.context.output.line(format!("  {word} {text}"))
        }
    }
}

async fn story(context: &Context, folder: &Folder, harbour: &Running, mirror: &Running) -> Result<Exit, Stop> {
    let teller = Teller {
        context,
        colours: colours_on_stdout(),
    };
    let names = Names::new().map_err(|error| Stop::failed(chain(&error)))?;
    teller.chapter("1. Two registries start inside this program, one with images, one empty")?;
    harbour.seed(&names.web, &names.v1, &images::two_platforms(1, &[LAYER, 4096]));
    harbour.seed(&names.web, &names.latest, &images::two_platforms(1, &[LAYER, 4096]));
    harbour.seed(&names.base, &names.v1, &images::docker_image(2, &[LAYER]));
    let snapshot = images::image(3, "amd64", &[4096]);
    harbour.seed(&names.web, &names.snapshot, &snapshot);
    let signed = names.signature(&images::two_platforms(1, &[LAYER, 4096]));
    harbour.seed(&names.web, &signed.0, &signed.1);
    teller.say(format!(
        "harbour at {}: {} and {}, with a signature",
        harbour.url(),
        names.web,
        names.base
    ))?;
    teller.say(format!("mirror at {}: nothing", mirror.url()))?;

    teller.chapter("2. The rules")?;
    let rules = rules(&harbour.url(), &mirror.url());
    teller.say(&rules)?;
    let engine = engine(context, folder, rules).await?;

    teller.chapter("3. The first sync copies what is missing")?;
    let first = sync(&engine).await?;
    teller.say(report::text(&first)?)?;
    let mut fine = first.failures.is_empty();
    fine &= compare(&teller, harbour, mirror, &names, &[&names.v1, &names.latest, &signed.0]).await?;
    let left_out = mirror.resolve(&names.web, &names.snapshot).is_none();
    teller.checked(
        left_out,
        &format!("{}:{} was left out, as the rules say", names.web, names.snapshot),
    )?;
    fine &= left_out;

    teller.chapter("4. Somebody moves a tag and pushes a new one")?;
    let moved = images::two_platforms(4, &[LAYER, 4096]);
    harbour.seed(&names.web, &names.latest, &moved);
    harbour.seed(&names.web, &names.v2, &moved);
    teller.say(format!(
        "{}:{} now points to {}",
        names.web,
        names.latest,
        moved.digest()
    ))?;
    teller.say(format!("{}:{} is new", names.web, names.v2))?;

    teller.chapter("5. The second sync copies the difference only")?;
    let before = mirror.log().len();
    let second = sync(&engine).await?;
    teller.say(report::text(&second)?)?;
    fine &= second.failures.is_empty();
    let all = [&names.v1, &names.v2, &names.latest, &signed.0];
    fine &= compare(&teller, harbour, mirror, &names, &all).await?;
    let puts: BTreeSet<String> = mirror
        .log()
        .iter()
        .skip(before)
        .filter(|logged| logged.method.as_str() == "PUT" && logged.path.contains("/manifests/"))
        .filter_map(|logged| logged.path.rsplit('/').next().map(str::to_owned))
        .filter(|reference| !reference.contains(':') && !reference.contains("%3A"))
        .collect();
    let wanted: BTreeSet<String> = [&names.latest, &names.v2].into_iter().map(Tag::to_string).collect();
    let only = puts == wanted;
    teller.checked(only, "only the two changed tags were written")?;
    fine &= only;

    teller.chapter(if fine {
        "Both sides are the same."
    } else {
        "Something went wrong: see the lines marked WRONG."
    })?;
    teller.say("next: write a rules.yaml of your own, then `transship check`, `plan` and `sync`")?;
    engine.store().clone().close().await;
    Ok(if fine { Exit::Fine } else { Exit::Failed })
}

/// Names that the story uses.
struct Names {
    web: RepositoryName,
    base: RepositoryName,
    v1: Tag,
    v2: Tag,
    latest: Tag,
    snapshot: Tag,
}

impl Names {
    fn new() -> Result<Self, InvalidName> {
        Ok(Self {
            web: "shop/web".parse()?,
            base: "shop/base".parse()?,
            v1: "1.0".parse()?,
            v2: "1.1".parse()?,
            latest: "latest".parse()?,
            snapshot: "1.1-snapshot".parse()?,
        })
    }

    fn signature(&self, image: &SampleImage) -> (Tag, SampleImage) {
        images::cosign_signature(self.web.as_str(), &image.digest())
    }
}

fn rules(harbour: &str, mirror: &str) -> String {
    format!(
        "version: 1\n\
         registries:\n  \
           harbour: {{ url: \"{harbour}\" }}\n  \
           mirror: {{ url: \"{mirror}\" }}\n\
         rules:\n  \
           - name: shop\n    \
             source: harbour\n    \
             destinations: [mirror]\n    \
             repositories: [shop/*]\n    \
             tags: {{ exclude: [\"*-snapshot\"] }}\n"
    )
}

async fn engine(context: &Context, folder: &Folder, rules: String) -> Result<Engine, Stop> {
    let file = ("rules.yaml".to_owned(), rules);
    let loaded =
        config::parse(&[file], &config::Environment, Mode::Run).map_err(|failure| Stop::failed(said(&failure)))?;
    let store = Store::open(&folder.path().join("transship.db")).await?;
    Ok(Engine::new(Arc::new(loaded.config), store, context.clock.clone())?)
}

async fn sync(engine: &Engine) -> Result<RunReport, Stop> {
    let rule = engine
        .rule_names(&[])?
        .into_iter()
        .next()
        .ok_or_else(|| Stop::failed("the demo's rules have no rule"))?;
    let request = RunRequest {
        rule,
        trigger: Trigger::Manual,
        continues: None,
        only: Vec::new(),
        at_once: true,
    };
    let report = Box::pin(engine.run(request, Control::never())).await;
    report.map_err(|error| Stop::failed(chain(&error)))
}

/// Reads tags of both sides over HTTP, with no part of the engine, and compares everything that they reach.
async fn compare(
    teller: &Teller<'_>,
    harbour: &Running,
    mirror: &Running,
    names: &Names,
    web_tags: &[&Tag],
) -> Result<bool, Stop> {
    let client = |of: &Running| http_client(&of.url(), None).map_err(|error| Stop::failed(chain(&error)));
    let (ours, theirs) = (client(harbour)?, client(mirror)?);
    let mut all_same = true;
    let images = web_tags
        .iter()
        .map(|tag| (&names.web, *tag))
        .chain([(&names.base, &names.v1)]);
    for (repository, tag) in images {
        let compared = same(&ours, &theirs, repository, tag.as_str()).await;
        match compared {
            Ok((digest, bytes)) => {
                let text = format!("{repository}:{tag} is {digest} on both sides ({bytes} bytes compared)");
                teller.checked(true, &text)?;
            }
            Err(difference) => {
                all_same = false;
                teller.checked(false, &format!("{repository}:{tag}: {difference}"))?;
            }
        }
    }
    Ok(all_same)
}

/// The digest of an image that is the same on both sides, and how many bytes were compared; else the difference.
async fn same(
    ours: &LocalClient,
    theirs: &LocalClient,
    repository: &RepositoryName,
    tag: &str,
) -> Result<(Digest, usize), String> {
    let mut waiting = vec![("manifests", tag.to_owned())];
    let mut seen = BTreeSet::new();
    let mut top = None;
    let mut bytes = 0;
    while let Some((kind, reference)) = waiting.pop() {
        if !seen.insert(reference.clone()) {
            continue;
        }
        let path = format!("/v2/{repository}/{kind}/{reference}");
        let here = read(ours, &path).await?;
        let there = read(theirs, &path).await?;
        if here != there {
            return Err(format!("{path} differs"));
        }
        let digest = Digest::of(&here);
        if reference.contains(':') && digest.to_string() != reference {
            return Err(format!("{path} has the digest {digest}"));
        }
        bytes += here.len();
        top.get_or_insert(digest);
        if kind == "manifests" {
            let manifest: Value = serde_json::from_slice(&here).map_err(|error| format!("{path}: {error}"))?;
            waiting.extend(named(&manifest["manifests"]).map(|digest| ("manifests", digest)));
            waiting.extend(named(&manifest["layers"]).map(|digest| ("blobs", digest)));
            waiting.extend(
                manifest["config"]["digest"]
                    .as_str()
                    .map(|digest| ("blobs", digest.to_owned())),
            );
        }
    }
    top.map(|digest| (digest, bytes))
        .ok_or_else(|| "nothing was read".to_owned())
}

fn named(entries: &Value) -> impl Iterator<Item = String> + '_ {
    let entries = entries.as_array().map(Vec::as_slice).unwrap_or_default();
    entries
        .iter()
        .filter_map(|entry| entry["digest"].as_str().map(str::to_owned))
}

async fn read(side: &LocalClient, path: &str) -> Result<bytes::Bytes, String> {
    let accept = [
        media_type::OCI_INDEX,
        media_type::OCI_MANIFEST,
        media_type::DOCKER_MANIFEST,
        "*/*",
    ]
    .join(", ");
    let failed = |error: NoAnswer| format!("{path}: {}", chain(&error));
    let answer = side.get(path, &accept).await.map_err(failed)?;
    if answer.status != 200 {
        return Err(format!("{path} answers {}", answer.status));
    }
    Ok(answer.body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::images::SampleImage;

    async fn registry() -> Running {
        Registry::start(Options::default()).await.unwrap()
    }

    async fn compared(left: &Running, right: &Running) -> Result<(Digest, usize), String> {
        let client = |of: &Running| http_client(&of.url(), None).unwrap();
        let names = Names::new().unwrap();
        same(&client(left), &client(right), &names.web, names.v1.as_str()).await
    }

    fn seed(registry: &Running, image: &SampleImage) {
        let names = Names::new().unwrap();
        registry.seed(&names.web, &names.v1, image);
    }

    #[tokio::test]
    async fn the_comparison_finds_what_is_missing_or_other() {
        let (left, right) = (registry().await, registry().await);
        let image = images::two_platforms(1, &[4096, 10]);
        seed(&left, &image);
        assert!(compared(&left, &right).await.unwrap_err().contains("404"));
        seed(&right, &images::two_platforms(2, &[4096, 10]));
        assert!(compared(&left, &right).await.unwrap_err().contains("differs"));
        seed(&right, &image);
        let (digest, bytes) = compared(&left, &right).await.unwrap();
        assert_eq!(digest, image.digest());
        assert!(bytes > 2 * 4096, "{bytes}");
        let layer = Digest::of(&image.children[1].blobs[1]);
        assert!(right.lose_blob(&layer));
        let difference = compared(&left, &right).await.unwrap_err();
        assert!(difference.contains(&layer.to_string()), "{difference}");
    }
}
