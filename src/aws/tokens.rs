//! One token for everybody who may use the same one: kept until its renewal is due, fetched once however many ask.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};

use crate::aws::AwsError;
use crate::aws::error::faulty;
use crate::core::backoff;
use crate::core::token::{Life, Secret, Token, TokenKey};

/// What asking for a token gives.
#[derive(Debug, Clone)]
pub struct Lookup {
    /// The newest token there is; may be overdue where there is an error.
    pub token: Option<Arc<Token>>,
    /// Why there is no newer one, and when it is tried again.
    pub failure: Option<(AwsError, Timestamp)>,
}

#[derive(Debug, Default)]
struct Slot {
    token: Option<Arc<Token>>,
    failures: u32,
    failure: Option<(AwsError, Timestamp)>,
}

/// The tokens of this process.
#[derive(Debug)]
pub struct Tokens {
    owner_id: String,
    slots: Mutex<HashMap<TokenKey, Arc<tokio::sync::Mutex<Slot>>>>,
}

impl Tokens {
    /// None yet. `owner_id` spreads the renewals of different clusters.
    #[must_use]
    pub fn new(owner_id: String) -> Self {
        Self { owner_id, slots: Mutex::default() }
    }

    /// The token for `key`: the one at hand while it isn't due, else a new one from `fetch`. Of many who ask at once, one
    /// fetches and the others wait for it. After a failure nobody fetches before the back-off has passed.
    pub async fn get<F, Fut>(&self, key: &TokenKey, now: impl Fn() -> Timestamp, fetch: F) -> Lookup
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<(Secret, Life), AwsError>>,
    {
        let slot = self.slot(key);
        let mut slot = slot.lock().await;
        let asked_at = now();
        let due = slot.token.as_ref().is_none_or(|token| token.refresh_at <= asked_at);
        let backing_off = slot.failure.as_ref().is_some_and(|(_, until)| *until > asked_at);
        if due && !backing_off {
            self.renew(key, &mut slot, now, fetch().await);
        }
        Lookup { token: slot.token.clone(), failure: slot.failure.clone().filter(|_| due) }
    }

    /// Forgets that the token for `key` is still good, unless it was issued at or after `since`.
    pub async fn expire_before(&self, key: &TokenKey, since: Timestamp) {
        let slot = self.slot(key);
        let mut slot = slot.lock().await;
        if let Some(old) = slot.token.as_ref().filter(|token| token.life.issued_at < since) {
            // It stays at hand, should AWS have no new one.
            slot.token = Some(Arc::new(Token { refresh_at: Timestamp::MIN, ..Token::clone(old) }));
        }
    }

    fn renew(
        &self,
        key: &TokenKey,
        slot: &mut Slot,
        now: impl Fn() -> Timestamp,
        fetched: Result<(Secret, Life), AwsError>,
    ) {
        let TokenKey { identity, region, service, scope } = key;
        let seed = format!("{}/{identity}/{region}/{service:?}/{scope}", self.owner_id);
        let parsed = fetched.and_then(|(auth, life)| {
            Token::parse(auth, life, &seed).map_err(|fault| faulty("GetAuthorizationToken", &fault.to_string()))
        });
        match parsed {
            Ok(token) => {
                tracing::info!(region = %key.region, service = ?key.service, expires_at = %token.life.expires_at, "new token");
                *slot = Slot { token: Some(Arc::new(token)), ..Slot::default() };
            }
            Err(error) => {
                slot.failures = slot.failures.saturating_add(1);
                let wait = SignedDuration::try_from(backoff::TOKEN.after(slot.failures, &key.identity))
                    .unwrap_or(SignedDuration::from_mins(1));
                tracing::warn!(region = %key.region, service = ?key.service, %error, "no new token");
                slot.failure = Some((error, now().saturating_add(wait).unwrap_or(Timestamp::MAX)));
            }
        }
    }

    fn slot(&self, key: &TokenKey) -> Arc<tokio::sync::Mutex<Slot>> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.entry(key.clone()).or_default().clone()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::aws::Kind;
    use crate::core::names::Region;
    use crate::core::scope::Scope;
    use crate::core::token::Service;

    fn key() -> TokenKey {
        TokenKey {
            identity: "x".into(),
            region: Region::parse("eu-west-1").unwrap(),
            service: Service::Private,
            scope: Scope::Identity,
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn fresh(now: i64) -> (Secret, Life) {
        (Secret::new("QVdTOnRva2Vu".into()), Life::of(at(now), Some(at(now + 1000))).unwrap())
    }

    fn down() -> AwsError {
        AwsError { call: "ecr:GetAuthorizationToken", kind: Kind::Transient, code: "x".into(), message: "y".into() }
    }

    #[tokio::test]
    async fn a_thousand_who_ask_at_once_cost_one_call() {
        let tokens = Arc::new(Tokens::new("o".into()));
        let calls = Arc::new(AtomicUsize::new(0));
        let asks = (0..1000).map(|_| {
            let (tokens, calls) = (tokens.clone(), calls.clone());
            tokio::spawn(async move {
                tokens
                    .get(
                        &key(),
                        || at(0),
                        || async move {
                            calls.fetch_add(1, Ordering::SeqCst);
                            tokio::task::yield_now().await;
                            Ok(fresh(0))
                        },
                    )
                    .await
            })
        });
        for ask in futures::future::join_all(asks).await {
            assert!(ask.unwrap().token.is_some());
        }
        assert_eq!(calls.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_young_token_is_kept_and_a_due_one_is_renewed() {
        let tokens = Tokens::new("o".into());
        let first = tokens.get(&key(), || at(0), || async { Ok(fresh(0)) }).await.token.unwrap();
        let again = tokens.get(&key(), || at(399), || async { unreachable!("it is young") }).await.token.unwrap();
        assert!(Arc::ptr_eq(&first, &again));
        let next = tokens.get(&key(), || at(501), || async { Ok(fresh(501)) }).await.token.unwrap();
        assert!(!Arc::ptr_eq(&first, &next));
    }

    #[tokio::test]
    async fn a_failure_keeps_the_old_token_and_backs_off() {
        let tokens = Tokens::new("o".into());
        tokens.get(&key(), || at(0), || async { Ok(fresh(0)) }).await;
        let failed = tokens.get(&key(), || at(600), || async { Err(down()) }).await;
        assert!(failed.token.is_some());
        let until = failed.failure.unwrap().1;
        assert!(until > at(600) && until <= at(605));
        let waiting = tokens.get(&key(), || at(601), || async { unreachable!("backing off") }).await;
        assert!(waiting.failure.is_some());
        let back = tokens.get(&key(), || at(606), || async { Ok(fresh(606)) }).await;
        assert!(back.failure.is_none());
        assert_eq!(back.token.unwrap().life.issued_at, at(606));
    }

    #[tokio::test]
    async fn a_token_can_be_asked_to_be_new() {
        let tokens = Tokens::new("o".into());
        tokens.get(&key(), || at(0), || async { Ok(fresh(0)) }).await;
        tokens.expire_before(&key(), at(0)).await;
        tokens.get(&key(), || at(1), || async { unreachable!("issued at that moment") }).await;
        tokens.expire_before(&key(), at(5)).await;
        let new = tokens.get(&key(), || at(5), || async { Ok(fresh(5)) }).await;
        assert_eq!(new.token.unwrap().life.issued_at, at(5));
    }
}
