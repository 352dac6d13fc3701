//! W1: one large layer, where a tool can do little but move and hash bytes.

use transship::demo::images::noise;
use transship::oci::{Algorithm, Hasher};

use crate::Outcome;
use crate::corpus::{Corpus, MIB};
use crate::lab::Lab;
use crate::process::{Invocation, own_cpu_seconds};
use crate::registry::Family;
use crate::report::{Row, Section, Spread};
use crate::tools::Tool;

pub async fn distribution_2(lab: &Lab) -> Outcome<Section> {
    let mut section = one_layer(lab, "w1", &Family::Distribution2).await?;
    against(&mut section, "curl pipe", 1.05);
    let fastest = section.fastest_peer().map(|row| row.tool.clone());
    if let Some(fastest) = fastest {
        against(&mut section, &fastest, 1.0);
    }
    let cpu = section.ours().and_then(Row::cpu_seconds).map(|cpu| cpu.median);
    let size = lab.size(1024, 32) as f64 / 1024.0;
    section.at_most(
        "CPU seconds a GiB, hashing included, at most 1.2",
        cpu.map(|cpu| cpu / size),
        1.2,
    );
    let curl = section
        .row("curl pipe")
        .and_then(Row::cpu_seconds)
        .map(|cpu| cpu.median);
    let hash = seconds_to_hash(lab.size(1024, 32));
    let allowed = curl.map(|curl| 1.3 * (curl + hash));
    let share = cpu.zip(allowed).map(|(cpu, allowed)| cpu / allowed * 1.3);
    section.at_most(
        "CPU seconds at most 1.3 × (those of both curls + one SHA-256)",
        share,
        1.3,
    );
    section.remarks.push(format!(
        "One SHA-256 over as many bytes in memory took {hash:.2} CPU s."
    ));
    section.our_memory(40.0);
    Ok(section)
}

pub async fn distribution_3(lab: &Lab) -> Outcome<Section> {
    let Some(path) = lab.registry3.clone() else {
        let why = "REGISTRY3 names no distribution 3 binary";
        return Ok(Section::not_measured("w1-3x", super::title("w1-3x"), why));
    };
    let mut section = one_layer(lab, "w1-3x", &Family::Distribution3(path)).await?;
    against(&mut section, "curl pipe", 0.85);
    Ok(section)
}

/// Promises our time as a share of another's, round by round.
fn against(section: &mut Section, other: &str, limit: f64) {
    let ours = section.ours().zip(section.row(other));
    let ratio: Option<Spread> = ours.and_then(|(ours, other)| ours.ratio(other));
    let promise = match ratio {
        Some(ratio) => format!("at most {limit} × the time of {other}, here {}", ratio.text()),
        None => format!("at most {limit} × the time of {other}"),
    };
    section.at_most(&promise, ratio.map(|ratio| ratio.median), limit);
}

async fn one_layer(lab: &Lab, id: &str, family: &Family) -> Outcome<Section> {
    let corpus = Corpus::single(lab.size(1024, 32) * MIB);
    let source = lab.filled(family, &corpus).await?;
    let mut tools = lab.tools.clone();
    tools.push(Tool::skopeo_copy());
    tools.push(Tool::curl());
    let mut section = Section::new(id, super::title(id));
    section.rows = lab
        .first_copies(family, &source, &corpus, &tools, async |host| {
            read_back(lab, host, &corpus).await
        })
        .await?;
    section.our_completeness();
    Ok(section)
}

/// Reads the layer back and has it hashed by a program that is not ours.
async fn read_back(lab: &Lab, host: &str, corpus: &Corpus) -> Outcome<Option<String>> {
    let (name, _, image) = corpus.first().ok_or("nothing was copied")?;
    let layer = image.layers.first().ok_or("the image has no layer")?;
    let home = lab.home()?;
    let script = format!("curl -sSf http://{host}/v2/{name}/blobs/{} | sha256sum", layer.digest);
    let finished = Invocation::script(&script, &home).run().await?;
    let said = std::fs::read_to_string(&finished.stdout)?;
    let digest = said.split_whitespace().next().unwrap_or("");
    Ok((format!("sha256:{digest}") != layer.digest).then(|| "the layer read back has another digest".to_owned()))
}

/// The processor time of one SHA-256 over so many MiB in memory, with the library that we use.
fn seconds_to_hash(mebibytes: u64) -> f64 {
    let block = noise(1, 1024 * 1024);
    let before = own_cpu_seconds();
    let mut hasher = Hasher::new(Algorithm::Sha256);
    for _ in 0..mebibytes {
        hasher.update(&block);
    }
    std::hint::black_box(hasher.finish());
    own_cpu_seconds() - before
}
