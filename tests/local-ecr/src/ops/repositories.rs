//! Repositories: create, describe, delete, settings.

use serde::Deserialize;
use serde_json::{Value, json};

use super::paging;
use super::{Answer, Context};
use crate::error::{ApiError, within};
use crate::model::images::Images;
use crate::model::repository::{Encryption, EncryptionInput, ExclusionFilter, Mutability, Repository};
use crate::model::tags::{self, WireTag};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Create {
    registry_id: Option<String>,
    repository_name: Option<String>,
    tags: Option<Vec<WireTag>>,
    image_tag_mutability: Option<String>,
    image_tag_mutability_exclusion_filters: Option<Vec<ExclusionFilter>>,
    image_scanning_configuration: Option<Scanning>,
    encryption_configuration: Option<EncryptionInput>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Scanning {
    scan_on_push: Option<bool>,
}

pub(crate) fn create(cx: &mut Context<'_>, input: Create) -> Answer {
    let target = cx.target(input.registry_id, input.repository_name)?;
    let mutability = Mutability::parse(input.image_tag_mutability, input.image_tag_mutability_exclusion_filters)?;
    let tags = tags::parse("tags", input.tags.unwrap_or_default())?;
    let encryption = Encryption::parse(input.encryption_configuration, &target.account, cx.region)?;
    cx.authorize_with("ecr:CreateRepository", &target, |ask| ask.request_tags(&tags))?;
    if !tags.is_empty() {
        cx.authorize_with("ecr:TagResource", &target, |ask| ask.request_tags(&tags))?;
    }
    if let Some(key) = encryption.own_key(&target.account, cx.region) {
        cx.authorize_key("kms:DescribeKey", key)?;
        cx.authorize_key("kms:CreateGrant", key)?;
    }
    let repository = Repository {
        account: target.account,
        region: cx.region.to_owned(),
        name: target.name,
        incarnation: 0,
        created_at: cx.now,
        mutability,
        scan_on_push: input.image_scanning_configuration.and_then(|scanning| scanning.scan_on_push).unwrap_or(false),
        encryption,
        tags,
        lifecycle_policy: None,
        policy: None,
        images: Images::default(),
    };
    Ok(json!({"repository": cx.model.add(repository)?.render()}))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Describe {
    registry_id: Option<String>,
    repository_names: Option<Vec<String>>,
    next_token: Option<String>,
    max_results: Option<i64>,
}

pub(crate) fn describe(cx: &mut Context<'_>, input: Describe) -> Answer {
    let account = cx.registry_id(input.registry_id)?;
    let Some(names) = input.repository_names else {
        return list(cx, &account, input.next_token.as_deref(), input.max_results);
    };
    within("repositoryNames", "length", names.len(), 1, 100)?;
    if input.next_token.is_some() || input.max_results.is_some() {
        let constraint = "nextToken and maxResults can not be used with repositoryNames";
        return Err(ApiError::parameter("repositoryNames", constraint));
    }
    let mut found: Vec<Value> = Vec::new();
    let mut targets = Vec::new();
    for name in names {
        let target = cx.target(Some(account.clone()), Some(name))?;
        cx.authorize("ecr:DescribeRepositories", &target)?;
        targets.push(target);
    }
    for target in &targets {
        found.push(cx.read(target)?.render());
    }
    Ok(json!({"repositories": found}))
}

fn list(cx: &Context<'_>, account: &str, token: Option<&str>, max_results: Option<i64>) -> Answer {
    let length = paging::length(max_results)?;
    let target = super::Target { account: account.to_owned(), name: "*".to_owned() };
    cx.authorize("ecr:DescribeRepositories", &target)?;
    let repositories = cx.model.registry(account, cx.region).into_iter().flat_map(|registry| &registry.repositories);
    let visible = repositories
        .filter(|(_, repository)| cx.model.is_visible(repository, cx.now))
        .map(|(name, repository)| (name.as_str(), repository));
    let scope = format!("repositories {account} {}", cx.region);
    let (page, next) = paging::page(cx.model.settings.page_quirks, &scope, token, length, visible)?;
    let mut answer = json!({"repositories": page.into_iter().map(Repository::render).collect::<Vec<_>>()});
    if let Some(next) = next {
        answer["nextToken"] = json!(next);
    }
    Ok(answer)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Delete {
    registry_id: Option<String>,
    repository_name: Option<String>,
    force: Option<bool>,
}

pub(crate) fn delete(cx: &mut Context<'_>, input: Delete) -> Answer {
    let target = cx.target(input.registry_id, input.repository_name)?;
    cx.authorize("ecr:DeleteRepository", &target)?;
    let repository = cx.write(&target)?;
    if !repository.images.is_empty() && input.force != Some(true) {
        let message = format!(
            "The repository with name '{}' in registry with id '{}' cannot be deleted because it still contains images",
            target.name, target.account
        );
        return Err(ApiError::new("RepositoryNotEmptyException", message));
    }
    let rendered = repository.render();
    let key = repository.encryption.own_key(&target.account, &repository.region).map(str::to_owned);
    if let Some(key) = key {
        cx.authorize_key("kms:RetireGrant", &key)?;
    }
    cx.model.registry_mut(&target.account, cx.region).repositories.remove(&target.name);
    Ok(json!({"repository": rendered}))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PutMutability {
    registry_id: Option<String>,
    repository_name: Option<String>,
    image_tag_mutability: Option<String>,
    image_tag_mutability_exclusion_filters: Option<Vec<ExclusionFilter>>,
}

pub(crate) fn put_mutability(cx: &mut Context<'_>, input: PutMutability) -> Answer {
    let target = cx.target(input.registry_id, input.repository_name)?;
    let mode = input.image_tag_mutability.ok_or_else(|| ApiError::missing("imageTagMutability"))?;
    let mutability = Mutability::parse(Some(mode), input.image_tag_mutability_exclusion_filters)?;
    cx.authorize("ecr:PutImageTagMutability", &target)?;
    let repository = cx.write(&target)?;
    repository.mutability = mutability;
    let mut answer = json!({
        "registryId": target.account,
        "repositoryName": target.name,
        "imageTagMutability": repository.mutability.mode,
    });
    if !repository.mutability.exclusions.is_empty() {
        answer["imageTagMutabilityExclusionFilters"] = json!(repository.mutability.exclusions);
    }
    Ok(answer)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PutScanning {
    registry_id: Option<String>,
    repository_name: Option<String>,
    image_scanning_configuration: Option<Scanning>,
}

pub(crate) fn put_scanning(cx: &mut Context<'_>, input: PutScanning) -> Answer {
    let target = cx.target(input.registry_id, input.repository_name)?;
    let scanning = input.image_scanning_configuration.ok_or_else(|| ApiError::missing("imageScanningConfiguration"))?;
    cx.authorize("ecr:PutImageScanningConfiguration", &target)?;
    let repository = cx.write(&target)?;
    repository.scan_on_push = scanning.scan_on_push.unwrap_or(false);
    Ok(json!({
        "registryId": target.account,
        "repositoryName": target.name,
        "imageScanningConfiguration": {"scanOnPush": repository.scan_on_push},
    }))
}
