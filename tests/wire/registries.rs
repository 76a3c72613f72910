//! Image registries as a puller sees them: the local ECR's, and one that asks for another token, as ECR Public does.

use std::sync::{Arc, Mutex};

use aws_smithy_runtime_api::client::http::SharedHttpClient;
use ecr_operator::aws::{Answer, Credentials, Endpoint, Place, RegistryClient, RegistryError, Session, SessionOptions};
use ecr_operator::aws::{Refusal, StaticKey};
use ecr_operator::core::names::Region;
use ecr_operator::core::scope::Scope;
use ecr_operator::core::token::{Life, Secret, Service, Token};
use jiff::{SignedDuration, Timestamp};
use local_ecr::{Config, LocalEcr};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::support::{ACCOUNT, REGION, account};

const HOST: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";
const PUBLIC: &str = "public.ecr.aws";

fn place(host: &str, url: &str) -> Place {
    Place { host: host.to_owned(), url: Some(url.to_owned()) }
}

/// Made up.
fn token() -> Token {
    let now = Timestamp::now();
    let life = Life::of(now, Some(now + SignedDuration::from_hours(12))).unwrap();
    Token::parse(Secret::new("QVdTOnRva2Vu".into()), life, "").unwrap()
}

async fn token_of(ecr: &LocalEcr) -> Token {
    let key = StaticKey {
        access_key_id: Config::default().access_key,
        secret_access_key: Secret::new(Config::default().secret_key),
        session_token: None,
    };
    let options =
        SessionOptions { http_client: Some(SharedHttpClient::new(ecr.connector())), ..SessionOptions::default() };
    let region = Region::parse(REGION).unwrap();
    let session = Session::new(&Credentials::AccessKey(key), &region, &Endpoint::default(), &options).await;
    let minted = session.mint(&account(), Service::Private, &Scope::Identity).await.unwrap();
    Token::parse(minted.auth, minted.life, "").unwrap()
}

#[tokio::test]
async fn a_good_token_is_let_in_and_what_it_asks_for_need_not_be_there() {
    let ecr = LocalEcr::start(Config::default()).await.unwrap();
    let (client, token) = (RegistryClient::default(), token_of(&ecr).await);
    let place = place(HOST, &ecr.url());
    assert_eq!(client.login(&place, &token).await, Ok(Answer::Allowed));
    assert_eq!(client.pull(&place, "nobody/made-it", &token).await, Ok(Answer::Allowed));
    ecr.behind_the_back(ACCOUNT, REGION, "CreateRepository", serde_json::json!({"repositoryName": "app"})).unwrap();
    assert_eq!(client.pull(&place, "app", &token).await, Ok(Answer::Allowed));
}

#[tokio::test]
async fn a_refusal_keeps_the_registrys_words() {
    let ecr = LocalEcr::start(Config::default()).await.unwrap();
    let (client, good) = (RegistryClient::default(), token_of(&ecr).await);
    let refused = |answer: Result<Answer, RegistryError>| match answer {
        Ok(Answer::Refused(Refusal { status: 403, message })) => message,
        other => panic!("{other:?}"),
    };
    let here = place(HOST, &ecr.url());
    assert!(refused(client.login(&here, &token()).await).contains("invalid"));
    let elsewhere = place("123456789012.dkr.ecr.us-east-1.amazonaws.com", &ecr.url());
    assert!(refused(client.login(&elsewhere, &good).await).contains("expired"), "another Region");
    let theirs = place("210987654321.dkr.ecr.eu-west-1.amazonaws.com", &ecr.url());
    assert!(refused(client.pull(&theirs, "app", &good).await).contains("no resource-based policy"));
}

#[tokio::test]
async fn a_registry_that_does_not_answer_is_named() {
    let client = RegistryClient::default();
    let error = client.login(&place(HOST, "http://127.0.0.1:9"), &token()).await.unwrap_err();
    assert!(matches!(&error, RegistryError::Unreachable { host, .. } if host == HOST), "{error}");
    let told = error.to_string();
    assert!(told.contains("refused") && !told.contains("QVdT"), "{told}");
}

/// Answers each request with what `answer` says to its head; keeps what was asked.
async fn server(answer: impl Fn(&str) -> String + Send + 'static) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = asked.clone();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (mut head, mut buffer) = (String::new(), [0; 4096]);
            while !head.contains("\r\n\r\n") {
                let read = stream.read(&mut buffer).await.unwrap();
                head.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
            }
            let answer = answer(&head);
            log.lock().unwrap().push(head);
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    (url, asked)
}

fn challenge(realm: &str) -> String {
    let challenge = format!("Bearer realm=\"{realm}\",service=\"{PUBLIC}\",scope=\"aws\"");
    format!(
        "HTTP/1.1 401 Unauthorized\r\nwww-authenticate: {challenge}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
    )
}

fn told(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn ecr_public_wants_the_token_changed_into_another_one() {
    let (url, asked) = server(|head| {
        if head.starts_with("GET /token/?service=public.ecr.aws&scope=aws ") && head.contains("Basic QVdTOnRva2Vu") {
            told("200 OK", r#"{"token":"another"}"#)
        } else if head.contains("Bearer another") {
            told("200 OK", "{}")
        } else {
            challenge("https://public.ecr.aws/token/")
        }
    })
    .await;
    let client = RegistryClient::default();
    assert_eq!(client.login(&place(PUBLIC, &url), &token()).await, Ok(Answer::Allowed));
    assert_eq!(asked.lock().unwrap().len(), 3);
}

#[tokio::test]
async fn ecr_public_says_400_to_a_token_that_is_too_old() {
    let (url, _) = server(|head| {
        if head.starts_with("GET /token/") {
            told("400 Bad Request", "")
        } else {
            challenge("https://public.ecr.aws/token/")
        }
    })
    .await;
    let answer = RegistryClient::default().login(&place(PUBLIC, &url), &token()).await;
    assert_eq!(answer, Ok(Answer::Refused(Refusal { status: 400, message: String::new() })));
}

#[tokio::test]
async fn a_challenge_of_another_host_is_not_shown_the_token() {
    let (url, asked) = server(|_| challenge("https://evil.example/token/")).await;
    let answer = RegistryClient::default().login(&place(PUBLIC, &url), &token()).await;
    assert!(matches!(answer, Ok(Answer::Refused(_))), "{answer:?}");
    assert_eq!(asked.lock().unwrap().len(), 1);
}
