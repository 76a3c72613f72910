//! Tags of a repository, addressed by its ARN.

use serde::Deserialize;
use serde_json::json;

use super::{Answer, Context, Target};
use crate::error::{ApiError, within};
use crate::model::names::RepositoryArn;
use crate::model::tags::{self, WireTag};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Tag {
    resource_arn: Option<String>,
    tags: Option<Vec<WireTag>>,
}

pub(crate) fn tag(cx: &mut Context<'_>, input: Tag) -> Answer {
    let target = target(cx, input.resource_arn)?;
    let added = tags::parse("tags", input.tags.ok_or_else(|| ApiError::missing("tags"))?)?;
    cx.authorize_with("ecr:TagResource", &target, |ask| ask.request_tags(&added))?;
    tags::merge(&mut cx.write(&target)?.tags, added)?;
    Ok(json!({}))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Untag {
    resource_arn: Option<String>,
    tag_keys: Option<Vec<String>>,
}

pub(crate) fn untag(cx: &mut Context<'_>, input: Untag) -> Answer {
    let target = target(cx, input.resource_arn)?;
    let keys = input.tag_keys.ok_or_else(|| ApiError::missing("tagKeys"))?;
    within("tagKeys", "length", keys.len(), 0, 50)?;
    keys.iter().try_for_each(|key| tags::check_key("tagKeys", key))?;
    cx.authorize_with("ecr:UntagResource", &target, |ask| ask.context("aws:TagKeys", keys.clone()))?;
    cx.write(&target)?.tags.retain(|key, _| !keys.contains(key));
    Ok(json!({}))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct List {
    resource_arn: Option<String>,
}

pub(crate) fn list(cx: &mut Context<'_>, input: List) -> Answer {
    let target = target(cx, input.resource_arn)?;
    cx.authorize("ecr:ListTagsForResource", &target)?;
    Ok(json!({"tags": tags::render(&cx.read(&target)?.tags)}))
}

fn target(cx: &Context<'_>, arn: Option<String>) -> Result<Target, ApiError> {
    let arn = RepositoryArn::parse(&arn.ok_or_else(|| ApiError::missing("resourceArn"))?)?;
    if arn.region != cx.region {
        return Err(ApiError::parameter("resourceArn", format_args!("The resource must be in {}", cx.region)));
    }
    Ok(Target { account: arn.account, name: arn.name })
}
