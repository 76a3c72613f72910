//! Every kind of identity, with and without a session policy, and what is told where one is refused.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ecr_operator::api::TokenAccess;
use ecr_operator::aws::{AwsError, Credentials, Endpoint, Kind, PodIdentity, Role, Session, SessionOptions, StaticKey};
use ecr_operator::core::names::Region;
use ecr_operator::core::scope::Scope;
use ecr_operator::core::token::{Secret, Service};
use local_ecr::{Call, LocalEcr};
use serde_json::{Value, json};

use crate::support::{ACCOUNT, REGION, account, admin, local};

const ROLE: &str = "arn:aws:iam::123456789012:role/puller";
const ISSUER: &str = "https://oidc.example.com/id/1";
const SUBJECT: &str = "system:serviceaccount:ecr-operator-system:ecr-operator";

fn everything() -> Value {
    json!({"Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}})
}

/// A role that trusts whom this statement names.
fn trust(local: &LocalEcr, statement: &Value) {
    let role = json!({"name": "puller", "trust": {"Statement": statement}, "policies": [everything()]});
    let seed = json!({"accounts": [{"id": ACCOUNT, "roles": [role], "oidcProviders": [ISSUER]}]});
    local.seed(&serde_json::from_value(seed).unwrap()).unwrap();
}

fn options(local: &LocalEcr) -> SessionOptions {
    SessionOptions { http_client: Some(SharedHttpClient::new(local.connector())), ..SessionOptions::default() }
}

async fn session(credentials: &Credentials, options: &SessionOptions) -> Session {
    Session::new(credentials, &Region::parse(REGION).unwrap(), &Endpoint::default(), options).await
}

fn pod(variables: &[(&str, &str)]) -> PodIdentity {
    PodIdentity::read(|name| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
}

fn team_a() -> Scope {
    Scope::repositories(TokenAccess::Pull, vec![account()], vec!["team-a/*".to_owned()])
}

async fn scoped(session: &Session) -> Result<Option<jiff::Timestamp>, AwsError> {
    session.mint(&account(), Service::Private, &team_a()).await.map(|minted| minted.session_ends_at)
}

/// Asks again until there is an answer: what failed is remembered for a moment.
async fn eventually<T>(ask: impl AsyncFn() -> Option<T>) -> T {
    let asking = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), asking).await.unwrap()
}

fn operations(calls: &[Call]) -> Vec<&str> {
    calls.iter().map(|call| call.operation.as_str()).collect()
}

/// What a refusal tells to add, as it is to be added.
fn statement(error: &AwsError) -> Value {
    let from = error.message.find('{').unwrap();
    let mut values = serde_json::Deserializer::from_str(&error.message[from..]).into_iter::<Value>();
    values.next().unwrap().unwrap()
}

fn web_token(issued: &str) -> String {
    let expiry = jiff::Timestamp::now().as_second() + 600;
    let claims = json!({"iss": ISSUER, "sub": SUBJECT, "aud": ["sts.amazonaws.com"], "exp": expiry, "jti": issued});
    let part = |value: Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.signature", part(json!({"alg": "RS256"})), part(claims))
}

#[tokio::test]
async fn a_user_federates_itself_for_a_scoped_token() {
    let local = local().await;
    let session = session(&admin(), &options(&local)).await;
    let ends = scoped(&session).await.unwrap();
    assert!(ends.is_some_and(|end| end > jiff::Timestamp::now()), "the session's end comes with the token");
    assert_eq!(operations(&local.calls()), ["GetCallerIdentity", "GetFederationToken", "GetAuthorizationToken"]);
    local.clear_calls();
    scoped(&session).await.unwrap();
    assert_eq!(operations(&local.calls()), ["GetFederationToken", "GetAuthorizationToken"], "who it is, is known");
}

#[tokio::test]
async fn an_assumed_role_is_assumed_with_the_policy_from_its_source() {
    let local = local().await;
    trust(
        &local,
        &json!({"Effect": "Allow", "Principal": {"AWS": ACCOUNT}, "Action": ["sts:AssumeRole", "sts:TagSession"],
            "Condition": {"StringEquals": {"sts:ExternalId": "word"}}}),
    );
    let role = Role {
        external_id: Some("word".to_owned()),
        tags: [("cluster".to_owned(), "a".to_owned())].into(),
        duration: Some(900),
        ..Role::new(ROLE.to_owned(), "ecr-operator-default".to_owned())
    };
    let chained = Credentials::AssumeRole(role.clone(), Box::new(admin()));
    let session_of_role = session(&chained, &options(&local)).await;
    assert_eq!(
        session_of_role.caller().await.unwrap().arn,
        "arn:aws:sts::123456789012:assumed-role/puller/ecr-operator-default"
    );
    local.clear_calls();
    scoped(&session_of_role).await.unwrap();
    assert_eq!(operations(&local.calls()), ["AssumeRole", "GetAuthorizationToken"]);
    assert!(local.calls()[0].request["Policy"].as_str().unwrap().contains("repository/team-a/*"));
    // Its own session is held, not opened anew for each call.
    session_of_role.caller().await.unwrap();
    assert_eq!(local.calls_of("AssumeRole").len(), 1);

    let wrong = Role { external_id: Some("other".to_owned()), ..role };
    let refused = session(&Credentials::AssumeRole(wrong, Box::new(admin())), &options(&local)).await;
    local.clear_calls();
    let error = scoped(&refused).await.unwrap_err();
    assert_eq!(error.kind, Kind::Untrusted);
    let told = statement(&error);
    assert_eq!(told["Condition"]["StringEquals"]["sts:ExternalId"], "other");
    assert_eq!(told["Principal"]["AWS"], "arn:aws:iam::123456789012:user/admin");
    assert!(local.calls_of("GetAuthorizationToken").is_empty(), "no token is ever asked for more widely");
    // The statement that was told is the remedy.
    trust(&local, &told);
    scoped(&refused).await.unwrap();
}

#[tokio::test]
async fn a_pod_with_irsa_assumes_its_role_anew_with_the_policy() {
    let local = local().await;
    trust(&local, &json!({"Effect": "Deny", "Principal": "*", "Action": "sts:AssumeRole"}));
    let file = std::env::temp_dir().join(format!("ecr-operator-irsa-{}", std::process::id()));
    let variables = [("AWS_ROLE_ARN", ROLE), ("AWS_WEB_IDENTITY_TOKEN_FILE", file.to_str().unwrap())];
    let pod = pod(&variables);
    let session = session(&Credentials::Ambient, &SessionOptions { pod, ..options(&local) }).await;
    assert_eq!(session.caller().await.unwrap_err().kind, Kind::Transient, "there is no file yet");
    assert!(local.calls().is_empty());

    std::fs::write(&file, web_token("one")).unwrap();
    let refused = async || session.caller().await.err().filter(|error| error.kind == Kind::Untrusted);
    let error = eventually(refused).await;
    trust(&local, &statement(&error));
    eventually(async || session.caller().await.ok()).await;
    local.clear_calls();
    scoped(&session).await.unwrap();
    assert_eq!(
        operations(&local.calls()),
        ["AssumeRoleWithWebIdentity", "GetAuthorizationToken"],
        "nothing is chained"
    );
    // The kubelet writes another one: it is read without a restart.
    std::fs::write(&file, "not.a-token").unwrap();
    scoped(&session).await.unwrap_err();
    std::fs::write(&file, web_token("two")).unwrap();
    scoped(&session).await.unwrap();
    std::fs::remove_file(&file).unwrap();
}

#[tokio::test]
async fn a_role_of_the_environment_assumes_itself() {
    let local = local().await;
    trust(&local, &json!({"Effect": "Allow", "Principal": {"AWS": ACCOUNT}, "Action": "sts:AssumeRole"}));
    let assumed = sts(&local).assume_role().role_arn(ROLE).role_session_name("by-hand").send().await.unwrap();
    let session_of = session(&temporary(assumed.credentials().unwrap()), &options(&local)).await;
    trust(&local, &json!({"Effect": "Deny", "Principal": {"AWS": "*"}, "Action": "sts:TagSession"}));
    let error = scoped(&session_of).await.unwrap_err();
    assert_eq!(error.kind, Kind::Untrusted);
    let told = statement(&error);
    assert_eq!(told["Principal"]["AWS"], ROLE, "a role has to trust itself");
    trust(&local, &told);
    scoped(&session_of).await.unwrap();
}

fn sts(local: &LocalEcr) -> aws_sdk_sts::Client {
    let admin = local_ecr::Config::default();
    let keys = aws_credential_types::Credentials::new(admin.access_key, admin.secret_key, None, None, "test");
    let config = aws_sdk_sts::Config::builder()
        .behavior_version(aws_sdk_sts::config::BehaviorVersion::latest())
        .region(aws_sdk_sts::config::Region::new(REGION))
        .credentials_provider(keys)
        .http_client(local.connector());
    aws_sdk_sts::Client::from_conf(config.build())
}

/// Temporary keys, as somebody may put them in a Secret.
fn temporary(issued: &aws_sdk_sts::types::Credentials) -> Credentials {
    Credentials::AccessKey(StaticKey {
        access_key_id: issued.access_key_id().to_owned(),
        secret_access_key: Secret::new(issued.secret_access_key().to_owned()),
        session_token: Some(Secret::new(issued.session_token().to_owned())),
    })
}

#[tokio::test]
async fn a_federated_session_can_not_be_cut_down_and_the_remedy_is_told() {
    let local = local().await;
    let all = everything().to_string();
    let issued = sts(&local).get_federation_token().name("by-hand").policy(all).send().await.unwrap();
    let federated = session(&temporary(issued.credentials().unwrap()), &options(&local)).await;
    local.clear_calls();
    let error = scoped(&federated).await.unwrap_err();
    assert_eq!(error.kind, Kind::Unscopable);
    assert!(error.message.contains("scopeTokens"), "{error}");
    assert!(local.calls_of("GetAuthorizationToken").is_empty(), "never a wider token");
}

#[tokio::test]
async fn a_policy_that_is_too_long_is_told_with_its_length_before_aws_is_asked() {
    let local = local().await;
    let session = session(&admin(), &options(&local)).await;
    let globs = (0..50).map(|number| format!("team-{number}/*")).collect();
    let scope = Scope::repositories(TokenAccess::Pull, vec![account()], globs);
    let error = session.mint(&account(), Service::Private, &scope).await.unwrap_err();
    assert_eq!(error.kind, Kind::Invalid);
    assert!(error.message.contains("2048"), "{error}");
    assert!(local.calls().is_empty());
    local.set_packed_policy_limit(100);
    let error = scoped(&session).await.unwrap_err();
    assert_eq!((error.kind, error.code.as_str()), (Kind::Invalid, "PackedPolicyTooLarge"));
    assert!(error.message.contains('%') && error.message.contains("characters"), "{error}");
}

#[tokio::test]
async fn a_session_is_renewed_before_it_ends_and_lives_on_while_sts_is_away() {
    let local = local().await;
    trust(&local, &json!({"Effect": "Allow", "Principal": {"AWS": ACCOUNT}, "Action": "sts:AssumeRole"}));
    local.set_session_lifetime(Some(Duration::from_secs(4)));
    let role = Role::new(ROLE.to_owned(), "short".to_owned());
    let session = session(&Credentials::AssumeRole(role, Box::new(admin())), &options(&local)).await;
    session.caller().await.unwrap();
    trust(&local, &json!({"Effect": "Deny", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}));
    session.caller().await.unwrap();
    let error = eventually(async || session.caller().await.err()).await;
    assert_eq!(error.kind, Kind::Untrusted, "told when the last session has ended");
    trust(&local, &statement(&error));
    eventually(async || session.caller().await.ok()).await;
}

/// An HTTP client that reaches nothing and remembers whom it was sent to.
#[derive(Debug, Clone, Default)]
struct Nowhere(Arc<Mutex<Vec<String>>>);

impl HttpClient for Nowhere {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl HttpConnector for Nowhere {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        self.0.lock().unwrap().push(request.uri().to_owned());
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        HttpConnectorFuture::ready(Err(ConnectorError::io(refused.into())))
    }
}

#[tokio::test]
async fn half_of_an_identity_in_the_environment_is_told_and_nobody_else_is_asked() {
    for (has, lacks) in
        [("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), ("AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE")]
    {
        let nowhere = Nowhere::default();
        let uri = ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://169.254.170.23/v1/credentials");
        let options = SessionOptions {
            allow_imds: true,
            http_client: Some(SharedHttpClient::new(nowhere.clone())),
            pod: pod(&[(has, "x"), uri]),
            ..SessionOptions::default()
        };
        let error = session(&Credentials::Ambient, &options).await.caller().await.unwrap_err();
        assert_eq!(error.kind, Kind::Invalid);
        assert!(error.message.contains(has) && error.message.contains(lacks), "{error}");
        assert!(nowhere.0.lock().unwrap().is_empty(), "no wider identity");
    }
}

#[tokio::test]
async fn the_node_is_asked_for_credentials_only_where_that_is_allowed() {
    for allow_imds in [false, true] {
        let nowhere = Nowhere::default();
        let options = SessionOptions {
            allow_imds,
            http_client: Some(SharedHttpClient::new(nowhere.clone())),
            ..SessionOptions::default()
        };
        let error = session(&Credentials::Ambient, &options).await.caller().await.unwrap_err();
        assert_eq!(error.kind, Kind::Transient, "{error}");
        let asked = nowhere.0.lock().unwrap().iter().any(|uri| uri.contains("169.254.169.254"));
        assert_eq!(asked, allow_imds, "{:?}", nowhere.0);
        assert!(allow_imds || error.message.contains("--allow-imds"), "{error}");
    }
}
