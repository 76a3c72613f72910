use http::Method;
use serde_json::{Value, json};

use crate::support::{
    ACCOUNT, Answer, OTHER, REGION, admin, ecr, ecr_as, keys, manifest, password, session, start, start_with, sts_as,
    v2, v2_at,
};

const MANIFEST: &str = "/v2/team-a/app/manifests/v1";

fn refusal(answer: &Answer) -> (u16, String) {
    (answer.status.as_u16(), answer.code())
}

fn repository(account: &str, name: &str) -> Value {
    json!({"account": account, "region": REGION, "name": name})
}

#[tokio::test]
async fn challenge_without_credentials() {
    let local = start().await;
    let answer = v2(&local, Method::GET, "/v2/", None, b"").await;
    assert_eq!(answer.status, 401);
    assert_eq!(
        answer.headers["www-authenticate"],
        r#"Basic realm="https://123456789012.dkr.ecr.eu-west-1.amazonaws.com/",service="ecr.amazonaws.com""#
    );
    assert_eq!(answer.headers["docker-distribution-api-version"], "registry/2.0");
    let named = v2_at(&local, Some("210987654321.dkr-ecr.us-east-1.on.aws"), Method::GET, "/v2/", None, b"").await;
    assert!(named.headers["www-authenticate"].to_str().unwrap().contains("210987654321.dkr.ecr.us-east-1"));
    let made_up = v2(&local, Method::GET, "/v2/", Some("made-up"), b"").await;
    assert_eq!(refusal(&made_up), (403, "DENIED".to_owned()));
}

#[tokio::test]
async fn push_and_pull_show_in_the_api() {
    let local = start_with(json!({"repositories": [repository(ACCOUNT, "team-a/app")]})).await;
    let token = password(&ecr(&local)).await;
    let request = |method, path, body: Vec<u8>| {
        let (local, token) = (&local, &token);
        async move { v2(local, method, path, Some(token), &body).await }
    };
    assert_eq!(refusal(&request(Method::GET, MANIFEST, vec![]).await), (404, "MANIFEST_UNKNOWN".to_owned()));
    let put = request(Method::PUT, MANIFEST, manifest("one")).await;
    assert_eq!(put.status, 201);
    let digest = put.headers["docker-content-digest"].to_str().unwrap().to_owned();
    let head = request(Method::HEAD, MANIFEST, vec![]).await;
    assert_eq!((head.status.as_u16(), head.headers["docker-content-digest"].to_str().unwrap()), (200, digest.as_str()));
    assert_eq!(head.headers["content-length"], manifest("one").len().to_string());
    let by_digest = format!("/v2/team-a/app/manifests/{digest}");
    let pulled = request(Method::GET, &by_digest, vec![]).await;
    assert_eq!(pulled.body, manifest("one"));
    assert_eq!(pulled.headers["content-type"], "application/vnd.oci.image.manifest.v1+json");

    let detail =
        &ecr(&local).describe_images().repository_name("team-a/app").send().await.unwrap().image_details()[0].clone();
    assert_eq!((detail.image_digest(), detail.image_tags()), (Some(digest.as_str()), &["v1".to_owned()][..]));
    assert!(detail.last_recorded_pull_time().is_some());
    assert_eq!(request(Method::GET, "/v2/team-a/app/tags/list", vec![]).await.json()["tags"], json!(["v1"]));

    let mut other = manifest("two");
    let wrong = request(Method::PUT, &by_digest, other.clone()).await;
    assert_eq!(refusal(&wrong), (400, "DIGEST_INVALID".to_owned()));
    other.clear();
    other.extend(b"not JSON");
    assert_eq!(refusal(&request(Method::PUT, MANIFEST, other).await), (400, "MANIFEST_INVALID".to_owned()));
    assert_eq!(refusal(&request(Method::DELETE, &by_digest, vec![]).await), (405, "UNSUPPORTED".to_owned()));
}

#[tokio::test]
async fn missing_repository() {
    let local = start().await;
    let token = password(&ecr(&local)).await;
    for (method, path) in [
        (Method::GET, "/v2/gone/manifests/v1"),
        (Method::PUT, "/v2/gone/manifests/v1"),
        (Method::POST, "/v2/gone/blobs/uploads/"),
        (Method::GET, "/v2/gone/tags/list"),
    ] {
        let answer = v2(&local, method, path, Some(&token), &manifest("x")).await;
        assert_eq!(refusal(&answer), (404, "NAME_UNKNOWN".to_owned()), "{path}");
        assert!(answer.message().contains("does not exist in the registry with id '123456789012'"));
    }
}

#[tokio::test]
async fn immutable_tags_and_their_exclusions() {
    let create = json!({"imageTagMutability": "IMMUTABLE_WITH_EXCLUSION",
                        "imageTagMutabilityExclusionFilters": [{"filterType": "WILDCARD", "filter": "dev-*"}]});
    let app = json!({"account": ACCOUNT, "region": REGION, "name": "app", "create": create});
    let local = start_with(json!({"repositories": [app]})).await;
    let token = password(&ecr(&local)).await;
    let put = |tag: &str, content: &str| {
        let (path, content) = (format!("/v2/app/manifests/{tag}"), manifest(content));
        let (local, token) = (&local, &token);
        async move { v2(local, Method::PUT, &path, Some(token), &content).await }
    };
    for (tag, content) in [("v1", "one"), ("v1", "one"), ("dev-1", "one"), ("dev-1", "two")] {
        assert_eq!(put(tag, content).await.status, 201, "{tag} {content}");
    }
    let refused = put("v1", "two").await;
    assert_eq!(refusal(&refused), (400, "TAG_INVALID".to_owned()));
    assert!(refused.message().contains("cannot be overwritten because the tag is immutable"));
}

#[tokio::test]
async fn permissions_of_the_identity() {
    let pull = json!({"Statement": [
        {"Effect": "Allow", "Action": "ecr:GetAuthorizationToken", "Resource": "*"},
        {"Effect": "Allow", "Action": ["ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"],
         "Resource": "arn:aws:ecr:eu-west-1:123456789012:repository/team-a/*"}]});
    let user = json!({"name": "puller", "accessKey": "AKIAPULLER", "secretKey": "s", "policies": [pull]});
    let local = start_with(json!({
        "accounts": [{"id": ACCOUNT, "users": [user]}],
        "repositories": [repository(ACCOUNT, "team-a/app"), repository(ACCOUNT, "team-b/app")],
    }))
    .await;
    let token = password(&ecr_as(&local, keys("AKIAPULLER", "s"), REGION)).await;
    let status = |method, path: &'static str| {
        let (local, token) = (&local, &token);
        async move { v2(local, method, path, Some(token), &manifest("x")).await }
    };
    assert_eq!(refusal(&status(Method::GET, MANIFEST).await), (404, "MANIFEST_UNKNOWN".to_owned()));
    let push = status(Method::PUT, MANIFEST).await;
    assert_eq!(refusal(&push), (403, "DENIED".to_owned()));
    assert!(
        push.message().contains("arn:aws:iam::123456789012:user/puller is not authorized to perform: ecr:PutImage")
    );
    assert_eq!(refusal(&status(Method::GET, "/v2/team-b/app/manifests/v1").await), (403, "DENIED".to_owned()));
    assert_eq!(
        refusal(&status(Method::GET, "/v2/team-b/gone/manifests/v1").await),
        (403, "DENIED".to_owned()),
        "nothing is told"
    );
}

#[tokio::test]
async fn session_policy_limits_the_token() {
    let trust = json!({"Statement": {"Effect": "Allow", "Principal": {"AWS": ACCOUNT}, "Action": "sts:AssumeRole"}});
    let all = json!({"Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}});
    let role = json!({"name": "builder", "trust": trust, "policies": [all]});
    let local = start_with(json!({
        "accounts": [{"id": ACCOUNT, "roles": [role]}],
        "repositories": [repository(ACCOUNT, "team-a/app"), repository(ACCOUNT, "team-b/app")],
    }))
    .await;
    let policy = json!({"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Action": "ecr:GetAuthorizationToken", "Resource": "*"},
        {"Effect": "Allow", "Action": "ecr:BatchGetImage", "Resource": "arn:aws:ecr:*:*:repository/team-a/*"}]});
    let assumed = sts_as(&local, admin())
        .assume_role()
        .role_arn("arn:aws:iam::123456789012:role/builder")
        .role_session_name("ns.name")
        .policy(policy.to_string())
        .send()
        .await
        .unwrap();
    let token = password(&ecr_as(&local, session(assumed.credentials()), REGION)).await;
    let get = |path: &'static str| {
        let (local, token) = (&local, &token);
        async move { v2(local, Method::GET, path, Some(token), b"").await }
    };
    assert_eq!(get(MANIFEST).await.status, 404);
    let refused = get("/v2/team-b/app/manifests/v1").await;
    assert_eq!(refusal(&refused), (403, "DENIED".to_owned()));
    assert!(refused.message().contains("no session policy allows"), "{}", refused.message());
    assert_eq!(v2(&local, Method::PUT, MANIFEST, Some(&token), &manifest("x")).await.status, 403);

    let call = local.calls().into_iter().rfind(|call| call.operation == "PutManifest").unwrap();
    assert_eq!(call.principal, "arn:aws:sts::123456789012:assumed-role/builder/ns.name");
    assert_eq!((call.service.as_str(), call.resource.as_str()), ("registry", "team-a/app"));
}

#[tokio::test]
async fn across_accounts_both_sides_must_allow() {
    let local =
        start_with(json!({"repositories": [repository(OTHER, "shared/app"), repository(ACCOUNT, "shared/app")]})).await;
    let token = password(&ecr(&local)).await;
    let host = "210987654321.dkr.ecr.eu-west-1.amazonaws.com";
    let get = || v2_at(&local, Some(host), Method::GET, "/v2/shared/app/manifests/v1", Some(&token), b"");
    let refused = get().await;
    assert_eq!(refusal(&refused), (403, "DENIED".to_owned()));
    assert!(refused.message().contains("no resource-based policy allows"));
    let policy =
        json!({"Statement": {"Effect": "Allow", "Principal": {"AWS": ACCOUNT}, "Action": "ecr:BatchGetImage"}});
    let set = json!({"repositoryName": "shared/app", "policyText": policy.to_string()});
    local.behind_the_back(OTHER, REGION, "SetRepositoryPolicy", set).unwrap();
    assert_eq!(refusal(&get().await), (404, "MANIFEST_UNKNOWN".to_owned()));

    v2(&local, Method::PUT, "/v2/shared/app/manifests/v1", Some(&token), &manifest("ours")).await;
    assert_eq!(get().await.status, 404, "repositories of one name in two accounts don't mix");
    let mirrored = format!("/v2/shared/app/manifests/v1?ns={host}");
    assert_eq!(
        v2(&local, Method::GET, &mirrored, Some(&token), b"").await.status,
        404,
        "containerd's ns counts as the host"
    );
}

#[tokio::test]
async fn layers_need_somewhere_to_go() {
    let local = start_with(json!({"repositories": [repository(ACCOUNT, "app")]})).await;
    let token = password(&ecr(&local)).await;
    let answer = v2(&local, Method::POST, "/v2/app/blobs/uploads/", Some(&token), b"").await;
    assert_eq!(refusal(&answer), (501, "UNSUPPORTED".to_owned()));
}
