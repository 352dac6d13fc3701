//! What the proxy itself takes, so that one knows that it is not what is measured.

use crate::Outcome;
use crate::corpus::{Corpus, MANIFEST_TYPE, MIB};
use crate::lab::{Lab, as_run, remove};
use crate::process::{Invocation, own_cpu_seconds};
use crate::proxy::{Conditions, Proxy};
use crate::registry::Family;
use crate::report::{Row, Section};

pub async fn proxy(lab: &Lab) -> Outcome<Section> {
    let size = lab.size(1024, 32);
    let requests = lab.size(4000, 400);
    let corpus = Corpus::single(size * MIB);
    let (name, tag, image) = corpus.first().ok_or("no image")?;
    let layer = &image.layers.first().ok_or("no layer")?.digest;
    let source = lab.filled(&Family::Distribution2, &corpus).await?;
    let proxy = Proxy::start(source.host(), Conditions::default()).await?;
    let ends = [source.host().to_owned(), proxy.host()];
    let mut section = Section::new("proxy", super::title("proxy"));
    let names = [
        "small requests, direct",
        "small requests, through the proxy",
        "1 GiB, direct",
        "1 GiB, through the proxy",
    ];
    section.rows = names.iter().map(|name| Row::new(name)).collect();
    for round in 1..=lab.options.rounds() {
        for (number, row) in section.rows.iter_mut().enumerate() {
            let host = &ends[number % 2];
            let script = if number < 2 {
                format!(
                    "curl -sSf -o /dev/null -I -Z --parallel-max 16 -H 'Accept: {MANIFEST_TYPE}' \
                     'http://{host}/v2/{name}/manifests/{tag}?[1-{requests}]'"
                )
            } else {
                format!("curl -sSf -o /dev/null http://{host}/v2/{name}/blobs/{layer}")
            };
            let home = lab.home()?;
            let before = own_cpu_seconds();
            let finished = Invocation::script(&script, &home).run().await?;
            let run = as_run(&finished, own_cpu_seconds() - before);
            run.log(round, &row.tool);
            row.runs.push(run);
            remove(&home);
        }
    }
    for (direct, through, what, count) in [
        (
            0,
            1,
            "microseconds that it adds to a request, on its own processor time",
            requests as f64 / 1e6,
        ),
        (
            2,
            3,
            "seconds of processor time that it takes for a GiB",
            size as f64 / 1024.0,
        ),
    ] {
        let own = |row: &Row| {
            row.runs
                .iter()
                .map(|run| run.proxy_cpu_seconds)
                .fold(f64::MAX, f64::min)
        };
        let added = own(&section.rows[through]) - own(&section.rows[direct]);
        section.remarks.push(format!("{what}: {:.2}.", added.max(0.0) / count));
    }
    section.remarks.push(format!(
        "{requests} HEADs of a manifest by curl over at most 16 connections; one GET of a blob."
    ));
    Ok(section)
}
