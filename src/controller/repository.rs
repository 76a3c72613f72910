//! `EcrRepository`: parse → observe → plan → apply → report.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt};

use crate::api::{EcrRepository, EcrRepositoryStatus, RECONCILE_AT};
use crate::aws::{AwsError, Ecr, Kind};
use crate::cluster::{What, is_conflict, is_not_found, set_finalizer};
use crate::controller::context::{Context, is_suspended, suspended};
use crate::controller::deletion;
use crate::controller::registries::Registry;
use crate::controller::report::{Report, steps_told, transition};
use crate::core::access::Access;
use crate::core::conditions::Verdict;
use crate::core::ownership::{Claim, Owner, Ownership, ownership};
use crate::core::policy::WantedPolicy;
use crate::core::reason::{Problem, Reason};
use crate::core::repository::{self, Desired, Guard, Observed, Plan, Step, Wanted};
use crate::core::selector::NamespaceView;
use crate::core::token::fraction;

/// ECR may deny for so long that it has what it just created.
const GRACE_AFTER_CREATION: SignedDuration = SignedDuration::from_mins(2);

/// In `status.managedPolicies`.
const LIFECYCLE: &str = "lifecyclePolicy";
/// In `status.managedPolicies`.
const POLICY: &str = "repositoryPolicy";

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

/// What one pass did.
#[derive(Debug, Default)]
struct Outcome {
    observed: Option<Observed>,
    plan: Plan,
    done: Vec<Step>,
    failed: Vec<(Step, AwsError)>,
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
        return report(&object, &context, Report::held(&suspended())).await;
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
    let desired = desired(object, &registry, context)?;
    stays_in_place(object, &desired)?;
    make_durable(object, &desired, context).await?;

    let ecr = registry.manager.ecr();
    // One that was never here is created without asking first: ECR itself says if there is one.
    let had_policy =
        object.status.as_ref().is_some_and(|status| status.managed_policies.iter().any(|name| name == POLICY));
    let presumed_absent =
        held(object).is_none() && !desired.plan_only && desired.adoption == crate::api::AdoptionPolicy::Deny;
    let observed = if presumed_absent { None } else { observe(&ecr, &desired, had_policy).await? };
    visible_by_now(object, observed.as_ref())?;

    let outcome = match step_through(object, context, &registry, &ecr, &desired, observed).await? {
        Outcome { failed, .. } if exists_already(&failed) => {
            let there = observe(&ecr, &desired, had_policy).await?.ok_or_else(|| {
                Problem::new(Reason::Transient, format!("repository {} exists and isn't shown yet", desired.name))
            })?;
            step_through(object, context, &registry, &ecr, &desired, Some(there)).await?
        }
        outcome => outcome,
    };
    Ok(told(object, &registry, &desired, outcome))
}

/// Pure: the spec over the registry's defaults, within the namespace's rights.
pub(super) fn desired(object: &EcrRepository, registry: &Registry, context: &Context) -> Result<Desired, Problem> {
    let owner = owner(object, context);
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

/// The CR, as its tags name it.
pub(super) fn owner(object: &EcrRepository, context: &Context) -> Owner {
    Owner {
        id: context.owner_id.clone(),
        namespace: object.namespace().unwrap_or_default(),
        name: object.name_any(),
        uid: object.uid().unwrap_or_default(),
    }
}

/// When the repository that this object held was created.
fn held(object: &EcrRepository) -> Option<Timestamp> {
    let status = object.status.as_ref()?;
    status.repository_arn.as_ref()?;
    status.created_at.as_ref().map(|time| time.0)
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

/// What ECR holds of the declared aspects.
async fn observe(ecr: &Ecr, desired: &Desired, had_policy: bool) -> Result<Option<Observed>, Problem> {
    let told = |error: AwsError| error.problem(&desired.arn);
    let name = desired.name.as_str();
    let Some(repository) = ecr.describe(name).await.map_err(told)? else {
        return Ok(None);
    };
    let Some(tags) = ecr.tags(&desired.arn).await.map_err(told)? else {
        return Ok(None);
    };
    let lifecycle = match desired.lifecycle {
        Wanted::Untouched => repository::Reading::Unread,
        _ => ecr.lifecycle_policy(name).await.map_err(told)?,
    };
    // A policy of ours that is no longer declared is taken back; one that never was isn't even read.
    let policy = if desired.policy == WantedPolicy::Untouched && !had_policy {
        repository::Reading::Unread
    } else {
        ecr.repository_policy(name).await.map_err(told)?
    };
    Ok(Some(Observed { tags, lifecycle, policy, ..repository }))
}

fn visible_by_now(object: &EcrRepository, observed: Option<&Observed>) -> Result<(), Problem> {
    let young = held(object).is_some_and(|created| Timestamp::now().duration_since(created) < GRACE_AFTER_CREATION);
    if observed.is_none() && young {
        return Err(Problem::new(
            Reason::Transient,
            "ECR doesn't show the repository yet that it created a moment ago",
        ));
    }
    Ok(())
}

/// Plans, and takes the steps unless something forbids it.
async fn step_through(
    object: &EcrRepository,
    context: &Context,
    registry: &Registry,
    ecr: &Ecr,
    desired: &Desired,
    observed: Option<Observed>,
) -> Result<Outcome, Stop> {
    let status = object.status.clone().unwrap_or_default();
    let ownership = match &observed {
        Some(there) => whose(object, context, registry, desired, there).await?,
        None => Ownership::Nobody,
    };
    let guard = Guard { ownership, managed_tags: &status.managed_tags };
    let plan = repository::plan(desired, observed.as_ref(), &guard);
    let mut outcome = Outcome { observed, ..Outcome::default() };
    if plan.blocked.is_none() {
        for step in &plan.steps {
            let result = match step {
                Step::Create(creation) => {
                    ecr.create(desired.name.as_str(), creation).await.map(|made| outcome.observed = Some(made))
                }
                step => ecr.perform(desired.name.as_str(), &desired.arn, step).await,
            };
            match result {
                Ok(()) => outcome.done.push(step.clone()),
                Err(error) => outcome.failed.push((step.clone(), error)),
            }
            if step.is_gate() && !outcome.failed.is_empty() {
                break;
            }
        }
    }
    Ok(Outcome { plan, ..outcome })
}

async fn whose(
    object: &EcrRepository,
    context: &Context,
    registry: &Registry,
    desired: &Desired,
    there: &Observed,
) -> Result<Ownership, Stop> {
    let claim = Claim {
        owner: desired.owner.clone(),
        held_since: held(object),
        take_over_from: registry.spec.take_over_from.clone().unwrap_or_default(),
    };
    let seen = ownership(&there.tags, there.created_at, &claim);
    let Ownership::Sibling(sibling) = &seen else {
        return Ok(seen);
    };
    // An owner that no longer exists counts as nobody; the cache may lag, so the API server is asked.
    let known = context.stores.repositories.get(&ObjectRef::new(&sibling.name).within(&sibling.namespace)).is_some();
    let api: Api<EcrRepository> = Api::namespaced(context.client.clone(), &sibling.namespace);
    let exists = known || api.get_metadata_opt(&sibling.name).await?.is_some();
    Ok(if exists { seen } else { Ownership::Nobody })
}

fn exists_already(failed: &[(Step, AwsError)]) -> bool {
    failed.iter().any(|(step, error)| matches!(step, Step::Create(_)) && error.kind == Kind::AlreadyExists)
}

/// Pure but for the clock: what the object's status and events say of the pass.
fn told(object: &EcrRepository, registry: &Registry, desired: &Desired, outcome: Outcome) -> Report {
    let Outcome { observed, plan, done, failed } = outcome;
    let old = object.status.clone().unwrap_or_default();
    let mut problems = plan.problems.clone();
    problems.extend(plan.blocked.clone());
    if object.spec.export_to.is_some() {
        problems.push(Problem::new(
            Reason::NotImplemented,
            "exportTo is not built in this version; everything else is done",
        ));
    }
    problems.extend(failed.iter().map(|(_, error)| error.problem(&desired.arn)));
    let to_do =
        if plan.blocked.is_some() { plan.steps.clone() } else { failed.iter().map(|(step, _)| step.clone()).collect() };

    let mut status = EcrRepositoryStatus {
        plan: steps_told(&to_do),
        deletion_policy: Some(desired.deletion),
        region: Some(registry.region.to_string()),
        last_handled_reconcile_at: object
            .annotations()
            .get(RECONCILE_AT)
            .cloned()
            .or(old.last_handled_reconcile_at.clone()),
        ..old.clone()
    };
    let owned =
        plan.blocked.as_ref().is_none_or(|problem| problem.reason == Reason::PlanPending && held(object).is_some());
    if let Some(there) = observed.as_ref().filter(|_| owned) {
        status.repository_uri = Some(there.uri.clone());
        status.repository_arn = Some(there.arn.clone());
        status.registry_id = Some(there.registry_id.clone());
        status.created_at = Some(there.created_at.into());
        status.kms_key_arn.clone_from(&there.encryption.key);
        let changed = done.iter().find_map(|step| match step {
            Step::PutImageTagMutability(mutability) => Some(mutability.mode.clone()),
            _ => None,
        });
        status.image_tag_mutability = Some(changed.unwrap_or_else(|| there.mutability.mode.clone()));
    }
    if plan.blocked.is_none() {
        let declared = desired.tags.keys().cloned();
        let kept = failed.iter().flat_map(|(step, _)| match step {
            Step::UntagResource(keys) => keys.clone(),
            _ => Vec::new(),
        });
        let lifecycle = (desired.lifecycle != Wanted::Untouched).then(|| LIFECYCLE.to_owned());
        let unset = failed
            .iter()
            .any(|(step, _)| matches!(step, Step::SetRepositoryPolicy { .. } | Step::DeleteRepositoryPolicy { .. }));
        let policy = (desired.policy != WantedPolicy::Untouched
            || (unset && old.managed_policies.iter().any(|name| name == POLICY)))
        .then(|| POLICY.to_owned());
        status.managed_policies = lifecycle.into_iter().chain(policy).collect();
        status.managed_tags = declared.chain(kept).collect::<std::collections::BTreeSet<_>>().into_iter().collect();
    }
    let digest = repository::digest(desired);
    // The same declaration was in force before this pass: whatever differed, somebody else changed.
    if !done.is_empty() && old.applied_digest.as_ref() == Some(&digest) {
        status.drift = Some(crate::api::Drift { last_detected: now_in_seconds().into(), actions: steps_told(&done) });
    }
    let problem = crate::core::reason::gather(&problems);
    if problem.is_none() {
        status.applied_digest = Some(digest);
    }
    let recreated = held(object).is_some() && done.iter().any(|step| matches!(step, Step::Create(_)));
    let mut events: Vec<_> = done.iter().map(|step| What::done(step.action(), step.detail())).collect();
    if recreated {
        events.insert(
            0,
            What::warning(
                "Recreated",
                "the repository was deleted by somebody else, and was created again; its images are lost",
            ),
        );
    }
    let dropped = old.managed_policies.iter().any(|name| name == LIFECYCLE) && desired.lifecycle == Wanted::Untouched;
    if dropped && plan.blocked.is_none() {
        events.push(What::done(
            "Released",
            "lifecyclePolicy is no longer declared; the policy that ECR holds stays as it is",
        ));
    }
    Report { status: Some(status), problem, events, ready: "the repository is as declared".to_owned() }
}

fn now_in_seconds() -> Timestamp {
    Timestamp::from_second(Timestamp::now().as_second()).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// Writes the status, tells the events, says when to look again.
pub(super) async fn report(object: &EcrRepository, context: &Context, report: Report) -> Result<Action, kube::Error> {
    let uid = object.uid().unwrap_or_default();
    let old = object.status.clone().unwrap_or_default();
    let mut status = report.status.clone().unwrap_or_else(|| old.clone());
    let verdict = report.verdict(object, &old.conditions, old.observed_generation);
    let generation = object.metadata.generation.unwrap_or_default();
    let suspended = verdict.reason == Reason::Suspended;
    if !suspended {
        status.observed_generation = Some(generation);
    }
    let told_of = if suspended { old.observed_generation.unwrap_or(generation) } else { generation };
    status.conditions = crate::core::conditions::conditions(&old.conditions, &verdict, told_of, Timestamp::now());

    let namespace = object.namespace().unwrap_or_default();
    let api: Api<EcrRepository> = Api::namespaced(context.client.clone(), &namespace);
    context.statuses.write(&api, object, object.status.as_ref(), &status).await?;
    for event in report.events.iter().chain(transition(&old.conditions, &verdict).iter()) {
        context.events.tell(object, event).await;
    }
    context.metrics.reconciled("EcrRepository", verdict.reason);
    Ok(Action::requeue(next_look(&uid, context, &report, &verdict, object)))
}

fn next_look(uid: &str, context: &Context, report: &Report, _verdict: &Verdict, object: &EcrRepository) -> Duration {
    if let Some(problem) = &report.problem {
        return context.retry(uid, problem);
    }
    context.attempts.reset(uid);
    let interval = context.registries.drift_interval(&object.spec.registry_ref.name);
    interval.mul_f64(1.0 - 0.1 * fraction(&[uid]))
}
