//! `EcrRegistry`: which account and Region, as whom, and who may use it.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rules::{self, rule};
use super::wire_enum::wire_enum;
use super::{
    AdoptionPolicy, DeletionPolicy, EncryptionConfiguration, ExclusionFilter, ImageScanningConfiguration,
    ImageTagMutability, LifecyclePolicy, Mode, NamespaceSelector, RepositoryPolicy,
};

/// Which AWS account and Region, as whom, and who may use it.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "ecr-operator.dev",
    version = "v1alpha1",
    kind = "EcrRegistry",
    plural = "ecrregistries",
    shortname = "ecrreg",
    category = "ecr",
    status = "EcrRegistryStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "An Amazon ECR registry, that is an AWS account and a Region, with the identities that work on it and the namespaces that may use it.",
    selectable = ".spec.region",
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].reason"),
    printcolumn(name = "Account", type_ = "string", json_path = ".status.accountId"),
    printcolumn(name = "Region", type_ = "string", json_path = ".spec.region"),
    printcolumn(name = "Repositories", type_ = "integer", json_path = ".status.repositories"),
    printcolumn(name = "Host", type_ = "string", json_path = ".status.registryHost", priority = 1),
    printcolumn(name = "Caller", type_ = "string", json_path = ".status.callerArn", priority = 1),
    printcolumn(name = "Mode", type_ = "string", json_path = ".spec.mode", priority = 1),
    printcolumn(name = "Planned", type_ = "integer", json_path = ".status.planned", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    rule("self.region == oldSelf.region", "region can't be changed: create another EcrRegistry for the other Region"),
    rule(
        "!has(oldSelf.accountId) || (has(self.accountId) && self.accountId == oldSelf.accountId)",
        "accountId can be added, but not changed or removed: create another EcrRegistry for the other account",
    ),
]))]
pub struct EcrRegistrySpec {
    /// The AWS Region. It can't be changed.
    #[schemars(length(max = 32), extend("x-kubernetes-validations" = [rules::REGION]))]
    pub region: String,
    /// The AWS account. Learned from the identity where it is absent. It can be added, not changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), extend("x-kubernetes-validations" = [rules::ACCOUNT_ID]))]
    pub account_id: Option<String>,
    /// Which endpoints of AWS are called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<Endpoint>,
    /// Apply does what is needed; Plan writes nothing to AWS for any repository of this registry.
    #[serde(default)]
    pub mode: Mode,
    /// As whom repositories are managed; by default as the operator's own pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<Identity>,
    /// How pull tokens are obtained.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pull: Option<Pull>,
    /// How push tokens are obtained; without it nobody gets one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub push: Option<Push>,
    /// Who may use this registry, and for what. Rules add up; what no rule allows is denied.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 100))]
    pub allow: Option<Vec<Allow>>,
    /// Owner ids of other clusters whose repositories pass to this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 20), inner(length(min = 1, max = 256)))]
    pub take_over_from: Option<Vec<String>>,
    /// AWS tags that every repository gets; they win over the tags of the EcrRepository. `{namespace}` and `{name}` in a
    /// value stand for those of the EcrRepository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::tag_templates")]
    pub required_tags: Option<BTreeMap<String, String>>,
    /// Settings for repositories that don't declare them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub defaults: Option<Defaults>,
    /// How often all repositories are compared with AWS, as in 10m or 1h; by default 10m.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), extend("x-kubernetes-validations" = [rule(
        "self.matches('^([0-9]+h)?([0-9]+m)?([0-9]+s)?$') && size(self) > 0 && duration(self) >= duration('1m') && duration(self) <= duration('24h')",
        "must be a duration between 1m and 24h, as in 10m or 1h30m",
    )]))]
    pub drift_interval: Option<String>,
    /// How many reads an hour the comparison may make that can't be batched; 0 turns them off; by default 3600.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub read_budget_per_hour: Option<i32>,
}

/// Which endpoints of AWS are called.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-map-type" = "atomic"))]
pub struct Endpoint {
    /// Whether FIPS endpoints are called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fips: Option<bool>,
    /// Whether dual-stack endpoints are called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dual_stack: Option<bool>,
    /// Another URL for all calls. Honoured only where the operator runs with --allow-endpoint-override.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048), extend("x-kubernetes-validations" = [rule(
        "isURL(self) && url(self).getScheme() in ['http', 'https'] && url(self).getHost() != ''",
        "must be a URL that begins with https:// or http://",
    )]))]
    pub url: Option<String>,
}

/// As whom AWS is called: exactly one of these.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-map-type" = "atomic", "x-kubernetes-validations" = [rule(
    "[has(self.ambient), has(self.assumeRole), has(self.webIdentity), has(self.accessKey)].exists_one(x, x)",
    "set exactly one of ambient, assumeRole, webIdentity and accessKey",
)]))]
pub struct Identity {
    /// As the operator's own pod: EKS Pod Identity, IRSA, or the environment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ambient: Option<Ambient>,
    /// As a role that is assumed from another identity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub assume_role: Option<AssumeRole>,
    /// As a role that is assumed with a token of a ServiceAccount.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub web_identity: Option<WebIdentity>,
    /// As an IAM user, with an access key from a Secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_key: Option<AccessKey>,
}

/// As the operator's own pod. Has no settings.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Ambient {}

/// A role that is assumed from another identity.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [rule(
    "!has(self.durationSeconds) || self.durationSeconds <= 3600 || (has(self.source) && has(self.source.accessKey))",
    "a role that is assumed from another role's session lives 3600 s at most; a longer durationSeconds needs source.accessKey",
)]))]
pub struct AssumeRole {
    /// The ARN of the role.
    #[schemars(length(max = 640), extend("x-kubernetes-validations" = [rules::ROLE_ARN]))]
    pub role_arn: String,
    /// The external id that the role's trust policy asks for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 1224), extend("x-kubernetes-validations" = [rule(
        r"self.matches('^[\\w+=,.@:/-]*$')",
        "an external id takes letters, digits and _ + = , . @ : / -",
    )]))]
    pub external_id: Option<String>,
    /// The name of the session, as CloudTrail shows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 64), extend("x-kubernetes-validations" = [rule(
        r"self.matches('^[\\w+=,.@-]*$')",
        "a session name takes letters, digits and _ + = , . @ -",
    )]))]
    pub session_name: Option<String>,
    /// Tags of the session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::session_tags")]
    pub session_tags: Option<BTreeMap<String, String>>,
    /// How long a session lives, in seconds; a role that is assumed from another role gets 3600 at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 900, max = 43_200))]
    pub duration_seconds: Option<i32>,
    /// The identity that assumes the role; by default the operator's own pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<IdentitySource>,
}

/// The identity that assumes a role: exactly one of these.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-map-type" = "atomic", "x-kubernetes-validations" = [rule(
    "[has(self.ambient), has(self.webIdentity), has(self.accessKey)].exists_one(x, x)",
    "set exactly one of ambient, webIdentity and accessKey",
)]))]
pub struct IdentitySource {
    /// The operator's own pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ambient: Option<Ambient>,
    /// A role that is assumed with a token of a ServiceAccount.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub web_identity: Option<WebIdentity>,
    /// An IAM user, with an access key from a Secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_key: Option<AccessKey>,
}

/// A role that is assumed with a token of a ServiceAccount.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WebIdentity {
    /// The ARN of the role, which trusts the cluster's OIDC provider.
    #[schemars(length(max = 640), extend("x-kubernetes-validations" = [rules::ROLE_ARN]))]
    pub role_arn: String,
    /// The ServiceAccount whose token is presented.
    pub service_account_ref: ServiceAccountRef,
    /// The audience of the token; by default sts.amazonaws.com.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub audience: Option<String>,
}

/// Names a ServiceAccount.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceAccountRef {
    /// The namespace of the ServiceAccount.
    #[schemars(length(min = 1, max = 63), extend("x-kubernetes-validations" = [rules::NAMESPACE_NAME]))]
    pub namespace: String,
    /// The name of the ServiceAccount.
    #[schemars(length(min = 1, max = 253), extend("x-kubernetes-validations" = [rules::OBJECT_NAME]))]
    pub name: String,
}

/// An access key of an IAM user.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AccessKey {
    /// A Secret in the operator's own namespace with accessKeyId, secretAccessKey and, if need be, sessionToken.
    #[schemars(length(min = 1, max = 253), extend("x-kubernetes-validations" = [rules::OBJECT_NAME]))]
    pub secret_name: String,
}

/// How pull tokens are obtained.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Pull {
    /// As whom pull tokens are obtained; by default as spec.identity. It should only be able to read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<Identity>,
    /// Required: each token can pull what `allow` gives and nothing else. Never: tokens have all rights of the identity.
    #[serde(default)]
    pub scope_tokens: ScopeTokens,
    /// More AWS accounts whose repositories the identity may pull.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 100), inner(regex(pattern = rules::ACCOUNT_ID_PATTERN)))]
    pub accounts: Option<Vec<String>>,
    /// More Regions that tokens are obtained for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 50), inner(length(max = 32), regex(pattern = rules::REGION_PATTERN)))]
    pub regions: Option<Vec<String>>,
    /// What happens to the Secrets of a namespace that is no longer allowed: they stay and are no longer renewed (Keep),
    /// or they go (Remove).
    #[serde(default)]
    pub when_not_allowed: WhenNotAllowed,
}

/// How push tokens are obtained.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Push {
    /// As whom push tokens are obtained.
    pub identity: Identity,
}

/// What some namespaces may do with the registry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Allow {
    /// The namespaces; `{}` means all.
    pub namespaces: NamespaceSelector,
    /// Repositories that they may declare. `*` is any run of characters, `{namespace}` the name of the namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 100), inner(length(min = 1, max = 256), regex(pattern = rules::REPOSITORY_TEMPLATE_PATTERN)))]
    pub manage: Option<Vec<String>>,
    /// Repositories that their tokens may pull. `["*"]` means all.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 100), inner(length(min = 1, max = 256), regex(pattern = rules::REPOSITORY_TEMPLATE_PATTERN)))]
    pub pull: Option<Vec<String>>,
    /// Repositories that their tokens may push.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 100), inner(length(min = 1, max = 256), regex(pattern = rules::REPOSITORY_TEMPLATE_PATTERN)))]
    pub push: Option<Vec<String>>,
    /// The furthest adoptionPolicy that they may set: Deny, Adopt or TakeOver; by default Adopt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_adoption: Option<AdoptionPolicy>,
    /// The furthest deletionPolicy that they may set: Retain, Delete or DeleteWithImages; by default Delete.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_deletion: Option<DeletionPolicy>,
}

/// Settings for repositories that don't declare them, of the same shape as in EcrRepository.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend(
    "x-kubernetes-map-type" = "atomic",
    "x-kubernetes-validations" = [rules::EXCLUSION_FILTERS],
))]
pub struct Defaults {
    /// Whether a tag can be moved to another image: MUTABLE (yes), IMMUTABLE (no), or either of them with the exceptions
    /// that imageTagMutabilityExclusionFilters names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_tag_mutability: Option<ImageTagMutability>,
    /// Tags that are excluded from imageTagMutability.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 5))]
    pub image_tag_mutability_exclusion_filters: Option<Vec<ExclusionFilter>>,
    /// Scanning for vulnerabilities.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_scanning_configuration: Option<ImageScanningConfiguration>,
    /// Encryption at rest, for repositories that are created.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encryption_configuration: Option<EncryptionConfiguration>,
    /// Which images expire, and when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lifecycle_policy: Option<LifecyclePolicy>,
    /// Who else may use the repositories.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repository_policy: Option<RepositoryPolicy>,
    /// AWS tags, merged key by key; the EcrRepository's own win.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::tags")]
    pub tags: Option<BTreeMap<String, String>>,
    /// What happens to a repository when its EcrRepository is deleted: Retain, Delete or DeleteWithImages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deletion_policy: Option<DeletionPolicy>,
}

/// What is known of the registry.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EcrRegistryStatus {
    /// The AWS account, as learned from the identity. Another account behind the same identity stops all work.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account_id: Option<String>,
    /// As whom AWS knows the identity that manages repositories.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub caller_arn: Option<String>,
    /// As whom AWS knows the identity that obtains pull tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pull_caller_arn: Option<String>,
    /// The host name that images are pulled from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registry_host: Option<String>,
    /// How many EcrRepository objects use this registry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repositories: Option<i64>,
    /// How many of them have something to do that mode Plan holds back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub planned: Option<i64>,
    /// How long it takes until each repository was compared completely, within the read budget.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub full_check_every: Option<String>,
    /// The value of the annotation ecr-operator.dev/reconcile-at that was acted on last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_handled_reconcile_at: Option<String>,
    /// The generation of the spec that the conditions are about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready, and while they are true Reconciling and Stalled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "rules::conditions")]
    pub conditions: Vec<Condition>,
}

wire_enum! {
    /// Whether tokens are cut down to what `allow` gives.
    #[derive(Default)]
    ScopeTokens {
        /// They are; what can't be cut down is denied.
        #[default]
        Required = "Required",
        /// They have all rights of the identity.
        Never = "Never",
    }
}

wire_enum! {
    /// What happens to the Secrets of a namespace that is no longer allowed.
    #[derive(Default)]
    WhenNotAllowed {
        /// They stay, and are no longer renewed.
        #[default]
        Keep = "Keep",
        /// They are removed.
        Remove = "Remove",
    }
}
