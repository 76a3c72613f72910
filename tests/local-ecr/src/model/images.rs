//! The images of one repository: manifests by digest, tags that point to them.

use std::collections::BTreeMap;

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::clock::epoch_seconds;

#[derive(Debug, Clone)]
pub(crate) struct Image {
    pub manifest: Bytes,
    pub media_type: String,
    pub artifact_type: Option<String>,
    pub size: u64,
    pub pushed_at: Timestamp,
    pub last_pull: Option<Timestamp>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Images {
    by_digest: BTreeMap<String, Image>,
    tags: BTreeMap<String, String>,
}

impl Images {
    pub fn is_empty(&self) -> bool {
        self.by_digest.is_empty()
    }

    pub fn digest_of(&self, tag: &str) -> Option<&str> {
        self.tags.get(tag).map(String::as_str)
    }

    pub fn get(&self, digest: &str) -> Option<&Image> {
        self.by_digest.get(digest)
    }

    pub fn tags(&self) -> impl Iterator<Item = &str> {
        self.tags.keys().map(String::as_str)
    }

    pub fn digests(&self) -> impl Iterator<Item = &str> {
        self.by_digest.keys().map(String::as_str)
    }

    pub fn tags_of<'a>(&'a self, digest: &'a str) -> impl Iterator<Item = &'a str> {
        self.tags.iter().filter(move |(_, target)| *target == digest).map(|(tag, _)| tag.as_str())
    }

    /// Stores an image and moves the tag to it.
    pub fn put(&mut self, manifest: Bytes, media_type: String, tag: Option<&str>, now: Timestamp) -> String {
        let digest = format!("sha256:{}", crate::digest::sha256_hex(&manifest));
        self.by_digest.entry(digest.clone()).or_insert_with(|| {
            let parsed: Value = serde_json::from_slice(&manifest).unwrap_or_default();
            Image {
                size: size(&parsed),
                artifact_type: artifact_type(&parsed),
                manifest,
                media_type,
                pushed_at: now,
                last_pull: None,
            }
        });
        if let Some(tag) = tag {
            self.tags.insert(tag.to_owned(), digest.clone());
        }
        digest
    }

    pub fn pulled(&mut self, digest: &str, now: Timestamp) {
        if let Some(image) = self.by_digest.get_mut(digest) {
            image.last_pull = Some(now);
        }
    }

    /// Takes a tag away; an image that loses its last tag this way is deleted with it, as `BatchDeleteImage` says.
    pub fn delete_tag(&mut self, tag: &str) -> Option<String> {
        let digest = self.tags.remove(tag)?;
        if self.tags_of(&digest).next().is_none() {
            self.by_digest.remove(&digest);
        }
        Some(digest)
    }

    /// Deletes an image with all of its tags, which are returned.
    pub fn delete_digest(&mut self, digest: &str) -> Option<Vec<String>> {
        self.by_digest.remove(digest)?;
        let tags: Vec<String> = self.tags_of(digest).map(str::to_owned).collect();
        self.tags.retain(|_, target| target != digest);
        Some(tags)
    }

    /// Whether an index lists this manifest: such an image can't be deleted before the index.
    pub fn referenced(&self, digest: &str) -> bool {
        self.by_digest.iter().any(|(other, image)| {
            other != digest
                && image.media_type.ends_with("list.v2+json") | image.media_type.ends_with("index.v1+json")
                && String::from_utf8_lossy(&image.manifest).contains(digest)
        })
    }

    pub fn describe(&self, digest: &str, account: &str, name: &str) -> Option<Value> {
        let image = self.get(digest)?;
        let mut detail = json!({
            "registryId": account,
            "repositoryName": name,
            "imageDigest": digest,
            "imageSizeInBytes": image.size,
            "imagePushedAt": epoch_seconds(image.pushed_at),
            "imageManifestMediaType": image.media_type,
            "imageStatus": "ACTIVE",
        });
        let tags: Vec<&str> = self.tags_of(digest).collect();
        if !tags.is_empty() {
            detail["imageTags"] = json!(tags);
        }
        if let Some(artifact_type) = &image.artifact_type {
            detail["artifactMediaType"] = json!(artifact_type);
        }
        if let Some(pulled) = image.last_pull {
            detail["lastRecordedPullTime"] = epoch_seconds(pulled);
        }
        Some(detail)
    }
}

/// Layers and configuration, or the listed manifests of an index.
fn size(manifest: &Value) -> u64 {
    let listed = ["layers", "manifests", "blobs"].into_iter().filter_map(|key| manifest[key].as_array()).flatten();
    listed.chain([&manifest["config"]]).filter_map(|descriptor| descriptor["size"].as_u64()).sum()
}

fn artifact_type(manifest: &Value) -> Option<String> {
    let own = manifest["artifactType"].as_str().or_else(|| manifest["config"]["mediaType"].as_str());
    own.map(str::to_owned)
}
