//! The election: keeps the Lease, or waits for it. What is to be done says [`crate::core::lease`].

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::PostParams;
use kube::{Api, Client, ResourceExt};
use tokio_util::sync::CancellationToken;

use crate::cluster::{is_conflict, is_not_found, words};
use crate::core::lease::{Candidate, Claim, Next, RELEASED, Record, Terms};
use crate::metrics::Metrics;
use crate::tenure::{Moment, Tenure};

/// Another process took over: this one can't go on, for what it knows may be old.
#[derive(Debug, thiserror::Error)]
#[error("lease {lease} is now held by {holder}: this process stops, and starts anew as a standby")]
pub struct Lost {
    /// `namespace/name`.
    pub lease: String,
    /// Who holds it.
    pub holder: String,
}

/// A process's part in the election.
pub struct Election {
    api: Api<Lease>,
    name: String,
    namespace: String,
    me: String,
    terms: Terms,
    candidate: Candidate,
    /// As it was last seen.
    lease: Option<Lease>,
    tenure: Tenure,
    metrics: Metrics,
    started: Moment,
    told: Option<String>,
}

impl Election {
    /// Takes part as `me`, which no other process ever was, for the Lease `name`. `client` must not be bound to `tenure`,
    /// which is what is elected for.
    #[must_use]
    pub fn new(
        client: Client,
        namespace: &str,
        name: String,
        me: String,
        terms: Terms,
        tenure: Tenure,
        metrics: Metrics,
    ) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            candidate: Candidate::new(me.clone(), terms),
            lease: None,
            namespace: namespace.to_owned(),
            started: Moment::now(),
            told: None,
            name,
            me,
            terms,
            tenure,
            metrics,
        }
    }

    /// Goes on until `stop`, then lets go of the Lease.
    ///
    /// # Errors
    /// Where this process held it, and another does now.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), Lost> {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                turn = self.turn() => turn?,
            }
            self.metrics.leading(self.tenure.holds());
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = tokio::time::sleep(self.terms.retry) => {}
            }
        }
        self.release().await;
        Ok(())
    }

    /// One look, and what follows from it; a second one where somebody else was quicker.
    async fn turn(&mut self) -> Result<(), Lost> {
        for _ in 0..4 {
            match self.candidate.next(self.now()) {
                Next::Look => match self.look().await {
                    Ok(()) => {}
                    Err(error) => {
                        tracing::warn!(lease = self.name, %error, "the lease can't be read");
                        return Ok(());
                    }
                },
                Next::Wait => {
                    self.tell();
                    self.candidate.doubt();
                    return Ok(());
                }
                Next::Lost(holder) => {
                    self.tenure.end();
                    self.metrics.leading(false);
                    return Err(Lost { lease: format!("{}/{}", self.namespace, self.name), holder });
                }
                Next::Write(claim) => {
                    if self.write(claim).await {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    async fn look(&mut self) -> Result<(), Failed> {
        self.lease = self.in_time(self.api.get_opt(&self.name)).await?;
        let now = self.now();
        self.candidate.observe(self.lease.as_ref().map(|lease| record(lease, self.terms)), now);
        Ok(())
    }

    /// Whether that was all for this turn: where somebody else was quicker, there is more to be seen.
    async fn write(&mut self, claim: Claim) -> bool {
        let (sent, sent_at) = (Moment::now(), self.now());
        let lease = self.claimed(claim);
        let params = PostParams::default();
        let written = if self.lease.is_some() {
            self.in_time(self.api.replace(&self.name, &params, &lease)).await
        } else {
            self.in_time(self.api.create(&params, &lease)).await
        };
        match written {
            Ok(lease) => {
                let now = self.now();
                self.candidate.claimed(record(&lease, self.terms), sent_at, now);
                self.lease = Some(lease);
                if self.candidate.holds(now) {
                    self.tenure.extend(sent, self.terms.renew_within);
                }
                self.tell();
                true
            }
            Err(Failed::Api(error)) if is_conflict(&error) || is_not_found(&error) => {
                self.candidate.doubt();
                false
            }
            Err(error) => {
                tracing::warn!(lease = self.name, %error, "the lease can't be written");
                self.candidate.doubt();
                true
            }
        }
    }

    fn claimed(&self, claim: Claim) -> Lease {
        let now = MicroTime(jiff::Timestamp::now());
        let mut lease = self.over();
        let spec = lease.spec.get_or_insert_default();
        spec.holder_identity = Some(self.me.clone());
        spec.lease_duration_seconds = i32::try_from(self.terms.duration.as_secs()).ok();
        spec.lease_transitions = Some(claim.transitions);
        spec.renew_time = Some(now.clone());
        if !claim.renews {
            spec.acquire_time = Some(now);
        }
        lease
    }

    /// So that the next needn't wait. Whatever fails here, it will only wait longer.
    async fn release(&mut self) {
        self.tenure.end();
        self.metrics.leading(false);
        self.candidate.doubt();
        if self.look().await.is_err() || !self.candidate.release(self.now()) {
            return;
        }
        let now = MicroTime(jiff::Timestamp::now());
        let mut lease = self.over();
        let spec = lease.spec.get_or_insert_default();
        spec.holder_identity = None;
        spec.lease_duration_seconds = i32::try_from(RELEASED.as_secs()).ok();
        spec.renew_time = Some(now);
        match self.in_time(self.api.replace(&self.name, &PostParams::default(), &lease)).await {
            Ok(_) => tracing::info!(lease = self.name, "lease released"),
            Err(error) => tracing::warn!(lease = self.name, %error, "the lease can't be released"),
        }
    }

    /// The Lease to be written over the one that was seen: that very version of it, or none.
    fn over(&self) -> Lease {
        let new = || Lease {
            metadata: ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() },
            spec: Some(LeaseSpec::default()),
        };
        let mut lease = self.lease.clone().unwrap_or_else(new);
        lease.metadata.managed_fields = None;
        lease
    }

    /// Says who works, when that changes.
    fn tell(&mut self) {
        let now = self.now();
        let news = match self.candidate.lease().and_then(|lease| lease.holder.clone()) {
            _ if self.candidate.holds(now) => "this process leads".to_owned(),
            Some(holder) if holder == self.me => {
                let seconds = self.terms.duration.as_secs();
                format!(
                    "new lease: this process leads in {seconds} s, when nobody works any more under one that was deleted"
                )
            }
            Some(holder) => format!("standing by: {holder} leads"),
            None => return,
        };
        if self.told.as_ref() != Some(&news) {
            tracing::info!(lease = self.name, "{news}");
            self.told = Some(news);
        }
    }

    fn now(&self) -> Duration {
        Moment::now().since(&self.started)
    }

    /// An answer that comes too late to be of use counts as none.
    async fn in_time<T>(&self, request: impl Future<Output = Result<T, kube::Error>>) -> Result<T, Failed> {
        match tokio::time::timeout(self.terms.renew_within / 2, request).await {
            Ok(answer) => answer.map_err(Failed::Api),
            Err(_) => Err(Failed::NoAnswer),
        }
    }
}

#[derive(Debug)]
enum Failed {
    Api(kube::Error),
    NoAnswer,
}

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Api(error) => f.write_str(&words(error)),
            Self::NoAnswer => f.write_str("no answer from the API server in time"),
        }
    }
}

/// An empty holder is none: so client-go releases.
fn record(lease: &Lease, terms: Terms) -> Record {
    let spec = lease.spec.clone().unwrap_or_default();
    let seconds = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    Record {
        holder: spec.holder_identity.filter(|holder| !holder.is_empty()),
        duration: seconds.map_or(terms.duration, Duration::from_secs),
        transitions: spec.lease_transitions.unwrap_or_default(),
        uid: lease.uid().unwrap_or_default(),
        version: lease.resource_version().unwrap_or_default(),
    }
}
