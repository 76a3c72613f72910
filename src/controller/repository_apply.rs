//! The steps of a plan, taken one by one, and what became of each.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Api, ResourceExt};

use crate::api::EcrRepository;
use crate::aws::{AwsError, Ecr, Kind};
use crate::controller::annotations::asks_anew;
use crate::controller::context::Context;
use crate::controller::live::confirm;
use crate::controller::registries::Registry;
use crate::controller::repository_observe::Seen;
use crate::controller::repository_parse::{Stop, held};
use crate::controller::repository_status::UNMARKED;
use crate::core::hosts::repository_arn;
use crate::core::ownership::{Claim, Ownership, ownership};
use crate::core::repository::{self, Aspect, Creation, Desired, Guard, Observed, Plan, Reading, Step};

/// What the API server told so long ago still counts.
const RECENT: Duration = Duration::from_secs(1);

/// What one pass did.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// What ECR held before, or what it created.
    pub observed: Option<Observed>,
    /// What was to be done.
    pub plan: Plan,
    /// Whether tags that somebody took away were to be put back.
    pub stripped: bool,
    /// What was done.
    pub done: Vec<Step>,
    /// What failed.
    pub failed: Vec<(Step, AwsError)>,
    /// What couldn't even be looked at.
    pub unseen: Vec<(Aspect, AwsError)>,
    /// How often our tags had been put back before.
    pub reclaims: i32,
}

impl Outcome {
    /// Whether nothing failed.
    pub(super) fn all_well(&self) -> bool {
        self.failed.is_empty() && self.unseen.is_empty()
    }

    /// Of a pass that had nothing to look at.
    pub(super) fn nothing(desired: &Desired) -> Self {
        Self { plan: Plan { problems: repository::standing_problems(desired), ..Plan::default() }, ..Self::default() }
    }
}

/// Whether ECR refused to create what exists.
pub(super) fn exists_already(outcome: &Outcome) -> bool {
    outcome.failed.iter().any(|(step, error)| matches!(step, Step::Create(_)) && error.kind == Kind::AlreadyExists)
}

/// Plans, and takes the steps unless something forbids it.
pub(super) async fn step_through(
    object: &EcrRepository,
    context: &Context,
    registry: &Registry,
    ecr: &Ecr,
    desired: &Desired,
    Seen { observed, unseen }: Seen,
    alive: &Alive<'_>,
) -> Result<Outcome, Stop> {
    let status = object.status.clone().unwrap_or_default();
    let ownership = match &observed {
        Some(there) => whose(object, context, registry, desired, there).await?,
        None => Ownership::Nobody,
    };
    let stripped = ownership == Ownership::Stripped;
    let reclaims = if asks_anew(object, status.last_handled_reconcile_at.as_ref()).is_some() {
        0
    } else {
        status.reclaims.unwrap_or_default()
    };
    let registry_scans = context.registries.scanning(&registry.name).is_some();
    let policy_is_ours = status.managed_policies.iter().any(|name| name == UNMARKED);
    let guard = Guard { ownership, managed_tags: &status.managed_tags, reclaims, registry_scans, policy_is_ours };
    let plan = repository::plan(desired, observed.as_ref(), &guard);
    let mut outcome = Outcome { observed, plan, stripped, unseen, reclaims, ..Outcome::default() };
    if outcome.plan.blocked.is_none() {
        take(alive, ecr, desired, policy_is_ours, &mut outcome).await?;
    }
    Ok(outcome)
}

/// Nothing is created or taken for an object that is gone, or by what it no longer declares, nor while the finalizer it was
/// seen with is off again: the cache may lag, and ECR may let a call wait long for its turn.
pub(super) struct Alive<'a> {
    object: &'a EcrRepository,
    context: &'a Context,
    told: Option<Instant>,
}

impl<'a> Alive<'a> {
    /// `now`: the API server has just told so.
    pub(super) fn new(object: &'a EcrRepository, context: &'a Context, now: bool) -> Self {
        Self { object, context, told: now.then(Instant::now) }
    }

    async fn as_known(&self) -> Result<(), Stop> {
        if self.told.is_some_and(|told| told.elapsed() < RECENT) {
            return Ok(());
        }
        let as_known = |live: &ObjectMeta, known: &ObjectMeta| {
            live.deletion_timestamp.is_none()
                && (&live.uid, live.generation, &live.finalizers) == (&known.uid, known.generation, &known.finalizers)
        };
        confirm(self.object, self.context, as_known).await
    }
}

/// A gate that fails ends it; any other failure doesn't hold back the rest.
async fn take(
    alive: &Alive<'_>,
    ecr: &Ecr,
    desired: &Desired,
    policy_is_ours: bool,
    outcome: &mut Outcome,
) -> Result<(), Stop> {
    for step in outcome.plan.steps.clone() {
        let Some(step) = up_to_date(step, ecr, desired, policy_is_ours, outcome).await else {
            continue;
        };
        let result = match &step {
            Step::Create(creation) => create(creation, alive, ecr, desired).await?.map(|created| {
                outcome.observed = Some(created);
            }),
            step => {
                let may = || async { if step.is_gate() { alive.as_known().await } else { Ok(()) } };
                ecr.perform(desired.name.as_str(), &desired.arn, step, may).await?
            }
        };
        let is_gate = step.is_gate();
        match result {
            Ok(()) => outcome.done.push(step),
            Err(error) => outcome.failed.push((step, error)),
        }
        if is_gate && !outcome.failed.is_empty() {
            break;
        }
    }
    Ok(())
}

/// ECR sets a policy without any precondition: where others' statements stay, and other calls were made since the policy
/// was read, it is read once more just before it is written. `None` where nothing is left to do, or it can't be said what.
async fn up_to_date(
    step: Step,
    ecr: &Ecr,
    desired: &Desired,
    policy_is_ours: bool,
    outcome: &mut Outcome,
) -> Option<Step> {
    let is_old = !outcome.done.is_empty() || !outcome.failed.is_empty();
    let is_new = outcome.done.iter().any(|step| matches!(step, Step::Create(_)));
    if step.aspect() != Aspect::Policy || !desired.policy.keeps_foreign() || !is_old || is_new {
        return Some(step);
    }
    match ecr.repository_policy(desired.name.as_str()).await {
        Ok(there) => repository::policy_step(desired, &there, policy_is_ours).unwrap_or_else(|problem| {
            outcome.plan.problems.push((Some(Aspect::Policy), problem));
            None
        }),
        Err(error) => {
            outcome.unseen.push((Aspect::Policy, error));
            None
        }
    }
}

async fn create(
    creation: &Creation,
    alive: &Alive<'_>,
    ecr: &Ecr,
    desired: &Desired,
) -> Result<Result<Observed, AwsError>, Stop> {
    let (uid, checks) = (&desired.owner.uid, &alive.context.checks);
    let may = || async {
        alive.as_known().await?;
        checks.creating(uid, Timestamp::now());
        Ok::<_, Stop>(())
    };
    let created = ecr.create(desired.name.as_str(), creation, may).await?;
    if created.as_ref().is_err_and(|error| matches!(error.kind, Kind::Denied | Kind::Invalid)) {
        checks.not_created(uid);
    }
    let tags = creation.tags.clone();
    Ok(created.map(|core| Observed {
        core: Reading::Found(core),
        tags,
        lifecycle: Reading::Absent,
        policy: Reading::Absent,
    }))
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
        held_since: held(object, desired),
        take_over_from: registry.spec.take_over_from.clone().unwrap_or_default(),
    };
    let seen = ownership(&there.tags, there.core.found().map(|core| core.created_at), &claim);
    let Ownership::Sibling(sibling) = &seen else {
        return Ok(seen);
    };
    // An owner that no longer exists counts as nobody; the cache may lag, so the API server is asked.
    let api: Api<EcrRepository> = Api::namespaced(context.client.clone(), &sibling.namespace);
    let exists = match api.get_opt(&sibling.name).await? {
        Some(other) => {
            other.metadata.uid.as_ref() == Some(&sibling.uid) || declares(&other, context, &desired.arn).await
        }
        None => false,
    };
    Ok(if exists { seen } else { Ownership::Nobody })
}

/// Whether an object declares the repository `arn`, as far as that can be told: one made anew under the name of the owner
/// may be about another repository.
async fn declares(object: &EcrRepository, context: &Context, arn: &str) -> bool {
    let name = object.spec.name.clone().unwrap_or_else(|| object.name_any());
    match context.registries.resolve(&object.spec.registry_ref.name).await {
        Ok(registry) => repository_arn(&registry.region, &registry.account, &name) == arn,
        Err(_) => arn.ends_with(&format!(":repository/{name}")),
    }
}
