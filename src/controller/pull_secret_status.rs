//! What a pull secret's status says of a pass.

use std::collections::BTreeSet;

use futures::StreamExt;
use jiff::Timestamp;
use kube::ResourceExt;
use kube::runtime::controller::Action;

use crate::api::{FailedNamespace, NamespaceCounts, PullSecretStatus, RECONCILE_AT, RegistryStatus};
use crate::cluster::What;
use crate::controller::context::Context;
use crate::controller::pull_secret_kind::PullSecret;
use crate::controller::pull_secret_parse::Desired;
use crate::controller::pull_secret_served::{SOON, Served, turns, until};
use crate::controller::report::transition;
use crate::core::conditions::{Verdict, conditions, is_ready, says};
use crate::core::pull_secret::Login;
use crate::core::reason::{Class, Problem, Reason, gather};
use crate::core::token::{Freshness, Life};

/// Namespaces named in a status at most; all are counted.
const MOST_NAMED: usize = 10;
/// Events under way at once, for one object.
const CONCURRENT_EVENTS: usize = 16;

/// Writes the status, tells what changed, says when to look again.
pub(super) async fn report<K: PullSecret>(
    object: &K,
    context: &Context,
    outcome: Result<(Desired, Served), Problem>,
) -> Result<Action, kube::Error> {
    let now = Timestamp::now();
    let old = object.status().cloned().unwrap_or_default();
    let uid = object.uid().unwrap_or_default();
    let generation = object.meta().generation.unwrap_or_default();
    let mut is_well = false;
    let (mut status, verdict, next) = match &outcome {
        Ok((desired, served)) => {
            let (verdict, problem) = verdict(desired, served, is_ready(&old.conditions, generation), now);
            is_well = problem.is_none();
            let next = problem.map(|problem| context.retry(&uid, &problem));
            (status(object, &old, desired, served), verdict, served.soonest(next, now))
        }
        Err(problem) => {
            let problem = outlived(problem, &old, now);
            let turns = life(&old).into_iter().flat_map(turns);
            let next = turns.filter_map(|at| until(at, now)).chain([context.retry(&uid, &problem)]).min();
            let next = next.unwrap_or(SOON);
            let was_ready = is_ready(&old.conditions, generation);
            (old.clone(), Verdict::held_up(problem, was_ready), next)
        }
    };
    if context.is_cut_short(&verdict) {
        return Ok(Action::await_change());
    }
    let told_of =
        if verdict.reason == Reason::Suspended { old.observed_generation.unwrap_or(generation) } else { generation };
    status.observed_generation = Some(told_of);
    status.conditions = conditions(&old.conditions, &verdict, told_of, now);
    context.statuses.write(&object.api(context.client.clone()), object, object.status(), &status).await?;
    // Only now: that may be what fails.
    if is_well {
        context.attempts.reset(&uid);
    }
    if let Some(event) = transition(&old.conditions, &verdict) {
        context.events.tell(object, &event).await;
    }
    if let Ok((_, served)) = &outcome {
        tell_namespaces(object, context, &old, &verdict, served).await;
    }
    context.metrics.reconciled(&K::kind(&()), verdict.reason);
    context.metrics.pull_secret(&K::kind(&()), object, status.expires_at.as_ref().map(|time| time.0));
    Ok(Action::requeue(next))
}

/// An event for each namespace that fails for another reason than before, where the verdict sums them up.
async fn tell_namespaces<K: PullSecret>(
    object: &K,
    context: &Context,
    old: &PullSecretStatus,
    verdict: &Verdict,
    served: &Served,
) {
    let now = served.failed.iter().map(|(name, problem)| (name.clone(), problem.reason.to_string())).collect();
    let uid = object.uid().unwrap_or_default();
    if verdict.reason != Reason::PartiallyFailed {
        context.failing.untold(&uid, &now);
        return;
    }
    let before = || {
        let told = old.namespaces.iter().filter(|_| says(&old.conditions, Reason::PartiallyFailed));
        let told = told.flat_map(|namespaces| &namespaces.failed);
        told.map(|failed| (failed.name.clone(), failed.reason.split(':').next().unwrap_or_default().to_owned()))
            .collect()
    };
    let news = context.failing.news(&uid, now, before);
    let told = news.iter().filter_map(|namespace| Some((namespace, served.failed.get(namespace)?)));
    let told: Vec<_> = told
        .map(|(namespace, Problem { reason, message })| {
            What::warning(reason.as_str(), format!("namespace {namespace}: {message}"))
        })
        .collect();
    let tell = |event: What| async move { context.events.tell(object, &event).await };
    futures::stream::iter(told).for_each_concurrent(CONCURRENT_EVENTS, tell).await;
}

/// Pure: what the namespaces and tokens add up to.
fn verdict(desired: &Desired, served: &Served, was_ready: bool, now: Timestamp) -> (Verdict, Option<Problem>) {
    let tokens = gather(&overdue(desired, served));
    let lacking = served.lacking(desired);
    let until = match served.first_to_end() {
        _ if !lacking.is_empty() => {
            format!("; Secrets lack a token for {}", Vec::from_iter(lacking.clone()).join(", "))
        }
        Some(marks) => format!("; the last token works until {}", marks.life.expires_at),
        None => String::new(),
    };
    let because = tokens.as_ref().or_else(|| served.failed.values().next());
    let because = because.map(|problem| format!(": {}", problem.message)).unwrap_or_default();
    let hold = |problem: Problem, stays: bool| (Verdict::held_up(problem.clone(), stays), Some(problem));
    match (served.freshness(now), tokens) {
        (Freshness::Expired, _) => {
            return hold(Problem::new(Reason::Expired, format!("the last token is dead, pulls fail{because}")), false);
        }
        (_, Some(problem)) if problem.reason.class() != Class::Retrying => {
            return hold(Problem::new(problem.reason, problem.message + &until), false);
        }
        (Freshness::Stale, Some(_)) => {
            return hold(
                Problem::new(Reason::Stale, format!("renewal is overdue{because}{until}")),
                lacking.is_empty(),
            );
        }
        (_, Some(problem)) => {
            // What should be in the Secrets for a registry that can't be used isn't known.
            let known = desired.failures.is_empty() || was_ready;
            let all_there = served.failed.is_empty() && !served.ready.is_empty() && known && lacking.is_empty();
            return hold(Problem::new(problem.reason, problem.message + &until), all_there);
        }
        (_, None) => {}
    }
    if let Some((namespace, problem)) = served.failed.first_key_value() {
        let alike = served.failed.values().all(|other| other == problem);
        if served.failed.len() == desired.count() && alike {
            return hold(problem.clone(), false);
        }
        let lead = Problem::new(
            Reason::PartiallyFailed,
            format!("{} of {} namespaces aren't served; {namespace}: {problem}", served.failed.len(), desired.count()),
        );
        // Tried again as soon as the first of them may go better.
        let retrying = served.failed.values().find(|problem| problem.reason.class() == Class::Retrying);
        let next = retrying.unwrap_or(problem).clone();
        return (Verdict::held_up(lead, false).of_class(next.reason.class()), Some(next));
    }
    if served.ready.is_empty() && !desired.denied.is_empty() {
        let message = format!(
            "no `allow` rule of its registries lets {} have a token for any of the repositories it asks for; add one with `pull`",
            if desired.denied.len() == 1 {
                format!("namespace {}", desired.denied.first().map_or("", String::as_str))
            } else {
                "any of the selected namespaces".to_owned()
            }
        );
        return hold(Problem::new(Reason::NotAllowed, message), false);
    }
    if let Some((problem, was_ready)) = &served.unverified {
        return hold(problem.clone(), *was_ready && problem.reason.class() == Class::Retrying);
    }
    if let Some(problem) = &served.hindrance {
        return hold(problem.clone(), false);
    }
    let denied = if desired.denied.is_empty() {
        String::new()
    } else {
        format!("; {} selected namespaces aren't allowed", desired.denied.len())
    };
    (Verdict::ready(format!("{} of {} Secrets hold a valid token{denied}", served.ready.len(), desired.count())), None)
}

/// What keeps Secrets that are there from being renewed. (A namespace without one tells its reason itself.)
fn overdue(desired: &Desired, served: &Served) -> Vec<Problem> {
    let served_with = desired.allowed.iter().filter(|(namespace, _)| served.ready.contains_key(*namespace));
    let tokens: BTreeSet<_> = served_with.flat_map(|(_, variant)| &variant.logins).map(|login| &login.token).collect();
    let failures = tokens.into_iter().filter_map(|token| served.tokens.get(token)?.failure.as_ref());
    failures.map(|(error, _)| error.problem("*")).chain(desired.failures.clone()).collect()
}

/// The life of the token that ends first, as it was last told.
fn life(old: &PullSecretStatus) -> Option<Life> {
    Some(Life { issued_at: old.last_refreshed_at.as_ref()?.0, expires_at: old.expires_at.as_ref()?.0 })
}

/// A registry that can't be asked doesn't stop time: Secrets that were written before grow old.
fn outlived(problem: &Problem, old: &PullSecretStatus, now: Timestamp) -> Problem {
    let Some(life) = life(old) else {
        return problem.clone();
    };
    match (life.freshness(now), problem.reason.class()) {
        (_, Class::Held) | (Freshness::Fresh, _) => problem.clone(),
        (Freshness::Expired, _) => {
            Problem::new(Reason::Expired, format!("the last token is dead, pulls fail: {}", problem.message))
        }
        (Freshness::Stale, Class::Retrying) => Problem::new(
            Reason::Stale,
            format!("renewal is overdue: {}; the last token works until {}", problem.message, life.expires_at),
        ),
        (Freshness::Stale, _) => problem.clone(),
    }
}

fn status<K: PullSecret>(object: &K, old: &PullSecretStatus, desired: &Desired, served: &Served) -> PullSecretStatus {
    let first = served.first_to_end();
    let failed = served.failed.iter().take(MOST_NAMED);
    let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
    PullSecretStatus {
        secret_name: Some(desired.name.clone()),
        secrets: Some(format!("{}/{}", served.ready.len(), desired.count())),
        expires_at: first.map(|marks| in_seconds(marks.life.expires_at).into()),
        refresh_at: served.marks().map(|marks| marks.refresh_at).min().map(|at| in_seconds(at).into()),
        last_refreshed_at: first.map(|marks| in_seconds(marks.life.issued_at).into()),
        registries: if desired.waiting.is_empty() {
            let hosts = desired.by_host();
            hosts.iter().map(|(host, logins)| registry(host, logins, old, desired, served)).collect()
        } else {
            old.registries.clone()
        },
        namespaces: Some(NamespaceCounts {
            desired: count(desired.count()),
            ready: count(served.ready.len()),
            denied: count(desired.denied.len()),
            failed: failed
                .map(|(name, problem)| FailedNamespace { name: name.clone(), reason: problem.to_string() })
                .collect(),
        }),
        last_handled_reconcile_at: if served.failures().next().is_none()
            && served.failed.is_empty()
            && desired.waiting.is_empty()
        {
            object.annotations().get(RECONCILE_AT).cloned()
        } else {
            old.last_handled_reconcile_at.clone()
        },
        verified: served.verified.clone(),
        observed_generation: old.observed_generation,
        conditions: Vec::new(),
    }
}

fn registry(
    host: &str,
    logins: &[&Login],
    old: &PullSecretStatus,
    desired: &Desired,
    served: &Served,
) -> RegistryStatus {
    let lookups = || logins.iter().filter_map(|login| served.tokens.get(&login.token));
    // Of the Secrets that are there: what was told before may be of another process, or lag behind.
    let held: BTreeSet<_> = served.marks().map(|marks| &marks.tokens).collect();
    let first_to_end = held.into_iter().filter_map(|lives| lives.end(host)).min();
    let before = old.registries.iter().find(|registry| registry.host == host);
    RegistryStatus {
        host: host.to_owned(),
        caller_arn: logins.first().and_then(|login| desired.issuer(login)).map(|issuer| issuer.caller.clone()),
        expires_at: match first_to_end {
            Some(expires_at) => Some(in_seconds(expires_at).into()),
            None => before.and_then(|before| before.expires_at.clone()),
        },
        error: lookups().find_map(|lookup| lookup.failure.as_ref()).map(|(error, _)| error.to_string()),
    }
}

/// The API's times have no fractions.
fn in_seconds(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}
