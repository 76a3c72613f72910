//! One token for everybody who may use the same one: kept until its renewal is due, fetched once however many ask.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::Notify;

use crate::aws::AwsError;
use crate::aws::error::faulty;
use crate::core::token::{Service, Token, TokenKey};
use crate::core::token_slot::{AfterSession, Minted, Moment, Step, TokenSlot};

/// What asking for a token gives.
#[derive(Debug, Clone)]
pub struct Lookup {
    /// The newest token there is; may be overdue where there is an error.
    pub token: Option<Arc<Token>>,
    /// Why there is no newer one, and when it is tried again.
    pub failure: Option<(AwsError, Timestamp)>,
    /// Whether it just turned out that this identity's tokens die with their sessions.
    pub ended_with_session: bool,
}

/// Whoever has tokens.
pub trait Minter: Sync {
    /// A new token.
    fn mint(&self) -> impl Future<Output = Result<Minted, AwsError>> + Send;

    /// Whether the registry still takes this one; `None` where it can't be asked.
    fn is_accepted(&self, token: &Token) -> impl Future<Output = Option<bool>> + Send;
}

/// Both clocks.
#[derive(Debug, Clone, Copy)]
pub struct Clocks {
    started: Instant,
}

impl Default for Clocks {
    fn default() -> Self {
        Self { started: Instant::now() }
    }
}

impl Clocks {
    /// What they say.
    #[must_use]
    pub fn now(self) -> Moment {
        Moment { wall: Timestamp::now(), uptime: self.started.elapsed() }
    }
}

/// What nobody asked for in so long is forgotten: a token in use is asked for at its renewal, six hours after it was
/// issued at the latest.
const UNUSED: Duration = Duration::from_hours(7);

type Slot = Arc<tokio::sync::Mutex<TokenSlot<AwsError>>>;

/// A slot, and when it was last asked for by the monotonic clock.
type Used = (Slot, Duration);

/// The tokens of this process.
#[derive(Debug)]
pub struct Tokens {
    owner_id: String,
    slots: Mutex<HashMap<TokenKey, Used>>,
    /// What is known of the tokens of an identity: those of ECR Public may fare otherwise.
    after_session: Mutex<HashMap<(String, Service), AfterSession>>,
    shortened: Notify,
}

impl Tokens {
    /// None yet. `owner_id` spreads the renewals of different clusters.
    #[must_use]
    pub fn new(owner_id: String) -> Self {
        Self { owner_id, slots: Mutex::default(), after_session: Mutex::default(), shortened: Notify::new() }
    }

    /// The token for `key`: the one at hand while it isn't due, else a new one. Of many who ask at once, one fetches and the
    /// others wait for it. After a failure nobody fetches before the back-off has passed.
    pub async fn get(&self, key: &TokenKey, now: impl Fn() -> Moment, source: &impl Minter) -> Lookup {
        let slot = self.slot(key, now());
        let mut slot = slot.lock().await;
        slot.told(now(), self.after_session(key));
        let mut step = slot.step(now());
        let mut ended_with_session = false;
        if let Step::Probe(token) = &step {
            let fate = self.learn(key, source.is_accepted(token).await);
            ended_with_session = fate == AfterSession::Dies;
            slot.told(now(), fate);
            step = slot.step(now());
        }
        if step == Step::Fetch {
            if let Some(token) = slot.witness(now()).filter(|_| self.lacks_answer(key)) {
                ended_with_session |= self.learn(key, source.is_accepted(&token).await) == AfterSession::Dies;
            }
            let minted = source.mint().await;
            self.take(key, &mut slot, now(), minted);
        }
        Lookup { token: slot.token().cloned(), failure: slot.failure(now()), ended_with_session }
    }

    /// Whether the token for `key` is at hand and to be replaced, or just being replaced.
    #[must_use]
    pub fn is_due(&self, key: &TokenKey, now: Moment) -> bool {
        // Whoever holds it is asking AWS, which may take its time.
        self.known(key, now).is_some_and(|slot| {
            slot.try_lock().map_or(true, |mut slot| {
                slot.told(now, self.after_session(key));
                slot.token().is_some() && slot.is_due(now)
            })
        })
    }

    /// Waits until it turns out that tokens at hand end, or may end, sooner than they say: they are due now.
    pub async fn shortened(&self) {
        self.shortened.notified().await;
    }

    /// The token for `key` that is at hand, unless it is just being replaced.
    #[must_use]
    pub fn at_hand(&self, key: &TokenKey, now: Moment) -> Option<Arc<Token>> {
        self.known(key, now)?.try_lock().ok()?.token().cloned()
    }

    /// Has the token for `key` replaced as soon as it may be, unless it was issued at or after `since`.
    pub async fn expire_before(&self, key: &TokenKey, now: Moment, since: Timestamp) {
        if let Some(slot) = self.known(key, now) {
            slot.lock().await.expire_before(now, since);
        }
    }

    fn take(&self, key: &TokenKey, slot: &mut TokenSlot<AwsError>, now: Moment, minted: Result<Minted, AwsError>) {
        let TokenKey { identity, region, service, scope } = key;
        let seed = format!("{}/{identity}/{region}/{service:?}/{scope}", self.owner_id);
        let taken = minted.and_then(|minted| {
            let expires_at = minted.life.expires_at;
            let taken = slot.fetched(now, minted, &seed, self.after_session(key));
            taken.map(|()| expires_at).map_err(|fault| faulty("GetAuthorizationToken", &fault.to_string()))
        });
        match taken {
            Ok(expires_at) => tracing::info!(%region, ?service, %expires_at, "new token"),
            Err(error) => {
                tracing::warn!(%region, ?service, %error, "no new token");
                slot.failed(now, error, &seed);
            }
        }
    }

    fn after_session(&self, TokenKey { identity, service, .. }: &TokenKey) -> AfterSession {
        let known = self.after_session.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&(identity.clone(), *service)).copied().unwrap_or_default()
    }

    fn lacks_answer(&self, key: &TokenKey) -> bool {
        self.after_session(key) == AfterSession::NoAnswer
    }

    fn learn(&self, key: &TokenKey, accepted: Option<bool>) -> AfterSession {
        let TokenKey { identity, region, service, .. } = key;
        let fate = match accepted {
            Some(true) => AfterSession::LivesOn,
            Some(false) => AfterSession::Dies,
            None => AfterSession::NoAnswer,
        };
        tracing::info!(%region, ?service, ?fate, "what becomes of tokens when the session ends that signed them");
        let mut known = self.after_session.lock().unwrap_or_else(PoisonError::into_inner);
        let before = known.insert((identity.clone(), *service), fate);
        if fate != AfterSession::LivesOn && before != Some(fate) {
            self.shortened.notify_one();
        }
        fate
    }

    /// Made where there is none.
    fn slot(&self, key: &TokenKey, now: Moment) -> Slot {
        if let Some(slot) = self.known(key, now) {
            return slot;
        }
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.retain(|_, (_, asked_at)| now.uptime.saturating_sub(*asked_at) < UNUSED);
        let slot = slots.entry(key.clone()).or_insert_with(|| (Slot::default(), now.uptime)).0.clone();
        let used: HashSet<_> = slots.keys().map(|key| (&key.identity, key.service)).collect();
        let mut after_session = self.after_session.lock().unwrap_or_else(PoisonError::into_inner);
        after_session.retain(|(identity, service), _| used.contains(&(identity, *service)));
        slot
    }

    fn known(&self, key: &TokenKey, now: Moment) -> Option<Slot> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let (slot, asked_at) = slots.get_mut(key)?;
        *asked_at = now.uptime;
        Some(slot.clone())
    }
}

#[cfg(test)]
mod tests;
