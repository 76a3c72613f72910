//! The one way to AWS: each call waits for its turn at its API, is sent, and its answer teaches how fast that API may be
//! called. See [`crate::core::rate`].

use std::collections::{BTreeSet, HashMap};
use std::convert::Infallible;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::aws::keyring::Provider;
use crate::aws::{AwsError, Kind};
use crate::core::names::AccountId;
use crate::core::rate::{Answer, Moment, Rate, Sent, Wait};
use crate::metrics::Metrics;

/// A call that was throttled so often in a row fails: its object is told, and tried again later.
const THROTTLED_TRIES: u32 = 5;
/// A call that got lost is sent once more.
const LOST_TRIES: u32 = 2;

/// Who goes first where calls of one API have to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Priority {
    /// Deletions, and tokens: somebody waits for them.
    Urgent,
    /// Changes.
    #[default]
    Normal,
    /// Looks for drift.
    Background,
}

/// All APIs of all accounts.
#[derive(Debug, Clone, Default)]
pub struct Calls(Arc<All>);

#[derive(Debug, Default)]
struct All {
    limiters: Mutex<HashMap<(String, &'static str), Arc<Limiter>>>,
    metrics: Metrics,
    stop: CancellationToken,
}

/// Calls of one account in one Region.
#[derive(Debug, Clone)]
pub struct Line {
    calls: Calls,
    /// Where it leads.
    key: String,
    /// For metrics; empty where it isn't known.
    account: String,
    region: String,
    priority: Priority,
    /// Whose credentials its calls need.
    signer: Option<Provider>,
}

impl Calls {
    /// None yet. From `stop` on, none waits for its turn any more.
    #[must_use]
    pub fn new(metrics: Metrics, stop: CancellationToken) -> Self {
        Self(Arc::new(All { limiters: Mutex::default(), metrics, stop }))
    }

    /// To an account in a Region, at the endpoint `url` if that isn't AWS's. Before the account is known, limits belong
    /// to `identity`.
    #[must_use]
    pub fn line(&self, account: Result<&AccountId, &str>, region: &str, url: Option<&str>) -> Line {
        let whose = account.map_or_else(ToOwned::to_owned, ToString::to_string);
        Line {
            calls: self.clone(),
            key: format!("{whose}/{region}/{}", url.unwrap_or_default()),
            account: account.map(ToString::to_string).unwrap_or_default(),
            region: region.to_owned(),
            priority: Priority::default(),
            signer: None,
        }
    }
}

impl Line {
    /// The same with another priority.
    #[must_use]
    pub fn at(&self, priority: Priority) -> Self {
        Self { priority, ..self.clone() }
    }

    /// For calls that are made with these credentials. They are waited for before a call has its turn: whoever had to be
    /// asked for them would else hold up all others of the account.
    #[must_use]
    pub(super) fn signed_by(self, signer: Provider) -> Self {
        Self { signer: Some(signer), ..self }
    }

    /// Makes the call `call`, spelled as in IAM. `request` makes the request: more than once if it was throttled, or got
    /// lost.
    ///
    /// # Errors
    /// What AWS answered at last.
    pub async fn call<T, E, Sending>(&self, call: &'static str, request: impl Fn() -> Sending) -> Result<T, AwsError>
    where
        E: std::error::Error + ProvideErrorMetadata + 'static,
        Sending: Future<Output = Result<T, SdkError<E, HttpResponse>>>,
    {
        let Ok(answer) = self.call_if(call, || std::future::ready(Ok::<_, Infallible>(())), request).await;
        answer
    }

    /// The same for a call that rests on what may change while it waits: `may` is asked when it is its turn, just before
    /// each try is sent.
    ///
    /// # Errors
    /// Why it may not be sent; within, what AWS answered at last.
    pub async fn call_if<T, E, Sending, Asking, Refusal>(
        &self,
        call: &'static str,
        may: impl Fn() -> Asking,
        request: impl Fn() -> Sending,
    ) -> Result<Result<T, AwsError>, Refusal>
    where
        E: std::error::Error + ProvideErrorMetadata + 'static,
        Sending: Future<Output = Result<T, SdkError<E, HttpResponse>>>,
        Asking: Future<Output = Result<(), Refusal>>,
    {
        let limiter = self.limiter(call);
        let (mut throttled, mut lost) = (0, 0);
        loop {
            if let Some(signer) = &self.signer
                && let Err(error) = signer.ready().await
            {
                return Ok(Err(error));
            }
            let turn = tokio::select! {
                biased;
                turn = limiter.turn(self.priority) => turn,
                () = self.calls.0.stop.cancelled() => return Ok(Err(AwsError::not_sent(call, "the operator is ending"))),
            };
            may().await?;
            let result = request().await.map_err(|error| AwsError::new(call, &error));
            // The identity failed on the way: that says nothing of this API, which wasn't called.
            if result.as_ref().is_err_and(|error| error.call != call) {
                return Ok(result);
            }
            let kind = result.as_ref().err().map(|error| error.kind);
            let learned = turn.ended(answer(kind));
            let metrics = &self.calls.0.metrics;
            metrics.called(call, kind.map_or("ok", Kind::name));
            if let Some(rate) = learned {
                metrics.learned_rate(call, &self.account, &self.region, rate);
            }
            match &result {
                Err(error) if error.kind == Kind::Throttled => throttled += 1,
                Err(error) if error.kind == Kind::Lost => lost += 1,
                _ => return Ok(result),
            }
            if throttled == THROTTLED_TRIES || lost == LOST_TRIES {
                return Ok(result);
            }
        }
    }

    fn limiter(&self, call: &'static str) -> Arc<Limiter> {
        let mut limiters = self.calls.0.limiters.lock().unwrap_or_else(PoisonError::into_inner);
        limiters.entry((self.key.clone(), call)).or_default().clone()
    }
}

fn answer(kind: Option<Kind>) -> Answer {
    match kind {
        Some(Kind::Throttled) => Answer::Throttled,
        Some(Kind::Lost | Kind::Transient) => Answer::None,
        _ => Answer::Passed,
    }
}

/// One API of one account in one Region.
#[derive(Debug)]
struct Limiter {
    started: Instant,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    rate: Rate,
    queue: BTreeSet<Place>,
    last: u64,
}

/// In order of priority, then of arrival.
type Place = (Priority, u64);

impl Default for Limiter {
    fn default() -> Self {
        Self { started: Instant::now(), state: Mutex::default(), changed: Notify::new() }
    }
}

impl Limiter {
    async fn turn(self: &Arc<Self>, priority: Priority) -> Turn {
        let mut waiting = Waiting { limiter: self.clone(), place: self.enqueue(priority) };
        let mut waited = Wait::None;
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            match waiting.ask(waited) {
                Ask::Go(sent) => return Turn { limiter: self.clone(), sent: Some(sent) },
                Ask::At(moment) => {
                    waited = Wait::Rate;
                    tokio::select! {
                        () = tokio::time::sleep_until(self.started + moment) => {}
                        () = changed => {}
                    }
                }
                Ask::Later => {
                    waited = Wait::Others;
                    changed.await;
                }
            }
        }
    }

    fn enqueue(&self, priority: Priority) -> Place {
        let mut state = self.state();
        state.last += 1;
        let place = (priority, state.last);
        state.queue.insert(place);
        place
    }

    fn now(&self) -> Moment {
        self.started.elapsed()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Ask {
    Go(Sent),
    At(Moment),
    Later,
}

/// A place in the queue; given up when whoever waits goes away.
struct Waiting {
    limiter: Arc<Limiter>,
    place: Place,
}

impl Waiting {
    fn ask(&mut self, waited: Wait) -> Ask {
        let (mut state, now) = (self.limiter.state(), self.limiter.now());
        if state.queue.first() != Some(&self.place) {
            return Ask::Later;
        }
        match state.rate.next(now) {
            Some(at) if at <= now => {
                state.queue.remove(&self.place);
                Ask::Go(state.rate.send(now, waited))
            }
            Some(at) => Ask::At(at),
            None => Ask::Later,
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.limiter.state().queue.remove(&self.place);
        self.limiter.changed.notify_waiters();
    }
}

/// A call under way.
struct Turn {
    limiter: Arc<Limiter>,
    sent: Option<Sent>,
}

impl Turn {
    /// Returns the rate that is known by now.
    fn ended(mut self, answer: Answer) -> Option<f64> {
        self.end(answer);
        self.limiter.state().rate.learned()
    }

    fn end(&mut self, answer: Answer) {
        if let Some(sent) = self.sent.take() {
            let now = self.limiter.now();
            self.limiter.state().rate.ended(sent, answer, now);
            self.limiter.changed.notify_waiters();
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.end(Answer::None);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_is_urgent_goes_first_and_the_others_in_turn() {
        let limiter = Arc::new(Limiter::default());
        let first = limiter.turn(Priority::Normal).await;
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        for (name, priority) in [
            ("drift", Priority::Background),
            ("create 1", Priority::Normal),
            ("create 2", Priority::Normal),
            ("delete", Priority::Urgent),
        ] {
            let (limiter, order) = (limiter.clone(), order.clone());
            tasks.push(tokio::spawn(async move {
                let turn = limiter.turn(priority).await;
                order.lock().unwrap().push(name);
                turn.ended(Answer::Passed);
            }));
            tokio::task::yield_now().await;
        }
        first.ended(Answer::None);
        futures::future::join_all(tasks).await;
        assert_eq!(*order.lock().unwrap(), ["delete", "create 1", "create 2", "drift"]);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_gives_up_frees_its_place() {
        let limiter = Arc::new(Limiter::default());
        let under_way = limiter.turn(Priority::Normal).await;
        let waiting = tokio::spawn({
            let limiter = limiter.clone();
            async move { drop(limiter.turn(Priority::Urgent).await) }
        });
        tokio::task::yield_now().await;
        waiting.abort();
        let _ = waiting.await;
        drop(under_way);
        let next = tokio::time::timeout(Duration::from_mins(1), limiter.turn(Priority::Background)).await;
        assert!(next.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn one_throttled_account_does_not_slow_another() {
        let calls = Calls::default();
        let (slow, quick) = (calls.line(Err("one"), "eu-west-1", None), calls.line(Err("other"), "eu-west-1", None));
        for _ in 0..20 {
            slow.limiter("ecr:CreateRepository").turn(Priority::Normal).await.ended(Answer::Throttled);
        }
        let (start, other) = (Instant::now(), quick.limiter("ecr:CreateRepository"));
        let api = slow.limiter("ecr:DeleteRepository");
        for _ in 0..100 {
            other.turn(Priority::Normal).await.ended(Answer::Passed);
            api.turn(Priority::Normal).await.ended(Answer::Passed);
        }
        assert_eq!(start.elapsed(), Duration::ZERO, "nor another API of the same account");
    }
}
