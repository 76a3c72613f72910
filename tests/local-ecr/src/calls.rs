//! The log of calls: what was asked, by whom, and how it ended.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::watch;

use crate::lock;

/// One call that reached the local ECR.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Call {
    /// When it came in, by the model's clock.
    pub at: Timestamp,
    /// `ecr`, `ecr-public`, `sts`, `tagging`, `eks-auth` for Pod Identity, or `registry` for what goes to `/v2/`.
    pub service: String,
    /// The operation's name as AWS spells it; for the registry `Ping`, `GetManifest`, `PutManifest`, `GetBlob`, …
    pub operation: String,
    /// The caller's account; for a web identity the role's. Empty when nobody was recognised.
    pub account: String,
    /// Region of the signature, or of the registry's host name.
    pub region: String,
    /// The access key that signed, or signed for the token.
    pub access_key: String,
    /// ARN of the caller, as `GetCallerIdentity` would tell it.
    pub principal: String,
    /// Name of the repository, ARN of the role, or empty; several names are joined by commas.
    pub resource: String,
    /// How it ended.
    pub outcome: Outcome,
    /// The request's members. Identity tokens are left out.
    pub request: Value,
}

/// How a call ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// The effect happened and was told.
    Ok,
    /// This error code was answered.
    Error(String),
    /// The caller got no answer, or another one than the true one, but the effect happened.
    Lost,
    /// The caller got no answer, and nothing happened.
    Cut,
}

impl Call {
    /// Whether the answer was a success.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.outcome == Outcome::Ok
    }
}

/// How many calls are remembered: a soak test must not fill the memory.
const KEPT: usize = 200_000;

#[derive(Debug)]
pub(crate) struct CallLog {
    calls: Mutex<VecDeque<Call>>,
    /// Counts what was ever logged: waiters wake up on it.
    written: watch::Sender<u64>,
}

impl CallLog {
    pub fn new() -> Self {
        Self { calls: Mutex::default(), written: watch::Sender::new(0) }
    }

    pub fn push(&self, call: Call) {
        let mut calls = lock(&self.calls);
        if calls.len() == KEPT {
            calls.pop_front();
        }
        calls.push_back(call);
        drop(calls);
        self.written.send_modify(|written| *written += 1);
    }

    pub fn all(&self) -> Vec<Call> {
        lock(&self.calls).iter().cloned().collect()
    }

    pub fn count(&self, matches: impl Fn(&Call) -> bool) -> usize {
        lock(&self.calls).iter().filter(|call| matches(call)).count()
    }

    pub fn clear(&self) {
        lock(&self.calls).clear();
    }

    /// The calls that match, as soon as there are that many of them; what there is, when the time is over.
    pub async fn wait(&self, at_least: usize, timeout: Duration, matches: impl Fn(&Call) -> bool) -> Vec<Call> {
        let mut written = self.written.subscribe();
        let deadline = tokio::time::Instant::now() + timeout;
        loop {
            written.borrow_and_update();
            let found: Vec<Call> = lock(&self.calls).iter().filter(|call| matches(call)).cloned().collect();
            if found.len() >= at_least {
                return found;
            }
            if !matches!(tokio::time::timeout_at(deadline, written.changed()).await, Ok(Ok(()))) {
                return found;
            }
        }
    }
}
