//! Lifecycle and repository policies.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Answer, Context, Target};
use crate::clock::epoch_seconds;
use crate::error::ApiError;
use crate::model::identity::Ask;
use crate::model::policy::{self, RepositoryPolicy};
use crate::model::{lifecycle, names};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Named {
    registry_id: Option<String>,
    repository_name: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PutLifecycle {
    registry_id: Option<String>,
    repository_name: Option<String>,
    lifecycle_policy_text: Option<String>,
}

pub(crate) fn put_lifecycle(cx: &mut Context<'_>, input: PutLifecycle) -> Answer {
    let target = cx.target(input.registry_id, input.repository_name)?;
    let text = input.lifecycle_policy_text.ok_or_else(|| ApiError::missing("lifecyclePolicyText"))?;
    let text = lifecycle::check(&text)?;
    cx.authorize("ecr:PutLifecyclePolicy", &target)?;
    cx.write(&target)?.lifecycle_policy = Some(text.clone());
    Ok(lifecycle_answer(&target, &text))
}

pub(crate) fn get_lifecycle(cx: &mut Context<'_>, input: Named) -> Answer {
    let target = cx.target(input.registry_id, input.repository_name)?;
    cx.authorize("ecr:GetLifecyclePolicy", &target)?;
    let text = cx.read(&target)?.lifecycle_policy.as_ref().ok_or_else(|| no_lifecycle_policy(&target))?;
    let mut answer = lifecycle_answer(&target, text);
    answer["lastEvaluatedAt"] = epoch_seconds(jiff::Timestamp::UNIX_EPOCH);
    Ok(answer)
}

pub(crate) fn delete_lifecycle(cx: &mut Context<'_>, input: Named) -> Answer {
    let target = cx.target(input.registry_id, input.repository_name)?;
    cx.authorize("ecr:DeleteLifecyclePolicy", &target)?;
    let text = cx.write(&target)?.lifecycle_policy.take().ok_or_else(|| no_lifecycle_policy(&target))?;
    Ok(lifecycle_answer(&target, &text))
}

fn lifecycle_answer(target: &Target, text: &str) -> Value {
    json!({"registryId": target.account, "repositoryName": target.name, "lifecyclePolicyText": text})
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Set {
    registry_id: Option<String>,
    repository_name: Option<String>,
    policy_text: Option<String>,
    force: Option<bool>,
}

pub(crate) fn set(cx: &mut Context<'_>, input: Set) -> Answer {
    let target = cx.target(input.registry_id, input.repository_name)?;
    let text = input.policy_text.ok_or_else(|| ApiError::missing("policyText"))?;
    cx.authorize("ecr:SetRepositoryPolicy", &target)?;
    cx.write(&target)?;
    let parsed = RepositoryPolicy::parse(&text, |arn| cx.model.identities.knows(arn))?;
    if input.force != Some(true) {
        let arn = names::repository_arn(&target.account, cx.region, &target.name);
        let again = Ask::new("ecr:SetRepositoryPolicy", arn, &target.account);
        if cx.model.identities.denied_by(cx.caller, &parsed.document, &again) {
            return Err(policy::lock_out());
        }
    }
    let answer = policy_answer(cx, &target, &parsed);
    cx.write(&target)?.policy = Some(parsed);
    Ok(answer)
}

pub(crate) fn get(cx: &mut Context<'_>, input: Named) -> Answer {
    let target = cx.target(input.registry_id, input.repository_name)?;
    cx.authorize("ecr:GetRepositoryPolicy", &target)?;
    let policy = cx.read(&target)?.policy.clone().ok_or_else(|| no_policy(&target))?;
    Ok(policy_answer(cx, &target, &policy))
}

pub(crate) fn delete(cx: &mut Context<'_>, input: Named) -> Answer {
    let target = cx.target(input.registry_id, input.repository_name)?;
    cx.authorize("ecr:DeleteRepositoryPolicy", &target)?;
    let policy = cx.write(&target)?.policy.take().ok_or_else(|| no_policy(&target))?;
    Ok(policy_answer(cx, &target, &policy))
}

fn policy_answer(cx: &mut Context<'_>, target: &Target, policy: &RepositoryPolicy) -> Value {
    let text = policy.render(cx.model.settings.read_back, names::partition(cx.region), cx.model.next_turn());
    json!({"registryId": target.account, "repositoryName": target.name, "policyText": text})
}

fn no_lifecycle_policy(target: &Target) -> ApiError {
    ApiError::new("LifecyclePolicyNotFoundException", absent("Lifecycle policy", target))
}

fn no_policy(target: &Target) -> ApiError {
    ApiError::new("RepositoryPolicyNotFoundException", absent("Repository policy", target))
}

fn absent(what: &str, target: &Target) -> String {
    let Target { account, name } = target;
    format!("{what} does not exist for the repository with name '{name}' in the registry with id '{account}'")
}
