//! Errors: each spelling of one meaning has one class.

use std::time::Duration;

use ecr_operator::aws::Kind;
use ecr_operator::core::reason::Reason;
use ecr_operator::core::repository::Creation;
use local_ecr::{Action, Fault, Matcher};

use crate::support::{arn, ecr, local, session, session_as};

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
    let problem = ecr.create("app", &nothing()).await.unwrap_err().problem(&arn("app"));
    assert_eq!(problem.reason, Reason::Denied);
    assert!(problem.message.contains(&format!("needs ecr:CreateRepository on {}", arn("app"))), "{problem}");
}

#[tokio::test]
async fn a_lost_answer_and_a_dead_line_pass() {
    let local = local().await;
    let ecr = ecr(&local).await;
    local.fault(Fault::always(Matcher::operation("DescribeRepositories"), Action::Cut));
    assert_eq!(ecr.describe("app").await.unwrap_err().kind, Kind::Transient);
    local.clear_faults();
    local.fault(Fault::once(Matcher::operation("CreateRepository"), Action::Lost));
    // It is sent once more, and told that it exists: what was lost was the answer.
    assert_eq!(ecr.create("app", &nothing()).await.unwrap_err().kind, Kind::AlreadyExists);
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
