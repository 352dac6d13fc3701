//! zot: listings by its search extension, where that is switched on.
//!
//! Facts: project-zot/zot `pkg/extensions/search/schema.graphql` and `pkg/api/routes.go`.

use std::sync::Arc;

use futures_util::future::FutureExt;
use serde::Deserialize;

use super::once::once;
use super::table::Row;
use crate::oci::{Digest, RepositoryName};
use crate::registry::{
    ABSENT, ABSENT_LIFE, Api, ApiCall, ApiLogin, BulkListing, Error, ErrorKind, Fact, Kind, ListedTag, NumberedPage,
    Operation, PRESENT, PRESENT_LIFE, Result, Told, Vendor, Ways, numbered_in_part,
};

pub(super) static ROW: Row = Row {
    kind: Kind::Zot,
    habits: |_| {},
    vendor: |_| Arc::new(Zot),
};

/// Entries of a page.
const PAGE: u32 = 1000;

static WAYS: Ways = Ways {
    // The search knows what it could read, and a tag that it does not show is no tag that is gone.
    hides_tags: true,
    right_to_list: "read access to the repository",
    ..Ways::PLAIN
};

/// One zot.
#[derive(Debug)]
struct Zot;

/// GraphQL: errors come with 200.
#[derive(Deserialize)]
struct Reply {
    data: Option<Data>,
    errors: Option<Vec<serde::de::IgnoredAny>>,
}

#[derive(Deserialize)]
struct Data {
    #[serde(rename = "ImageList")]
    images: Option<Images>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Images {
    page: Option<PageInfo>,
    results: Option<Vec<Image>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PageInfo {
    total_count: Option<u64>,
}

#[derive(Deserialize, PartialEq)]
#[serde(rename_all = "PascalCase")]
struct Image {
    tag: String,
    digest: Option<String>,
    media_type: Option<String>,
}

impl Vendor for Zot {
    fn kind(&self) -> Option<Kind> {
        Some(Kind::Zot)
    }

    fn ways(&self) -> &'static Ways {
        &WAYS
    }

    fn list_digests<'a>(&'a self, api: &'a Api, repository: &'a RepositoryName) -> Told<'a, BulkListing> {
        async move {
            // Switching it on is a matter of zot's configuration, and looked for now and then.
            if api.known(Fact::Search, None).as_deref() == Some(ABSENT) {
                return Ok(BulkListing::None);
            }
            let listed = numbered_in_part(|number| page(api, repository, number, PAGE)).await;
            match listed {
                Ok(images) => {
                    is_there(api);
                    Ok(known(images))
                }
                Err(error) => without(api, error).map(|()| BulkListing::None),
            }
        }
        .boxed()
    }

    fn explore<'a>(&'a self, api: &'a Api, repository: &'a RepositoryName) -> Told<'a, ()> {
        async move {
            if api.known(Fact::Search, None).is_none() {
                match page(api, repository, 1, 1).await {
                    Ok(_) => is_there(api),
                    Err(error) => without(api, error)?,
                }
            }
            Ok(())
        }
        .boxed()
    }
}

fn is_there(api: &Api) {
    let evidence = "its search listed tags";
    api.learn(Fact::Search, None, PRESENT, evidence, PRESENT_LIFE);
}

/// An error of the search. In its own words it is about one repository; a refusal in others says that there is no search.
///
/// # Errors
/// Any other.
fn without(api: &Api, error: Error) -> Result<()> {
    if !matches!(error.kind, ErrorKind::NotFound | ErrorKind::Unsupported) {
        return Err(error);
    }
    if error.status != Some(200) {
        api.learn(Fact::Search, None, ABSENT, &error.to_string(), ABSENT_LIFE);
    }
    Ok(())
}

async fn page(api: &Api, repository: &RepositoryName, number: u32, size: u32) -> Result<NumberedPage<Image>> {
    let offset = number.saturating_sub(1).saturating_mul(size);
    let query = format!(
        "{{ImageList(repo:\"{repository}\",requestedPage:{{limit:{size},offset:{offset},sortBy:ALPHABETIC_ASC}})\
         {{Page{{TotalCount}} Results{{Tag Digest MediaType}}}}}}"
    );
    let query = url::form_urlencoded::Serializer::new(String::new())
        .append_pair("query", &query)
        .finish();
    let url = api.own(&format!("/v2/_zot/ext/search?{query}"))?;
    let mut call = ApiCall::get(Operation::ListTags, api.place(Some(repository)), url);
    call.login = ApiLogin::Own(vec![format!("repository:{repository}:pull")]);
    let answer = api.call(call).await?;
    if answer.status != 200 {
        return Err(answer.refused(""));
    }
    let reply: Reply = answer.json()?;
    let images = reply.data.and_then(|data| data.images);
    match (images, reply.errors) {
        (Some(images), None) => {
            let entries = images.results.unwrap_or_default();
            let total = images.page.and_then(|page| page.total_count);
            let last = total.is_none() && entries.len() < size as usize;
            Ok(NumberedPage::of(&answer, entries, total, last))
        }
        _ => Err(answer.error(ErrorKind::Unsupported, "zot's search answers with an error")),
    }
}

fn known(images: Vec<Image>) -> BulkListing {
    let tags = images.into_iter().filter_map(|image| {
        Some(ListedTag {
            tag: image.tag.parse().ok()?,
            digest: image.digest.and_then(|text| text.parse::<Digest>().ok()),
            media_type: image.media_type.filter(|kind| !kind.is_empty()),
            pushed: None,
        })
    });
    BulkListing::Known {
        tags: once(tags),
        comparable: true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zot_answers_of_the_search_are_read() {
        let reply: Reply = serde_json::from_str(
            "{\"data\":{\"ImageList\":{\"Page\":{\"TotalCount\":2},\"Results\":[\
             {\"Tag\":\"v1\",\"Digest\":\"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a\",\
             \"MediaType\":\"application/vnd.oci.image.index.v1+json\"},{\"Tag\":\"No Tag\",\"Digest\":null}]}}}",
        )
        .expect("a reply");
        let images = reply.data.and_then(|data| data.images).expect("images");
        assert_eq!(images.page.and_then(|page| page.total_count), Some(2));
        let BulkListing::Known { tags, comparable } = known(images.results.unwrap_or_default()) else {
            panic!("a listing");
        };
        assert!(comparable && tags.len() == 1 && tags[0].digest.is_some());
        let failed: Reply = serde_json::from_str("{\"errors\":[{\"message\":\"x\"}],\"data\":null}").expect("a reply");
        assert!(failed.data.is_none() && failed.errors.is_some_and(|errors| errors.len() == 1));
    }
}
