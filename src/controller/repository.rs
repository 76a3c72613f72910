//! `EcrRepository`: parse → observe → plan → apply → report.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::runtime::controller::Action;
use kube::{Api, ResourceExt};

use crate::api::{AdoptionPolicy, EcrRepository, FINALIZER};
use crate::aws::Ecr;
use crate::cluster::{is_conflict, is_not_found, set_finalizer};
use crate::controller::annotations::{asks_anew, is_suspended, suspended};
use crate::controller::context::Context;
use crate::controller::registries::Registry;
use crate::controller::report::Report;
use crate::controller::repository_apply::{Alive, Outcome, exists_already, step_through};
use crate::controller::repository_observe::{Glance, Seen, glance, observe};
use crate::controller::repository_parse::{Stop, applied, desired, held, is_young};
use crate::controller::repository_status::{report, told, unknown};
use crate::controller::{deletion, export};
use crate::core::reason::{Problem, Reason};
use crate::core::repository::{self, Aspect, Desired, Digests, Observed};

/// What a snapshot can't show of everybody: each repository has its turn.
const IN_TURN: [Aspect; 3] = [Aspect::Tags, Aspect::Lifecycle, Aspect::Policy];

/// How much a pass asks AWS.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Look {
    /// It is as declared, by all that is known, and it isn't its turn.
    None,
    /// It was never there: created without asking first, ECR itself says if there is one.
    Create,
    /// The policies alone, in its turn: a snapshot shows all the rest. A difference asks for a whole look.
    Policies,
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
    match Box::pin(pass(&object, &context)).await {
        Ok(done) => report(&object, &context, with_export(&object, &context, done).await).await,
        Err(Stop::Problem(problem)) => report(&object, &context, Report::problem(problem)).await,
        Err(Stop::Kubernetes(error)) => Err(error),
        Err(Stop::Superseded) => Ok(Action::requeue(Duration::from_secs(1))),
    }
}

/// The repository comes first: what is exported is its status.
async fn with_export(object: &EcrRepository, context: &Context, mut report: Report) -> Report {
    if let Some(status) = report.status.as_mut().filter(|_| export::is_wanted(object)) {
        report.problems.extend(export::bring_about(object, context, status).await);
    }
    report
}

async fn pass(object: &EcrRepository, context: &Context) -> Result<Report, Stop> {
    let registry = context.registries.resolve(&object.spec.registry_ref.name).await?;
    registry.works()?;
    let desired = desired(object, &registry, context)?;
    stays_in_place(object, &desired)?;
    let ecr = registry.ecr();
    let look = look(object, context, &registry, &desired);
    let alive = Alive::new(object, context, make_durable(object, &desired, context).await?);
    let blind = look == Look::Create;
    let aspects = match look {
        Look::None => return Ok(told(object, context, &registry, &desired, &[], &Outcome::nothing(&desired))),
        Look::Create => Aspect::ALL.to_vec(),
        Look::Policies => {
            let Glance { differs, unseen } = glance(object, &ecr, &desired).await;
            if !differs {
                let outcome = Outcome { unseen, ..Outcome::nothing(&desired) };
                return Ok(told(object, context, &registry, &desired, &[Aspect::Lifecycle, Aspect::Policy], &outcome));
            }
            IN_TURN.to_vec()
        }
        Look::At(aspects) => aspects,
    };
    let seen = if blind { Ok(Seen::nothing()) } else { look_at(object, &ecr, &desired, &aspects).await };
    let seen = match seen {
        Ok(seen) => seen,
        Err(problem) => return Ok(unknown(object, &aspects, problem)),
    };
    // Where nothing is there, everything is to be made.
    let aspects = if seen.observed.is_some() { aspects } else { Aspect::ALL.to_vec() };
    let outcome = Box::pin(step_through(object, context, &registry, &ecr, &desired, seen, &alive)).await?;
    if !exists_already(&outcome) {
        return Ok(told(object, context, &registry, &desired, &aspects, &outcome));
    }
    let seen = Box::pin(observe(object, &ecr, &desired, &Aspect::ALL)).await?;
    if seen.observed.is_none() {
        let message = format!("repository {} exists and isn't shown yet", desired.name);
        return Err(Problem::new(Reason::Transient, message).into());
    }
    let outcome = Box::pin(step_through(object, context, &registry, &ecr, &desired, seen, &alive)).await?;
    Ok(told(object, context, &registry, &desired, &Aspect::ALL, &outcome))
}

/// What is there of these aspects.
async fn look_at(object: &EcrRepository, ecr: &Ecr, desired: &Desired, aspects: &[Aspect]) -> Result<Seen, Problem> {
    let seen = Box::pin(observe(object, ecr, desired, aspects)).await?;
    visible_by_now(object, desired, seen.observed.as_ref())?;
    Ok(seen)
}

fn asked_anew(object: &EcrRepository) -> bool {
    asks_anew(object, object.status.as_ref().and_then(|status| status.last_handled_reconcile_at.as_ref())).is_some()
}

fn look(object: &EcrRepository, context: &Context, registry: &Registry, desired: &Desired) -> Look {
    let uid = object.uid().unwrap_or_default();
    // However much this pass looks at, it is no less than what is suspected.
    let suspected = context.checks.look_at_suspicion(&uid);
    if held(object, desired).is_none() {
        let refused = ["AlreadyExists", "Conflict", "AdoptionDenied"];
        let conditions = object.status.iter().flat_map(|status| &status.conditions);
        let known_to_exist = conditions.into_iter().any(|condition| refused.contains(&condition.reason.as_str()));
        let asks_first = desired.plan_only || desired.adoption != AdoptionPolicy::Deny || known_to_exist;
        return if asks_first { Look::At(Aspect::ALL.to_vec()) } else { Look::Create };
    }
    if asked_anew(object) {
        return Look::At(Aspect::ALL.to_vec());
    }
    let mut stale = applied(object).stale(&Digests::of(desired));
    stale.extend(suspected);
    if !stale.is_empty() {
        return Look::At(stale);
    }
    if context.checks.is_due(&uid, context.registries.check_every(&registry.name), Timestamp::now()) {
        return if context.checks.tags_seen(&uid) { Look::Policies } else { Look::At(IN_TURN.to_vec()) };
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

/// Nothing is created before the finalizer is durable. There is one only where deletion has something to do. Returns
/// whether the API server was asked, and knows the object.
async fn make_durable(object: &EcrRepository, desired: &Desired, context: &Context) -> Result<bool, Stop> {
    let api: Api<EcrRepository> = Api::namespaced(context.client.clone(), &desired.owner.namespace);
    let wanted = (repository::deletes(desired.deletion) && !desired.plan_only) || export::is_wanted(object);
    let written = object.finalizers().iter().any(|name| name == FINALIZER) != wanted;
    match set_finalizer(&api, object, wanted).await {
        Ok(now) if now.metadata.deletion_timestamp.is_some() => Err(Stop::Superseded),
        Ok(_) => Ok(written),
        Err(error) if is_conflict(&error) || is_not_found(&error) => Err(Stop::Superseded),
        Err(error) => Err(error.into()),
    }
}

fn visible_by_now(object: &EcrRepository, desired: &Desired, observed: Option<&Observed>) -> Result<(), Problem> {
    if observed.is_none() && held(object, desired).is_some_and(is_young) {
        return Err(Problem::new(
            Reason::Transient,
            "ECR doesn't show the repository yet that it created a moment ago",
        ));
    }
    Ok(())
}
