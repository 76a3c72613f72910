//! A local ECR in process, and a session with it.

use std::convert::Infallible;

use aws_smithy_runtime_api::client::http::SharedHttpClient;
use ecr_operator::aws::{AwsError, Credentials, Ecr, Endpoint, Session, SessionOptions, StaticKey, Tagging};
use ecr_operator::core::names::{AccountId, Region};
use ecr_operator::core::repository::{Core, Creation};
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
    let session = session_by(local, &admin()).await;
    session.caller().await.unwrap();
    local.clear_calls();
    session
}

/// A session with another key.
pub async fn session_as(local: &LocalEcr, id: &str, secret: &str) -> Session {
    session_by(local, &key(id, secret)).await
}

async fn session_by(local: &LocalEcr, credentials: &Credentials) -> Session {
    let options =
        SessionOptions { http_client: Some(SharedHttpClient::new(local.connector())), ..SessionOptions::default() };
    Session::new(credentials, &Region::parse(REGION).unwrap(), &Endpoint::default(), &options).await
}

fn key(id: &str, secret: &str) -> Credentials {
    Credentials::AccessKey(StaticKey {
        access_key_id: id.to_owned(),
        secret_access_key: Secret::new(secret.to_owned()),
        session_token: None,
    })
}

/// The key of its administrator.
pub fn admin() -> Credentials {
    let Config { access_key, secret_key, .. } = Config::default();
    key(&access_key, &secret_key)
}

/// Nothing is in the way of it.
pub async fn surely() -> Result<(), Infallible> {
    Ok(())
}

/// Creates a repository.
pub async fn created(ecr: &Ecr, name: &str, creation: &Creation) -> Result<Core, AwsError> {
    let Ok(created) = ecr.create(name, creation, surely).await;
    created
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

/// Deletes a repository, whatever became of its object meanwhile.
pub async fn delete(ecr: &Ecr, name: &str, force: bool) -> Result<(), AwsError> {
    let Ok(answer) = ecr.delete(name, force, || std::future::ready(Ok::<_, Infallible>(()))).await;
    answer
}
