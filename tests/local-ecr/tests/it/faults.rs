use std::time::Duration;

use aws_sdk_ecr::config::timeout::TimeoutConfig;
use aws_sdk_ecr::error::SdkError;
use local_ecr::{Action, Fault, Matcher, Outcome, RateLimit};
use serde_json::json;
use tokio::time::Instant;

use crate::support::{ACCOUNT, REGION, call, code, ecr, start};

#[tokio::test]
async fn before_after_lost_and_cut() {
    let local = start().await;
    let client = ecr(&local);
    let create = |name: &str| client.create_repository().repository_name(name).send();
    let exists = |name: &str| local.repository(ACCOUNT, REGION, name).is_some();
    let calls = || Matcher::operation("CreateRepository");

    local.fault(Fault::once(calls(), Action::Before { code: "ThrottlingException".to_owned(), status: 400 }));
    assert_eq!(code(create("aa").await), "ThrottlingException");
    assert!(!exists("aa"));
    create("aa").await.unwrap();

    local.fault(Fault::once(calls().on("b*"), Action::After { code: "ServerException".to_owned(), status: 500 }));
    create("other").await.unwrap();
    assert_eq!(code(create("bb").await), "ServerException");
    assert!(exists("bb"));

    for (name, action, happened) in [("c", Action::Lost, true), ("d", Action::Cut, false)] {
        let name = format!("{name}{name}");
        local.fault(Fault::once(calls(), action));
        assert!(matches!(create(&name).await, Err(SdkError::DispatchFailure(_))));
        assert_eq!(exists(&name), happened, "{name}");
    }

    local.fault(Fault::once(calls(), Action::Body { status: 200, body: "not JSON".to_owned() }));
    assert!(create("ee").await.is_err(), "no client can read it");
    assert!(exists("ee"));
    let outcomes: Vec<_> = local.calls_of("CreateRepository").into_iter().map(|call| call.outcome).collect();
    let error = |code: &str| Outcome::Error(code.to_owned());
    let expected = [
        error("ThrottlingException"),
        Outcome::Ok,
        Outcome::Ok,
        Outcome::Lost,
        Outcome::Lost,
        Outcome::Cut,
        Outcome::Lost,
    ];
    assert_eq!(outcomes, expected);
}

#[tokio::test]
async fn over_the_socket_a_lost_answer_is_a_closed_connection() {
    let local = start().await;
    local.fault(Fault::once(Matcher::default(), Action::Lost));
    let target = "AmazonEC2ContainerRegistry_V20150921.CreateRepository";
    let body = json!({"repositoryName": "app"}).to_string();
    let request = crate::support::sign_request(
        &local,
        crate::support::admin(),
        "ecr",
        target,
        &body,
        std::time::SystemTime::now(),
    );
    assert!(crate::support::send(request).await.is_none());
    assert!(local.repository(ACCOUNT, REGION, "app").is_some());
}

#[tokio::test]
async fn the_second_call_of_three() {
    let local = start().await;
    let fault =
        Fault { calls: Matcher::operation("DescribeRepositories"), skip: 1, times: Some(1), action: Action::Cut };
    local.fault(fault);
    let mut results = Vec::new();
    for _ in 0..3 {
        results.push(ecr(&local).describe_repositories().send().await.is_ok());
    }
    assert_eq!(results, [true, false, true]);
}

#[tokio::test(start_paused = true)]
async fn delays_and_silence_run_on_tokios_clock() {
    let local = local_ecr::LocalEcr::start(config_without_sockets()).await.unwrap();
    local.fault(Fault::always(Matcher::default(), Action::Delay { millis: 20_000 }));
    let begun = Instant::now();
    ecr(&local).describe_repositories().send().await.unwrap();
    assert_eq!(begun.elapsed(), Duration::from_secs(20));
    local.clear_faults();
    local.fault(Fault::once(Matcher::default(), Action::Hang));
    let timeouts = TimeoutConfig::builder().operation_timeout(Duration::from_secs(30)).build();
    let silent = ecr(&local).create_repository().repository_name("app").customize();
    let silent = silent.config_override(aws_sdk_ecr::Config::builder().timeout_config(timeouts)).send().await;
    assert!(matches!(silent, Err(SdkError::TimeoutError(_))), "{silent:?}");
    assert!(local.repository(ACCOUNT, REGION, "app").is_some());
}

fn config_without_sockets() -> local_ecr::Config {
    let mut config = local_ecr::Config::default();
    config.listen.clear();
    config.time = local_ecr::Time::Tokio;
    config
}

#[tokio::test(start_paused = true)]
async fn a_rate_limit_throttles_per_operation() {
    let local = local_ecr::LocalEcr::start(config_without_sockets()).await.unwrap();
    local.rate_limit(RateLimit::new(Matcher::default(), 5.0, 2.0));
    let client = ecr(&local);
    let mut create = 0;
    let mut next = || {
        create += 1;
        client.create_repository().repository_name(format!("r{create}")).send()
    };
    assert!(next().await.is_ok() && next().await.is_ok());
    assert_eq!(code(next().await), "ThrottlingException");
    client.describe_repositories().send().await.unwrap();
    tokio::time::advance(Duration::from_millis(200)).await;
    assert!(next().await.is_ok());
    assert_eq!(code(next().await), "ThrottlingException");
}

#[tokio::test]
async fn a_new_repository_shows_only_after_a_while() {
    let local = start().await;
    let client = ecr(&local);
    local.eventual_consistency(Duration::from_secs(30));
    client.create_repository().repository_name("app").send().await.unwrap();
    assert_eq!(
        code(client.describe_repositories().repository_names("app").send().await),
        "RepositoryNotFoundException"
    );
    assert!(client.describe_repositories().send().await.unwrap().repositories().is_empty());
    assert_eq!(
        code(client.create_repository().repository_name("app").send().await),
        "RepositoryAlreadyExistsException"
    );
    local.advance(Duration::from_secs(31));
    client.describe_repositories().repository_names("app").send().await.unwrap();
}

#[tokio::test]
async fn down_and_up() {
    let local = start().await;
    local.down(true);
    assert!(matches!(ecr(&local).describe_repositories().send().await, Err(SdkError::DispatchFailure(_))));
    let request = http::Request::get(format!("{}/v2/", local.url())).body(http_body_util::Full::default()).unwrap();
    assert!(crate::support::send(request).await.is_none());
    local.down(false);
    ecr(&local).describe_repositories().send().await.unwrap();
    assert_eq!(local.calls().len(), 1, "what was down has seen nothing");
}

#[tokio::test]
async fn calls_are_logged_and_can_be_waited_for() {
    let local = std::sync::Arc::new(start().await);
    let waiting = tokio::spawn({
        let local = std::sync::Arc::clone(&local);
        async move { local.wait_for_call(Duration::from_secs(10), |call| call.operation == "CreateRepository").await }
    });
    call(&local, "DescribeRepositories", json!({"repositoryNames": ["one", "two"]})).await;
    call(&local, "CreateRepository", json!({"repositoryName": "app"})).await;
    let seen = waiting.await.unwrap().unwrap();
    assert!(seen.is_ok());
    assert_eq!(seen.request["repositoryName"], "app");
    assert_eq!((seen.account.as_str(), seen.region.as_str(), seen.service.as_str()), (ACCOUNT, REGION, "ecr"));
    assert_eq!((seen.access_key.as_str(), seen.resource.as_str()), (crate::support::KEY, "app"));
    assert_eq!(local.calls_of("DescribeRepositories")[0].resource, "one,two");
    local.clear_calls();
    assert!(local.wait_for_call(Duration::ZERO, |_| true).await.is_none());
}
