use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use local_ecr::LocalEcr;
use serde_json::{Value, json};

use crate::support::{
    ACCOUNT, OTHER, REGION, admin, code, ecr_as, keys, password, session, start, start_with, sts_as, v2,
};

const ROLE: &str = "arn:aws:iam::123456789012:role/team/manager";
const ISSUER: &str = "https://kubernetes.default.svc";

fn allow(action: &Value) -> Value {
    json!({"Statement": {"Effect": "Allow", "Action": action, "Resource": "*"}})
}

async fn with_role(trust: Value) -> LocalEcr {
    let role = json!({"name": "team/manager", "trust": {"Statement": trust}, "policies": [allow(&json!("*"))], "maxSessionSeconds": 7200});
    let limited = json!({"name": "limited", "accessKey": "AKIALIMITED", "secretKey": "s", "policies": [allow(&json!(["sts:AssumeRole", "sts:TagSession"]))]});
    let nobody = json!({"name": "nobody", "accessKey": "AKIANOBODY", "secretKey": "s"});
    let foreign = json!({"name": "foreign", "accessKey": "AKIAFOREIGN", "secretKey": "s", "policies": [allow(&json!("sts:AssumeRole"))]});
    start_with(json!({"accounts": [
        {"id": ACCOUNT, "users": [limited, nobody], "roles": [role], "oidcProviders": [ISSUER]},
        {"id": OTHER, "users": [foreign]},
    ]}))
    .await
}

fn by_account(action: &Value) -> Value {
    json!({"Effect": "Allow", "Principal": {"AWS": ACCOUNT}, "Action": action})
}

#[tokio::test]
async fn who_am_i() {
    let local = start().await;
    let identity = sts_as(&local, admin()).get_caller_identity().send().await.unwrap();
    assert_eq!(identity.arn(), Some("arn:aws:iam::123456789012:user/admin"));
    assert_eq!(identity.account(), Some(ACCOUNT));
    assert_eq!(
        code(sts_as(&local, keys("AKIANOBODY", "s")).get_caller_identity().send().await),
        "InvalidClientTokenId"
    );
    assert_eq!(
        code(sts_as(&local, keys(crate::support::KEY, "wrong")).get_caller_identity().send().await),
        "SignatureDoesNotMatch"
    );
}

#[tokio::test]
async fn assume_role_by_trust_and_permission() {
    let local = with_role(by_account(&json!("sts:AssumeRole"))).await;
    let assume = |key, secret| sts_as(&local, keys(key, secret)).assume_role().role_arn(ROLE).role_session_name("s-1");
    let output = assume("AKIALIMITED", "s").send().await.unwrap();
    let user = output.assumed_role_user().unwrap();
    assert_eq!(user.arn(), "arn:aws:sts::123456789012:assumed-role/manager/s-1");
    assert!(user.assumed_role_id().starts_with("AROA") && user.assumed_role_id().ends_with(":s-1"));
    let credentials = session(output.credentials());
    let identity = sts_as(&local, credentials.clone()).get_caller_identity().send().await.unwrap();
    assert_eq!(identity.arn(), Some(user.arn()));

    assert_eq!(
        code(assume("AKIANOBODY", "s").send().await),
        "AccessDenied",
        "trust in the account leaves it to its policies"
    );
    assert_eq!(code(assume("AKIAFOREIGN", "s").send().await), "AccessDenied", "another account isn't trusted");
    let gone =
        sts_as(&local, admin()).assume_role().role_arn("arn:aws:iam::123456789012:role/gone").role_session_name("s-1");
    assert_eq!(code(gone.send().await), "AccessDenied", "a missing role is told as one that may not be assumed");
    let pathless = sts_as(&local, admin())
        .assume_role()
        .role_arn("arn:aws:iam::123456789012:role/manager")
        .role_session_name("s-1");
    assert_eq!(code(pathless.send().await), "AccessDenied");

    local.remove_role(ACCOUNT, "manager");
    let after = ecr_as(&local, credentials, REGION).describe_repositories().send().await;
    assert_eq!(code(after), "AccessDeniedException", "a session without its role may do nothing");
}

#[tokio::test]
async fn external_id_and_session_tags() {
    let condition = json!({"StringEquals": {"sts:ExternalId": "secret-word"}});
    let trust = json!({"Effect": "Allow", "Principal": {"AWS": format!("arn:aws:iam::{OTHER}:user/foreign")}, "Action": "sts:AssumeRole", "Condition": condition});
    let local = with_role(trust).await;
    let assume = || sts_as(&local, keys("AKIAFOREIGN", "s")).assume_role().role_arn(ROLE).role_session_name("s-1");
    assert_eq!(code(assume().send().await), "AccessDenied");
    assert_eq!(code(assume().external_id("another").send().await), "AccessDenied");
    assume().external_id("secret-word").send().await.unwrap();
    let tag = aws_sdk_sts::types::Tag::builder().key("namespace").value("team-a").build().unwrap();
    let tagged = assume().external_id("secret-word").tags(tag).send().await;
    assert_eq!(code(tagged), "AccessDenied", "tags need sts:TagSession in the trust policy");
}

#[tokio::test]
async fn session_tags_reach_policies() {
    let local = with_role(by_account(&json!(["sts:AssumeRole", "sts:TagSession"]))).await;
    let tag = |value: &str| aws_sdk_sts::types::Tag::builder().key("team").value(value).build().unwrap();
    let policy = json!({"Statement": {"Effect": "Allow", "Action": "ecr:CreateRepository", "Resource": "*",
        "Condition": {"StringEquals": {"aws:PrincipalTag/team": "a"}}}});
    for (team, allowed) in [("a", true), ("b", false)] {
        let assume = sts_as(&local, keys("AKIALIMITED", "s")).assume_role().role_arn(ROLE).role_session_name("s-1");
        let output = assume.tags(tag(team)).policy(policy.to_string()).send().await.unwrap();
        let client = ecr_as(&local, session(output.credentials()), REGION);
        assert_eq!(
            client.create_repository().repository_name(format!("of-{team}")).send().await.is_ok(),
            allowed,
            "{team}"
        );
    }
}

#[tokio::test]
async fn durations_and_names() {
    let local = with_role(by_account(&json!("sts:AssumeRole"))).await;
    let assume = |client: aws_sdk_sts::Client, seconds| {
        client.assume_role().role_arn(ROLE).role_session_name("s-1").duration_seconds(seconds).send()
    };
    let user = || sts_as(&local, admin());
    assert_eq!(code(assume(user(), 899).await), "ValidationError");
    assert_eq!(code(assume(user(), 43_201).await), "ValidationError");
    assert_eq!(code(assume(user(), 7201).await), "ValidationError", "longer than the role allows");
    let output = assume(user(), 7200).await.unwrap();
    let chained = || sts_as(&local, session(output.credentials()));
    assert_eq!(code(assume(chained(), 3601).await), "ValidationError", "chained: an hour at most");
    assume(chained(), 3600).await.unwrap();
    for name in ["x", "with space", &"x".repeat(65)] {
        let named = user().assume_role().role_arn(ROLE).role_session_name(name).send().await;
        assert_eq!(code(named), "ValidationError", "{name}");
    }
}

#[tokio::test]
async fn session_policies_have_limits() {
    let local = with_role(by_account(&json!("sts:AssumeRole"))).await;
    let assume = |policy: String| {
        sts_as(&local, admin()).assume_role().role_arn(ROLE).role_session_name("s-1").policy(policy).send()
    };
    let document = allow(&json!("ecr:*")).to_string();
    let packed = assume(format!("{document:2048}")).await.unwrap().session_token_utilization().unwrap();
    assert!(packed > 0 && packed < 20, "white space is packed away: {packed}");
    assert_eq!(code(assume(format!("{document:2049}")).await), "ValidationError");
    assert_eq!(code(assume("{".to_owned()).await), "MalformedPolicyDocument");
    assert_eq!(
        code(assume(json!({"Statement": {"Effect": "Allow", "Action": "ecr:*"}}).to_string()).await),
        "MalformedPolicyDocument"
    );
    local.set_packed_policy_limit(50);
    assert_eq!(code(assume(document).await), "PackedPolicyTooLarge");
}

#[tokio::test]
async fn sessions_end() {
    let local = with_role(by_account(&json!("sts:AssumeRole"))).await;
    let output = sts_as(&local, admin()).assume_role().role_arn(ROLE).role_session_name("s-1").send().await.unwrap();
    let client = ecr_as(&local, session(output.credentials()), REGION);
    let token = password(&client).await;
    let ping = || v2(&local, http::Method::GET, "/v2/", Some(&token), b"");
    local.advance(Duration::from_secs(3599));
    client.describe_repositories().send().await.unwrap();
    local.advance(Duration::from_secs(2));
    assert_eq!(code(client.describe_repositories().send().await), "ExpiredTokenException");
    let expired = sts_as(&local, session(output.credentials())).get_caller_identity().send().await;
    assert_eq!(code(expired), "ExpiredToken");
    assert_eq!(ping().await.status, 200, "the registry token lives on");
    local.tokens_end_with_session(true);
    assert_eq!(ping().await.status, 403, "unless AWS is taken to end it with the session");

    local.set_session_lifetime(Some(Duration::from_secs(10)));
    let short = sts_as(&local, admin()).assume_role().role_arn(ROLE).role_session_name("s-1").send().await.unwrap();
    local.advance(Duration::from_secs(11));
    let client = ecr_as(&local, session(short.credentials()), REGION);
    assert_eq!(code(client.describe_repositories().send().await), "ExpiredTokenException");
}

#[tokio::test]
async fn federated_users_have_what_both_allow() {
    let local = with_role(by_account(&json!("sts:AssumeRole"))).await;
    let federate = |policy: Option<String>| {
        sts_as(&local, admin()).get_federation_token().name("ns.name").set_policy(policy).send()
    };
    let output = federate(Some(allow(&json!("ecr:Describe*")).to_string())).await.unwrap();
    assert_eq!(output.federated_user().unwrap().arn(), "arn:aws:sts::123456789012:federated-user/ns.name");
    let client = ecr_as(&local, session(output.credentials()), REGION);
    client.describe_repositories().send().await.unwrap();
    assert_eq!(code(client.create_repository().repository_name("app").send().await), "AccessDeniedException");
    let bare = ecr_as(&local, session(federate(None).await.unwrap().credentials()), REGION);
    assert_eq!(code(bare.describe_repositories().send().await), "AccessDeniedException", "without a policy: nothing");
    let again = sts_as(&local, session(output.credentials())).get_federation_token().name("ns.name").send().await;
    assert_eq!(code(again), "AccessDenied");
    let not_allowed = sts_as(&local, keys("AKIALIMITED", "s")).get_federation_token().name("ns.name").send().await;
    assert_eq!(code(not_allowed), "AccessDenied");
}

fn jwt(subject: &str, audience: &Value, expires_in: i64) -> String {
    let expiry = jiff::Timestamp::now().as_second() + expires_in;
    let claims = json!({"iss": ISSUER, "sub": subject, "aud": audience, "exp": expiry});
    let part = |value: Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.signature", part(json!({"alg": "RS256"})), part(claims))
}

#[tokio::test]
async fn web_identities() {
    let subject = "system:serviceaccount:ecr-operator:ecr-operator";
    let trust = json!({"Effect": "Allow",
        "Principal": {"Federated": "arn:aws:iam::123456789012:oidc-provider/kubernetes.default.svc"},
        "Action": "sts:AssumeRoleWithWebIdentity",
        "Condition": {"StringEquals": {"kubernetes.default.svc:sub": subject, "kubernetes.default.svc:aud": "sts.amazonaws.com"}}});
    let local = with_role(trust).await;
    let anonymous = sts_as(&local, keys("unused", "unused"));
    let assume = |token: String| {
        anonymous
            .assume_role_with_web_identity()
            .role_arn(ROLE)
            .role_session_name("s-1")
            .web_identity_token(token)
            .send()
    };
    let audience = json!(["sts.amazonaws.com"]);
    let output = assume(jwt(subject, &audience, 600)).await.unwrap();
    assert_eq!(output.subject_from_web_identity_token(), Some(subject));
    assert_eq!(output.audience(), Some("sts.amazonaws.com"));
    ecr_as(&local, session(output.credentials()), REGION).describe_repositories().send().await.unwrap();

    assert_eq!(code(assume(jwt("system:serviceaccount:default:default", &audience, 600)).await), "AccessDenied");
    assert_eq!(code(assume(jwt(subject, &json!("another"), 600)).await), "AccessDenied");
    assert_eq!(code(assume(jwt(subject, &audience, -1)).await), "ExpiredTokenException");
    assert_eq!(code(assume("not.a-jwt".to_owned()).await), "InvalidIdentityToken");
    let call = &local.calls_of("AssumeRoleWithWebIdentity")[0];
    assert_eq!((call.principal.as_str(), call.resource.as_str(), call.account.as_str()), (subject, ROLE, ACCOUNT));
    assert!(!call.request.to_string().contains("signature"), "identity tokens stay out of the log");

    let elsewhere = anonymous
        .assume_role_with_web_identity()
        .role_arn("arn:aws:iam::210987654321:role/manager")
        .role_session_name("s-1")
        .web_identity_token(jwt(subject, &audience, 600))
        .send()
        .await;
    assert_eq!(code(elsewhere), "InvalidIdentityToken", "that account knows no such provider");
}

#[tokio::test]
async fn pods_get_the_role_of_their_service_account() {
    let service = json!({"Effect": "Allow", "Principal": {"Service": "pods.eks.amazonaws.com"},
        "Action": ["sts:AssumeRole", "sts:TagSession"]});
    let local = with_role(service).await;
    let pods = json!({"namespace": "ecr-operator", "serviceAccount": "ecr-operator", "roleArn": ROLE});
    let seed = json!({"accounts": [{"id": ACCOUNT, "podIdentities": [pods]}]});
    local.seed(&serde_json::from_value(seed).unwrap()).unwrap();
    let ask = async |token: String| {
        let request = http::Request::get(format!("{}/_local/pod-identity", local.url())).header("authorization", token);
        crate::support::send(request.body(http_body_util::Full::default()).unwrap()).await.unwrap()
    };
    let audience = json!(["pods.eks.amazonaws.com"]);
    let answer = ask(jwt("system:serviceaccount:ecr-operator:ecr-operator", &audience, 600)).await.json();
    let part = |name: &str| answer[name].as_str().unwrap().to_owned();
    let credentials = aws_credential_types::Credentials::new(
        part("AccessKeyId"),
        part("SecretAccessKey"),
        Some(part("Token")),
        None,
        "pod",
    );
    let identity = sts_as(&local, credentials).get_caller_identity().send().await.unwrap();
    assert_eq!(identity.arn(), Some("arn:aws:sts::123456789012:assumed-role/manager/eks-local-ecr-operator"));
    assert_eq!(local.calls_of("AssumeRoleForPodIdentity")[0].resource, ROLE);
    assert_eq!(ask(jwt("system:serviceaccount:default:default", &audience, 600)).await.status, 404);
    assert_eq!(ask(jwt("system:serviceaccount:ecr-operator:ecr-operator", &json!("other"), 600)).await.status, 400);
}

#[tokio::test]
async fn keys_are_rotated() {
    let local = start().await;
    local.remove_access_key(crate::support::KEY);
    assert_eq!(
        code(ecr_as(&local, admin(), REGION).describe_repositories().send().await),
        "UnrecognizedClientException"
    );
}

#[tokio::test]
async fn tags_decide_in_identity_policies() {
    let create = json!({"Effect": "Allow", "Action": ["ecr:CreateRepository", "ecr:TagResource"], "Resource": "*",
        "Condition": {"StringEquals": {"aws:RequestTag/owner": "us"}}});
    let delete = json!({"Effect": "Allow", "Action": "ecr:DeleteRepository", "Resource": "*",
        "Condition": {"StringEquals": {"aws:ResourceTag/owner": "us"}}});
    let user =
        json!({"name": "m", "accessKey": "AKIAM", "secretKey": "s", "policies": [{"Statement": [create, delete]}]});
    let theirs = json!({"account": ACCOUNT, "region": REGION, "name": "theirs", "tags": {"owner": "them"}});
    let local = start_with(json!({"accounts": [{"id": ACCOUNT, "users": [user]}], "repositories": [theirs]})).await;
    let client = ecr_as(&local, keys("AKIAM", "s"), REGION);
    assert_eq!(code(client.create_repository().repository_name("ours").send().await), "AccessDeniedException");
    let tag = aws_sdk_ecr::types::Tag::builder().key("owner").value("us").build().unwrap();
    client.create_repository().repository_name("ours").tags(tag).send().await.unwrap();
    assert_eq!(code(client.delete_repository().repository_name("theirs").send().await), "AccessDeniedException");
    client.delete_repository().repository_name("ours").send().await.unwrap();
}
