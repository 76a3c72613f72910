//! One token for everybody who may use the same one: kept until its renewal is due, fetched once however many ask.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::aws::AwsError;
use crate::aws::error::faulty;
use crate::core::token::{Token, TokenKey};
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
    /// What is known of the tokens of an identity.
    after_session: Mutex<HashMap<String, AfterSession>>,
}

impl Tokens {
    /// None yet. `owner_id` spreads the renewals of different clusters.
    #[must_use]
    pub fn new(owner_id: String) -> Self {
        Self { owner_id, slots: Mutex::default(), after_session: Mutex::default() }
    }

    /// The token for `key`: the one at hand while it isn't due, else a new one. Of many who ask at once, one fetches and the
    /// others wait for it. After a failure nobody fetches before the back-off has passed.
    pub async fn get(&self, key: &TokenKey, now: impl Fn() -> Moment, source: &impl Minter) -> Lookup {
        let slot = self.slot(key, now());
        let mut slot = slot.lock().await;
        let mut step = slot.step(now());
        let mut ended_with_session = false;
        if let Step::Probe(token) = &step {
            let fate = match self.after_session(&key.identity) {
                AfterSession::Unknown => self.learn(key, source.is_accepted(token).await),
                known => known,
            };
            ended_with_session = fate == AfterSession::Dies;
            slot.probed(now(), fate == AfterSession::LivesOn);
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
        self.known(key, now)
            .is_some_and(|slot| slot.try_lock().map_or(true, |slot| slot.token().is_some() && slot.is_due(now)))
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
            let taken = slot.fetched(now, minted, &seed, self.after_session(identity));
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

    fn after_session(&self, identity: &str) -> AfterSession {
        let known = self.after_session.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(identity).copied().unwrap_or_default()
    }

    fn lacks_answer(&self, key: &TokenKey) -> bool {
        self.after_session(&key.identity) == AfterSession::NoAnswer
    }

    fn learn(&self, key: &TokenKey, accepted: Option<bool>) -> AfterSession {
        let TokenKey { identity, region, .. } = key;
        let fate = match accepted {
            Some(true) => AfterSession::LivesOn,
            Some(false) => AfterSession::Dies,
            None => AfterSession::NoAnswer,
        };
        tracing::info!(%region, ?fate, "what becomes of tokens when the session ends that signed them");
        self.after_session.lock().unwrap_or_else(PoisonError::into_inner).insert(identity.clone(), fate);
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
        let used: HashSet<_> = slots.keys().map(|key| &key.identity).collect();
        let mut after_session = self.after_session.lock().unwrap_or_else(PoisonError::into_inner);
        after_session.retain(|identity, _| used.contains(identity));
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
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::aws::Kind;
    use crate::core::names::Region;
    use crate::core::scope::Scope;
    use crate::core::token::{Life, Secret, Service};

    fn key(identity: &str) -> TokenKey {
        TokenKey {
            identity: identity.into(),
            region: Region::parse("eu-west-1").unwrap(),
            service: Service::Private,
            scope: Scope::Identity,
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn moment(second: i64) -> Moment {
        Moment { wall: at(second), uptime: Duration::from_secs(second.unsigned_abs()) }
    }

    /// An AWS whose tokens live a thousand seconds, and its registry.
    #[derive(Default)]
    struct Aws {
        now: i64,
        down: bool,
        session: Option<i64>,
        accepts: Option<bool>,
        calls: AtomicUsize,
        probes: AtomicUsize,
    }

    impl Aws {
        fn at(now: i64) -> Self {
            Self { now, ..Self::default() }
        }
    }

    impl Minter for Aws {
        async fn mint(&self) -> Result<Minted, AwsError> {
            self.calls.fetch_add(1, Ordering::SeqCst);
            tokio::task::yield_now().await;
            if self.down {
                let (code, message) = ("x".into(), "y".into());
                return Err(AwsError { call: "ecr:GetAuthorizationToken", kind: Kind::Transient, code, message });
            }
            let life = Life::of(at(self.now), Some(at(self.now + 1_000))).unwrap();
            let session_ends_at = self.session.map(|length| at(self.now + length));
            Ok(Minted { auth: Secret::new("QVdTOnRva2Vu".into()), life, session_ends_at })
        }

        async fn is_accepted(&self, _: &Token) -> Option<bool> {
            self.probes.fetch_add(1, Ordering::SeqCst);
            self.accepts
        }
    }

    async fn ask(tokens: &Tokens, aws: &Aws) -> Lookup {
        tokens.get(&key("x"), || moment(aws.now), aws).await
    }

    fn calls(aws: &Aws) -> usize {
        aws.calls.load(Ordering::SeqCst)
    }

    #[tokio::test]
    async fn a_thousand_who_ask_at_once_cost_one_call() {
        let tokens = Arc::new(Tokens::new("o".into()));
        let aws = Arc::new(Aws::default());
        let asks = (0..1000).map(|_| {
            let (tokens, aws) = (tokens.clone(), aws.clone());
            tokio::spawn(async move { ask(&tokens, &aws).await })
        });
        for ask in futures::future::join_all(asks).await {
            assert!(ask.unwrap().token.is_some());
        }
        assert_eq!(calls(&aws), 1);
    }

    #[tokio::test]
    async fn identities_have_tokens_of_their_own() {
        let (tokens, aws) = (Tokens::new("o".into()), Aws::default());
        for identity in ["x", "y", "x"] {
            tokens.get(&key(identity), || moment(0), &aws).await;
        }
        assert_eq!(calls(&aws), 2);
    }

    #[tokio::test]
    async fn a_young_token_is_kept_and_a_due_one_is_renewed() {
        let (tokens, mut aws) = (Tokens::new("o".into()), Aws::default());
        let first = ask(&tokens, &aws).await.token.unwrap();
        aws.now = 399;
        assert!(Arc::ptr_eq(&first, &ask(&tokens, &aws).await.token.unwrap()));
        assert!(!tokens.is_due(&key("x"), moment(399)) && tokens.is_due(&key("x"), moment(501)));
        aws.now = 501;
        assert_eq!(ask(&tokens, &aws).await.token.unwrap().life.issued_at, at(501));
        assert_eq!(calls(&aws), 2);
    }

    #[tokio::test]
    async fn renewals_of_different_clusters_do_not_fall_on_one_moment() {
        let mut moments = std::collections::BTreeSet::new();
        for cluster in 0..50 {
            let token = ask(&Tokens::new(format!("cluster-{cluster}")), &Aws::default()).await.token.unwrap();
            moments.insert(token.refresh_at);
        }
        assert!(moments.len() > 40);
    }

    #[tokio::test]
    async fn a_failure_keeps_the_old_token_and_backs_off() {
        let (tokens, mut aws) = (Tokens::new("o".into()), Aws::default());
        ask(&tokens, &aws).await;
        (aws.now, aws.down) = (600, true);
        let failed = ask(&tokens, &aws).await;
        assert!(failed.token.is_some());
        let until = failed.failure.unwrap().1;
        assert!(until > at(600) && until <= at(605));
        aws.now = 601;
        assert!(ask(&tokens, &aws).await.failure.is_some());
        assert_eq!(calls(&aws), 2, "backing off");
        (aws.now, aws.down) = (606, false);
        let back = ask(&tokens, &aws).await;
        assert!(back.failure.is_none());
        assert_eq!(back.token.unwrap().life.issued_at, at(606));
    }

    #[tokio::test]
    async fn a_token_can_be_asked_to_be_new() {
        let (tokens, mut aws) = (Tokens::new("o".into()), Aws::default());
        ask(&tokens, &aws).await;
        tokens.expire_before(&key("x"), moment(0), at(0)).await;
        ask(&tokens, &aws).await;
        assert_eq!(calls(&aws), 1, "issued at that moment");
        aws.now = 5;
        tokens.expire_before(&key("x"), moment(5), at(5)).await;
        assert_eq!(ask(&tokens, &aws).await.token.unwrap().life.issued_at, at(5));
    }

    #[tokio::test]
    async fn tokens_that_outlive_their_session_are_tried_once() {
        let tokens = Tokens::new("o".into());
        let mut aws = Aws { session: Some(100), accepts: Some(true), ..Aws::default() };
        ask(&tokens, &aws).await;
        for second in [110, 111, 399, 501, 620] {
            aws.now = second;
            assert!(!ask(&tokens, &aws).await.ended_with_session);
        }
        assert_eq!((calls(&aws), aws.probes.load(Ordering::SeqCst)), (2, 1));
    }

    #[tokio::test]
    async fn tokens_that_die_with_their_session_are_renewed_at_once_and_then_in_time() {
        let tokens = Tokens::new("o".into());
        let mut aws = Aws { session: Some(100), accepts: Some(false), ..Aws::default() };
        ask(&tokens, &aws).await;
        aws.now = 110;
        let renewed = ask(&tokens, &aws).await;
        assert!(renewed.ended_with_session);
        let token = renewed.token.unwrap();
        assert_eq!((token.life.issued_at, token.life.expires_at), (at(110), at(210)));
        aws.now = 161;
        assert_eq!(ask(&tokens, &aws).await.token.unwrap().life.issued_at, at(161));
        assert_eq!((calls(&aws), aws.probes.load(Ordering::SeqCst)), (3, 1));
        // What is known of one identity says nothing of another.
        tokens.get(&key("y"), || moment(161), &aws).await;
        tokens.get(&key("y"), || moment(271), &Aws { accepts: Some(true), ..Aws::at(271) }).await;
        assert_eq!(calls(&aws), 4);
    }

    #[tokio::test]
    async fn where_the_registry_cannot_be_asked_tokens_are_renewed_in_time_until_it_can() {
        let tokens = Tokens::new("o".into());
        let mut aws = Aws { session: Some(100), accepts: None, ..Aws::default() };
        ask(&tokens, &aws).await;
        aws.now = 110;
        let renewed = ask(&tokens, &aws).await;
        assert!(!renewed.ended_with_session);
        assert_eq!(renewed.token.unwrap().life.expires_at, at(210), "as if it died with its session");
        aws.now = 161;
        assert_eq!(ask(&tokens, &aws).await.token.unwrap().life.issued_at, at(161), "before the session's end");
        // Now it can: the first token has outlived its session, as all of this identity do.
        (aws.now, aws.accepts) = (212, Some(true));
        assert_eq!(ask(&tokens, &aws).await.token.unwrap().life.expires_at, at(1_212));
        aws.now = 500;
        ask(&tokens, &aws).await;
        assert_eq!((calls(&aws), aws.probes.load(Ordering::SeqCst)), (4, 3));
    }

    #[tokio::test]
    async fn what_nobody_asks_for_is_forgotten_and_a_question_makes_nothing() {
        let hours = |hours: i64| moment(hours * 3_600);
        let (tokens, aws) = (Tokens::new("o".into()), Aws { session: Some(100), ..Aws::default() });
        assert!(!tokens.is_due(&key("x"), moment(0)));
        tokens.expire_before(&key("x"), moment(0), at(0)).await;
        assert!(tokens.slots.lock().unwrap().is_empty());
        for identity in ["used", "unused"] {
            tokens.get(&key(identity), || moment(0), &aws).await;
            tokens.get(&key(identity), || moment(110), &aws).await;
        }
        assert_eq!(tokens.after_session.lock().unwrap().len(), 2);
        tokens.get(&key("used"), || hours(6), &Aws::at(6 * 3_600)).await;
        tokens.get(&key("new"), || hours(8), &Aws::at(8 * 3_600)).await;
        let mut left: Vec<_> = tokens.slots.lock().unwrap().keys().map(|key| key.identity.clone()).collect();
        left.sort();
        assert_eq!(left, ["new", "used"]);
        assert_eq!(tokens.after_session.lock().unwrap().keys().collect::<Vec<_>>(), ["used"]);
    }

    #[tokio::test]
    async fn nobody_waits_for_a_fetch_to_learn_that_there_is_one() {
        struct Silent;
        impl Minter for Silent {
            async fn mint(&self) -> Result<Minted, AwsError> {
                std::future::pending().await
            }
            async fn is_accepted(&self, _: &Token) -> Option<bool> {
                None
            }
        }
        let (tokens, key) = (Tokens::new("o".into()), key("x"));
        let mut fetch = Box::pin(tokens.get(&key, || moment(0), &Silent));
        assert!(futures::poll!(&mut fetch).is_pending());
        assert!(tokens.is_due(&key, moment(0)));
    }
}
