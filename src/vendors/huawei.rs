//! Huawei Cloud SoftWare Repository for Container: organisations are made before the first push.
//!
//! Facts: goharbor/harbor, adapter huawei.

use std::sync::Arc;

use futures_util::future::FutureExt;
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use serde::Deserialize;
use serde_json::json;

use super::table::Row;
use crate::oci::RepositoryName;
use crate::registry::{Api, ApiCall, ApiLogin, Created, Kind, Operation, Told, Vendor, Ways};

pub(super) static ROW: Row = Row {
    kind: Kind::Huawei,
    // The realm is at the registry's own host.
    habits: |_| {},
    vendor: |_| Arc::new(Huawei),
};

static WAYS: Ways = Ways {
    must_create: true,
    ..Ways::PLAIN
};

/// One region's registry.
#[derive(Debug)]
struct Huawei;

#[derive(Deserialize)]
struct Organisation {
    /// Empty for one that is not there, by which Harbor tells it.
    #[serde(default)]
    name: String,
}

impl Vendor for Huawei {
    fn kind(&self) -> Option<Kind> {
        Some(Kind::Huawei)
    }

    fn ways(&self) -> &'static Ways {
        &WAYS
    }

    fn container<'r>(&self, repository: &'r RepositoryName) -> &'r str {
        let name = repository.as_str();
        name.split_once('/').map_or(name, |(organisation, _)| organisation)
    }

    fn create<'a>(&'a self, api: &'a Api, repository: &'a RepositoryName) -> Told<'a, Created> {
        async move {
            let organisation = self.container(repository);
            let place = || api.place(Some(repository));
            let url = api.own(&format!("/dockyard/v2/namespaces/{organisation}"))?;
            let mut call = ApiCall::get(Operation::CreateRepository, place(), url);
            call.login = ApiLogin::Basic;
            let answer = api.call(call).await?;
            if answer.status == 200 && answer.json::<Organisation>()?.name == organisation {
                return Ok(Created::WasThere);
            }
            let body = json!({ "namespace": organisation }).to_string();
            let url = api.own("/dockyard/v2/namespaces")?;
            let mut call = ApiCall::post(Operation::CreateRepository, place(), url, body);
            call.headers.insert(
                CONTENT_TYPE,
                HeaderValue::from_static("application/json; charset=utf-8"),
            );
            call.login = ApiLogin::Basic;
            let answer = api.call(call).await?;
            match answer.status {
                200..300 => Ok(Created::Made),
                409 => Ok(Created::WasThere),
                // Names are unique among all users of the cloud, so it may be somebody else's.
                _ => Err(answer.refused(&super::words::said(&answer.body))),
            }
        }
        .boxed()
    }
}
