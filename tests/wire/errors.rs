//! Errors: each spelling of one meaning has one class.

use std::time::Duration;

use ecr_operator::aws::Kind;
use ecr_operator::core::names::AccountId;
use ecr_operator::core::reason::Reason;
use ecr_operator::core::repository::Creation;
use local_ecr::{Action, Fault, Matcher};
use serde_json::json;

use crate::support::{ACCOUNT, arn, created, ecr, local, session, session_as};

fn nothing() -> Creation {
    Creation { mutability: None, scan_on_push: None, encryption: None, tags: [].into() }
}

#[tokio::test]
async fn throttling_in_every_spelling_is_throttling() {
    let local = local().await;
    for (code, status) in [
        ("ThrottlingException", 400),
        ("TooManyRequestsException", 429),
        ("RequestLimitExceeded", 503),
        ("SlowDown", 503),
        ("Throttling", 400),
        ("SomethingNew", 429),
        ("ServiceUnavailable", 503),
    ] {
        local.fault(Fault::always(
            Matcher::operation("DescribeRepositories"),
            Action::Before { code: code.to_owned(), status },
        ));
        let error = ecr(&local).await.describe("app").await.unwrap_err();
        assert_eq!(error.kind, Kind::Throttled, "{code} {status}");
        local.clear_faults();
    }
}

#[tokio::test]
async fn a_denial_names_call_resource_and_remedy() {
    let local = local().await;
    let ecr = ecr(&local).await;
    let denied = Action::Before { code: "AccessDeniedException".to_owned(), status: 400 };
    local.fault(Fault::always(Matcher::operation("CreateRepository"), denied));
    let problem = created(&ecr, "app", &nothing()).await.unwrap_err().problem(&arn("app"));
    assert_eq!(problem.reason, Reason::Denied);
    assert!(problem.message.contains(&format!("needs ecr:CreateRepository on {}", arn("app"))), "{problem}");
}

#[tokio::test]
async fn what_kms_calls_it_is_passed_on() {
    let local = local().await;
    let ecr = ecr(&local).await;
    let answer = json!({"__type": "KmsException", "message": "KMS refused", "kmsError": "DisabledException"});
    let action = Action::Body { status: 400, body: answer.to_string() };
    local.fault(Fault::always(Matcher::operation("CreateRepository"), action));
    let problem = created(&ecr, "app", &nothing()).await.unwrap_err().problem(&arn("app"));
    assert_eq!(problem.reason, Reason::Denied);
    assert!(problem.message.contains("KMS refused (DisabledException); the KMS key must exist"), "{problem}");
}

#[tokio::test]
async fn a_permission_that_is_missing_within_a_call_is_the_one_that_is_named() {
    let local = local().await;
    let create = json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "ecr:CreateRepository", "Resource": "*"}]});
    let user = json!({"name": "creator", "accessKey": "AKIACREATOR", "secretKey": "hush", "policies": [create]});
    local.seed(&serde_json::from_value(json!({"accounts": [{"id": ACCOUNT, "users": [user]}]})).unwrap()).unwrap();
    let session = session_as(&local, "AKIACREATOR", "hush").await;
    let ecr = session.ecr(&AccountId::parse(ACCOUNT).unwrap());
    let tagged = Creation { tags: [("team".to_owned(), "a".to_owned())].into(), ..nothing() };
    let problem = created(&ecr, "app", &tagged).await.unwrap_err().problem(&arn("app"));
    assert!(problem.message.ends_with(&format!("the identity needs ecr:TagResource on {}", arn("app"))), "{problem}");
    assert!(created(&ecr, "app", &nothing()).await.is_ok(), "nothing else is missing");
}

#[tokio::test]
async fn a_lost_answer_and_a_dead_line_pass() {
    let local = local().await;
    let ecr = ecr(&local).await;
    local.fault(Fault::always(Matcher::operation("DescribeRepositories"), Action::Cut));
    assert_eq!(ecr.describe("app").await.unwrap_err().kind, Kind::Lost);
    local.clear_faults();
    local.fault(Fault::once(Matcher::operation("CreateRepository"), Action::Lost));
    // It is sent once more, and told that it exists: what was lost was the answer.
    assert_eq!(created(&ecr, "app", &nothing()).await.unwrap_err().kind, Kind::AlreadyExists);
}

#[tokio::test]
async fn only_what_got_lost_is_sent_again_at_once() {
    let local = local().await;
    let ecr = ecr(&local).await;
    for (code, status, sent) in
        [("ExpiredTokenException", 400, 1), ("SomethingNew", 404, 1), ("ServerException", 500, 2)]
    {
        local.fault(Fault::always(
            Matcher::operation("DescribeRepositories"),
            Action::Before { code: code.to_owned(), status },
        ));
        ecr.describe("app").await.unwrap_err();
        assert_eq!(local.calls_of("DescribeRepositories").len(), sent, "{code}");
        local.clear_faults();
        local.clear_calls();
    }
}

#[tokio::test]
async fn a_key_that_is_wrong_is_denied_and_never_shown() {
    let local = local().await;
    let session = session_as(&local, "AKIAWRONG", "hush-hush").await;
    let error = session.caller().await.unwrap_err();
    assert_eq!(error.kind, Kind::Denied, "{error}");
    assert!(!format!("{error} {error:?} {session:?}").contains("hush-hush"));
}

#[tokio::test]
async fn who_we_are_is_told_by_sts() {
    let local = local().await;
    let caller = session(&local).await.caller().await.unwrap();
    assert_eq!(
        (caller.account.as_str(), caller.arn.as_str()),
        ("123456789012", "arn:aws:iam::123456789012:user/admin")
    );
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_never_comes_ends_by_our_own_clock() {
    let local = local().await;
    let ecr = ecr(&local).await;
    local.fault(Fault::always(Matcher::operation("DescribeRepositories"), Action::Hang));
    let began = tokio::time::Instant::now();
    assert_eq!(ecr.describe("app").await.unwrap_err().kind, Kind::Transient);
    assert!(began.elapsed() < Duration::from_mins(1));
}
