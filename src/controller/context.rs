//! What every reconcile has at hand.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, Secret as KubeSecret, ServiceAccount};
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Client, Resource, ResourceExt};
use tokio::sync::broadcast;
use tokio::sync::mpsc::UnboundedSender;
use tokio_util::sync::CancellationToken;

use crate::api::{ClusterEcrPullSecret, EcrPullSecret, EcrRegistry, EcrRepository};
use crate::aws::{Clocks, RegistryClient, Snapshots, Tokens};
use crate::cluster::{Events, Gone, MergedSecrets, Statuses};
use crate::controller::checks::Checks;
use crate::controller::contests::Contests;
use crate::controller::pull_secret_verify::Verified;
use crate::controller::registries::Registries;
use crate::controller::stuck_pods::StuckPods;
use crate::core::backoff;
use crate::core::conditions::Verdict;
use crate::core::reason::{Class, Problem, Reason};
use crate::metrics::Metrics;
use crate::server::Health;

/// What is watched.
#[derive(Debug, Clone)]
pub struct Stores {
    /// All of them.
    pub registries: Store<EcrRegistry>,
    /// All of them.
    pub repositories: Store<EcrRepository>,
    /// All of them.
    pub pull_secrets: Store<EcrPullSecret>,
    /// All of them.
    pub cluster_pull_secrets: Store<ClusterEcrPullSecret>,
    /// Metadata of all of them.
    pub namespaces: Store<PartialObjectMeta<Namespace>>,
    /// Metadata of those that bear our label.
    pub secrets: Store<PartialObjectMeta<KubeSecret>>,
    /// All of them, pruned.
    pub service_accounts: Store<ServiceAccount>,
}

impl Stores {
    /// Whether there is a pull secret, of either kind, with this UID.
    #[must_use]
    pub fn is_pull_secret(&self, uid: &str) -> bool {
        self.pull_secrets.find(|object| object.metadata.uid.as_deref() == Some(uid)).is_some()
            || self.cluster_pull_secrets.find(|object| object.metadata.uid.as_deref() == Some(uid)).is_some()
    }
}

/// What every reconcile has at hand.
pub struct Context {
    /// The API server.
    pub client: Client,
    /// Marks what this cluster owns in AWS.
    pub owner_id: String,
    /// What is watched.
    pub stores: Stores,
    /// AWS, by registry.
    pub registries: Registries,
    /// Tokens, shared by all pull secrets.
    pub tokens: Tokens,
    /// Image registries, as whoever pulls sees them.
    pub registry_client: RegistryClient,
    /// What time it is.
    pub clocks: Clocks,
    /// Which queues move.
    pub health: Health,
    /// Which pull secrets' tokens were seen to be let in.
    pub verified: Verified,
    /// Secrets that are shared with others.
    pub merged_secrets: MergedSecrets,
    /// Told to people.
    pub events: Events,
    /// Written to objects.
    pub statuses: Statuses,
    /// Told to Prometheus.
    pub metrics: Metrics,
    /// Failures in a row, by object.
    pub attempts: Attempts,
    /// When new tokens were asked for.
    pub renewals: Renewals,
    /// Who wants stuck pods restarted.
    pub stuck_pods: Arc<StuckPods>,
    /// Over ServiceAccounts.
    pub contests: Contests,
    /// Namespaces that pull secrets can't serve.
    pub failing: FailingNamespaces,
    /// When repositories were last checked.
    pub checks: Checks,
    /// Of registries' repositories.
    pub snapshots: Snapshots,
    /// Asks for a look at a repository.
    pub repositories: UnboundedSender<ObjectRef<EcrRepository>>,
    /// Registries as they were last found.
    pub registry_seen: Changes,
    /// Registries that became other than they were.
    pub registry_changed: broadcast::Sender<RegistryChange>,
    /// Once the process is to end.
    pub stop: CancellationToken,
}

impl Context {
    /// The labels of a namespace.
    ///
    /// # Errors
    /// Where it isn't known (yet).
    pub fn namespace_labels(&self, name: &str) -> Result<BTreeMap<String, String>, Problem> {
        let namespace = self.stores.namespaces.get(&ObjectRef::new(name));
        let namespace =
            namespace.ok_or_else(|| Problem::new(Reason::Transient, format!("namespace {name} isn't known yet")))?;
        Ok(namespace.labels().clone())
    }

    /// Forgets an object that is gone.
    pub fn forget(&self, kind: &str, gone: &Gone) {
        self.attempts.reset(&gone.uid);
        self.statuses.forget(&gone.uid);
        self.checks.forget(&gone.uid);
        self.renewals.forget(&gone.uid);
        self.verified.forget(&gone.uid);
        self.stuck_pods.want(&gone.uid, None);
        self.contests.forget(&gone.uid);
        self.failing.forget(&gone.uid);
        self.merged_secrets.forget(&gone.uid);
        self.metrics.pull_secret_gone(kind, &gone.namespace, &gone.name);
        if kind == EcrRegistry::kind(&()) {
            self.registry_seen.forget(&gone.name);
            self.registries.forget(&gone.name);
            self.snapshots.forget(&gone.name);
        }
    }

    /// Whether a pass came to this because the process is ending: that says nothing of the object, and the next operator
    /// looks at it anew.
    #[must_use]
    pub fn is_cut_short(&self, verdict: &Verdict) -> bool {
        self.stop.is_cancelled() && verdict.reason.class() == Class::Retrying
    }

    /// When to look at an object again that `problem` holds up.
    pub fn retry(&self, uid: &str, problem: &Problem) -> Duration {
        match problem.reason.class() {
            Class::Converged | Class::Held => SLOW,
            // Its remedy is a change, which is seen at once; this is for those that can't be seen.
            Class::Stalled => backoff::Backoff { first: SLOW, most: SLOW }.after(1, uid),
            // Images go when a person or a policy removes them, not within seconds.
            Class::Retrying if problem.reason == Reason::RepositoryNotEmpty => {
                backoff::Backoff { first: Duration::from_secs(30), ..backoff::OBJECT }
                    .after(self.attempts.failed(uid), uid)
            }
            Class::Retrying => backoff::OBJECT.after(self.attempts.failed(uid), uid),
        }
    }
}

/// Between looks at what only a person can mend.
const SLOW: Duration = Duration::from_mins(10);

/// Failures in a row, by object.
#[derive(Debug, Default)]
pub struct Attempts(Mutex<HashMap<String, u32>>);

impl Attempts {
    /// One more. Returns how many that makes.
    pub fn failed(&self, uid: &str) -> u32 {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let times = all.entry(uid.to_owned()).or_default();
        *times = times.saturating_add(1);
        *times
    }

    /// It went well, or the object is gone.
    pub fn reset(&self, uid: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }
}

/// How a state compares with the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// There was none.
    First,
    /// It is the same.
    Same,
    /// It is another.
    Other,
}

/// A registry that became other than it was.
#[derive(Debug, Clone)]
pub struct RegistryChange {
    /// Its name.
    pub name: String,
    /// Only those that aren't Ready need to know: it was never seen before.
    pub first: bool,
}

/// Tells a new state from the one that was there before, by name.
#[derive(Debug, Default)]
pub struct Changes(Mutex<HashMap<String, u64>>);

impl Changes {
    /// How `state` compares with the last one told for `name`.
    pub fn tell(&self, name: &str, state: u64) -> Change {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match last.insert(name.to_owned(), state) {
            None => Change::First,
            Some(before) if before == state => Change::Same,
            Some(_) => Change::Other,
        }
    }

    /// It is gone.
    pub fn forget(&self, name: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }
}

/// When new tokens were asked for by annotation: a wish is for tokens issued since it was first seen, at however many passes.
#[derive(Debug, Default)]
pub struct Renewals(Mutex<HashMap<String, (String, Timestamp)>>);

impl Renewals {
    /// When the wish `asked` of this object was first seen.
    pub fn since(&self, uid: &str, asked: &str, now: Timestamp) -> Timestamp {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = all.entry(uid.to_owned()).or_insert_with(|| (asked.to_owned(), now));
        if known.0 != asked {
            *known = (asked.to_owned(), now);
        }
        known.1
    }

    /// The object is gone.
    pub fn forget(&self, uid: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }
}

/// Reasons by namespace.
pub type Reasons = BTreeMap<String, String>;

/// The namespaces that a pull secret couldn't serve, as last told: a status names the first ten only.
#[derive(Debug, Default)]
pub struct FailingNamespaces(Mutex<HashMap<String, Reasons>>);

impl FailingNamespaces {
    /// Those of `now`, which is told, that weren't failing for that reason before. `first` is what was told before this
    /// process, as far as known.
    pub fn news(&self, uid: &str, now: Reasons, first: impl FnOnce() -> Reasons) -> Vec<String> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = all.remove(uid).unwrap_or_else(first);
        let news = now.iter().filter(|(namespace, reason)| before.get(*namespace) != Some(reason));
        let news = news.map(|(namespace, _)| namespace.clone()).collect();
        if !now.is_empty() {
            all.insert(uid.to_owned(), now);
        }
        news
    }

    /// Nothing is told just now. What no longer fails as in `now` is news when it fails again.
    pub fn untold(&self, uid: &str, now: &Reasons) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(told) = all.get_mut(uid) {
            told.retain(|namespace, reason| now.get(namespace) == Some(reason));
        }
    }

    /// The object is gone.
    pub fn forget(&self, uid: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_news_until_it_was_told_and_again_once_it_was_mended() {
        let failing = FailingNamespaces::default();
        let now = |namespaces: &[&str]| {
            namespaces.iter().map(|name| ((*name).to_owned(), "Denied".to_owned())).collect::<Reasons>()
        };
        assert_eq!(failing.news("u", now(&["a"]), Reasons::new), ["a"]);
        failing.untold("u", &now(&["a", "b"]));
        assert_eq!(failing.news("u", now(&["a", "b"]), Reasons::new), ["b"]);
        failing.untold("u", &now(&["b"]));
        assert_eq!(failing.news("u", now(&["a", "b"]), Reasons::new), ["a"]);
        failing.untold("other", &now(&["a"]));
        assert_eq!(failing.news("other", now(&["a", "b"]), || now(&["b"])), ["a"], "told before a restart");
    }
}
