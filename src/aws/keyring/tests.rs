//! Credentials over time, with STS in process.

use std::sync::Mutex as Lock;
use std::sync::atomic::{AtomicUsize, Ordering};

use aws_config::BehaviorVersion;
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use futures::FutureExt;
use local_ecr::{Config, Fault, LocalEcr, Matcher};
use serde_json::json;

use super::*;

const OTHER: &str = "210987654321";

#[test]
fn credentials_are_renewed_before_they_end_however_short_they_live() {
    let now = SystemTime::UNIX_EPOCH + Duration::from_hours(1);
    assert_eq!(renewal(now, now + Duration::from_hours(1)), now + Duration::from_mins(55));
    assert_eq!(renewal(now, now + Duration::from_secs(8)), now + Duration::from_secs(6));
    let past = now.checked_sub(Duration::from_secs(8)).unwrap();
    assert!(renewal(now, past) <= now);
}

/// Hands out what it is told to, or nothing, taking its time.
#[derive(Debug, Default)]
struct Agent {
    hands: Lock<Option<AwsCredentials>>,
    takes: Lock<Duration>,
    asked: AtomicUsize,
}

impl ProvideCredentials for Agent {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async {
            self.asked.fetch_add(1, Ordering::SeqCst);
            let takes = *self.takes.lock().unwrap();
            tokio::time::sleep(takes).await;
            self.hands.lock().unwrap().clone().ok_or_else(|| CredentialsError::provider_error("away"))
        })
    }
}

/// The agent's hand, which a test keeps.
#[derive(Debug, Clone)]
struct Hand(Arc<Agent>);

impl ProvideCredentials for Hand {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        self.0.provide_credentials()
    }
}

async fn local() -> LocalEcr {
    let mut config = Config::default();
    config.listen = Vec::new();
    LocalEcr::start(config).await.unwrap()
}

async fn keyring(local: &LocalEcr, agent: &Arc<Agent>) -> Keyring {
    let unsigned = aws_config::defaults(BehaviorVersion::latest())
        .region("eu-west-1")
        .http_client(SharedHttpClient::new(local.connector()))
        .no_credentials()
        .load()
        .await;
    let line = crate::aws::limiter::Calls::default().line(Err("agent"), "eu-west-1", None);
    let source = Source::Handed(SharedCredentialsProvider::new(Hand(agent.clone())));
    Keyring::with(source, Sts::new(unsigned, line))
}

fn admin(lives: Option<Duration>) -> AwsCredentials {
    let Config { access_key, secret_key, .. } = Config::default();
    AwsCredentials::new(access_key, secret_key, None, lives.map(|lives| SystemTime::now() + lives), "test")
}

fn account(id: &str) -> AccountId {
    AccountId::parse(id).unwrap()
}

#[tokio::test]
async fn whoever_has_become_another_account_is_stopped_at_the_first_use_of_its_key() {
    let local = local().await;
    let user = json!({"name": "other", "accessKey": "AKIAOTHER", "secretKey": "hush"});
    local.seed(&serde_json::from_value(json!({"accounts": [{"id": OTHER, "users": [user]}]})).unwrap()).unwrap();
    let agent = Arc::new(Agent::default());
    *agent.hands.lock().unwrap() = Some(admin(None));
    let keyring = keyring(&local, &agent).await;
    let ours = account(&Config::default().account);
    keyring.of(&ours).await.unwrap();
    keyring.of(&ours).await.unwrap();
    assert_eq!(local.calls_of("GetCallerIdentity").len(), 1, "whose a key is never changes");

    *agent.hands.lock().unwrap() = Some(AwsCredentials::new("AKIAOTHER", "hush", None, None, "test"));
    let error = keyring.of(&ours).await.unwrap_err();
    assert_eq!(error.kind, Kind::OtherAccount);
    assert!(error.message.contains(OTHER) && !error.message.contains("hush"), "{error}");
    assert_eq!(keyring.scoped(&ours, r#"{"Statement": []}"#).await.unwrap_err().kind, Kind::OtherAccount);
    assert_eq!(keyring.caller().await.unwrap().account, account(OTHER));
    // Where that can't be told, nothing is done either.
    *agent.hands.lock().unwrap() = Some(AwsCredentials::new("AKIAUNKNOWN", "hush", None, None, "test"));
    keyring.of(&ours).await.unwrap_err();
}

#[tokio::test]
async fn a_failure_is_remembered_for_a_moment_counted_from_its_end_and_then_tried_again() {
    let local = local().await;
    let agent = Arc::new(Agent { takes: Lock::new(SOON + Duration::from_millis(100)), ..Agent::default() });
    let keyring = keyring(&local, &agent).await;
    for _ in 0..3 {
        assert!(keyring.current().await.unwrap_err().message.contains("away"));
    }
    assert_eq!(agent.asked.load(Ordering::SeqCst), 1);
    *agent.hands.lock().unwrap() = Some(admin(None));
    let back = async {
        while keyring.current().await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), back).await.unwrap();
    assert_eq!(agent.asked.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn the_last_credentials_are_used_until_they_end_and_not_a_moment_longer() {
    let local = local().await;
    let agent = Arc::new(Agent::default());
    *agent.hands.lock().unwrap() = Some(admin(Some(Duration::from_secs(4))));
    let keyring = keyring(&local, &agent).await;
    let first = keyring.current().await.unwrap();
    *agent.hands.lock().unwrap() = None;
    let ended = async {
        loop {
            match keyring.current().await {
                Ok(last) => assert!(last.expiry() == first.expiry() && last.expiry().unwrap() > SystemTime::now()),
                Err(error) => return error,
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let error = tokio::time::timeout(Duration::from_mins(1), ended).await.unwrap();
    assert!(first.expiry().unwrap() <= SystemTime::now() && error.message.contains("away"));
    assert!(agent.asked.load(Ordering::SeqCst) <= 4, "not for each who asked");
}

#[tokio::test]
async fn while_one_renews_the_others_use_the_last_ones_and_wait_only_where_there_are_none() {
    let agent = Arc::new(Agent { takes: Lock::new(Duration::from_hours(1)), ..Agent::default() });
    let keyring = Arc::new(keyring(&local().await, &agent).await);
    *keyring.held() = Held { credentials: Some(admin(Some(Duration::from_hours(1)))), ..Held::default() };
    let asking = tokio::spawn({
        let keyring = keyring.clone();
        async move { keyring.current().await }
    });
    while agent.asked.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    for _ in 0..20 {
        let own = keyring.current().now_or_never().unwrap().unwrap();
        assert_eq!(own.access_key_id(), Config::default().access_key);
    }
    *keyring.held() = Held::default();
    assert!(keyring.current().now_or_never().is_none());
    asking.abort();
    assert_eq!(agent.asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn sts_is_not_needed_to_tell_whose_session_it_opened() {
    let local = local().await;
    let trust =
        json!({"Statement": {"Effect": "Allow", "Principal": {"AWS": "123456789012"}, "Action": "sts:AssumeRole"}});
    let role = json!({"name": "manager", "trust": trust});
    local
        .seed(&serde_json::from_value(json!({"accounts": [{"id": "123456789012", "roles": [role]}]})).unwrap())
        .unwrap();
    let agent = Arc::new(Agent::default());
    *agent.hands.lock().unwrap() = Some(admin(None));
    let by = Box::new(keyring(&local, &agent).await);
    let role = Role::new("arn:aws:iam::123456789012:role/manager".to_owned(), "session".to_owned());
    let assumed = Keyring { source: Source::Role(role, by), ..keyring(&local, &agent).await };
    let always = Fault::always(
        Matcher::operation("GetCallerIdentity"),
        local_ecr::Action::Before { code: "ServiceUnavailable".into(), status: 503 },
    );
    local.fault(always);
    let caller = assumed.caller().await.unwrap();
    assert_eq!(caller.arn, "arn:aws:sts::123456789012:assumed-role/manager/session");
    assert_eq!(assumed.of(&account(OTHER)).await.unwrap_err().kind, Kind::OtherAccount);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_has_its_turn_is_signed_with_the_last_credentials_while_new_ones_take_their_time() {
    let local = local().await;
    let agent = Arc::new(Agent::default());
    *agent.hands.lock().unwrap() = Some(admin(Some(Duration::from_hours(1))));
    let keyring = Arc::new(keyring(&local, &agent).await);
    let signs = |account| Provider { keyring: keyring.clone(), account };
    let ours = signs(account(&Config::default().account));
    let first = ours.provide_credentials().await.unwrap();
    *agent.takes.lock().unwrap() = Duration::from_hours(2);
    let due = || keyring.held().renew_at = Some(SystemTime::UNIX_EPOCH);
    due();
    assert_eq!(ours.provide_credentials().await.unwrap().access_key_id(), first.access_key_id());
    assert_eq!(agent.asked.load(Ordering::SeqCst), 2, "they were asked for");
    due();
    signs(account(OTHER)).provide_credentials().await.unwrap_err();
    // Nor where nobody knows whose they are, or they have ended.
    keyring.owner.lock().await.take();
    due();
    ours.provide_credentials().await.unwrap_err();
    keyring.held().credentials = Some(admin(Some(Duration::ZERO)));
    due();
    ours.provide_credentials().await.unwrap_err();
}
