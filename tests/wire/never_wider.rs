//! Whatever fails on the way to a token, nobody else signs for it, and nobody signs for more.

use std::collections::BTreeSet;
use std::sync::Arc;

use aws_smithy_runtime_api::client::http::SharedHttpClient;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ecr_operator::api::TokenAccess;
use ecr_operator::aws::{
    AwsError, Credentials, Endpoint, IdentityTokens, PodIdentity, Role, Session, SessionOptions, StaticKey,
};
use ecr_operator::core::names::Region;
use ecr_operator::core::scope::Scope;
use ecr_operator::core::token::{Secret, Service};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use local_ecr::{Action, Config, Fault, LocalEcr, Matcher};
use serde_json::{Value, json};

use crate::support::{ACCOUNT, REGION, account, local};

const ISSUER: &str = "https://oidc.example.com/id/1";

#[derive(Debug)]
struct Tokens;

impl IdentityTokens for Tokens {
    fn token(&self) -> BoxFuture<'_, Result<Secret, AwsError>> {
        let claims = json!({"iss": ISSUER, "sub": "s", "aud": ["sts.amazonaws.com"], "exp": jiff::Timestamp::now().as_second() + 600});
        let part = |value: Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let token = format!("{}.{}.signature", part(json!({"alg": "RS256"})), part(claims));
        std::future::ready(Ok(Secret::new(token))).boxed()
    }
}

fn key(id: &str, secret: &str) -> StaticKey {
    StaticKey { access_key_id: id.into(), secret_access_key: Secret::new(secret.into()), session_token: None }
}

fn role(name: &str) -> Role {
    Role::new(format!("arn:aws:iam::{ACCOUNT}:role/{name}"), "session".to_owned())
}

/// Every kind of identity, and what it is signed by.
fn identities() -> Vec<(&'static str, Credentials)> {
    let puller = || Credentials::AccessKey(key("AKIAPULLER", "s"));
    let web = |name| Credentials::WebIdentity(role(name), Arc::new(Tokens));
    vec![
        ("access key", puller()),
        ("role by access key", Credentials::AssumeRole(role("last"), Box::new(puller()))),
        ("web identity", web("first")),
        ("role by web identity", Credentials::AssumeRole(role("last"), Box::new(web("first")))),
        ("role by the pod", Credentials::AssumeRole(role("last"), Box::new(Credentials::Ambient))),
        ("the pod", Credentials::Ambient),
    ]
}

/// An account where everybody may do everything, so that whoever is asked could sign.
async fn account_of_all() -> LocalEcr {
    let local = local().await;
    let everything = json!({"Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}});
    let provider = format!("arn:aws:iam::{ACCOUNT}:oidc-provider/{}", ISSUER.trim_start_matches("https://"));
    let trust = json!({"Statement": [
        {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"},
        {"Effect": "Allow", "Principal": {"Federated": provider}, "Action": "sts:AssumeRoleWithWebIdentity"},
    ]});
    let role = |name: &str| json!({"name": name, "trust": trust, "policies": [everything]});
    let puller = json!({"name": "puller", "accessKey": "AKIAPULLER", "secretKey": "s", "policies": [everything]});
    let accounts =
        json!([{"id": ACCOUNT, "roles": [role("first"), role("last")], "users": [puller], "oidcProviders": [ISSUER]}]);
    local.seed(&serde_json::from_value(json!({"accounts": accounts})).unwrap()).unwrap();
    local
}

/// Asks for a scoped token from the beginning. The pod's own identity, an administrator, is always at hand.
async fn mint(local: &LocalEcr, credentials: &Credentials) -> bool {
    let Config { access_key, secret_key, .. } = Config::default();
    let options = SessionOptions {
        pod: PodIdentity::Key(key(&access_key, &secret_key)),
        http_client: Some(SharedHttpClient::new(local.connector())),
        ..SessionOptions::default()
    };
    let session = Session::new(credentials, &Region::parse(REGION).unwrap(), &Endpoint::default(), &options).await;
    let scope = Scope::repositories(TokenAccess::Pull, vec![account()], vec!["team-a/*".to_owned()]);
    session.mint(&account(), Service::Private, &scope).await.is_ok()
}

/// What was asked, by whom, and within which policy.
fn signed(local: &LocalEcr) -> BTreeSet<(String, String, String)> {
    let calls = local.calls().into_iter();
    calls.map(|call| (call.operation, call.principal, call.request["Policy"].to_string())).collect()
}

#[tokio::test]
async fn a_failure_at_any_hop_of_any_identity_never_has_another_one_sign_or_sign_for_more() {
    let local = account_of_all().await;
    for (kind, credentials) in identities() {
        local.clear_faults();
        local.clear_calls();
        assert!(mint(&local, &credentials).await, "{kind}");
        let healthy = signed(&local);
        let signers: BTreeSet<_> = healthy.iter().filter(|(call, ..)| call == "GetAuthorizationToken").collect();
        assert_eq!(signers.len(), 1, "{kind}");
        let hops: BTreeSet<_> = local.calls().into_iter().map(|call| (call.operation, call.resource)).collect();
        for (operation, resource) in hops {
            let error = |code: &str, status| Action::Before { code: code.to_owned(), status };
            for failure in [
                error("AccessDenied", 403),
                error("InvalidClientTokenId", 403),
                error("ExpiredToken", 403),
                error("ThrottlingException", 400),
                error("InternalFailure", 500),
                Action::Cut,
                Action::Lost,
            ] {
                local.clear_faults();
                local.clear_calls();
                local.fault(Fault::always(Matcher::operation(&operation).on(&resource), failure.clone()));
                let minted = mint(&local, &credentials).await;
                assert!(!minted, "{kind}: {operation} fails with {failure:?}");
                let now = signed(&local);
                assert!(!now.is_empty(), "{kind}: it was asked");
                // Who was refused is asked for its name, to tell whom to trust.
                let is_known = |call: &&(String, String, String)| {
                    let asks_who = call.0 == "GetCallerIdentity" && healthy.iter().any(|other| other.1 == call.1);
                    call.1.is_empty() || asks_who || healthy.contains(*call)
                };
                let others: Vec<_> = now.iter().filter(|call| !is_known(call)).collect();
                assert!(others.is_empty(), "{kind}: {operation} fails with {failure:?}: {others:?}");
            }
        }
    }
}
