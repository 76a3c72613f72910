//! `EcrRegistry`: is the identity who it should be? Tells so, and tells all who depend on it when that changes.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::runtime::controller::Action;
use kube::{Api, ResourceExt};

use crate::api::{EcrRegistry, EcrRegistryStatus, EcrRepository, RECONCILE_AT, TokenAccess};
use crate::controller::annotations::asks_anew;
use crate::controller::context::{Change, Context, RegistryChange};
use crate::controller::drift;
use crate::controller::registries::Registry;
use crate::controller::report::transition;
use crate::core::conditions::{Verdict, conditions};
use crate::core::hosts::{HostKind, RegistryHost};
use crate::core::reason::{Problem, Reason};

/// How often the counts in its status are brought up to date.
const COUNT_EVERY: Duration = Duration::from_secs(10);

/// Looks at one registry.
///
/// # Errors
/// Where the API server fails; everything else is told in the status.
pub async fn reconcile(object: Arc<EcrRegistry>, context: Arc<Context>) -> Result<Action, kube::Error> {
    let name = object.name_any();
    let old = object.status.clone().unwrap_or_default();
    let mut status = old.clone();
    let registry = Box::pin(identify(&object, &context, &mut status)).await;
    let usable = match &registry {
        Ok(registry) => check_callers(registry, &context).await,
        Err(problem) => Err(problem.clone()),
    };
    if let Ok(registry) = &registry
        && status.observed_generation != object.metadata.generation
    {
        drift::set_rounds(registry, &context);
    }
    // Before the snapshot: where AWS grants few calls a second, that takes its time.
    tell_dependants(&object, &context, &name, &status, usable.as_ref().err());
    if let Ok(registry) = &registry {
        let anew = asks_anew(&*object, status.last_handled_reconcile_at.as_ref()).is_some();
        drift::watch(registry, &context, anew).await;
        status.full_check_every = context.registries.check_every(&name).and_then(drift::spelled);
        status.last_handled_reconcile_at = object.annotations().get(RECONCILE_AT).cloned();
    }
    let found = usable.and_then(|message| context.registries.blindness(&name).map_or(Ok(message), Err));

    let repositories = context.stores.repositories.state_filter(|repository| repository.spec.registry_ref.name == name);
    let planned = repositories.iter().filter(|repository| is_planned(repository));
    status.planned = i64::try_from(planned.count()).ok();
    status.repositories = i64::try_from(repositories.len()).ok();

    let uid = object.uid().unwrap_or_default();
    let generation = object.metadata.generation.unwrap_or_default();
    let (verdict, next) = match found {
        Ok(message) => (Verdict::ready(message), COUNT_EVERY),
        // What is mended on AWS's side can't be watched; how often AWS is asked, the identity's back-off decides.
        Err(problem) => (Verdict::held_up(problem.clone(), false), context.retry(&uid, &problem).min(COUNT_EVERY)),
    };
    if context.is_cut_short(&verdict) {
        return Ok(Action::await_change());
    }
    // Nobody looked at the generation of one that is suspended.
    let told_of = if verdict.reason == Reason::Suspended { old.observed_generation } else { Some(generation) };
    status.observed_generation = told_of;
    status.conditions = conditions(&old.conditions, &verdict, told_of.unwrap_or(generation), Timestamp::now());
    let api: Api<EcrRegistry> = Api::all(context.client.clone());
    context.statuses.write(&api, &*object, object.status.as_ref(), &status).await?;
    if verdict.reason == Reason::Ready {
        context.attempts.reset(&uid);
    }
    if let Some(event) = transition(&old.conditions, &verdict) {
        context.events.tell(&*object, &event).await;
    }
    context.metrics.reconciled("EcrRegistry", verdict.reason);
    Ok(Action::requeue(next))
}

/// Whether mode Plan holds back what there is to do.
fn is_planned(repository: &EcrRepository) -> bool {
    let conditions = repository.status.iter().flat_map(|status| &status.conditions);
    conditions.into_iter().any(|condition| condition.reason == Reason::PlanPending.as_str())
}

/// Fills in what is known of the account.
async fn identify(
    object: &EcrRegistry,
    context: &Context,
    status: &mut EcrRegistryStatus,
) -> Result<Registry, Problem> {
    let name = object.name_any();
    // Tokens are minted whether or not repositories can be managed.
    if let Ok(puller) = context.registries.issuer(&name, TokenAccess::Pull).await {
        status.account_id = Some(puller.account.to_string());
        status.pull_caller_arn = Some(puller.caller);
    }
    let registry = context.registries.resolve(&name).await?;
    status.account_id = Some(registry.account.to_string());
    status.caller_arn = Some(registry.caller_arn.clone());
    let kind = if object.spec.endpoint.as_ref().is_some_and(|endpoint| endpoint.fips == Some(true)) {
        HostKind::Fips
    } else {
        HostKind::Classic
    };
    status.registry_host =
        RegistryHost::new(registry.account.clone(), registry.region.clone(), kind).map(|host| host.to_string());
    registry.works()?;
    Ok(registry)
}

/// Whether each of its identities can be used; the message says as whom.
async fn check_callers(registry: &Registry, context: &Context) -> Result<String, Problem> {
    if let Some(problem) = &registry.held_up {
        return Err(problem.clone());
    }
    let push = registry.spec.push.is_some().then_some(TokenAccess::Push);
    for access in [Some(TokenAccess::Pull), push].into_iter().flatten() {
        if let Some(problem) = context.registries.issuer(&registry.name, access).await?.held_up {
            return Err(problem);
        }
    }
    Ok(format!("account {} as {}", registry.account, registry.caller_arn))
}

/// Whoever depends on it looks again when its spec, its account or its usability is other than it was.
fn tell_dependants(
    object: &EcrRegistry,
    context: &Context,
    name: &str,
    status: &EcrRegistryStatus,
    problem: Option<&Problem>,
) {
    let mut hasher = DefaultHasher::new();
    let annotations = object.annotations();
    (
        object.uid(),
        object.metadata.generation,
        &status.account_id,
        &status.caller_arn,
        &status.pull_caller_arn,
        annotations,
    )
        .hash(&mut hasher);
    problem.map(|problem| (problem.reason, &problem.message)).hash(&mut hasher);
    let change = context.registry_seen.tell(name, hasher.finish());
    if change != Change::Same {
        // Nobody listening is no error: the process is ending.
        let _ = context.registry_changed.send(RegistryChange { name: name.to_owned(), first: change == Change::First });
    }
}
