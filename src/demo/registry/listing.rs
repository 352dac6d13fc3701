//! Tags and repositories, with paging (distribution-spec "Listing Tags").

use axum::response::{IntoResponse, Response};
use http::header;
use serde_json::{Value, json};

use super::failure::Failure;
use super::{Asked, Shared};
use crate::oci::RepositoryName;

/// How many names distribution lists at most, where `n` is not given (`catalog.maxentries`).
const MOST: usize = 1000;

pub(super) fn json(value: &Value) -> Response {
    axum::Json(value).into_response()
}

pub(super) fn catalog(shared: &Shared, asked: &Asked) -> Result<Response, Failure> {
    let names: Vec<String> = shared.storage().names().map(ToString::to_string).collect();
    let limit = limit(asked)?.unwrap_or(MOST);
    if limit == 0 || limit > MOST {
        return Err(Failure::page_number_invalid());
    }
    let (names, link) = page(names, asked.query("last"), Some(limit), "/v2/_catalog");
    Ok(with_link(&json!({ "repositories": names }), link))
}

pub(super) fn tags(shared: &Shared, asked: &Asked, name: &RepositoryName) -> Result<Response, Failure> {
    let habits = &shared.options.habits;
    let storage = shared.storage();
    let repository = storage.repository(name).ok_or_else(Failure::name_unknown)?;
    let document = |tags: Vec<String>| {
        let tags = if tags.is_empty() && habits.lists_no_tags_as_null {
            Value::Null
        } else {
            json!(tags)
        };
        json!({ "name": name, "tags": tags })
    };
    if !habits.pages_tags {
        let tags = repository.unsorted_tags().iter().map(ToString::to_string).collect();
        return Ok(json(&document(tags)));
    }
    let tags = repository.sorted_tags().iter().map(ToString::to_string).collect();
    let path = format!("/v2/{name}/tags/list");
    let (tags, link) = page(tags, asked.query("last"), limit(asked)?, &path);
    Ok(with_link(&document(tags), link))
}

fn limit(asked: &Asked) -> Result<Option<usize>, Failure> {
    match asked.query("n") {
        None => Ok(None),
        Some(n) => n.parse().map(Some).map_err(|_| Failure::page_number_invalid()),
    }
}

/// Cuts a page out of sorted names; with it the link to the next, where there is one.
fn page(names: Vec<String>, last: Option<&str>, limit: Option<usize>, path: &str) -> (Vec<String>, Option<String>) {
    let mut rest: Vec<String> = match last {
        Some(last) => names.into_iter().filter(|name| name.as_str() > last).collect(),
        None => names,
    };
    let Some(limit) = limit.filter(|limit| *limit < rest.len()) else {
        return (rest, None);
    };
    rest.truncate(limit);
    let link = rest.last().map(|last| {
        let query = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("last", last)
            .append_pair("n", &limit.to_string())
            .finish();
        format!("<{path}?{query}>; rel=\"next\"")
    });
    (rest, link)
}

fn with_link(document: &Value, link: Option<String>) -> Response {
    let response = json(document);
    match link {
        Some(link) => ([(header::LINK, link)], response).into_response(),
        None => response,
    }
}
