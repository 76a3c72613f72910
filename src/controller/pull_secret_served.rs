//! What became of a pull secret's namespaces in one pass, and when it is looked at again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;

use crate::aws::{AwsError, Lookup};
use crate::controller::pull_secret_parse::{Desired, Variant};
use crate::core::pull_secret::{Marks, Seen, TokenLives};
use crate::core::reason::{Problem, Reason, gather};
use crate::core::token::{Freshness, Life, TokenKey, wait};

/// After a conflict with another writer.
pub(super) const SOON: Duration = Duration::from_millis(200);

/// What asking for tokens gave.
pub(super) type Tokens = BTreeMap<TokenKey, Lookup>;

/// What became of the namespaces.
#[derive(Debug, Default)]
pub struct Served {
    /// Hold the Secret, with what is noted on it.
    pub ready: BTreeMap<String, Marks>,
    /// Do not.
    pub(super) failed: BTreeMap<String, Problem>,
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
    pub(super) fn failures(&self) -> impl Iterator<Item = &(AwsError, Timestamp)> {
        self.tokens.values().filter_map(|lookup| lookup.failure.as_ref())
    }

    /// A namespace for which nothing can be had just now, because of `failures`: it is served by what is `there`.
    pub fn keep(&mut self, namespace: &str, there: Option<&Seen>, failures: &[Problem]) {
        if let Some(marks) = there.and_then(Seen::intact) {
            self.ready.insert(namespace.to_owned(), marks.clone());
        } else {
            let problem = gather(failures).unwrap_or_else(|| Problem::new(Reason::Transient, "no token yet"));
            self.grow_old(namespace, there, problem);
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
    pub(super) fn lacking<'a>(&self, desired: &'a Desired) -> BTreeSet<&'a str> {
        let held = desired.allowed.iter().filter_map(|(namespace, variant)| {
            let marks = self.ready.get(namespace)?;
            Some(((&variant.content, &marks.tokens), &**variant))
        });
        let held: BTreeMap<_, _> = held.collect();
        held.into_iter().flat_map(|((_, tokens), variant)| tokens.lacking(variant.wanted())).collect()
    }

    /// What is noted on all Secrets that are there.
    pub(super) fn marks(&self) -> impl Iterator<Item = &Marks> {
        self.ready.values().chain(&self.unready)
    }

    /// The marks whose token ends first.
    pub(super) fn first_to_end(&self) -> Option<&Marks> {
        self.marks().min_by_key(|marks| marks.life.expires_at)
    }

    pub(super) fn freshness(&self, now: Timestamp) -> Freshness {
        self.first_to_end().map_or(Freshness::Fresh, |marks| marks.life.freshness(now))
    }

    /// How long until something is due; `retry`: for what failed.
    pub(super) fn soonest(&self, retry: Option<Duration>, now: Timestamp) -> Duration {
        let renewals = self.marks().map(|marks| marks.refresh_at);
        let turns = self.first_to_end().into_iter().flat_map(|marks| turns(marks.life));
        let retries = self.failures().map(|(_, at)| *at);
        let due = renewals.chain(turns).chain(retries).chain(self.look_at).filter_map(|at| until(at, now)).min();
        let soon = self.again_soon.then_some(SOON);
        [due, retry, soon].into_iter().flatten().min().unwrap_or(Duration::from_hours(1))
    }
}

/// The moments at which what is told of a token changes, or what is done about it.
pub(super) fn turns(life: Life) -> [Timestamp; 3] {
    [life.stale_at(), life.dies_soon_at(), life.expires_at]
}

/// A little late rather than a little early: at that moment it is due, not before. `None` where that has passed.
pub(super) fn until(at: Timestamp, now: Timestamp) -> Option<Duration> {
    (at > now).then(|| wait(now, at) + Duration::from_millis(5))
}

#[cfg(test)]
#[path = "pull_secret_served_tests.rs"]
mod tests;
