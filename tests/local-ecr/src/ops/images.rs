//! Images as the API sees them.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Answer, Context, Target, paging};
use crate::error::{ApiError, within};
use crate::model::images::Images;
use crate::model::repository::one_of;

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ImageId {
    #[serde(skip_serializing_if = "Option::is_none")]
    image_digest: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    image_tag: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Filter {
    tag_status: Option<String>,
    image_status: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Select {
    registry_id: Option<String>,
    repository_name: Option<String>,
    image_ids: Option<Vec<ImageId>>,
    next_token: Option<String>,
    max_results: Option<i64>,
    filter: Option<Filter>,
}

/// What a filter lets through: tagged, untagged.
fn tag_status(filter: Option<&Filter>) -> Result<(bool, bool), ApiError> {
    if let Some(status) = filter.and_then(|filter| filter.image_status.as_deref()) {
        one_of("filter.imageStatus", status, &["ACTIVE", "ARCHIVED", "ACTIVATING", "ANY"])?;
        if !matches!(status, "ACTIVE" | "ANY") {
            return Ok((false, false));
        }
    }
    let status = filter.and_then(|filter| filter.tag_status.as_deref()).unwrap_or("ANY");
    one_of("filter.tagStatus", status, &["TAGGED", "UNTAGGED", "ANY"])?;
    Ok((status != "UNTAGGED", status != "TAGGED"))
}

pub(crate) fn list(cx: &mut Context<'_>, input: Select) -> Answer {
    let target = cx.target(input.registry_id, input.repository_name)?;
    let length = paging::length(input.max_results)?;
    let (tagged, untagged) = tag_status(input.filter.as_ref())?;
    cx.authorize("ecr:ListImages", &target)?;
    let images = &cx.read(&target)?.images;
    let mut rows: Vec<(String, Value)> = Vec::new();
    for digest in images.digests() {
        let tags: Vec<&str> = images.tags_of(digest).collect();
        if tags.is_empty() && untagged {
            rows.push((digest.to_owned(), json!({"imageDigest": digest})));
        }
        for tag in tags.into_iter().filter(|_| tagged) {
            rows.push((format!("{digest} {tag}"), json!({"imageDigest": digest, "imageTag": tag})));
        }
    }
    paged(cx, &target, "imageIds", input.next_token.as_deref(), length, rows)
}

pub(crate) fn describe(cx: &mut Context<'_>, input: Select) -> Answer {
    let target = cx.target(input.registry_id, input.repository_name)?;
    let (tagged, untagged) = tag_status(input.filter.as_ref())?;
    let length = paging::length(input.max_results)?;
    cx.authorize("ecr:DescribeImages", &target)?;
    let images = &cx.read(&target)?.images;
    if let Some(ids) = input.image_ids {
        within("imageIds", "length", ids.len(), 1, 100)?;
        if input.next_token.is_some() || input.max_results.is_some() {
            return Err(ApiError::parameter("imageIds", "nextToken and maxResults can not be used with imageIds"));
        }
        let mut details: Vec<Value> = Vec::new();
        for id in ids {
            let digest = find(images, &id).map_err(|_| not_found(&id, &target))?;
            let detail = images.describe(&digest, &target.account, &target.name);
            if let Some(detail) = detail.filter(|detail| !details.contains(detail)) {
                details.push(detail);
            }
        }
        return Ok(json!({"imageDetails": details}));
    }
    let rows = images.digests().filter_map(|digest| {
        let has_tag = images.tags_of(digest).next().is_some();
        let wanted = if has_tag { tagged } else { untagged };
        let detail = wanted.then(|| images.describe(digest, &target.account, &target.name)).flatten()?;
        Some((digest.to_owned(), detail))
    });
    let rows: Vec<_> = rows.collect();
    paged(cx, &target, "imageDetails", input.next_token.as_deref(), length, rows)
}

fn paged(
    cx: &Context<'_>,
    target: &Target,
    member: &str,
    token: Option<&str>,
    length: usize,
    mut rows: Vec<(String, Value)>,
) -> Answer {
    rows.sort_by(|a, b| a.0.cmp(&b.0));
    let scope = format!("{member} {} {} {}", target.account, cx.region, target.name);
    let items = rows.iter().map(|(key, row)| (key.as_str(), row));
    let (page, next) = paging::page(cx.model.settings.page_quirks, &scope, token, length, items)?;
    let mut answer = json!({member: page});
    if let Some(next) = next {
        answer["nextToken"] = json!(next);
    }
    Ok(answer)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Batch {
    registry_id: Option<String>,
    repository_name: Option<String>,
    image_ids: Option<Vec<ImageId>>,
}

pub(crate) fn batch_get(cx: &mut Context<'_>, input: Batch) -> Answer {
    let target = cx.target(input.registry_id, input.repository_name)?;
    let ids = image_ids(input.image_ids)?;
    cx.authorize("ecr:BatchGetImage", &target)?;
    let (mut found, mut failures) = (Vec::new(), Vec::new());
    let images = &cx.read(&target)?.images;
    for id in ids {
        match find(images, &id) {
            Ok(digest) => {
                let Some(image) = images.get(&digest) else { continue };
                let mut image_id = id;
                image_id.image_digest = Some(digest);
                found.push(json!({
                    "registryId": target.account,
                    "repositoryName": target.name,
                    "imageId": image_id,
                    "imageManifest": String::from_utf8_lossy(&image.manifest),
                    "imageManifestMediaType": image.media_type,
                }));
            }
            Err(failure) => failures.push(failure.render(&id)),
        }
    }
    Ok(json!({"images": found, "failures": failures}))
}

pub(crate) fn batch_delete(cx: &mut Context<'_>, input: Batch) -> Answer {
    let target = cx.target(input.registry_id, input.repository_name)?;
    let ids = image_ids(input.image_ids)?;
    cx.authorize("ecr:BatchDeleteImage", &target)?;
    let (mut deleted, mut failures) = (Vec::new(), Vec::new());
    let images = &mut cx.write(&target)?.images;
    for id in ids {
        match find(images, &id) {
            Ok(digest) if id.image_digest.is_some() && images.referenced(&digest) => {
                let reason = "Requested image referenced by manifest list";
                failures.push(Failure("ImageReferencedByManifestList", reason).render(&id));
            }
            Ok(digest) => {
                if let Some(tag) = id.image_tag {
                    images.delete_tag(&tag);
                    deleted.push(json!({"imageDigest": digest, "imageTag": tag}));
                    continue;
                }
                let tags = images.delete_digest(&digest).unwrap_or_default();
                if tags.is_empty() {
                    deleted.push(json!({"imageDigest": digest}));
                }
                deleted.extend(tags.into_iter().map(|tag| json!({"imageDigest": digest, "imageTag": tag})));
            }
            Err(failure) => failures.push(failure.render(&id)),
        }
    }
    Ok(json!({"imageIds": deleted, "failures": failures}))
}

fn image_ids(ids: Option<Vec<ImageId>>) -> Result<Vec<ImageId>, ApiError> {
    let ids = ids.ok_or_else(|| ApiError::missing("imageIds"))?;
    within("imageIds", "length", ids.len(), 1, 100)?;
    Ok(ids)
}

/// Why one image of a batch was not served: code and reason.
struct Failure(&'static str, &'static str);

impl Failure {
    fn render(&self, id: &ImageId) -> Value {
        json!({"imageId": id, "failureCode": self.0, "failureReason": self.1})
    }
}

fn find(images: &Images, id: &ImageId) -> Result<String, Failure> {
    let absent = Failure("ImageNotFound", "Requested image not found");
    match (&id.image_digest, &id.image_tag) {
        (None, None) => {
            Err(Failure("MissingDigestAndTag", "Invalid request parameters: both tag and digest cannot be null"))
        }
        (Some(digest), _) if !is_digest(digest) => Err(Failure(
            "InvalidImageDigest",
            "Invalid request parameters: image digest should satisfy the regex '[a-zA-Z0-9-_+.]+:[a-fA-F0-9]+'",
        )),
        (Some(digest), None) => images.get(digest).map(|_| digest.clone()).ok_or(absent),
        (None, Some(tag)) => images.digest_of(tag).map(str::to_owned).ok_or(absent),
        (Some(digest), Some(tag)) => match images.digest_of(tag) {
            Some(found) if found == digest => Ok(digest.clone()),
            Some(_) => Err(Failure("ImageTagDoesNotMatchDigest", "Image tag does not match image digest")),
            None => Err(absent),
        },
    }
}

fn is_digest(text: &str) -> bool {
    text.split_once(':').is_some_and(|(algorithm, hex)| {
        !algorithm.is_empty() && !hex.is_empty() && hex.bytes().all(|b| b.is_ascii_hexdigit())
    })
}

fn not_found(id: &ImageId, target: &Target) -> ApiError {
    let part = |text: &Option<String>| text.clone().unwrap_or_else(|| "null".to_owned());
    let message = format!(
        "The image with imageId {{imageDigest:'{}', imageTag:'{}'}} does not exist within the repository with name '{}' in the registry with id '{}'",
        part(&id.image_digest),
        part(&id.image_tag),
        target.name,
        target.account
    );
    ApiError::new("ImageNotFoundException", message)
}
