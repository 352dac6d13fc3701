//! The resource manager of a fake: `importImage` of Microsoft.ContainerRegistry 2023-07-01 (Azure/azure-rest-api-specs, with its
//! examples) and the operation that it becomes. It fetches images as Azure would: past the program, from where they are.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::response::Response;
use http::{HeaderValue, Method, StatusCode, header};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use transship::oci::media_type;

use super::super::{Asked, Asking, document, lock, with_header};
use crate::support::wire::Wire;

pub const SUBSCRIPTION: &str = "00000000-1111-2222-3333-444444444444";
/// What the resource manager calls the registry.
pub const RESOURCE: &str = "/subscriptions/00000000-1111-2222-3333-444444444444/resourceGroups/rg/providers/\
                            Microsoft.ContainerRegistry/registries/corp00";
const VERSION: &str = "2023-07-01";

/// How an import goes.
#[derive(Clone, Debug, Default)]
pub enum Course {
    /// As documented: 202, an operation that runs for a while, 200.
    #[default]
    Well,
    /// It is done with the first answer.
    AtOnce,
    /// By `Azure-AsyncOperation`, beside which a `Location` says nothing.
    ByStatus,
    /// It is refused in these words, with a further header.
    Refused(u16, &'static str, &'static str),
    /// The operation ends badly, in these words.
    Fails(&'static str, &'static str),
    /// It says that it went well, and nothing has come.
    Lies,
    /// It is begun, and is to be looked at there, with this header.
    At(String, &'static str, &'static str),
    /// It is begun, and does not say where to look at it.
    Nowhere,
    /// What is looked at answers so.
    Looks(u16, String),
}

/// What the tests of a fake turn.
#[derive(Default)]
pub struct Manager {
    pub course: Mutex<Course>,
    /// Where each source is, by `registryUri` or `resourceId`.
    pub sources: Mutex<BTreeMap<String, String>>,
    /// Source, user and password that it was told, in order; without a login two empty texts.
    pub told: Mutex<Vec<(String, String, String)>>,
    /// Imports do not end while this is set.
    pub held: AtomicBool,
    /// The token of the next request has ended.
    pub token_ends: AtomicBool,
    operations: Mutex<BTreeMap<String, Operation>>,
    begun: AtomicUsize,
    /// Images on their way.
    fetching: Mutex<JoinSet<()>>,
}

struct Operation {
    ended: Arc<AtomicBool>,
    looks: usize,
    target: String,
}

/// How often an operation is looked at before it is done.
const LOOKS: usize = 2;

fn refusal(status: u16, code: &str, message: &str) -> Response {
    document(status, &json!({ "error": { "code": code, "message": message } }))
}

fn accepted(name: &'static str, at: &str, wait: &str) -> Response {
    let mut answer = Response::default();
    *answer.status_mut() = StatusCode::ACCEPTED;
    answer
        .headers_mut()
        .insert(name, HeaderValue::from_str(at).expect("a header"));
    with_header(answer, "retry-after", wait)
}

/// The keys of an object, sorted.
fn keys(value: &Value) -> Vec<&str> {
    let keys = value
        .as_object()
        .map(|object| object.keys().map(String::as_str).collect());
    keys.unwrap_or_default()
}

impl Manager {
    pub fn set(&self, course: Course) {
        *lock(&self.course) = course;
    }

    /// How many imports were asked for.
    pub fn begun(&self) -> usize {
        self.begun.load(Ordering::SeqCst)
    }

    /// Answers a request whose token is good. `host`: the manager's; `registry`: where the registry behind the fake is.
    pub fn asked(self: &Arc<Self>, request: &Asking, host: &str, registry: &str) -> Asked {
        if request.method == Method::GET && request.path.contains("/operation") {
            return self.looked_at(request);
        }
        if request.method != Method::POST || request.path != format!("{RESOURCE}/importImage") {
            return Asked::Wrong("the resource manager is asked for something else".to_owned());
        }
        if request.query != format!("api-version={VERSION}")
            || request.header("content-type") != Some("application/json")
        {
            return Asked::Wrong("importImage is not asked for as documented".to_owned());
        }
        if self.token_ends.swap(false, Ordering::SeqCst) {
            return Asked::Answer(refusal(
                401,
                "ExpiredAuthenticationToken",
                "The access token expiry UTC time is past.",
            ));
        }
        self.begin(request, host, registry)
    }

    fn begin(self: &Arc<Self>, request: &Asking, host: &str, registry: &str) -> Asked {
        let wrong = |why: &str| Asked::Wrong(why.to_owned());
        let Ok(body) = serde_json::from_slice::<Value>(&request.body) else {
            return wrong("no document is imported");
        };
        if keys(&body) != ["mode", "source", "untaggedTargetRepositories"] || body["mode"] != "NoForce" {
            return wrong("an import by digest names no tags and forces nothing");
        }
        let source = &body["source"];
        let (place, login) = match keys(source).as_slice() {
            ["registryUri", "sourceImage"] => (&source["registryUri"], None),
            ["resourceId", "sourceImage"] => (&source["resourceId"], None),
            ["credentials", "registryUri", "sourceImage"] => (&source["registryUri"], Some(&source["credentials"])),
            _ => return wrong("the source is not as documented"),
        };
        if login.is_some_and(|login| keys(login) != ["password", "username"]) {
            return wrong("the login of the source is not as documented");
        }
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let part = |key: &str| login.map_or_else(String::new, |login| word(&login[key]));
        let place = word(place);
        lock(&self.told).push((place.clone(), part("username"), part("password")));
        let image = word(&source["sourceImage"]);
        let Some((from, digest)) = image.split_once("@sha256:") else {
            return wrong("what is imported is not named by digest");
        };
        let [Value::String(to)] = body["untaggedTargetRepositories"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default()
        else {
            return wrong("an import has one target");
        };
        let Some(at) = lock(&self.sources).get(&place).cloned() else {
            return wrong("a source that nobody has");
        };
        let number = self.begun.fetch_add(1, Ordering::SeqCst);
        let course = lock(&self.course).clone();
        match &course {
            Course::Refused(status, code, header) => {
                let answer = refusal(*status, code, "it is refused.\nActivity ID: 1");
                return Asked::Answer(match header.split_once(": ") {
                    Some((_, value)) => with_header(answer, "retry-after", value),
                    None => answer,
                });
            }
            Course::At(at, name, wait) => return Asked::Answer(accepted(name, at, wait)),
            Course::Nowhere => {
                let answer = accepted("x-ms-nothing", "1", "0");
                return Asked::Answer(answer);
            }
            _ => {}
        }
        let ended = Arc::new(AtomicBool::new(true));
        if matches!(course, Course::Well | Course::AtOnce | Course::ByStatus) {
            ended.store(false, Ordering::SeqCst);
            let source = if login.is_some() {
                Wire::with_account(&at)
            } else {
                Wire::new(&at)
            };
            let target = Wire::new(registry);
            let (from, to, digest) = (from.to_owned(), to.clone(), format!("sha256:{digest}"));
            let (manager, ended) = (Arc::clone(self), Arc::clone(&ended));
            lock(&self.fetching).spawn(async move {
                while manager.held.load(Ordering::SeqCst) {
                    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                }
                fetch(&source, &from, &digest, &target, &to).await;
                ended.store(true, Ordering::SeqCst);
            });
        }
        if matches!(course, Course::AtOnce) {
            // Small images are there with the answer (Azure/acr, issue 636): its end comes when they are.
            let end = futures_util::stream::once(async move {
                while !ended.load(Ordering::SeqCst) {
                    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                }
                Ok::<_, std::convert::Infallible>("{}")
            });
            return Asked::Answer(Response::new(axum::body::Body::from_stream(end)));
        }
        let kind = if matches!(course, Course::ByStatus) {
            "operationStatuses"
        } else {
            "operationResults"
        };
        // With a signature, as the resource manager writes them (Azure/azure-cli, issue 31412).
        let target = format!(
            "/subscriptions/{SUBSCRIPTION}/providers/Microsoft.ContainerRegistry/locations/eastus/{kind}/registries-{number}\
             ?api-version={VERSION}&t=638&c={}&s=ab-_",
            "M".repeat(4000)
        );
        let operation = Operation {
            ended,
            looks: 0,
            target: target.clone(),
        };
        lock(&self.operations).insert(format!("registries-{number}"), operation);
        let at = format!("https://{host}{target}");
        Asked::Answer(match course {
            Course::ByStatus => {
                let answer = accepted("azure-asyncoperation", &at, "0");
                with_header(answer, "location", "https://nobody.invalid/")
            }
            _ => accepted("location", &at, "0"),
        })
    }

    fn looked_at(&self, request: &Asking) -> Asked {
        let name = request.path.rsplit('/').next().unwrap_or_default();
        let mut operations = lock(&self.operations);
        let Some(operation) = operations.get_mut(name).filter(|it| it.target == request.target()) else {
            return Asked::Wrong("an operation at another address than was named".to_owned());
        };
        operation.looks += 1;
        let runs = operation.looks < LOOKS || !operation.ended.load(Ordering::SeqCst);
        let at = format!(
            "https://{}{}",
            request.header("host").unwrap_or_default(),
            operation.target
        );
        Asked::Answer(match (lock(&self.course).clone(), runs) {
            (Course::Looks(status, body), _) => {
                let mut answer = Response::new(axum::body::Body::from(body));
                *answer.status_mut() = StatusCode::from_u16(status).expect("a status");
                answer
                    .headers_mut()
                    .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
                answer
            }
            (Course::ByStatus, true) => document(200, &json!({ "name": name, "status": "InProgress" })),
            (Course::ByStatus, false) => document(200, &json!({ "name": name, "status": "Succeeded" })),
            (_, true) => accepted("location", &at, "0"),
            (Course::Fails(code, message), false) => {
                let error = json!({ "code": code, "message": message });
                document(200, &json!({ "name": name, "status": "Failed", "error": error }))
            }
            (_, false) => document(200, &Value::Null),
        })
    }
}

/// Fetches an image by digest with all that it names, children first.
async fn fetch(source: &Wire, from: &str, digest: &str, target: &Wire, to: &str) {
    let path = format!("/v2/{from}/manifests/{digest}");
    let answer = source.get(&path, &[("accept", media_type::ACCEPT)]).await.expect(200);
    let manifest = answer.json();
    for child in manifest["manifests"].as_array().into_iter().flatten() {
        let child = child["digest"].as_str().expect("a digest");
        Box::pin(fetch(source, from, child, target, to)).await;
    }
    let layers = manifest["layers"].as_array().into_iter().flatten();
    for blob in layers.chain(manifest.get("config")) {
        let digest = blob["digest"].as_str().expect("a digest");
        let bytes = source
            .get(&format!("/v2/{from}/blobs/{digest}"), &[])
            .await
            .expect(200)
            .body;
        target.push_blob(to, &bytes).await;
    }
    let kind = answer.header("content-type").expect("a media type").to_owned();
    target.put_manifest(to, digest, &kind, &answer.body).await.expect(201);
}
