//! A plan of very many tags, from two registries that hold nothing but numbers.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::Outcome;
use crate::corpus::MANIFEST_TYPE;
use crate::lab::Lab;
use crate::process::{Invocation, own_cpu_seconds};
use crate::report::{Requests, Row, Section};

/// Repositories on a page of the catalogue.
const PAGE: u64 = 1000;

/// One tag of so many differs.
const EVERY: u64 = 1000;

/// Lists repositories and tags, and gives each tag a digest; there are no manifests behind them.
struct Numbers {
    repositories: u64,
    tags: u64,
    /// Every so manyth tag has another digest than at the other registry.
    other: Option<u64>,
    requests: AtomicU64,
}

impl Numbers {
    async fn serve(self) -> Outcome<(SocketAddr, Arc<Self>, JoinSet<()>)> {
        let numbers = Arc::new(self);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let addr = listener.local_addr()?;
        let mut accepting = JoinSet::new();
        let shared = Arc::clone(&numbers);
        accepting.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                let shared = Arc::clone(&shared);
                connections.spawn(async move {
                    let service = service_fn(move |request| {
                        let answer = shared.answer(&request);
                        async move { Ok::<_, Infallible>(answer) }
                    });
                    // A client that goes away is no fault here.
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
                while connections.try_join_next().is_some() {}
            }
        });
        Ok((addr, numbers, accepting))
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let path = request.uri().path();
        if path.ends_with("/_catalog") {
            return self.catalog(request.uri().query().unwrap_or(""));
        }
        if path.ends_with("/tags/list") {
            let name = path.trim_start_matches("/v2/").trim_end_matches("/tags/list");
            let tags: Vec<String> = (0..self.tags).map(|tag| format!("\"v{tag}\"")).collect();
            return json(&format!("{{\"name\":\"{name}\",\"tags\":[{}]}}", tags.join(",")));
        }
        let mut response = Response::new(Full::default());
        match path.split_once("/manifests/v") {
            Some((repository, tag)) if request.method() == Method::HEAD => {
                let repository = number(repository.rsplit('-').next());
                let tag = number(Some(tag));
                let all = repository * self.tags + tag;
                let changed = self.other.is_some_and(|every| all.is_multiple_of(every));
                let headers = response.headers_mut();
                let digest = format!("sha256:{:064x}", all * 2 + u64::from(changed));
                for (name, value) in [
                    ("docker-content-digest", digest.as_str()),
                    ("content-type", MANIFEST_TYPE),
                    ("content-length", "500"),
                ] {
                    if let Ok(value) = value.parse() {
                        headers.insert(name, value);
                    }
                }
            }
            _ => {
                *response.status_mut() = if path == "/v2/" {
                    StatusCode::OK
                } else {
                    StatusCode::NOT_FOUND
                }
            }
        }
        response
    }

    /// A page, with the way to the next (distribution's `_catalog`).
    fn catalog(&self, query: &str) -> Response<Full<Bytes>> {
        let last = query.split('&').find_map(|part| part.strip_prefix("last=repo-"));
        let from = last.map_or(0, |last| number(Some(last)) + 1);
        let to = (from + PAGE).min(self.repositories);
        let names: Vec<String> = (from..to).map(|number| format!("\"repo-{number:06}\"")).collect();
        let mut response = json(&format!("{{\"repositories\":[{}]}}", names.join(",")));
        if to < self.repositories
            && let Ok(link) = format!("</v2/_catalog?n={PAGE}&last=repo-{:06}>; rel=\"next\"", to - 1).parse()
        {
            response.headers_mut().insert("link", link);
        }
        response
    }
}

fn number(text: Option<&str>) -> u64 {
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn json(text: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(Bytes::from(text.to_owned())));
    response
        .headers_mut()
        .insert("content-type", http::HeaderValue::from_static("application/json"));
    response
}

pub async fn plan(lab: &Lab) -> Outcome<Section> {
    let (repositories, tags) = (lab.size(10_000, 50), 100);
    let numbers = |other| Numbers {
        repositories,
        tags,
        other,
        requests: AtomicU64::new(0),
    };
    let (src, source, _src) = numbers(None).serve().await?;
    let (dst, destination, _dst) = numbers(Some(EVERY)).serve().await?;
    let home = lab.home()?;
    let mut rules =
        format!("version: 1\nregistries:\n  src: {{ url: \"http://{src}\" }}\n  dst: {{ url: \"http://{dst}\" }}\n");
    write!(
        rules,
        "rules:\n  - {{ name: bench, source: src, destinations: [dst], repositories: [\"**\"] }}\n"
    )?;
    std::fs::write(home.join("rules.yaml"), rules)?;
    let invocation = Invocation::new(lab.ours().program(), &home).arguments([
        "--rules".to_owned(),
        home.join("rules.yaml").display().to_string(),
        "--state".to_owned(),
        format!("sqlite:{}", home.join("transship.db").display()),
        "plan".to_owned(),
    ]);
    let before = own_cpu_seconds();
    let finished = invocation.run().await?;
    let mut run = crate::lab::as_run(&finished, own_cpu_seconds() - before);
    let said = std::fs::read_to_string(&finished.stdout)?;
    let wanted = format!("{} to copy", repositories * tags / EVERY);
    if !said.contains(&wanted) {
        run.fault(format!("the plan does not say \"{wanted}\""));
    }
    run.log(1, "transship");
    let mut row = Row::new("transship");
    let minutes = run.seconds / 60.0;
    row.runs.push(run);
    row.requests = Some(Requests {
        source: source.requests.load(Ordering::Relaxed),
        destination: destination.requests.load(Ordering::Relaxed),
        ..Requests::default()
    });
    let mut section = Section::new("plan", super::title("plan"));
    section.rows.push(row);
    section.our_completeness();
    let resident = section.ours().and_then(Row::resident).map(|resident| resident.most);
    section.at_most("at most 200 MiB resident", resident, 200.0);
    section.at_most("minutes, not hours: at most 60 minutes", Some(minutes), 60.0);
    section.remarks.push(
        "Both registries are in the benchmark and answer from numbers; of the tags one in 1,000 differs. One round."
            .to_owned(),
    );
    let own = section.rows[0].runs[0].proxy_cpu_seconds;
    section
        .remarks
        .push(format!("Processor time of the two registries: {own:.1} s."));
    Ok(section)
}
