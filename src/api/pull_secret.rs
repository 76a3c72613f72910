//! `EcrPullSecret` and `ClusterEcrPullSecret`: Secrets that always hold a valid token.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rules::{self, Rule, rule};
use super::wire_enum::wire_enum;
use super::{NamespaceSelector, RegistryRef};

/// What must hold in both kinds. (On the flattened struct they would be lost.)
const PULL_SECRET_RULES: [Rule; 9] = [
    rule(
        "self.access == 'Pull' || !has(self.serviceAccounts) || self.serviceAccounts.size() == 0",
        "access Push takes no serviceAccounts: pods pull, and must not be able to push",
    ),
    rule(
        "(self.format == 'Template') == (has(self.secretTemplate) && has(self.secretTemplate.data))",
        "format Template needs secretTemplate.data, and secretTemplate.data needs format Template",
    ),
    rule(
        "self.mergePolicy == 'Own' || self.format == 'DockerConfigJson'",
        "mergePolicy Merge needs format DockerConfigJson: only there each host has an entry of its own",
    ),
    rule(
        "self.mergePolicy == 'Own' || self.format == 'Template' || !has(self.secretTemplate)",
        "mergePolicy Merge takes no secretTemplate: the labels and annotations of a shared Secret are its owner's",
    ),
    rule("self.mergePolicy == oldSelf.mergePolicy", "mergePolicy can't change; create another object"),
    rule("self.format == oldSelf.format", "format can't change, since a Secret's type can't; create another object"),
    rule(
        "self.format == 'DockerConfigJson' || !has(self.serviceAccounts) || self.serviceAccounts.size() == 0",
        "serviceAccounts needs format DockerConfigJson: pods can't pull with another kind of Secret",
    ),
    rule(
        "self.format == 'DockerConfigJson' || !has(self.registries) || self.registries.size() == 1",
        "format Template has room for one registry: name one, and create an object for each of the others",
    ),
    rule(
        "!has(self.restartStuckPods) || !self.restartStuckPods || (self.access == 'Pull' && self.format == 'DockerConfigJson')",
        "restartStuckPods needs access Pull and format DockerConfigJson: pods don't pull with another kind of Secret",
    ),
];

/// A Secret in this namespace that always holds a valid token.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "ecr-operator.dev",
    version = "v1alpha1",
    kind = "EcrPullSecret",
    plural = "ecrpullsecrets",
    shortname = "ecrps",
    category = "ecr",
    namespaced,
    status = "PullSecretStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "A Secret in this namespace that always holds a valid token for Amazon ECR.",
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Secrets", type_ = "string", json_path = ".status.secrets"),
    printcolumn(name = "Expires", type_ = "string", json_path = ".status.expiresAt"),
    printcolumn(name = "Refresh", type_ = "string", json_path = ".status.refreshAt"),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].reason",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = PULL_SECRET_RULES))]
pub struct EcrPullSecretSpec {
    /// What both kinds share.
    #[serde(flatten)]
    pub common: PullSecretSpec,
}

/// A Secret in each of many namespaces that always holds a valid token.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "ecr-operator.dev",
    version = "v1alpha1",
    kind = "ClusterEcrPullSecret",
    plural = "clusterecrpullsecrets",
    shortname = "cecrps",
    category = "ecr",
    status = "PullSecretStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "A Secret in each of many namespaces that always holds a valid token for Amazon ECR.",
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Secrets", type_ = "string", json_path = ".status.secrets"),
    printcolumn(name = "Expires", type_ = "string", json_path = ".status.expiresAt"),
    printcolumn(name = "Refresh", type_ = "string", json_path = ".status.refreshAt"),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].reason",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = PULL_SECRET_RULES))]
pub struct ClusterEcrPullSecretSpec {
    /// What both kinds share.
    #[serde(flatten)]
    pub common: PullSecretSpec,
    /// The namespaces that get the Secret; `{}` means all.
    pub namespace_selector: NamespaceSelector,
    /// Names of namespaces that don't get it. `*` stands for any run of characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 100), inner(length(min = 1, max = 63), regex(pattern = rules::NAMESPACE_GLOB_PATTERN)))]
    pub exclude_namespaces: Option<Vec<String>>,
}

/// What both kinds of pull secret share.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PullSecretSpec {
    /// The registries that the Secret holds tokens for; by default the EcrRegistry named default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 20), extend("x-kubernetes-validations" = [
        rule(
            "self.all(a, has(a.public) || self.filter(b, !has(b.public) && (has(b.registryRef) ? b.registryRef.name : 'default') == (has(a.registryRef) ? a.registryRef.name : 'default')).size() == 1)",
            "each registry has one entry: put what you want of it into that",
        ),
        rule(
            "self.filter(entry, has(entry.public)).size() <= 1",
            "the ECR Public Gallery has one entry: only one may have public",
        ),
    ]))]
    pub registries: Option<Vec<RegistryEntry>>,
    /// What the token is for: Pull, or Push for builders in the cluster.
    #[serde(default)]
    pub access: TokenAccess,
    /// The name of the Secret; by default the name of this object.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), extend("x-kubernetes-validations" = [rules::OBJECT_NAME]))]
    pub secret_name: Option<String>,
    /// DockerConfigJson for pulling images; Template for an Opaque Secret with secretTemplate.data. Can't change.
    #[serde(default)]
    pub format: SecretFormat,
    /// Labels, annotations and data of the Secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_template: Option<SecretTemplate>,
    /// Own: the whole Secret belongs to this object. Merge: entries of others in an existing Secret are kept. Can't change.
    #[serde(default)]
    pub merge_policy: MergePolicy,
    /// ServiceAccounts whose imagePullSecrets get the Secret; `["*"]` means all of the namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 100), inner(length(min = 1, max = 253), regex(pattern = r"^(\*|[a-z0-9]([-a-z0-9.]*[a-z0-9])?)$")), extend("x-kubernetes-validations" = [rule(
        "!('*' in self) || self.size() == 1",
        "'*' means all ServiceAccounts: it stands alone",
    )]))]
    pub service_accounts: Option<Vec<String>>,
    /// A repository that is asked for with the token before the Secret counts as ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verify: Option<Verify>,
    /// Whether pods are evicted that wait in image pull errors and were admitted without the Secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart_stuck_pods: Option<bool>,
}

/// A registry that the Secret holds tokens for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [rule(
    "!has(self.public) || !(has(self.accounts) || has(self.regions) || has(self.hosts) || has(self.repositories))",
    "public stands alone beside registryRef: give accounts, regions, hosts and repositories in an entry without public",
)]))]
pub struct RegistryEntry {
    /// The EcrRegistry; by default the one named default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registry_ref: Option<RegistryRef>,
    /// Only these of the accounts that the registry offers.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 100), inner(regex(pattern = rules::ACCOUNT_ID_PATTERN)))]
    pub accounts: Option<Vec<String>>,
    /// Only these of the Regions that the registry offers.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 50), inner(length(max = 32), regex(pattern = rules::REGION_PATTERN)))]
    pub regions: Option<Vec<String>>,
    /// Which host names of a registry get an entry: Classic (…dkr.ecr.….amazonaws.com, the default), DualStack
    /// (…dkr-ecr.….on.aws) or Fips (…dkr.ecr-fips.….amazonaws.com).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 3))]
    pub hosts: Option<Vec<HostKind>>,
    /// Only these of the repositories that the registry allows. `*` is any run of characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 100), inner(length(min = 1, max = 256), regex(pattern = rules::REPOSITORY_GLOB_PATTERN)))]
    pub repositories: Option<Vec<String>>,
    /// The Amazon ECR Public Gallery, with the identity of the registry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public: Option<PublicRegistry>,
}

/// The Amazon ECR Public Gallery. Has no settings.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PublicRegistry {}

/// Labels, annotations and data of a Secret.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-map-type" = "atomic"))]
pub struct SecretTemplate {
    /// Labels that the Secret gets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::labels")]
    pub labels: Option<BTreeMap<String, String>>,
    /// Annotations that the Secret gets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::annotations")]
    pub annotations: Option<BTreeMap<String, String>>,
    /// Data of the Secret, with `{host}`, `{username}` and `{password}` filled in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::secret_data")]
    pub data: Option<BTreeMap<String, String>>,
}

/// What is tried with a token before the Secret counts as ready.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Verify {
    /// The name of the repository that is asked for an image. It need not hold one.
    #[schemars(length(min = 2, max = 256), extend("x-kubernetes-validations" = [rules::REPOSITORY_NAME]))]
    pub repository: String,
}

/// What is known of the Secrets.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PullSecretStatus {
    /// The name of the Secrets that were written last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_name: Option<String>,
    /// How many Secrets are up to date, of how many, as in 12/12.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secrets: Option<String>,
    /// When the first of the tokens expires.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Time>,
    /// When the next token is renewed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refresh_at: Option<Time>,
    /// When a token was last renewed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_refreshed_at: Option<Time>,
    /// The hosts that the Secrets hold tokens for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub registries: Vec<RegistryStatus>,
    /// The namespaces that are to have the Secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<NamespaceCounts>,
    /// The value of the annotation ecr-operator.dev/reconcile-at that was acted on last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_handled_reconcile_at: Option<String>,
    /// What was verified, as a fingerprint: the repository with the tokens that were let in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verified: Option<String>,
    /// The generation of the spec that the conditions are about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready, and while they are true Reconciling and Stalled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "rules::conditions")]
    pub conditions: Vec<Condition>,
}

/// A host that the Secrets hold a token for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RegistryStatus {
    /// The host name.
    pub host: String,
    /// As whom AWS knows the identity that obtained the token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub caller_arn: Option<String>,
    /// When the token expires.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Time>,
    /// Why there is no newer token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// The namespaces that are to have the Secret, counted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NamespaceCounts {
    /// How many are selected and allowed.
    pub desired: i64,
    /// How many of them have an up-to-date Secret.
    pub ready: i64,
    /// How many are selected, but not allowed by the registry.
    pub denied: i64,
    /// The first ten of those that have none, with the reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<FailedNamespace>,
}

/// A namespace that has no up-to-date Secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FailedNamespace {
    /// The namespace.
    pub name: String,
    /// Why.
    pub reason: String,
}

wire_enum! {
    /// What a token is for.
    #[derive(Default)]
    TokenAccess {
        /// Pulling images.
        #[default]
        Pull = "Pull",
        /// Pushing images.
        Push = "Push",
    }
}

wire_enum! {
    /// What the Secret looks like.
    #[derive(Default)]
    SecretFormat {
        /// A `kubernetes.io/dockerconfigjson`.
        #[default]
        DockerConfigJson = "DockerConfigJson",
        /// An Opaque Secret with data from a template.
        Template = "Template",
    }
}

wire_enum! {
    /// How much of the Secret is ours.
    #[derive(Default)]
    MergePolicy {
        /// All of it.
        #[default]
        Own = "Own",
        /// Our entries.
        Merge = "Merge",
    }
}

wire_enum! {
    /// Which of the host names of a registry.
    HostKind {
        /// `…dkr.ecr.….amazonaws.com`
        Classic = "Classic",
        /// `…dkr-ecr.….on.aws`
        DualStack = "DualStack",
        /// `…dkr.ecr-fips.….amazonaws.com`
        Fips = "Fips",
    }
}
