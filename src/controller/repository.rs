//! `EcrRepository`: parse → observe → plan → apply → report.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use kube::runtime::controller::Action;
use kube::{Api, ResourceExt};

use crate::api::{AdoptionPolicy, EcrRepository, RECONCILE_AT};
use crate::aws::{AwsError, Ecr};
use crate::cluster::{is_conflict, is_not_found, set_finalizer};
use crate::controller::context::{Context, is_suspended, suspended};
use crate::controller::deletion;
use crate::controller::registries::Registry;
use crate::controller::report::Report;
use crate::controller::repository_apply::{Outcome, exists_already, step_through};
use crate::controller::repository_status::{POLICY, report, told};
use crate::core::access::Access;
use crate::core::ownership::Owner;
use crate::core::policy::WantedPolicy;
use crate::core::reason::{Problem, Reason};
use crate::core::repository::{self, Aspect, Desired, Digests, Observed, Reading, Wanted};
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

/// How much a pass asks AWS.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Look {
    /// It is as declared, by all that is known, and it isn't its turn.
    None,
    /// It was never there: created without asking first, ECR itself says if there is one.
    Create,
    /// These aspects.
    At(Vec<Aspect>),
}

/// Brings one repository to what its object declares.
///
/// # Errors
/// Where the API server can't be read or written; everything else is told in the status.
pub async fn reconcile(object: Arc<EcrRepository>, context: Arc<Context>) -> Result<Action, kube::Error> {
    if object.metadata.deletion_timestamp.is_some() {
        return deletion::repository(&object, &context).await;
    }
    if is_suspended(&*object) {
        return report(&object, &context, Report::problem(suspended())).await;
    }
    match pass(&object, &context).await {
        Ok(done) => report(&object, &context, done).await,
        Err(Stop::Problem(problem)) => report(&object, &context, Report::problem(problem)).await,
        Err(Stop::Kubernetes(error)) => Err(error),
        Err(Stop::Superseded) => Ok(Action::requeue(Duration::from_secs(1))),
    }
}

async fn pass(object: &EcrRepository, context: &Context) -> Result<Report, Stop> {
    let registry = context.registries.resolve(&object.spec.registry_ref.name).await?;
    registry.works()?;
    let desired = desired(object, &registry, context)?;
    stays_in_place(object, &desired)?;
    make_durable(object, &desired, context).await?;

    let ecr = registry.manager.ecr();
    let look = look(object, context, &registry, &desired);
    let (aspects, observed) = match look {
        Look::None => return Ok(told(object, context, &registry, &desired, &[], Outcome::nothing(&desired))),
        Look::Create => (Aspect::ALL.to_vec(), None),
        Look::At(aspects) => {
            let observed = observe(object, &ecr, &desired, &aspects).await?;
            visible_by_now(object, &desired, observed.as_ref())?;
            (if observed.is_some() { aspects } else { Aspect::ALL.to_vec() }, observed)
        }
    };
    let outcome = step_through(object, context, &registry, &ecr, &desired, observed).await?;
    if !exists_already(&outcome) {
        return Ok(told(object, context, &registry, &desired, &aspects, outcome));
    }
    let there = observe(object, &ecr, &desired, &Aspect::ALL).await?;
    let there = there.ok_or_else(|| {
        Problem::new(Reason::Transient, format!("repository {} exists and isn't shown yet", desired.name))
    })?;
    let outcome = step_through(object, context, &registry, &ecr, &desired, Some(there)).await?;
    Ok(told(object, context, &registry, &desired, &Aspect::ALL, outcome))
}

/// Pure: the spec over the registry's defaults, within the namespace's rights.
pub(super) fn desired(object: &EcrRepository, registry: &Registry, context: &Context) -> Result<Desired, Problem> {
    let owner = Owner {
        id: context.owner_id.clone(),
        namespace: object.namespace().unwrap_or_default(),
        name: object.name_any(),
        uid: object.uid().unwrap_or_default(),
    };
    let labels = context.namespace_labels(&owner.namespace)?;
    let rules = registry.spec.allow.as_deref().unwrap_or_default();
    let access = Access::of(rules, NamespaceView { name: &owner.namespace, labels: &labels });
    let parse = repository::Context {
        registry: &registry.spec,
        registry_name: &registry.name,
        account: &registry.account,
        region: &registry.region,
        access: &access,
        owner: &owner,
    };
    Desired::parse(&object.spec, parse)
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

/// Whether the object's annotation asks for a pass that wasn't made yet.
pub(super) fn asks_anew(object: &EcrRepository) -> bool {
    let handled = object.status.as_ref().and_then(|status| status.last_handled_reconcile_at.as_ref());
    object.annotations().get(RECONCILE_AT).is_some_and(|asked| Some(asked) != handled)
}

fn look(object: &EcrRepository, context: &Context, registry: &Registry, desired: &Desired) -> Look {
    let uid = object.uid().unwrap_or_default();
    let suspect = context.checks.take_suspect(&uid);
    if held(object, desired).is_none() {
        let refused = ["AlreadyExists", "Conflict", "AdoptionDenied"];
        let conditions = object.status.iter().flat_map(|status| &status.conditions);
        let known_to_exist = conditions.into_iter().any(|condition| refused.contains(&condition.reason.as_str()));
        let asks_first = desired.plan_only || desired.adoption != AdoptionPolicy::Deny || known_to_exist;
        return if asks_first { Look::At(Aspect::ALL.to_vec()) } else { Look::Create };
    }
    if suspect || asks_anew(object) {
        return Look::At(Aspect::ALL.to_vec());
    }
    let stale = applied(object).stale(&Digests::of(desired));
    if !stale.is_empty() {
        return Look::At(stale);
    }
    if context.checks.is_due(&uid, context.registries.check_every(&registry.name), Timestamp::now()) {
        return Look::At(vec![Aspect::Tags, Aspect::Lifecycle, Aspect::Policy]);
    }
    Look::None
}

/// The repository of another account or Region is another one: an object never moves from one to the other.
fn stays_in_place(object: &EcrRepository, desired: &Desired) -> Result<(), Problem> {
    match object.status.as_ref().and_then(|status| status.repository_arn.as_ref()) {
        Some(arn) if *arn != desired.arn => Err(Problem::new(
            Reason::Conflict,
            format!(
                "this object holds {arn}, and its registry now leads to {}; nothing was written. Point spec.registryRef at a registry of the same account and Region",
                desired.arn
            ),
        )),
        _ => Ok(()),
    }
}

/// Nothing is created before the finalizer is durable, and there is one only where deletion has something to do.
async fn make_durable(object: &EcrRepository, desired: &Desired, context: &Context) -> Result<(), Stop> {
    let api: Api<EcrRepository> = Api::namespaced(context.client.clone(), &desired.owner.namespace);
    let wanted = repository::deletes(desired.deletion) && !desired.plan_only;
    match set_finalizer(&api, object, wanted).await {
        Ok(now) if now.metadata.deletion_timestamp.is_some() => Err(Stop::Superseded),
        Ok(_) => Ok(()),
        Err(error) if is_conflict(&error) || is_not_found(&error) => Err(Stop::Superseded),
        Err(error) => Err(error.into()),
    }
}

/// What ECR holds of these aspects, as far as they are declared. Tags are always read: they say whose it is.
async fn observe(
    object: &EcrRepository,
    ecr: &Ecr,
    desired: &Desired,
    aspects: &[Aspect],
) -> Result<Option<Observed>, Problem> {
    let name = desired.name.as_str();
    let had_policy = object.status.as_ref().is_some_and(|status| status.managed_policies.iter().any(|it| it == POLICY));
    let reads = |aspect| aspects.contains(&aspect);
    let core = async { if reads(Aspect::Core) { ecr.describe(name).await.map(Some) } else { Ok(None) } };
    let lifecycle = async {
        match desired.lifecycle {
            Wanted::Untouched => Ok(Reading::Unread),
            _ if !reads(Aspect::Lifecycle) => Ok(Reading::Unread),
            _ => ecr.lifecycle_policy(name).await,
        }
    };
    // A policy of ours that is no longer declared is taken back; one that never was isn't even read.
    let policy = async {
        let concerns = desired.policy != WantedPolicy::Untouched || had_policy;
        if concerns && reads(Aspect::Policy) { ecr.repository_policy(name).await } else { Ok(Reading::Unread) }
    };
    let told = |error: AwsError| error.problem(&desired.arn);
    let (tags, core, lifecycle, policy) =
        futures::try_join!(ecr.tags(&desired.arn), core, lifecycle, policy).map_err(told)?;
    let Some(tags) = tags else {
        return Ok(None);
    };
    // Where the tags name nobody, the creation time tells whether it is still the same repository.
    let core = match core {
        None if Owner::read(&tags).is_none() => Some(ecr.describe(name).await.map_err(told)?),
        core => core,
    };
    let core = match core {
        Some(Some(core)) => Reading::Found(core),
        Some(None) => return Ok(None),
        None => Reading::Unread,
    };
    Ok(Some(Observed { core, tags, lifecycle, policy }))
}

fn visible_by_now(object: &EcrRepository, desired: &Desired, observed: Option<&Observed>) -> Result<(), Problem> {
    let created = held(object, desired);
    let young = created.is_some_and(|created| Timestamp::now().duration_since(created) < GRACE_AFTER_CREATION);
    if observed.is_none() && young {
        return Err(Problem::new(
            Reason::Transient,
            "ECR doesn't show the repository yet that it created a moment ago",
        ));
    }
    Ok(())
}
