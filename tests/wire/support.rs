//! A local ECR in process, and a session with it.

use aws_smithy_runtime_api::client::http::SharedHttpClient;
use ecr_operator::aws::{Credentials, Ecr, Endpoint, Session, SessionOptions, StaticKey, Tagging};
use ecr_operator::core::names::{AccountId, Region};
use ecr_operator::core::token::Secret;
use local_ecr::{Config, LocalEcr};

pub const ACCOUNT: &str = "123456789012";
pub const REGION: &str = "eu-west-1";

/// A local ECR that listens nowhere.
pub async fn local() -> LocalEcr {
    let mut config = Config::default();
    config.listen = Vec::new();
    LocalEcr::start(config).await.unwrap()
}

/// A session of its administrator. Who that is, it knows.
pub async fn session(local: &LocalEcr) -> Session {
    let session = session_as(local, &Config::default().access_key, &Config::default().secret_key).await;
    session.caller().await.unwrap();
    local.clear_calls();
    session
}

/// A session with another key.
pub async fn session_as(local: &LocalEcr, id: &str, secret: &str) -> Session {
    let key = StaticKey {
        access_key_id: id.to_owned(),
        secret_access_key: Secret::new(secret.to_owned()),
        session_token: None,
    };
    let options =
        SessionOptions { http_client: Some(SharedHttpClient::new(local.connector())), ..SessionOptions::default() };
    Session::new(&Credentials::AccessKey(key), &Region::parse(REGION).unwrap(), &Endpoint::default(), &options).await
}

pub async fn ecr(local: &LocalEcr) -> Ecr {
    session(local).await.ecr(&account())
}

pub fn account() -> AccountId {
    AccountId::parse(ACCOUNT).unwrap()
}

pub async fn tagging(local: &LocalEcr) -> Tagging {
    session(local).await.tagging(&account())
}

/// The ARN of a repository.
pub fn arn(name: &str) -> String {
    format!("arn:aws:ecr:{REGION}:{ACCOUNT}:repository/{name}")
}
