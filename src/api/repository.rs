//! `EcrRepository`: a repository as it is to be.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rules::{self, rule};
use super::wire_enum::wire_enum;
use super::{DEFAULT_REGISTRY, LifecyclePolicy, RepositoryPolicy};

/// A repository as it is to be. A setting that is absent here and in the registry's defaults is left alone in AWS.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "ecr-operator.dev",
    version = "v1alpha1",
    kind = "EcrRepository",
    plural = "ecrrepositories",
    shortname = "ecrrepo",
    category = "ecr",
    namespaced,
    status = "EcrRepositoryStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "An Amazon ECR repository that the operator keeps as declared.",
    selectable = ".spec.registryRef.name",
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].reason"),
    printcolumn(name = "URI", type_ = "string", json_path = ".status.repositoryUri"),
    printcolumn(name = "Tags", type_ = "string", json_path = ".status.imageTagMutability"),
    printcolumn(name = "Registry", type_ = "string", json_path = ".spec.registryRef.name", priority = 1),
    printcolumn(name = "Region", type_ = "string", json_path = ".status.region", priority = 1),
    printcolumn(name = "Policy", type_ = "string", json_path = ".status.deletionPolicy", priority = 1),
    printcolumn(name = "Drift", type_ = "date", json_path = ".status.drift.lastDetected", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("has(self.spec.name) || self.metadata.name.size() >= 2")
        .message("a repository's name has at least 2 characters: set spec.name, or give the object a longer name")
        .field_path(".spec.name"),
    validation = Rule::new("(has(self.spec.name) ? self.spec.name : self.metadata.name) == (has(oldSelf.spec.name) ? oldSelf.spec.name : oldSelf.metadata.name)")
        .message("a repository can't be renamed: create another object for the new name")
        .field_path(".spec.name")
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    rules::EXCLUSION_FILTERS,
    rule(
        "has(self.encryptionConfiguration) == has(oldSelf.encryptionConfiguration) && (!has(self.encryptionConfiguration) || self.encryptionConfiguration == oldSelf.encryptionConfiguration)",
        "encryptionConfiguration can't be changed, added or removed: ECR sets it when the repository is created",
    ),
    rule(
        "self.adoptionPolicy == 'Deny' || has(self.inheritDefaults)",
        "adoptionPolicy Adopt and TakeOver need inheritDefaults written out: true puts the registry's defaults (a lifecycle policy may expire images) on a repository that exists, false leaves it with what is declared here",
    ),
]))]
pub struct EcrRepositorySpec {
    /// The EcrRegistry, that is account, Region and identity, of the repository. It can be changed to another of the same
    /// account and Region.
    #[serde(default)]
    pub registry_ref: RegistryRef,
    /// The repository's name in ECR; by default the name of this object. It can't be changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 256), extend("x-kubernetes-validations" = [rules::REPOSITORY_NAME]))]
    pub name: Option<String>,
    /// Whether the registry's defaults fill in what is absent here; by default true. It must be written out where
    /// adoptionPolicy isn't Deny.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inherit_defaults: Option<bool>,
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
    /// Encryption at rest. ECR can't change it after creation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encryption_configuration: Option<EncryptionConfiguration>,
    /// Which images expire, and when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lifecycle_policy: Option<LifecyclePolicy>,
    /// Who else may use the repository.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repository_policy: Option<RepositoryPolicy>,
    /// AWS tags of the repository. Tags set by others are kept; `{}` removes those that this object set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::tags")]
    pub tags: Option<BTreeMap<String, String>>,
    /// What happens to the repository when this object is deleted: it stays (Retain, the default), it is deleted if it
    /// holds no images (Delete), or it is deleted with its images (DeleteWithImages). It can be changed until the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deletion_policy: Option<DeletionPolicy>,
    /// Whether a repository that exists already may be taken: not at all (Deny), if nobody owns it (Adopt), or even if it
    /// is owned from elsewhere (TakeOver).
    #[serde(default)]
    pub adoption_policy: AdoptionPolicy,
    /// Apply does what is needed; Plan only shows it in status.plan.
    #[serde(default)]
    pub mode: Mode,
    /// A ConfigMap that receives the repository's URI and other facts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub export_to: Option<ExportTo>,
}

/// Names an EcrRegistry.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RegistryRef {
    /// The name of the EcrRegistry.
    #[schemars(length(min = 1, max = 253), extend("x-kubernetes-validations" = [rules::OBJECT_NAME]))]
    pub name: String,
}

impl Default for RegistryRef {
    fn default() -> Self {
        Self { name: DEFAULT_REGISTRY.to_owned() }
    }
}

/// Tags that are excluded from the tag mutability.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExclusionFilter {
    /// The kind of filter: WILDCARD.
    pub filter_type: FilterType,
    /// The tags, with up to two `*`, each of which stands for any run of characters.
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[0-9a-zA-Z._-]*(\*[0-9a-zA-Z._-]*){0,2}$"))]
    pub filter: String,
}

/// Scanning for vulnerabilities.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ImageScanningConfiguration {
    /// Whether images are scanned when they are pushed. Where the AWS account has scanning rules, those decide.
    pub scan_on_push: bool,
}

/// Encryption at rest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [rule(
    "self.encryptionType != 'AES256' || !has(self.kmsKey)",
    "kmsKey goes with encryptionType KMS or KMS_DSSE, not with AES256",
)]))]
pub struct EncryptionConfiguration {
    /// AES256 (keys of S3), KMS or KMS_DSSE (two layers with keys of KMS).
    pub encryption_type: EncryptionType,
    /// The KMS key: its ARN, id or alias. By default the key that AWS manages for ECR.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub kms_key: Option<String>,
}

/// A ConfigMap that receives facts about the repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExportTo {
    /// The name of the ConfigMap, in this object's namespace. It is created; an existing one of somebody else is refused.
    #[schemars(length(min = 1, max = 253), extend("x-kubernetes-validations" = [rules::OBJECT_NAME]))]
    pub config_map: String,
    /// Which fact goes under which key.
    pub keys: ExportKeys,
}

const EXPORT_KEYS_DIFFER: &str = "[has(self.uri) ? self.uri : '', has(self.arn) ? self.arn : '', has(self.name) ? self.name : '', has(self.host) ? self.host : '', has(self.registryId) ? self.registryId : '', has(self.region) ? self.region : ''].all(key, key == '' || [has(self.uri) ? self.uri : '', has(self.arn) ? self.arn : '', has(self.name) ? self.name : '', has(self.host) ? self.host : '', has(self.registryId) ? self.registryId : '', has(self.region) ? self.region : ''].exists_one(other, other == key))";

/// The keys of a ConfigMap that facts about the repository go under.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1, "x-kubernetes-map-type" = "atomic", "x-kubernetes-validations" = [rule(
    EXPORT_KEYS_DIFFER,
    "each fact needs a key of its own",
)]))]
pub struct ExportKeys {
    /// The key for the repository's URI, which images are named by.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), extend("x-kubernetes-validations" = [rules::DATA_KEY]))]
    pub uri: Option<String>,
    /// The key for the repository's ARN.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), extend("x-kubernetes-validations" = [rules::DATA_KEY]))]
    pub arn: Option<String>,
    /// The key for the repository's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), extend("x-kubernetes-validations" = [rules::DATA_KEY]))]
    pub name: Option<String>,
    /// The key for the host name of the registry.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), extend("x-kubernetes-validations" = [rules::DATA_KEY]))]
    pub host: Option<String>,
    /// The key for the AWS account.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), extend("x-kubernetes-validations" = [rules::DATA_KEY]))]
    pub registry_id: Option<String>,
    /// The key for the Region.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), extend("x-kubernetes-validations" = [rules::DATA_KEY]))]
    pub region: Option<String>,
}

/// What is known of the repository.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EcrRepositoryStatus {
    /// What images are named by, without a tag.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repository_uri: Option<String>,
    /// The repository's ARN.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repository_arn: Option<String>,
    /// The AWS account that holds the repository.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registry_id: Option<String>,
    /// The Region that holds the repository.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// When the repository was created; it tells the repository from a later one with its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Time>,
    /// The ARN of the KMS key that encrypts the repository.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kms_key_arn: Option<String>,
    /// Whether tags can be moved to another image, as AWS has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_tag_mutability: Option<String>,
    /// The deletion policy in force, the registry's default included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deletion_policy: Option<DeletionPolicy>,
    /// What is to be done, or would be done if it were permitted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub plan: Vec<PlanStep>,
    /// The keys of the AWS tags that the operator set.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub managed_tags: Vec<String>,
    /// The policies that the spec or the registry's defaults declare: lifecyclePolicy, repositoryPolicy; and policyText
    /// where the repository policy is one whose statements don't bear the operator's Sid.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub managed_policies: Vec<String>,
    /// What somebody else changed and the operator put right.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drift: Option<Drift>,
    /// The ConfigMap that holds what exportTo asks for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exported_to: Option<String>,
    /// How often the operator's own tags were taken away by somebody and put back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reclaims: Option<i32>,
    /// A digest of the settings that were applied last, defaults included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub applied_digest: Option<String>,
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

/// One step of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlanStep {
    /// The call to ECR, as AWS names it.
    pub action: String,
    /// What it changes.
    pub detail: String,
}

/// What somebody else changed and the operator put right.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Drift {
    /// When it was last noticed.
    pub last_detected: Time,
    /// What was done about it then.
    pub actions: Vec<PlanStep>,
}

wire_enum! {
    /// Whether tags can be moved to another image.
    ImageTagMutability {
        /// They can.
        Mutable = "MUTABLE",
        /// They can't.
        Immutable = "IMMUTABLE",
        /// They can, except those that a filter names.
        MutableWithExclusion = "MUTABLE_WITH_EXCLUSION",
        /// They can't, except those that a filter names.
        ImmutableWithExclusion = "IMMUTABLE_WITH_EXCLUSION",
    }
}

wire_enum! {
    /// The kind of an exclusion filter.
    FilterType {
        /// `*` stands for any run of characters.
        Wildcard = "WILDCARD",
    }
}

wire_enum! {
    /// How images are encrypted.
    EncryptionType {
        /// With keys that S3 manages.
        Aes256 = "AES256",
        /// With a key of KMS.
        Kms = "KMS",
        /// Twice, with a key of KMS.
        KmsDsse = "KMS_DSSE",
    }
}

wire_enum! {
    /// What happens to the repository when its object goes. Ordered by how much is lost.
    #[derive(Default)]
    DeletionPolicy {
        /// It stays.
        #[default]
        Retain = "Retain",
        /// It is deleted if it holds no images.
        Delete = "Delete",
        /// It is deleted with all its images.
        DeleteWithImages = "DeleteWithImages",
    }
}

wire_enum! {
    /// Whether a repository that exists already may be taken. Ordered by how much is taken.
    #[derive(Default)]
    AdoptionPolicy {
        /// No.
        #[default]
        Deny = "Deny",
        /// One that nobody owns.
        Adopt = "Adopt",
        /// Also one that is owned from elsewhere.
        TakeOver = "TakeOver",
    }
}

wire_enum! {
    /// Whether anything is done.
    #[derive(Default)]
    Mode {
        /// What is needed is done.
        #[default]
        Apply = "Apply",
        /// What is needed is only shown.
        Plan = "Plan",
    }
}
