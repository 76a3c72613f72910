//! Answers of AWS and of registries.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use aws_smithy_runtime_api::client::http::SharedHttpClient;
use ecr_operator::aws::{Credentials, Endpoint, Place, RegistryClient, Session, SessionOptions, StaticKey};
use ecr_operator::core::names::{AccountId, Region};
use ecr_operator::core::scope::Scope;
use ecr_operator::core::token::{Life, Secret, Service, Token};
use jiff::{SignedDuration, Timestamp};
use local_ecr::{Action, Config, Fault, LocalEcr, Matcher};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::runtime::Builder;

use crate::mutate::fuzz;

const HUSH: &str = "aHVzaC1odXNo";

fn runtime() -> Builder {
    let mut builder = Builder::new_current_thread();
    builder.enable_all();
    builder
}

#[test]
fn answers_of_aws() {
    // The SDK waits before it tries again: here no time is spent on that.
    let runtime = runtime().start_paused(true).build().unwrap();
    let mut config = Config::default();
    config.listen = Vec::new();
    let key = StaticKey {
        access_key_id: config.access_key.clone(),
        secret_access_key: Secret::new(config.secret_key.clone()),
        session_token: None,
    };
    let region = Region::parse("eu-west-1").unwrap();
    let account = AccountId::parse("123456789012").unwrap();
    // One that is known, so that ECR is asked; of the other it is asked each time who it is.
    let (local, session, stranger) = runtime.block_on(async {
        let local = LocalEcr::start(config).await.unwrap();
        let options =
            SessionOptions { http_client: Some(SharedHttpClient::new(local.connector())), ..SessionOptions::default() };
        let credentials = Credentials::AccessKey(key);
        let session = Session::new(&credentials, &region, &Endpoint::default(), &options).await;
        let stranger = Session::new(&credentials, &region, &Endpoint::default(), &options).await;
        session.caller().await.unwrap();
        (local, session, stranger)
    });
    let ecr = session.ecr(&account);
    let arn = "arn:aws:ecr:eu-west-1:123456789012:repository/app";
    fuzz("aws-answer", |bytes| {
        let body = String::from_utf8_lossy(bytes).into_owned();
        for status in [200, 400] {
            local.clear_faults();
            local.clear_calls();
            local.fault(Fault::always(Matcher::default(), Action::Body { status, body: body.clone() }));
            runtime.block_on(async {
                let errors = [
                    ecr.describe("app").await.err(),
                    ecr.tags(arn).await.err(),
                    ecr.lifecycle_policy("app").await.err(),
                    ecr.repository_policy("app").await.err(),
                    stranger.caller().await.err(),
                ];
                for error in errors.into_iter().flatten() {
                    assert!(!error.problem(arn).message.is_empty());
                }
                // What comes as a token is a token, or is said to be none without being shown.
                if let Err(error) = session.mint(&account, Service::Private, &Scope::Identity).await {
                    assert!(!error.to_string().contains(HUSH) || status != 200, "{error}");
                }
            });
        }
    });
}

#[test]
fn answers_of_registries() {
    let runtime = runtime().build().unwrap();
    let life =
        Life { issued_at: Timestamp::UNIX_EPOCH, expires_at: Timestamp::UNIX_EPOCH + SignedDuration::from_hours(12) };
    let token = Token::parse(Secret::new("QVdTOmh1c2g=".to_owned()), life, "").unwrap();
    let client = RegistryClient::default();
    let asked = Arc::new(AtomicU32::new(0));
    let listener = runtime.block_on(async { TcpListener::bind("127.0.0.1:0").await.unwrap() });
    let address = listener.local_addr().unwrap();
    let (answer, answers) = tokio::sync::watch::channel(Vec::new());
    let counted = asked.clone();
    runtime.spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::Relaxed);
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let bytes: Vec<u8> = answers.borrow().clone();
            let _ = stream.write_all(&bytes).await;
        }
    });
    let place = Place { host: "public.ecr.aws".to_owned(), url: Some(format!("http://{address}")) };
    fuzz("registry-answer", |bytes| {
        answer.send_replace(bytes.to_vec());
        asked.store(0, Ordering::Relaxed);
        let told = runtime.block_on(client.pull(&place, "a/b", &token));
        assert!(!format!("{told:?}").contains("aHVzaA"), "the token isn't shown");
        // Once, for a token of another kind, and with that.
        assert!(asked.load(Ordering::Relaxed) <= 4, "{told:?}");
    });
}
