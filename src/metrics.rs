//! Metrics for Prometheus. Labels are bounded; object names appear on the expiry gauge alone, which alerts need.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use jiff::Timestamp;
use kube::{Resource, ResourceExt};
use prometheus_client::encoding::{EncodeLabelSet, text::encode};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::core::reason::Reason;

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
        let (aws_calls, aws_rates) = (Family::default(), Family::default());
        let (ready, leader, panics) = (Gauge::default(), Gauge::default(), Counter::default());
        let mut registry = Registry::with_prefix("ecr_operator");
        registry.register(
            "reconciles",
            "Passes over an object, by kind and the reason its Ready condition then had",
            reconciles.clone(),
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
        Self { registry: Arc::new(registry), reconciles, expiry, aws_calls, aws_rates, ready, leader, panics }
    }
}

impl Metrics {
    /// One pass.
    pub fn reconciled(&self, kind: &str, reason: Reason) {
        self.reconciles.get_or_create(&Outcome { kind: kind.to_owned(), reason: reason.as_str() }).inc();
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
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

fn labels<K: Resource>(kind: &str, object: &K) -> Object {
    Object { kind: kind.to_owned(), namespace: object.namespace().unwrap_or_default(), name: object.name_any() }
}
