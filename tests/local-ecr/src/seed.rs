//! What is in the model before anybody calls: accounts, users, roles, repositories, images.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::digest;
use crate::error::ApiError;
use crate::model::Model;
use crate::model::iam::{Document, Kind};
use crate::model::identity::{Caller, Principal, Role, User, last_segment};
use crate::ops::{self, Context};

/// What is to be added. It may be given again while the model runs: what is named there is put, the rest stays.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Seed {
    /// Accounts with those who live in them.
    pub accounts: Vec<SeedAccount>,
    /// Repositories.
    pub repositories: Vec<SeedRepository>,
}

/// An account.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct SeedAccount {
    /// Twelve digits.
    pub id: String,
    /// IAM users.
    pub users: Vec<SeedUser>,
    /// IAM roles.
    pub roles: Vec<SeedRole>,
    /// Issuer URLs (`https://…`) whose web identities roles of the account may trust.
    pub oidc_providers: Vec<String>,
    /// Associations of EKS Pod Identity.
    pub pod_identities: Vec<SeedPodIdentity>,
    /// Id of the organization, `o-…`: the condition key `aws:PrincipalOrgID`.
    pub organization: Option<String>,
    /// `aws:PrincipalOrgPaths`.
    pub organization_paths: Vec<String>,
}

/// A role for the pods of a ServiceAccount, as EKS Pod Identity hands it out.
///
/// Point `AWS_CONTAINER_CREDENTIALS_FULL_URI` at `/_local/pod-identity`, and
/// `AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE` at a token of the ServiceAccount for `pods.eks.amazonaws.com`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SeedPodIdentity {
    /// Namespace of the ServiceAccount.
    pub namespace: String,
    /// Its name.
    pub service_account: String,
    /// ARN of the role; its trust policy must let `pods.eks.amazonaws.com` assume it and tag the session.
    pub role_arn: String,
}

/// A user with an access key.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct SeedUser {
    /// Name in the ARN.
    pub name: String,
    /// `AKIA…`
    pub access_key: String,
    /// Its secret.
    pub secret_key: String,
    /// Policy documents; without any, nothing is allowed.
    pub policies: Vec<Value>,
}

impl std::fmt::Debug for SeedUser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SeedUser")
            .field("name", &self.name)
            .field("access_key", &self.access_key)
            .finish_non_exhaustive()
    }
}

/// A role.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SeedRole {
    /// Name in the ARN, with its path if it has one.
    pub name: String,
    /// The trust policy: a document with `Principal`.
    pub trust: Value,
    /// Policy documents; without any, nothing is allowed.
    #[serde(default)]
    pub policies: Vec<Value>,
    /// The longest session, in seconds: an hour at AWS unless set.
    #[serde(default = "hour")]
    pub max_session_seconds: u64,
}

fn hour() -> u64 {
    3600
}

/// A repository, as if somebody had created and filled it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct SeedRepository {
    /// Account; must be given.
    pub account: String,
    /// Region; must be given.
    pub region: String,
    /// Name; must be given.
    pub name: String,
    /// Further members of `CreateRepository`, as its JSON has them.
    pub create: BTreeMap<String, Value>,
    /// Tags.
    pub tags: BTreeMap<String, String>,
    /// Lifecycle policy.
    pub lifecycle_policy: Option<Value>,
    /// Repository policy; set without the lock-out check.
    pub policy: Option<Value>,
    /// One image for each entry, with these tags.
    pub images: Vec<Vec<String>>,
}

/// A seed that the model doesn't accept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("can't seed {what}: {reason}")]
pub struct SeedError {
    what: String,
    reason: String,
}

pub(crate) fn apply(model: &mut Model, seed: &Seed, now: Timestamp) -> Result<(), SeedError> {
    seed.accounts.iter().try_for_each(|account| apply_account(model, account))?;
    seed.repositories.iter().try_for_each(|repository| apply_repository(model, repository, now))
}

fn apply_account(model: &mut Model, seed: &SeedAccount) -> Result<(), SeedError> {
    let account = model.identities.account_mut(&seed.id);
    for issuer in &seed.oidc_providers {
        account.oidc_providers.insert(issuer.strip_prefix("https://").unwrap_or(issuer).to_owned());
    }
    if seed.organization.is_some() {
        account.organization.clone_from(&seed.organization);
    }
    account.organization_paths.extend(seed.organization_paths.iter().cloned());
    for pods in &seed.pod_identities {
        let key = (pods.namespace.clone(), pods.service_account.clone());
        account.pod_identities.insert(key, pods.role_arn.clone());
    }
    for role in &seed.roles {
        let what = format!("role {}", role.name);
        let trust = document(&what, &role.trust, Kind::Resource)?;
        let policies = documents(&what, &role.policies)?;
        let max_session = Duration::from_secs(role.max_session_seconds);
        let name = last_segment(&role.name).to_owned();
        let id = account.roles.get(&name).map_or_else(|| digest::random_id("AROA", 17), |role| role.id.clone());
        account.roles.insert(name, Role { id, full_name: role.name.clone(), trust, policies, max_session });
    }
    for user in &seed.users {
        let policies = documents(&format!("user {}", user.name), &user.policies)?;
        let account = model.identities.account_mut(&seed.id);
        let id = account.users.get(&user.name).map_or_else(|| digest::random_id("AIDA", 17), |user| user.id.clone());
        account.users.insert(user.name.clone(), User { id, policies });
        model.identities.add_user_key(&seed.id, &user.name, &user.access_key, &user.secret_key);
    }
    Ok(())
}

fn document(what: &str, value: &Value, kind: Kind) -> Result<Document, SeedError> {
    Document::from_value(value, kind).map_err(|reason| SeedError { what: what.to_owned(), reason })
}

fn documents(what: &str, values: &[Value]) -> Result<Vec<Document>, SeedError> {
    values.iter().map(|value| document(what, value, Kind::Identity)).collect()
}

fn apply_repository(model: &mut Model, seed: &SeedRepository, now: Timestamp) -> Result<(), SeedError> {
    let root = root(model, &seed.account);
    let mut cx = Context { model, caller: &root, region: &seed.region, now };
    let named = |mut body: Value| {
        body["repositoryName"] = json!(seed.name);
        body
    };
    let mut create = named(json!(seed.create));
    create["tags"] = seed.tags.iter().map(|(key, value)| json!({"Key": key, "Value": value})).collect();
    let mut calls = vec![("CreateRepository", create)];
    if let Some(policy) = &seed.lifecycle_policy {
        calls.push(("PutLifecyclePolicy", named(json!({"lifecyclePolicyText": policy.to_string()}))));
    }
    if let Some(policy) = &seed.policy {
        calls.push(("SetRepositoryPolicy", named(json!({"policyText": policy.to_string(), "force": true}))));
    }
    for (operation, body) in calls {
        ops::ecr(&mut cx, operation, body).map_err(|error| refused(seed, &error))?;
    }
    for tags in &seed.images {
        put_image(model, &seed.account, &seed.region, &seed.name, tags, now).map_err(|error| refused(seed, &error))?;
    }
    Ok(())
}

fn refused(seed: &SeedRepository, error: &ApiError) -> SeedError {
    SeedError { what: format!("repository {}", seed.name), reason: error.to_string() }
}

/// Adds an image that nobody pushed: a manifest of its own, with tags. Returns its digest.
pub(crate) fn put_image(
    model: &mut Model,
    account: &str,
    region: &str,
    name: &str,
    tags: &[String],
    now: Timestamp,
) -> Result<String, ApiError> {
    let turn = model.next_turn();
    let layer = format!("sha256:{}", digest::sha256_hex(format!("layer {turn}").as_bytes()));
    let config = format!("sha256:{}", digest::sha256_hex(format!("config {turn}").as_bytes()));
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": 200},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": layer, "size": 1_000_000}],
    });
    let manifest = Bytes::from(manifest.to_string());
    let images = &mut model.existing(account, region, name)?.images;
    let mut put = |tag| images.put(manifest.clone(), media_type.to_owned(), tag, now);
    let digest = put(None);
    for tag in tags {
        put(Some(tag.as_str()));
    }
    Ok(digest)
}

/// The account itself, for what tests do behind everybody's back.
pub(crate) fn root(model: &Model, account: &str) -> Caller {
    Caller {
        account: account.to_owned(),
        arn: model.identities.iam_arn(account, "root"),
        user_id: account.to_owned(),
        access_key: String::new(),
        principal: Principal::Root,
        session: None,
    }
}
