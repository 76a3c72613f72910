//! The wire types of the API group `ecr-operator.dev`: serde, schema and rules, no behaviour.
//!
//! A field that is absent and one that is empty mean different things, so both survive a round trip. Rustdoc of a field
//! is what `kubectl explain` shows.
#![expect(clippy::doc_markdown, reason = "kubectl explain shows backticks as they are")]
#![expect(clippy::duplicated_attributes, reason = "kube's print columns repeat their keys")]

mod lifecycle;
mod policy;
mod pull_secret;
mod registry;
mod repository;
mod rules;
mod selector;
mod wire_enum;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{CustomResourceDefinition, JSONSchemaProps};
use kube::CustomResourceExt;

pub use lifecycle::{
    ActionType, CountType, CountUnit, LifecycleAction, LifecyclePolicy, LifecycleRule, LifecycleSelection,
    SelectionStorageClass, TagStatus, TargetStorageClass,
};
pub use policy::{Effect, ForeignStatements, Grant, GrantAccess, PolicyStatement, RepositoryPolicy};
pub use pull_secret::{
    ClusterEcrPullSecret, ClusterEcrPullSecretSpec, EcrPullSecret, EcrPullSecretSpec, FailedNamespace, HostKind,
    MergePolicy, NamespaceCounts, PublicRegistry, PullSecretSpec, PullSecretStatus, RegistryEntry, RegistryStatus,
    SecretFormat, SecretTemplate, TokenAccess, Verify,
};
pub use registry::{
    AccessKey, Allow, Ambient, AssumeRole, Defaults, EcrRegistry, EcrRegistrySpec, EcrRegistryStatus, Endpoint,
    Identity, IdentitySource, Pull, Push, ScopeTokens, ServiceAccountRef, WebIdentity, WhenNotAllowed,
};
pub use repository::{
    AdoptionPolicy, DeletionPolicy, Drift, EcrRepository, EcrRepositorySpec, EcrRepositoryStatus,
    EncryptionConfiguration, EncryptionType, ExclusionFilter, ExportKeys, ExportTo, FilterType,
    ImageScanningConfiguration, ImageTagMutability, Mode, PlanStep, RegistryRef,
};
pub use selector::{MatchExpression, MatchOperator, NamespaceSelector};

/// The API group of all kinds.
pub const GROUP: &str = "ecr-operator.dev";
/// The version of all kinds.
pub const VERSION: &str = "v1alpha1";

/// Annotation on any object: a value that wasn't there before asks for a full pass now; on a pull secret, for a new token.
pub const RECONCILE_AT: &str = "ecr-operator.dev/reconcile-at";
/// Annotation on any object: `"true"` stops all work on it.
pub const SUSPEND: &str = "ecr-operator.dev/suspend";
/// The finalizer on objects whose deletion has something to do.
pub const FINALIZER: &str = "ecr-operator.dev/finalizer";

/// Label on what we write: the UID of the object it is written for.
pub const OWNER_UID: &str = "ecr-operator.dev/owner-uid";
/// Annotation on what we write: the kind of the object it is written for.
pub const OWNER_KIND: &str = "ecr-operator.dev/owner-kind";
/// Annotation on what we write: the namespace of the object it is written for; absent where that is cluster-scoped.
pub const OWNER_NAMESPACE: &str = "ecr-operator.dev/owner-namespace";
/// Annotation on what we write: the name of the object it is written for.
pub const OWNER_NAME: &str = "ecr-operator.dev/owner-name";
/// Annotation on a pull Secret: when its first token expires, RFC 3339.
pub const EXPIRES_AT: &str = "ecr-operator.dev/expires-at";

/// The `Sid` of each policy statement that the operator writes for a grant starts so.
pub const SID_PREFIX: &str = "EcrOperator";
/// The name of the `EcrRegistry` that objects use when they name none.
pub const DEFAULT_REGISTRY: &str = "default";

/// The definitions of all four kinds, as they are installed.
///
/// # Errors
/// When a schema can't be written as JSON Schema of Kubernetes; a test makes sure that it can.
pub fn all_crds() -> Result<[CustomResourceDefinition; 4], serde_json::Error> {
    Ok([
        definition::<EcrRegistry>()?,
        definition::<EcrRepository>()?,
        definition::<EcrPullSecret>()?,
        definition::<ClusterEcrPullSecret>()?,
    ])
}

fn definition<K: CustomResourceExt>() -> Result<CustomResourceDefinition, serde_json::Error> {
    let mut crd = K::crd();
    for version in &mut crd.spec.versions {
        if let Some(schema) = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut()) {
            let mut value = serde_json::to_value(&*schema)?;
            rules::finish(&mut value);
            *schema = serde_json::from_value::<JSONSchemaProps>(value)?;
        }
    }
    Ok(crd)
}

#[cfg(test)]
mod tests;
