//! How each call finds its way: only as long as this process may work, and each API with what is known of it alone.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aws_smithy_runtime_api::client::http::SharedHttpClient;
use ecr_operator::api::TokenAccess;
use ecr_operator::aws::{Calls, Credentials, Endpoint, Kind, Role, Session, SessionOptions};
use ecr_operator::core::names::Region;
use ecr_operator::core::scope::Scope;
use ecr_operator::core::token::Service;
use ecr_operator::metrics::Metrics;
use ecr_operator::tenure::Tenure;
use local_ecr::{Action, Fault, LocalEcr, Matcher};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::support::{ACCOUNT, REGION, account, admin, delete, local};

const ROLE: &str = "arn:aws:iam::123456789012:role/manager";

async fn session(local: &LocalEcr, credentials: &Credentials, options: SessionOptions) -> Session {
    let options = SessionOptions { http_client: Some(SharedHttpClient::new(local.connector())), ..options };
    Session::new(credentials, &Region::parse(REGION).unwrap(), &Endpoint::default(), &options).await
}

fn throttled(operation: &str, times: u32) -> Fault {
    let throttling = Action::Before { code: "Throttling".to_owned(), status: 400 };
    Fault { times: Some(times), ..Fault::always(Matcher::operation(operation), throttling) }
}

#[tokio::test]
async fn a_throttled_identity_teaches_nothing_about_the_call_that_needed_it() {
    let local = local().await;
    let statement = json!({"Effect": "Allow", "Principal": {"AWS": ACCOUNT}, "Action": "sts:AssumeRole"});
    let everything = json!({"Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}});
    let role = json!({"name": "manager", "trust": {"Statement": statement}, "policies": [everything]});
    let seed = json!({"accounts": [{"id": ACCOUNT, "roles": [role]}]});
    local.seed(&serde_json::from_value(seed).unwrap()).unwrap();
    let metrics = Metrics::default();
    let role = Role::new(ROLE.to_owned(), "ecr-operator-default".to_owned());
    let options = SessionOptions {
        calls: Calls::new(metrics.clone(), CancellationToken::default()),
        ..SessionOptions::default()
    };
    let session = session(&local, &Credentials::AssumeRole(role, Box::new(admin())), options).await;

    local.fault(throttled("AssumeRole", 2));
    assert_eq!(session.ecr(&account()).describe("app").await.unwrap(), None);
    assert_eq!(local.calls_of("AssumeRole").len(), 3, "tried again, in a lane of its own");
    assert_eq!(local.calls_of("DescribeRepositories").len(), 1);

    local.fault(throttled("AssumeRole", 1000));
    let scope = Scope::repositories(TokenAccess::Pull, vec![account()], vec!["team-a/*".to_owned()]);
    let error = session.mint(&account(), Service::Private, &scope).await.unwrap_err();
    assert_eq!((error.call, error.kind), ("sts:AssumeRole", Kind::Throttled));
    let text = metrics.text().unwrap();
    let learned: Vec<_> = text.lines().filter(|line| line.starts_with("ecr_operator_aws_learned_rate{")).collect();
    assert!(learned.len() == 1 && learned[0].contains("api=\"sts:AssumeRole\""), "{learned:?}");
}

#[tokio::test]
async fn an_identity_that_can_not_be_had_holds_up_no_other_of_the_same_account() {
    let local = local().await;
    let statement = json!({"Effect": "Allow", "Principal": {"AWS": ACCOUNT}, "Action": "sts:AssumeRole"});
    let everything = json!({"Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}});
    let role = json!({"name": "manager", "trust": {"Statement": statement}, "policies": [everything]});
    local.seed(&serde_json::from_value(json!({"accounts": [{"id": ACCOUNT, "roles": [role]}]})).unwrap()).unwrap();
    let options = SessionOptions { calls: Calls::default(), ..SessionOptions::default() };
    let role = Role::new(ROLE.to_owned(), "ecr-operator-default".to_owned());
    let broken = session(&local, &Credentials::AssumeRole(role, Box::new(admin())), options.clone()).await;
    let whole = session(&local, &admin(), options).await;
    whole.caller().await.unwrap();

    local.fault(Fault::always(Matcher::operation("AssumeRole"), Action::Hang));
    let stuck: Vec<_> = (0..20)
        .map(|n| {
            let ecr = broken.ecr(&account());
            tokio::spawn(async move { ecr.describe(&format!("app-{n}")).await })
        })
        .collect();
    local.wait_for_call(Duration::from_secs(30), |call| call.operation == "AssumeRole").await.unwrap();
    // Half of what it takes until a call to AWS is given up.
    let described = tokio::time::timeout(Duration::from_secs(7), whole.ecr(&account()).describe("app")).await;
    assert_eq!(described.unwrap().unwrap(), None);
    assert!(stuck.iter().all(|task| !task.is_finished()));
    stuck.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn who_does_not_lead_asks_ecr_for_nothing_least_of_all_a_token() {
    let local = local().await;
    let tenure = Tenure::unlimited();
    let options = SessionOptions { tenure: tenure.clone(), ..SessionOptions::default() };
    let session = session(&local, &admin(), options).await;
    session.mint(&account(), Service::Private, &Scope::Identity).await.unwrap();
    local.clear_calls();

    tenure.end();
    let ecr = session.ecr(&account());
    let error = ecr.describe("app").await.unwrap_err();
    assert!(error.kind == Kind::Transient && error.message.contains("isn't the leader"), "{error}");
    assert!(delete(&ecr, "app", true).await.is_err());
    assert!(session.mint(&account(), Service::Private, &Scope::Identity).await.is_err());
    assert!(session.mint(&account(), Service::Public, &Scope::Identity).await.is_err());
    assert!(local.calls().is_empty(), "{:?}", local.calls());
}

#[tokio::test]
async fn a_call_is_sent_only_if_it_still_may_be_when_its_turn_comes() {
    let local = local().await;
    let ecr = session(&local, &admin(), SessionOptions::default()).await.ecr(&account());
    local.fault(throttled("DeleteRepository", 2));
    let (sent, asked) = (|| local.calls_of("DeleteRepository").len(), AtomicUsize::new(0));
    let may = || {
        assert_eq!(asked.fetch_add(1, Ordering::Relaxed), sent(), "before each try");
        std::future::ready(if sent() == 2 { Err("kept") } else { Ok(()) })
    };
    assert_eq!(ecr.delete("app", true, may).await, Err("kept"));
    assert_eq!(sent(), 2);
}

#[tokio::test]
async fn once_the_operator_is_to_end_no_call_waits_for_its_turn() {
    let local = local().await;
    let stop = CancellationToken::new();
    let options = SessionOptions { calls: Calls::new(Metrics::default(), stop.clone()), ..SessionOptions::default() };
    let ecr = session(&local, &admin(), options).await.ecr(&account());
    local.fault(Fault::once(Matcher::operation("DescribeRepositories"), Action::Delay { millis: 300 }));
    // At first one is sent at a time.
    let (first, second, ()) = tokio::join!(ecr.describe("app"), ecr.describe("app"), async { stop.cancel() });
    assert_eq!(first, Ok(None), "what is under way comes to its end");
    assert_eq!(second.unwrap_err().message, "the operator is ending");
    assert_eq!(local.calls_of("DescribeRepositories").len(), 1);
}
