//! Calls about a registry as a whole: tokens, scanning, description.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Answer, Context, Target};
use crate::clock::{epoch_seconds, later};
use crate::error::{ApiError, within};
use crate::model::names::{self, check_repository_name, is_account_id};
use crate::model::scanning::RegistryScanning;
use crate::model::tokens::Token;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AuthorizationToken {
    registry_ids: Option<Vec<String>>,
}

pub(crate) fn authorization_token(cx: &mut Context<'_>, input: AuthorizationToken) -> Answer {
    let accounts = match input.registry_ids {
        None => vec![cx.caller.account.clone()],
        Some(ids) => {
            within("registryIds", "length", ids.len(), 1, 10)?;
            if !ids.iter().all(|id| is_account_id(id)) {
                return Err(ApiError::parameter("registryIds", "must satisfy regular expression '[0-9]{12}'"));
            }
            ids
        }
    };
    cx.authorize_any("ecr:GetAuthorizationToken", "*")?;
    let data: Vec<Value> = accounts
        .iter()
        .map(|account| {
            let (token, expires_at) = issue(cx, false);
            let host = names::registry_host(account, cx.region);
            json!({"authorizationToken": token, "expiresAt": expires_at, "proxyEndpoint": format!("https://{host}")})
        })
        .collect();
    Ok(json!({"authorizationData": data}))
}

/// `GetAuthorizationToken` of ECR Public, which answers in us-east-1 only.
pub(crate) fn public_authorization_token(cx: &mut Context<'_>) -> Answer {
    if cx.region != "us-east-1" {
        let message = "This command is only supported in us-east-1.";
        return Err(ApiError::new("UnsupportedCommandException", message));
    }
    cx.authorize_any("ecr-public:GetAuthorizationToken", "*")?;
    cx.authorize_any("sts:GetServiceBearerToken", "*")?;
    let (token, expires_at) = issue(cx, true);
    Ok(json!({"authorizationData": {"authorizationToken": token, "expiresAt": expires_at}}))
}

fn issue(cx: &mut Context<'_>, public: bool) -> (String, Value) {
    let expires_at = later(cx.now, cx.model.token_lifetime(&cx.caller.account));
    let token = Token { caller: cx.caller.clone(), region: cx.region.to_owned(), public, expires_at };
    (cx.model.tokens.issue(token, cx.now), epoch_seconds(expires_at))
}

pub(crate) fn describe(cx: &mut Context<'_>) -> Answer {
    cx.authorize_any("ecr:DescribeRegistry", "*")?;
    Ok(json!({"registryId": cx.caller.account, "replicationConfiguration": {"rules": []}}))
}

pub(crate) fn get_scanning(cx: &mut Context<'_>) -> Answer {
    cx.authorize_any("ecr:GetRegistryScanningConfiguration", "*")?;
    let registry = cx.model.registry_mut(&cx.caller.account, cx.region);
    Ok(json!({"registryId": cx.caller.account, "scanningConfiguration": registry.scanning}))
}

pub(crate) fn put_scanning(cx: &mut Context<'_>, input: RegistryScanning) -> Answer {
    let scanning = input.checked()?;
    cx.authorize_any("ecr:PutRegistryScanningConfiguration", "*")?;
    let registry = cx.model.registry_mut(&cx.caller.account, cx.region);
    registry.scanning = scanning;
    Ok(json!({"registryScanningConfiguration": registry.scanning}))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RepositoryNames {
    repository_names: Option<Vec<String>>,
}

pub(crate) fn repository_scanning(cx: &mut Context<'_>, input: RepositoryNames) -> Answer {
    let names = input.repository_names.ok_or_else(|| ApiError::missing("repositoryNames"))?;
    within("repositoryNames", "length", names.len(), 1, 25)?;
    let (mut found, mut failures) = (Vec::new(), Vec::new());
    for name in names {
        check_repository_name(&name)?;
        let target = Target { account: cx.caller.account.clone(), name };
        cx.authorize("ecr:BatchGetRepositoryScanningConfiguration", &target)?;
        let Ok(repository) = cx.read(&target) else {
            failures.push(json!({
                "repositoryName": target.name,
                "failureCode": "REPOSITORY_NOT_FOUND",
                "failureReason": "The repository does not exist",
            }));
            continue;
        };
        let scanning = cx.model.registry(&target.account, cx.region).map(|registry| &registry.scanning);
        let by_registry = scanning.and_then(|scanning| scanning.of(&target.name));
        let enhanced = scanning.is_some_and(RegistryScanning::is_enhanced);
        let own = if repository.scan_on_push && !enhanced { "SCAN_ON_PUSH" } else { "MANUAL" };
        let (frequency, filters) = by_registry.unwrap_or((own, Vec::new()));
        found.push(json!({
            "repositoryArn": repository.arn(),
            "repositoryName": repository.name,
            "scanOnPush": frequency == "SCAN_ON_PUSH",
            "scanFrequency": frequency,
            "appliedScanFilters": filters,
        }));
    }
    Ok(json!({"scanningConfigurations": found, "failures": failures}))
}
