//! What an `EcrRepository` says, with what is known of it: pure but for the clock.

use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;

use crate::api::EcrRepository;
use crate::controller::context::Context;
use crate::controller::registries::Registry;
use crate::core::access::Access;
use crate::core::ownership::Owner;
use crate::core::reason::Problem;
use crate::core::repository::{self, Desired, Digests, Doomed};
use crate::core::selector::NamespaceView;

/// ECR may deny for so long that it has what it just created.
const GRACE_AFTER_CREATION: SignedDuration = SignedDuration::from_mins(2);

/// What ends a pass early.
#[derive(Debug, thiserror::Error)]
pub enum Stop {
    /// Told in the object's status.
    #[error(transparent)]
    Problem(#[from] Problem),
    /// The API server failed: nothing can be told.
    #[error(transparent)]
    Kubernetes(#[from] kube::Error),
    /// The object is being deleted, or somebody changed it meanwhile: another pass is on its way.
    #[error("the object changed meanwhile")]
    Superseded,
}

/// Pure: the spec over the registry's defaults, within the namespace's rights.
pub(super) fn desired(object: &EcrRepository, registry: &Registry, context: &Context) -> Result<Desired, Problem> {
    parsed(object, registry, context, |parse| Desired::parse(&object.spec, parse))
}

/// Pure: what deletion needs of it.
pub(super) fn doomed(object: &EcrRepository, registry: &Registry, context: &Context) -> Result<Doomed, Problem> {
    parsed(object, registry, context, |parse| Doomed::parse(&object.spec, parse))
}

/// The CR, as its tags name it.
pub(super) fn owner(object: &EcrRepository, context: &Context) -> Owner {
    Owner {
        id: context.owner_id.clone(),
        namespace: object.namespace().unwrap_or_default(),
        name: object.name_any(),
        uid: object.uid().unwrap_or_default(),
    }
}

fn parsed<T>(
    object: &EcrRepository,
    registry: &Registry,
    context: &Context,
    parse: impl FnOnce(repository::Context<'_>) -> Result<T, Problem>,
) -> Result<T, Problem> {
    let owner = owner(object, context);
    let labels = context.namespace_labels(&owner.namespace)?;
    let rules = registry.spec.allow.as_deref().unwrap_or_default();
    let access = Access::of(rules, NamespaceView { name: &owner.namespace, labels: &labels });
    parse(repository::Context {
        registry: &registry.spec,
        registry_name: &registry.name,
        account: &registry.account,
        region: &registry.region,
        access: &access,
        owner: &owner,
    })
}

/// What was last brought about for this object.
pub(super) fn applied(object: &EcrRepository) -> Digests {
    let digest = object.status.as_ref().and_then(|status| status.applied_digest.as_deref());
    digest.map(Digests::parse).unwrap_or_default()
}

/// When the repository was created that this very object held: one restored from a backup may bring a status along
/// that tells of another.
pub(super) fn held(object: &EcrRepository, desired: &Desired) -> Option<Timestamp> {
    let status = object.status.as_ref().filter(|_| applied(object).are_of(desired))?;
    status.repository_arn.as_ref()?;
    status.created_at.as_ref().map(|time| time.0)
}

/// Whether ECR may not yet show what was created then.
pub(super) fn is_young(created: Timestamp) -> bool {
    Timestamp::now().duration_since(created) < GRACE_AFTER_CREATION
}
