//! Where the images are of kinds that have no [`Fake`](crate::support::fake::Fake).

use futures_util::future::{BoxFuture, FutureExt, ready};
use transship::demo::images::SampleImage;
use transship::oci::Digest;

use super::Store;
use crate::support::aws::{Aws, Stored};
use crate::support::docker_registry::DockerRegistry;
use crate::support::wire::Wire;

/// A `docker-registry` that takes tokens.
pub struct Docker(pub DockerRegistry);

impl Store for Docker {
    fn seed<'a>(&'a self, repository: &'a str, tag: &'a str, image: &'a SampleImage) -> BoxFuture<'a, ()> {
        async move {
            let wire = Wire::with_account(&self.0.url());
            wire.push(repository, tag, image).await;
        }
        .boxed()
    }

    fn resolve<'a>(&'a self, repository: &'a str, tag: &'a str) -> BoxFuture<'a, Option<Digest>> {
        async move { Wire::with_account(&self.0.url()).resolve(repository, tag).await }.boxed()
    }
}

/// The stand-in for ECR.
pub struct Ecr(pub Aws);

impl Store for Ecr {
    fn seed<'a>(&'a self, repository: &'a str, tag: &'a str, image: &'a SampleImage) -> BoxFuture<'a, ()> {
        let mut book = self.0.book();
        let stored = book.repositories.entry(repository.to_owned()).or_default();
        put(stored, image);
        stored.tags.insert(tag.to_owned(), image.digest().to_string());
        ready(()).boxed()
    }

    fn resolve<'a>(&'a self, repository: &'a str, tag: &'a str) -> BoxFuture<'a, Option<Digest>> {
        let book = self.0.book();
        let digest = book
            .repositories
            .get(repository)
            .and_then(|stored| stored.tags.get(tag));
        ready(digest.map(|digest| digest.parse().expect("a digest"))).boxed()
    }

    fn immutable(&self) {
        for stored in self.0.book().repositories.values_mut() {
            stored.immutable = true;
        }
    }

    fn throttle_api(&self) {
        let later = (400, "ThrottlingException".to_owned());
        let refusals = &mut self.0.book().refusals;
        refusals.insert("DescribeImages".to_owned(), vec![later]);
    }

    fn deny_listing(&self) {
        for action in ["DescribeImages", "ListImages"] {
            let refused = (400, "AccessDeniedException".to_owned());
            let refusals = &mut self.0.book().refusals;
            refusals.insert(action.to_owned(), vec![refused; 9]);
        }
    }
}

fn put(stored: &mut Stored, image: &SampleImage) {
    for child in &image.children {
        put(stored, child);
    }
    for blob in &image.blobs {
        stored.blobs.insert(Digest::of(blob).to_string(), blob.clone());
    }
    let manifest = (image.media_type.to_owned(), image.manifest.clone());
    stored.manifests.insert(image.digest().to_string(), manifest);
}
