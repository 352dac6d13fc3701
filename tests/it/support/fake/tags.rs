//! Names of tags in pages that are shorter than what is asked for.

use axum::response::Response;
use serde_json::json;
use transship::oci::Tag;

use super::{Asking, document, with_header};

/// One page of `tags`, in their order and of `most` at most, with the link to the next; `None` where no tags are asked for.
pub fn page(request: &Asking, tags: &[Tag], most: usize) -> Option<Response> {
    let name = request.repository()?;
    let size = request
        .parameter("n")
        .and_then(|text| text.parse().ok())
        .unwrap_or(most);
    let size = size.min(most);
    let last = request.parameter("last");
    let at = last.and_then(|last| tags.iter().position(|tag| tag.as_str() == last).map(|at| at + 1));
    let at = at.unwrap_or(0);
    let shown: Vec<&str> = tags.iter().skip(at).take(size).map(|tag| tag.as_str()).collect();
    let mut answer = document(200, &json!({ "name": name, "tags": shown }));
    if at + size < tags.len()
        && let Some(last) = shown.last()
    {
        let link = format!("</v2/{name}/tags/list?n={size}&last={last}>; rel=\"next\"");
        answer = with_header(answer, "link", &link);
    }
    Some(answer)
}
