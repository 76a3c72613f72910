//! Metrics for Prometheus. Labels are bounded; object names appear on the expiry gauge alone, which alerts need.

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::runtime::reflector::Store;
use kube::{Resource, ResourceExt};
use prometheus_client::encoding::{EncodeLabelSet, text::encode};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::api::EcrRepository;
use crate::core::reason::Reason;

/// Of a repository that nobody looked at so far, or whose reason this version doesn't know.
const UNKNOWN: &str = "Unknown";

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Passes {
    kind: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct State {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    kind: String,
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Object {
    kind: String,
    namespace: String,
    name: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AwsCall {
    api: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AwsApi {
    api: &'static str,
    account: String,
    region: String,
}

/// The metrics of this process.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    reconciles: Family<Outcome, Counter>,
    took: Family<Passes, Histogram, fn() -> Histogram>,
    last_success: Family<Passes, Gauge>,
    states: Family<State, Gauge>,
    repositories: Arc<OnceLock<Store<EcrRepository>>>,
    expiry: Family<Object, Gauge>,
    aws_calls: Family<AwsCall, Counter>,
    aws_rates: Family<AwsApi, Gauge<f64, AtomicU64>>,
    ready: Gauge,
    leader: Gauge,
    panics: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        let (reconciles, expiry) = (Family::default(), Family::default());
        // From 10 ms to a minute and a half.
        let took: Family<_, _, fn() -> Histogram> =
            Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.01, 2.5, 11)));
        let (last_success, states) = (Family::default(), Family::default());
        let (aws_calls, aws_rates) = (Family::default(), Family::default());
        let (ready, leader, panics) = (Gauge::default(), Gauge::default(), Counter::default());
        let mut registry = Registry::with_prefix("ecr_operator");
        registry.register(
            "reconciles",
            "Passes over an object, by kind and the reason its Ready condition then had",
            reconciles.clone(),
        );
        registry.register("reconcile_seconds", "How long a pass over an object took, by kind", took.clone());
        registry.register(
            "last_success_timestamp_seconds",
            "When a pass over an object last ended in Ready, by kind, as Unix time",
            last_success.clone(),
        );
        registry.register(
            "repositories",
            "EcrRepositories by the reason of their Ready condition; of the process that works alone",
            states.clone(),
        );
        registry.register(
            "pull_secret_expiry_timestamp_seconds",
            "When the first token in the Secrets of a pull secret expires, as Unix time",
            expiry.clone(),
        );
        registry.register("aws_calls", "Calls to AWS, by API and how they ended", aws_calls.clone());
        registry.register(
            "aws_learned_rate",
            "Calls a second that an account grants to an API, as learned; there is none before its first throttling",
            aws_rates.clone(),
        );
        registry.register("ready", "1 once all objects were read", ready.clone());
        registry.register("leader", "Whether this process is the one that works", leader.clone());
        registry.register("panics", "Passes that panicked", panics.clone());
        registry.register("build", "This build", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        Self {
            registry: Arc::new(registry),
            reconciles,
            took,
            last_success,
            states,
            repositories: Arc::default(),
            expiry,
            aws_calls,
            aws_rates,
            ready,
            leader,
            panics,
        }
    }
}

impl Metrics {
    /// One pass.
    pub fn reconciled(&self, kind: &str, reason: Reason) {
        self.reconciles.get_or_create(&Outcome { kind: kind.to_owned(), reason: reason.as_str() }).inc();
        if reason == Reason::Ready {
            let labels = Passes { kind: kind.to_owned() };
            self.last_success.get_or_create(&labels).set(Timestamp::now().as_second());
        }
    }

    /// How long a pass took, whatever came of it.
    pub fn took(&self, kind: &str, time: Duration) {
        self.took.get_or_create(&Passes { kind: kind.to_owned() }).observe(time.as_secs_f64());
    }

    /// The repositories that are counted, whenever somebody asks: so none that is gone is counted on.
    pub fn count(&self, repositories: Store<EcrRepository>) {
        let _ = self.repositories.set(repositories);
    }

    /// When the Secrets of a pull secret expire; `None` where it has none (any more).
    pub fn pull_secret<K: Resource>(&self, kind: &str, object: &K, expires_at: Option<Timestamp>) {
        if let Some(at) = expires_at {
            self.expiry.get_or_create(&labels(kind, object)).set(at.as_second());
        } else {
            self.expiry.remove(&labels(kind, object));
        }
    }

    /// It is gone.
    pub fn pull_secret_gone(&self, kind: &str, namespace: &str, name: &str) {
        let labels = Object { kind: kind.to_owned(), namespace: namespace.to_owned(), name: name.to_owned() };
        self.expiry.remove(&labels);
    }

    /// A pass panicked.
    pub fn panicked(&self) {
        self.panics.inc();
    }

    /// All objects were read.
    pub fn ready(&self) {
        self.ready.set(1);
    }

    /// A call to AWS ended.
    pub fn called(&self, api: &'static str, outcome: &'static str) {
        self.aws_calls.get_or_create(&AwsCall { api, outcome }).inc();
    }

    /// How fast an API may be called.
    pub fn learned_rate(&self, api: &'static str, account: &str, region: &str, rate: f64) {
        let labels = AwsApi { api, account: account.to_owned(), region: region.to_owned() };
        self.aws_rates.get_or_create(&labels).set(rate);
    }

    /// Whether this process is the one that works.
    pub fn leading(&self, leads: bool) {
        self.leader.set(leads.into());
    }

    /// In the text format of Prometheus.
    ///
    /// # Errors
    /// Where it can't be written.
    pub fn text(&self) -> Result<String, std::fmt::Error> {
        self.count_repositories();
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }

    fn count_repositories(&self) {
        let Some(repositories) = self.repositories.get().filter(|_| self.leader.get() == 1) else {
            // Else it would be told twice: the cache of a standby is as warm.
            return self.states.clear();
        };
        let mut counts = HashMap::<_, i64>::new();
        for repository in repositories.state() {
            *counts.entry(state(&repository)).or_default() += 1;
        }
        // All of them: a series that comes and goes can't be summed up.
        for reason in Reason::ALL.map(Reason::as_str).into_iter().chain([UNKNOWN]) {
            self.states.get_or_create(&State { reason }).set(counts.get(reason).copied().unwrap_or_default());
        }
    }
}

fn state(repository: &EcrRepository) -> &'static str {
    let mut conditions = repository.status.iter().flat_map(|status| &status.conditions);
    let ready = conditions.find(|condition| condition.type_ == "Ready");
    let known = |ready: &Condition| Reason::ALL.into_iter().map(Reason::as_str).find(|reason| *reason == ready.reason);
    ready.and_then(known).unwrap_or(UNKNOWN)
}

fn labels<K: Resource>(kind: &str, object: &K) -> Object {
    Object { kind: kind.to_owned(), namespace: object.namespace().unwrap_or_default(), name: object.name_any() }
}

#[cfg(test)]
mod tests {
    use kube::runtime::reflector::store::Writer;
    use kube::runtime::watcher::Event;
    use serde_json::json;

    use super::*;

    fn repository(name: &str, reason: Option<&str>) -> EcrRepository {
        let condition = |reason| json!({"type": "Ready", "status": "True", "reason": reason, "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"});
        let conditions: Vec<_> = reason.map(condition).into_iter().collect();
        let object = json!({
            "apiVersion": "ecr-operator.dev/v1alpha1", "kind": "EcrRepository",
            "metadata": {"namespace": "team-a", "name": name}, "spec": {}, "status": {"conditions": conditions},
        });
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn repositories_are_counted_by_reason_by_the_one_that_works_and_no_longer_than_they_are_there() {
        let (metrics, mut writer) = (Metrics::default(), Writer::<EcrRepository>::new(()));
        metrics.count(writer.as_reader());
        let count = |reason: &str| {
            let (text, series) =
                (metrics.text().unwrap(), format!("ecr_operator_repositories{{reason=\"{reason}\"}} "));
            text.lines().find_map(|line| line.strip_prefix(&series)?.parse::<u32>().ok())
        };
        let all = [("a", Some("Ready")), ("b", Some("Ready")), ("c", Some("Denied")), ("d", None), ("e", Some("Else"))];
        for (name, reason) in all {
            writer.apply_watcher_event(&Event::Apply(repository(name, reason)));
        }
        assert_eq!(count("Ready"), None, "a standby tells nothing");
        metrics.leading(true);
        assert_eq!(["Ready", "Denied", "Unknown", "Throttled"].map(count), [2, 1, 2, 0].map(Some));
        assert_eq!(count("Else"), None, "labels are bounded");
        writer.apply_watcher_event(&Event::Delete(repository("a", None)));
        writer.apply_watcher_event(&Event::Apply(repository("c", Some("Ready"))));
        assert_eq!(["Ready", "Denied"].map(count), [2, 0].map(Some));
        metrics.leading(false);
        assert_eq!(count("Ready"), None);
    }

    #[test]
    fn passes_are_timed_by_kind_and_only_a_good_one_is_a_success() {
        let metrics = Metrics::default();
        metrics.took("EcrRepository", Duration::from_millis(300));
        metrics.reconciled("EcrRegistry", Reason::Denied);
        metrics.reconciled("EcrRepository", Reason::Ready);
        let text = metrics.text().unwrap();
        assert!(text.contains("ecr_operator_reconcile_seconds_count{kind=\"EcrRepository\"} 1"), "{text}");
        assert!(text.contains("ecr_operator_reconcile_seconds_sum{kind=\"EcrRepository\"} 0.3"), "{text}");
        let successes: Vec<_> =
            text.lines().filter(|line| line.starts_with("ecr_operator_last_success_timestamp_seconds{")).collect();
        assert!(successes.len() == 1 && successes[0].contains("kind=\"EcrRepository\""), "{successes:?}");
    }
}
