//! Tokens over time, from an AWS of its own.

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
async fn what_one_token_tells_holds_for_all_of_the_identity_that_are_at_hand_and_for_no_other_service() {
    let tokens = Tokens::new("o".into());
    let later = TokenKey { region: Region::parse("us-east-1").unwrap(), ..key("x") };
    let public = TokenKey { service: Service::Public, ..later.clone() };
    let mut aws = Aws { session: Some(100), accepts: Some(false), ..Aws::default() };
    ask(&tokens, &aws).await;
    aws.now = 50;
    for key in [&later, &public] {
        tokens.get(key, || moment(50), &aws).await;
    }
    assert!(futures::poll!(Box::pin(tokens.shortened())).is_pending());
    aws.now = 110;
    assert!(ask(&tokens, &aws).await.ended_with_session);
    tokens.shortened().await;
    assert!(tokens.is_due(&later, moment(110)), "its session ends at 150");
    assert!(!tokens.is_due(&public, moment(110)), "nobody knows");
    aws.down = true;
    let left = tokens.get(&later, || moment(110), &aws).await;
    assert_eq!((left.token.unwrap().life.expires_at, left.failure.is_some()), (at(150), true));
    (aws.now, aws.down) = (120, false);
    let renewed = tokens.get(&later, || moment(120), &aws).await;
    assert!(!renewed.ended_with_session, "it was told before");
    assert_eq!(renewed.token.unwrap().life.expires_at, at(220));
    assert_eq!(aws.probes.load(Ordering::SeqCst), 1);
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
    let known: Vec<_> = tokens.after_session.lock().unwrap().keys().cloned().collect();
    assert_eq!(known, [("used".to_owned(), Service::Private)]);
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
