//! What the benchmark itself says to registries, before and after what is measured.

use bytes::Bytes;
use http::{StatusCode, header};
use reqwest::{Body, Client};

use crate::Outcome;
use crate::corpus::{Blob, Corpus, Image, MANIFEST_TYPE};

/// A registry at `127.0.0.1:port`, and how to speak with it.
#[derive(Clone)]
pub struct Wire {
    client: Client,
    base: String,
}

/// What is wrong at a destination. Nothing where both are 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gaps {
    /// Tags that are missing or point elsewhere.
    pub tags: usize,
    /// Blobs of right tags that are missing or have another size.
    pub blobs: usize,
}

impl Wire {
    pub fn new(host: &str) -> Outcome<Self> {
        let client = Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        Ok(Self {
            client,
            base: format!("http://{host}/v2"),
        })
    }

    /// Pushes all of it, a few repositories at a time.
    pub async fn push(&self, corpus: &Corpus) -> Outcome {
        let mut pushing = tokio::task::JoinSet::new();
        for (name, images) in corpus.repositories.clone() {
            // What this repository was given already.
            let wire = self.clone();
            pushing.spawn(async move {
                let mut there = std::collections::BTreeSet::new();
                for (tag, image) in images.iter() {
                    for blob in image.blobs() {
                        if there.insert(blob.digest.clone()) {
                            wire.push_blob(&name, blob).await?;
                        }
                    }
                    wire.put_manifest(&name, tag, &image.manifest).await?;
                }
                Outcome::Ok(())
            });
            if pushing.len() >= 4 {
                pushing.join_next().await.ok_or("nothing is pushing")???;
            }
        }
        while let Some(pushed) = pushing.join_next().await {
            pushed??;
        }
        Ok(())
    }

    /// Pushes one image.
    pub async fn push_image(&self, repository: &str, tag: &str, image: &Image) -> Outcome {
        for blob in image.blobs() {
            self.push_blob(repository, blob).await?;
        }
        self.put_manifest(repository, tag, &image.manifest).await
    }

    async fn push_blob(&self, repository: &str, blob: &Blob) -> Outcome {
        let begin = self.client.post(format!("{}/{repository}/blobs/uploads/", self.base));
        let begun = expect(begin.send().await?, StatusCode::ACCEPTED)?;
        let location = begun.headers().get(header::LOCATION).ok_or("no Location")?.to_str()?;
        let sign = if location.contains('?') { '&' } else { '?' };
        let put = self
            .client
            .put(format!("{location}{sign}digest={}", blob.digest))
            .header(header::CONTENT_TYPE, "application/octet-stream")
            .header(header::CONTENT_LENGTH, blob.size)
            .body(Body::wrap_stream(futures_util::stream::iter(
                blob.blocks().map(Ok::<Bytes, std::io::Error>),
            )));
        expect(put.send().await?, StatusCode::CREATED)?;
        Ok(())
    }

    async fn put_manifest(&self, repository: &str, tag: &str, manifest: &Bytes) -> Outcome {
        let put = self
            .client
            .put(format!("{}/{repository}/manifests/{tag}", self.base))
            .header(header::CONTENT_TYPE, MANIFEST_TYPE)
            .body(manifest.clone());
        expect(put.send().await?, StatusCode::CREATED)?;
        Ok(())
    }

    /// Compares tags by digest and, where asked, blobs by size with what should be there.
    pub async fn gaps(&self, corpus: &Corpus, blobs: bool) -> Outcome<Gaps> {
        let mut gaps = Gaps::default();
        for (name, images) in &corpus.repositories {
            let mut seen = std::collections::BTreeSet::new();
            for (tag, image) in images {
                let head = self
                    .client
                    .head(format!("{}/{name}/manifests/{tag}", self.base))
                    .header(header::ACCEPT, MANIFEST_TYPE);
                let answer = head.send().await?;
                let digest = answer.headers().get("docker-content-digest");
                if answer.status() != StatusCode::OK || digest.is_none_or(|digest| digest != image.digest.as_str()) {
                    gaps.tags += 1;
                    continue;
                }
                for blob in image.blobs().filter(|_| blobs) {
                    if !seen.insert(&blob.digest) {
                        continue;
                    }
                    let head = self.client.head(format!("{}/{name}/blobs/{}", self.base, blob.digest));
                    let answer = head.send().await?;
                    let length = answer.headers().get(header::CONTENT_LENGTH);
                    let length = length.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
                    if answer.status() != StatusCode::OK || length != Some(blob.size) {
                        gaps.blobs += 1;
                    }
                }
            }
        }
        Ok(gaps)
    }
}

fn expect(answer: reqwest::Response, status: StatusCode) -> Outcome<reqwest::Response> {
    if answer.status() == status {
        return Ok(answer);
    }
    Err(format!("{} answered {}, not {status}", answer.url().path(), answer.status()).into())
}
