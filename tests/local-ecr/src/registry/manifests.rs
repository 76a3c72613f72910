//! Manifests and tags: kept in the model, so that the API and the registry always tell the same.

use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode};
use jiff::Timestamp;
use serde_json::json;

use super::guard::{Body, error, json_response, plain};
use crate::model::repository::Repository;

/// The largest manifest that ECR takes.
pub(crate) const MAX_MANIFEST: usize = 4_194_304;

/// Answers a manifest, and remembers the pull.
pub(crate) fn get(repository: &mut Repository, reference: &str, method: &Method, now: Timestamp) -> Response<Body> {
    let digest = if reference.contains(':') {
        repository.images.get(reference).map(|_| reference.to_owned())
    } else {
        repository.images.digest_of(reference).map(str::to_owned)
    };
    let found = digest.and_then(|digest| Some((repository.images.get(&digest)?.clone(), digest)));
    let Some((image, digest)) = found else {
        return error(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN", "Requested image not found");
    };
    let length = image.manifest.len();
    let body = if method == Method::HEAD { Bytes::new() } else { image.manifest };
    if method == Method::GET {
        repository.images.pulled(&digest, now);
    }
    let mut response = plain(StatusCode::OK, body);
    let headers = response.headers_mut();
    headers.insert(http::header::CONTENT_LENGTH, HeaderValue::from(length));
    for (name, value) in [("content-type", image.media_type.as_str()), ("docker-content-digest", digest.as_str())] {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    }
    response
}

/// Checks whether a manifest may be put under this reference: `Err` is the refusal.
pub(crate) fn check_put(repository: &Repository, reference: &str, manifest: &[u8]) -> Result<(), Box<Response<Body>>> {
    let refuse = |code: &str, text: &str| Err(Box::new(error(StatusCode::BAD_REQUEST, code, text)));
    let digest = format!("sha256:{}", crate::digest::sha256_hex(manifest));
    if reference.contains(':') {
        return if reference == digest {
            Ok(())
        } else {
            refuse("DIGEST_INVALID", "manifest digest did not match uploaded content")
        };
    }
    match repository.images.digest_of(reference) {
        Some(current) if current != digest && !repository.mutability.tag_may_move(reference) => {
            let text = format!(
                "The image tag '{reference}' already exists in the '{}' repository and cannot be overwritten because the tag is immutable.",
                repository.name
            );
            refuse("TAG_INVALID", &text)
        }
        _ => Ok(()),
    }
}

/// Stores a checked manifest.
pub(crate) fn put(
    repository: &mut Repository,
    reference: &str,
    manifest: Bytes,
    media_type: String,
    now: Timestamp,
) -> Response<Body> {
    let tag = Some(reference).filter(|reference| !reference.contains(':'));
    let digest = repository.images.put(manifest, media_type, tag, now);
    let mut response = plain(StatusCode::CREATED, Bytes::new());
    let location = format!("/v2/{}/manifests/{digest}", repository.name);
    for (name, value) in [("docker-content-digest", digest), ("location", location)] {
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

pub(crate) fn list_tags(repository: &Repository) -> Response<Body> {
    let tags: Vec<&str> = repository.images.tags().collect();
    json_response(StatusCode::OK, &json!({"name": repository.name, "tags": tags}))
}
