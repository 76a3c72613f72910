//! What the status and the events of an `EcrRepository` say of a pass.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use kube::runtime::controller::Action;
use kube::{Api, ResourceExt};

use crate::api::{Drift, EcrRepository, EcrRepositoryStatus, RECONCILE_AT};
use crate::cluster::What;
use crate::controller::context::Context;
use crate::controller::registries::Registry;
use crate::controller::report::{Report, steps_told, transition};
use crate::controller::repository_apply::Outcome;
use crate::controller::repository_parse::{applied, held};
use crate::core::conditions::conditions;
use crate::core::policy::WantedPolicy;
use crate::core::reason::{Class, Problem, Reason, most_urgent};
use crate::core::repository::{Aspect, Core, Desired, Digests, Step, Wanted, next_check, patient};
use crate::core::token::wait;

/// In `status.managedPolicies`.
pub(super) const LIFECYCLE: &str = "lifecyclePolicy";
/// In `status.managedPolicies`.
pub(super) const POLICY: &str = "repositoryPolicy";
/// In `status.managedPolicies`, beside [`POLICY`].
pub(super) const UNMARKED: &str = "policyText";

/// What the object's status and events say of a pass that looked at `read`.
pub(super) fn told(
    object: &EcrRepository,
    context: &Context,
    registry: &Registry,
    desired: &Desired,
    read: &[Aspect],
    outcome: &Outcome,
) -> Report {
    let old = object.status.clone().unwrap_or_default();
    let problems = problems(context, desired, read, outcome);
    let failed: Vec<_> = outcome.failed.iter().map(|(step, _)| step.clone()).collect();
    let to_do = if outcome.plan.blocked.is_some() { &outcome.plan.steps } else { &failed };
    let mut status = EcrRepositoryStatus {
        plan: steps_told(to_do),
        deletion_policy: Some(desired.deletion),
        region: Some(registry.region.to_string()),
        last_handled_reconcile_at: if outcome.all_well() {
            object.annotations().get(RECONCILE_AT).cloned()
        } else {
            old.last_handled_reconcile_at.clone()
        },
        ..old.clone()
    };
    let is_held = held(object, desired).is_some();
    // What couldn't be marked as ours isn't.
    let is_ours = is_held || !outcome.failed.iter().any(|(step, _)| step.is_gate());
    let blocked = outcome.plan.blocked.as_ref();
    let core = outcome.observed.as_ref().and_then(|there| there.core.found());
    if let Some(core) =
        core.filter(|_| is_ours && blocked.is_none_or(|problem| problem.reason == Reason::PlanPending && is_held))
    {
        describe(&mut status, core, &outcome.done);
    }
    let mut events: Vec<_> = outcome.done.iter().map(|step| What::done(step.action(), step.detail())).collect();
    if blocked.is_none() && is_ours {
        let (well, unwell) = brought_about(read, outcome);
        remember(&mut status, &old, desired, read, outcome, well.contains(&Aspect::Policy));
        let (before, wanted) = (applied(object), Digests::of(desired));
        let never = before.never(&wanted);
        // An aspect that was once brought about and had to be again: somebody else changed it.
        let repaired: Vec<_> =
            outcome.done.iter().filter(|step| is_held && !never.contains(&step.aspect())).cloned().collect();
        if !repaired.is_empty() {
            status.drift = Some(Drift { last_detected: now_in_seconds().into(), actions: steps_told(&repaired) });
        }
        status.applied_digest = Some(before.with(&wanted, &well).doubting(&unwell).text());
        if let Some(event) = released(&old, desired) {
            events.push(event);
        }
        if is_held && outcome.done.iter().any(|step| matches!(step, Step::Create(_))) {
            let note = "the repository was deleted by somebody else, and was created again; its images are lost";
            events.insert(0, What::warning("Recreated", note));
        }
        if !read.is_empty() && outcome.all_well() {
            context.checks.done(&desired.owner.uid, Timestamp::now());
        }
    } else {
        let differ: Vec<_> = outcome.plan.steps.iter().map(Step::aspect).collect();
        doubt(&mut status, &differ);
    }
    let scanning = context.registries.scanning(&registry.name).filter(|_| desired.scan_on_push.is_some());
    let scanning =
        scanning.map(|how| format!("; registry-level scanning decides ({how}), not imageScanningConfiguration"));
    let ready = format!("the repository is as declared{}", scanning.unwrap_or_default());
    Report { status: Some(status), problems, events, ready, differs: !outcome.failed.is_empty() }
}

/// A pass that couldn't see what it was to look at: that it is as declared isn't known any more.
pub(super) fn unknown(object: &EcrRepository, aspects: &[Aspect], problem: Problem) -> Report {
    let mut status = object.status.clone().unwrap_or_default();
    doubt(&mut status, aspects);
    Report { status: Some(status), ..Report::problem(problem) }
}

/// What is known to be otherwise, and wasn't put right, is looked at in every pass until it is: after a restart too.
fn doubt(status: &mut EcrRepositoryStatus, aspects: &[Aspect]) {
    if let Some(digest) = &mut status.applied_digest {
        *digest = Digests::parse(digest).doubting(aspects).text();
    }
}

fn problems(context: &Context, desired: &Desired, read: &[Aspect], outcome: &Outcome) -> Vec<Problem> {
    let mut problems: Vec<_> = outcome.plan.problems.iter().map(|(_, problem)| problem.clone()).collect();
    problems.extend(outcome.plan.blocked.clone());
    let (uid, now) = (&desired.owner.uid, Timestamp::now());
    let is_policy = |(step, _): &(Step, _)| step.aspect() == Aspect::Policy;
    if read.contains(&Aspect::Policy) && !outcome.failed.iter().any(is_policy) {
        context.checks.accepted(uid);
    }
    let failed = outcome.failed.iter();
    problems.extend(
        failed.map(|(step, error)| patient(step, error.problem(&desired.arn), context.checks.refused(uid, step, now))),
    );
    problems.extend(outcome.unseen.iter().map(|(_, error)| error.problem(&desired.arn)));
    problems
}

fn describe(status: &mut EcrRepositoryStatus, core: &Core, done: &[Step]) {
    status.repository_uri = Some(core.uri.clone());
    status.repository_arn = Some(core.arn.clone());
    status.registry_id = Some(core.registry_id.clone());
    status.created_at = Some(core.created_at.into());
    status.kms_key_arn.clone_from(&core.encryption.key);
    let changed = done.iter().find_map(|step| match step {
        Step::PutImageTagMutability(mutability) => Some(mutability.mode.clone()),
        _ => None,
    });
    status.image_tag_mutability = Some(changed.unwrap_or_else(|| core.mutability.mode.clone()));
}

/// What is ours in AWS, so that it can be taken back when it is no longer declared.
fn remember(
    status: &mut EcrRepositoryStatus,
    old: &EcrRepositoryStatus,
    desired: &Desired,
    read: &[Aspect],
    outcome: &Outcome,
    policy_is_in_force: bool,
) {
    let claimed = !outcome.failed.iter().any(|(step, _)| step.is_gate());
    if read.contains(&Aspect::Tags) && claimed && !desired.is_invalid(Aspect::Tags) {
        let mut ours: BTreeSet<_> = desired.tags.keys().collect();
        for (step, _) in &outcome.failed {
            match step {
                Step::UntagResource(keys) => ours.extend(keys),
                // Another's tag may be there in its stead.
                Step::TagResource(tags) => {
                    ours.retain(|key| !tags.contains_key(*key) || old.managed_tags.contains(key));
                }
                _ => {}
            }
        }
        status.managed_tags = ours.into_iter().cloned().collect();
    }
    let had_policy = old.managed_policies.iter().any(|name| name == POLICY);
    let failed = outcome.failed.iter().map(|(step, _)| step.aspect());
    let mut not_done = failed.chain(outcome.unseen.iter().map(|(aspect, _)| *aspect));
    let still_there =
        had_policy && (!read.contains(&Aspect::Policy) || not_done.any(|aspect| aspect == Aspect::Policy));
    let had_lifecycle = old.managed_policies.iter().any(|name| name == LIFECYCLE);
    let lifecycle = (desired.lifecycle != Wanted::Untouched
        || (had_lifecycle && desired.is_invalid(Aspect::Lifecycle)))
    .then(|| LIFECYCLE.to_owned());
    let policy = (desired.policy != WantedPolicy::Untouched
        || still_there
        || (had_policy && desired.is_invalid(Aspect::Policy)))
    .then(|| POLICY.to_owned());
    let was_unmarked = old.managed_policies.iter().any(|name| name == UNMARKED);
    let unmarked = if policy_is_in_force { desired.policy.is_unmarked() } else { was_unmarked };
    let unmarked = unmarked.then(|| UNMARKED.to_owned());
    status.managed_policies = lifecycle.into_iter().chain(policy).chain(unmarked).collect();
    if outcome.stripped && outcome.done.iter().any(|step| matches!(step, Step::Claim(_))) {
        status.reclaims = Some(outcome.reclaims + 1);
    }
}

/// The aspects that were looked at and are now as declared, and those of which that can't be said.
fn brought_about(read: &[Aspect], outcome: &Outcome) -> (Vec<Aspect>, Vec<Aspect>) {
    let gate_failed = outcome.failed.iter().any(|(step, _)| step.is_gate());
    let flawed = outcome.plan.problems.iter().filter_map(|(aspect, _)| *aspect);
    let unseen = outcome.unseen.iter().map(|(aspect, _)| *aspect);
    let failed: Vec<_> = outcome.failed.iter().map(|(step, _)| step.aspect()).chain(flawed).chain(unseen).collect();
    read.iter().partition(|aspect| !gate_failed && !failed.contains(aspect))
}

fn released(old: &EcrRepositoryStatus, desired: &Desired) -> Option<What> {
    let had = old.managed_policies.iter().any(|name| name == LIFECYCLE);
    let dropped = had && desired.lifecycle == Wanted::Untouched && !desired.is_invalid(Aspect::Lifecycle);
    dropped.then(|| {
        What::done("Released", "lifecyclePolicy is no longer declared; the policy that ECR holds stays as it is")
    })
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
    if context.is_cut_short(&verdict) {
        return Ok(Action::await_change());
    }
    let generation = object.metadata.generation.unwrap_or_default();
    let suspended = verdict.reason == Reason::Suspended;
    if !suspended {
        status.observed_generation = Some(generation);
    }
    let told_of = if suspended { old.observed_generation.unwrap_or(generation) } else { generation };
    status.conditions = conditions(&old.conditions, &verdict, told_of, Timestamp::now());

    let namespace = object.namespace().unwrap_or_default();
    let api: Api<EcrRepository> = Api::namespaced(context.client.clone(), &namespace);
    context.statuses.write(&api, object, object.status.as_ref(), &status).await?;
    // Only now: where that is what fails, the generation stays a new one.
    if old.observed_generation != object.metadata.generation {
        context.attempts.reset(&uid);
    }
    for event in report.events.iter().chain(transition(&old.conditions, &verdict).iter()) {
        context.events.tell(object, event).await;
    }
    context.metrics.reconciled("EcrRepository", verdict.reason);
    Ok(match most_urgent(&report.problems) {
        Some(problem) if problem.reason.class() == Class::Retrying || problem.reason.is_mended_unseen() => {
            Action::requeue(context.retry(&uid, problem))
        }
        // What waits for a change that is seen is looked at in its turn, and not more often than before it waited.
        Some(problem) => {
            let every = context.registries.check_every(&object.spec.registry_ref.name).unwrap_or_default();
            Action::requeue(context.retry(&uid, problem).max(every))
        }
        None => {
            context.checks.clear_suspicion(&uid);
            next_look(object, context, &uid)
        }
    })
}

/// Its turn in the round of checks; a change, or a difference in a snapshot, comes before.
fn next_look(object: &EcrRepository, context: &Context, uid: &str) -> Action {
    context.attempts.reset(uid);
    let Some(every) = context.registries.check_every(&object.spec.registry_ref.name) else {
        return Action::await_change();
    };
    let now = Timestamp::now();
    // A little late rather than a little early: then it would not be its turn yet.
    Action::requeue(wait(now, next_check(context.checks.last(uid), every, uid).max(now)) + Duration::from_millis(5))
}
