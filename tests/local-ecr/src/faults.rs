//! Scripted faults and rate limits.

use std::collections::HashMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::error::ApiError;
use crate::model::iam::glob;

/// Which calls a rule is about. What isn't said matches everything; texts may have `*`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Matcher {
    /// `ecr`, `ecr-public`, `sts`, `tagging`, `registry`.
    pub service: Option<String>,
    /// The operation's name.
    pub operation: Option<String>,
    /// Repository name or role ARN, as [`crate::Call::resource`] has it.
    pub resource: Option<String>,
    /// The caller's account.
    pub account: Option<String>,
    /// The Region.
    pub region: Option<String>,
}

impl Matcher {
    /// Calls of this operation.
    #[must_use]
    pub fn operation(name: &str) -> Self {
        Self { operation: Some(name.to_owned()), ..Self::default() }
    }

    /// Narrows it to one repository or role.
    #[must_use]
    pub fn on(self, resource: &str) -> Self {
        Self { resource: Some(resource.to_owned()), ..self }
    }

    fn matches(&self, subject: &Subject<'_>) -> bool {
        let fits = |pattern: &Option<String>, text: &str| pattern.as_ref().is_none_or(|pattern| glob(pattern, text));
        fits(&self.service, subject.service)
            && fits(&self.operation, subject.operation)
            && fits(&self.resource, subject.resource)
            && fits(&self.account, subject.account)
            && fits(&self.region, subject.region)
    }
}

/// What a fault does to a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum Action {
    /// Answers this error instead of doing anything.
    Before {
        /// Error code, such as `ThrottlingException`.
        code: String,
        /// HTTP status.
        status: u16,
    },
    /// Does what was asked, and then answers this error.
    After {
        /// Error code.
        code: String,
        /// HTTP status.
        status: u16,
    },
    /// Does what was asked and closes the connection without an answer.
    Lost,
    /// Closes the connection; nothing happens.
    Cut,
    /// Does what was asked and never answers.
    Hang,
    /// Waits first.
    Delay {
        /// How long, in milliseconds.
        millis: u64,
    },
    /// Does what was asked and answers something else.
    Body {
        /// HTTP status.
        status: u16,
        /// The body, sent as it is.
        body: String,
    },
}

/// One scripted fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Fault {
    /// Which calls.
    #[serde(default)]
    pub calls: Matcher,
    /// So many of them pass first.
    #[serde(default)]
    pub skip: u32,
    /// So many are hit after that; for ever, when it isn't said.
    #[serde(default)]
    pub times: Option<u32>,
    /// What happens to them.
    pub action: Action,
}

impl Fault {
    /// A fault that hits each call that matches.
    #[must_use]
    pub fn always(calls: Matcher, action: Action) -> Self {
        Self { calls, skip: 0, times: None, action }
    }

    /// A fault that hits the next call that matches.
    #[must_use]
    pub fn once(calls: Matcher, action: Action) -> Self {
        Self { calls, skip: 0, times: Some(1), action }
    }
}

/// How many calls a second are served, as AWS throttles: a bucket per account, Region and operation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RateLimit {
    /// Which calls. Each operation has a bucket of its own.
    #[serde(default)]
    pub calls: Matcher,
    /// How many a second.
    pub per_second: f64,
    /// How many at once after a pause.
    pub burst: f64,
    /// The code that throttled calls get.
    #[serde(default = "throttling")]
    pub code: String,
    /// The HTTP status that throttled calls get.
    #[serde(default = "bad_request")]
    pub status: u16,
}

fn throttling() -> String {
    "ThrottlingException".to_owned()
}

fn bad_request() -> u16 {
    400
}

impl RateLimit {
    /// A limit as ECR answers it: `ThrottlingException` with status 400.
    #[must_use]
    pub fn new(calls: Matcher, per_second: f64, burst: f64) -> Self {
        Self { calls, per_second, burst, code: throttling(), status: bad_request() }
    }
}

/// A call as rules see it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subject<'a> {
    pub service: &'a str,
    pub operation: &'a str,
    pub resource: &'a str,
    pub account: &'a str,
    pub region: &'a str,
}

/// What is to happen to one call.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    pub delay: Duration,
    pub action: Option<Action>,
}

#[derive(Debug, Default)]
pub(crate) struct Faults {
    rules: Vec<Fault>,
    limits: Vec<(RateLimit, HashMap<String, Bucket>)>,
}

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Faults {
    pub fn add(&mut self, fault: Fault) {
        self.rules.push(fault);
    }

    pub fn limit(&mut self, limit: RateLimit) {
        self.limits.push((limit, HashMap::new()));
    }

    pub fn clear(&mut self) {
        self.rules.clear();
        self.limits.clear();
    }

    /// Delays add up; of the others the first that applies does; a rate limit counts what faults let through.
    pub fn judge(&mut self, subject: &Subject<'_>) -> Verdict {
        let mut verdict = Verdict::default();
        for rule in &mut self.rules {
            if rule.times == Some(0) || !rule.calls.matches(subject) {
                continue;
            }
            let is_delay = matches!(rule.action, Action::Delay { .. });
            if verdict.action.is_some() && !is_delay {
                continue;
            }
            if rule.skip > 0 {
                rule.skip -= 1;
                continue;
            }
            rule.times = rule.times.map(|times| times - 1);
            match &rule.action {
                Action::Delay { millis } => verdict.delay += Duration::from_millis(*millis),
                action => verdict.action = Some(action.clone()),
            }
        }
        self.rules.retain(|rule| rule.times != Some(0));
        if verdict.action.is_none() {
            verdict.action = self.throttle(subject);
        }
        verdict
    }

    fn throttle(&mut self, subject: &Subject<'_>) -> Option<Action> {
        let now = Instant::now();
        let Subject { service, operation, account, region, .. } = subject;
        let key = format!("{account} {region} {service} {operation}");
        let mut throttled = None;
        for (limit, buckets) in &mut self.limits {
            if !limit.calls.matches(subject) {
                continue;
            }
            let bucket = buckets.entry(key.clone()).or_insert(Bucket { tokens: limit.burst, at: now });
            let refilled = now.duration_since(bucket.at).as_secs_f64() * limit.per_second;
            bucket.tokens = (bucket.tokens + refilled).min(limit.burst.max(1.0));
            bucket.at = now;
            if bucket.tokens < 1.0 {
                throttled = Some(Action::Before { code: limit.code.clone(), status: limit.status });
            } else {
                bucket.tokens -= 1.0;
            }
        }
        throttled
    }
}

/// The error that a scripted code stands for, with AWS's text where it has a well-known one.
pub(crate) fn scripted(code: &str, status: u16) -> ApiError {
    let message = match code {
        "ThrottlingException" | "Throttling" => "Rate exceeded",
        "ServerException" => "The server encountered an internal error. Please try again later.",
        "AccessDeniedException" => "User is not authorized to perform this operation (scripted)",
        _ => "Scripted by a test",
    };
    ApiError::new(code.to_owned(), message).status(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(operation: &str) -> Subject<'_> {
        Subject { service: "ecr", operation, resource: "team-a/app", account: "123456789012", region: "eu-west-1" }
    }

    #[test]
    fn skip_times_and_order() {
        let mut faults = Faults::default();
        let calls = Matcher::operation("Create*").on("team-a/*");
        faults.add(Fault { calls: calls.clone(), skip: 1, times: Some(2), action: Action::Lost });
        faults.add(Fault::always(calls, Action::Delay { millis: 20 }));
        let hits: Vec<_> = (0..4).map(|_| faults.judge(&subject("CreateRepository"))).collect();
        assert!(hits.iter().all(|verdict| verdict.delay == Duration::from_millis(20)));
        let actions: Vec<_> = hits.into_iter().map(|verdict| verdict.action).collect();
        assert_eq!(actions, [None, Some(Action::Lost), Some(Action::Lost), None]);
        assert!(faults.judge(&subject("DeleteRepository")).action.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn rates_are_per_operation() {
        let mut faults = Faults::default();
        faults.limit(RateLimit::new(Matcher::default(), 2.0, 3.0));
        let mut passed = |operation| (0..10).filter(|_| faults.judge(&subject(operation)).action.is_none()).count();
        assert_eq!(passed("CreateRepository"), 3);
        assert_eq!(passed("DeleteRepository"), 3);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(passed("CreateRepository"), 2);
    }
}
