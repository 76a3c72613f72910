//! What a pull secret's status says of a pass.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use kube::ResourceExt;
use kube::runtime::controller::Action;

use crate::api::{FailedNamespace, NamespaceCounts, PullSecretStatus, RECONCILE_AT, RegistryStatus};
use crate::aws::{AwsError, Lookup};
use crate::cluster::What;
use crate::controller::context::Context;
use crate::controller::pull_secret_kind::PullSecret;
use crate::controller::pull_secret_parse::{Desired, Variant};
use crate::controller::report::transition;
use crate::core::conditions::{Verdict, conditions, is_ready, says};
use crate::core::pull_secret::{Login, Marks, Seen, TokenLives};
use crate::core::reason::{Class, Problem, Reason, gather};
use crate::core::token::{Freshness, Life, TokenKey, wait};

/// Namespaces named in a status at most; all are counted.
const MOST_NAMED: usize = 10;
/// Events under way at once, for one object.
const CONCURRENT_EVENTS: usize = 16;
/// After a conflict with another writer.
const SOON: Duration = Duration::from_millis(200);

/// What asking for tokens gave.
pub(super) type Tokens = BTreeMap<TokenKey, Lookup>;

/// What became of the namespaces.
#[derive(Debug, Default)]
pub struct Served {
    /// Hold the Secret, with what is noted on it.
    pub ready: BTreeMap<String, Marks>,
    /// Do not.
    failed: BTreeMap<String, Problem>,
    /// What is noted on Secrets in those namespaces: they age as well.
    unready: Vec<Marks>,
    /// Are going away.
    pub terminating: BTreeSet<String>,
    /// What asking for tokens gave, as far as it was asked.
    pub(super) tokens: Tokens,
    /// Somebody else wrote at the same time.
    pub again_soon: bool,
    /// What keeps the operator from doing all that is asked for beside the Secrets.
    pub hindrance: Option<Problem>,
    /// When to look at what somebody keeps undoing.
    look_at: Option<Timestamp>,
    /// Why a registry doesn't let the tokens read what is to be verified, and whether it once did.
    pub(super) unverified: Option<(Problem, bool)>,
    /// A name for all that was verified.
    pub(super) verified: Option<String>,
}

impl Served {
    /// Why tokens couldn't be renewed, and when that is tried again.
    fn failures(&self) -> impl Iterator<Item = &(AwsError, Timestamp)> {
        self.tokens.values().filter_map(|lookup| lookup.failure.as_ref())
    }

    /// A namespace for which nothing can be had just now, because of `failures`: it is served by what is `there`.
    pub fn keep(&mut self, namespace: &str, there: Option<&Seen>, failures: &[Problem]) {
        self.ready.extend(there.and_then(|seen| Some((namespace.to_owned(), seen.marks.clone()?))));
        if !there.is_some_and(Seen::is_intact) || !self.ready.contains_key(namespace) {
            let problem = gather(failures).unwrap_or_else(|| Problem::new(Reason::Transient, "no token yet"));
            self.fail(namespace.to_owned(), problem);
        }
    }

    /// A namespace that isn't served any more, where what is `there` grows old.
    pub fn grow_old(&mut self, namespace: &str, there: Option<&Seen>, problem: Problem) {
        self.unready.extend(there.and_then(|seen| seen.marks.clone()));
        self.fail(namespace.to_owned(), problem);
    }

    /// A namespace that isn't served.
    pub fn fail(&mut self, namespace: String, problem: Problem) {
        self.unready.extend(self.ready.remove(&namespace));
        self.failed.insert(namespace, problem);
    }

    /// A namespace where somebody keeps undoing what is done, and is left alone until then.
    pub fn contested(&mut self, namespace: String, until: Timestamp, problem: Problem) {
        self.look_at(until);
        self.fail(namespace, problem);
    }

    /// There is something to look at then.
    pub fn look_at(&mut self, at: Timestamp) {
        self.look_at = Some(self.look_at.map_or(at, |first| first.min(at)));
    }

    /// Whether the namespace is wanted and only just now not served.
    #[must_use]
    pub fn is_held_up(&self, namespace: &str) -> bool {
        self.failed.contains_key(namespace)
    }

    /// What is in the Secrets, each once, with the lives of its tokens.
    pub(super) fn contents<'a>(&self, desired: &'a Desired) -> BTreeMap<&'a str, (&'a Variant, TokenLives)> {
        let there = |namespace: &String| self.ready.get(namespace).map(|marks| marks.tokens.clone());
        let held = desired.allowed.iter().filter_map(|(namespace, variant)| Some((variant, there(namespace)?)));
        held.map(|(variant, tokens)| (variant.content.as_str(), (&**variant, tokens))).collect()
    }

    /// Hosts for which not all Secrets that are there have a token.
    fn lacking<'a>(&self, desired: &'a Desired) -> BTreeSet<&'a str> {
        let held = desired.allowed.iter().filter_map(|(namespace, variant)| {
            let marks = self.ready.get(namespace)?;
            Some(((&variant.content, &marks.tokens), &**variant))
        });
        let held: BTreeMap<_, _> = held.collect();
        held.into_iter().flat_map(|((_, tokens), variant)| tokens.lacking(variant.wanted())).collect()
    }

    /// What is noted on all Secrets that are there.
    fn marks(&self) -> impl Iterator<Item = &Marks> {
        self.ready.values().chain(&self.unready)
    }

    /// The marks whose token ends first.
    fn first_to_end(&self) -> Option<&Marks> {
        self.marks().min_by_key(|marks| marks.life.expires_at)
    }

    fn freshness(&self, now: Timestamp) -> Freshness {
        self.first_to_end().map_or(Freshness::Fresh, |marks| marks.life.freshness(now))
    }
}

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
            (status(object, &old, desired, served), verdict, soonest(served, next, now))
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

/// The moments at which what is told of a token changes, or what is done about it.
fn turns(life: Life) -> [Timestamp; 3] {
    [life.stale_at(), life.dies_soon_at(), life.expires_at]
}

/// A little late rather than a little early: at that moment it is due, not before. `None` where that has passed.
fn until(at: Timestamp, now: Timestamp) -> Option<Duration> {
    (at > now).then(|| wait(now, at) + Duration::from_millis(5))
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

/// The next moment at which something is due.
fn soonest(served: &Served, retry: Option<Duration>, now: Timestamp) -> Duration {
    let renewals = served.marks().map(|marks| marks.refresh_at);
    let turns = served.first_to_end().into_iter().flat_map(|marks| turns(marks.life));
    let retries = served.failures().map(|(_, at)| *at);
    let due = renewals.chain(turns).chain(retries).chain(served.look_at).filter_map(|at| until(at, now)).min();
    let soon = served.again_soon.then_some(SOON);
    [due, retry, soon].into_iter().flatten().min().unwrap_or(Duration::from_hours(1))
}

/// The API's times have no fractions.
fn in_seconds(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

#[cfg(test)]
#[path = "pull_secret_status_tests.rs"]
mod tests;
