use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use serde_json::json;

use crate::support::{KEY, SECRET, admin, call, keys, send, sign_request, signed, start};

const DESCRIBE: &str = "AmazonEC2ContainerRegistry_V20150921.DescribeRepositories";

#[tokio::test]
async fn answers_look_like_aws() {
    let local = start().await;
    let created = call(&local, "CreateRepository", json!({"repositoryName": "app"})).await;
    assert_eq!(created.headers["content-type"], "application/x-amz-json-1.1");
    assert_eq!(created.headers["x-amzn-requestid"].len(), 36);
    assert!(created.headers.contains_key("date"), "the SDK reads the server's clock from it");
    assert!(created.json()["repository"]["createdAt"].is_f64(), "epoch seconds with a fraction");
    let missing = call(&local, "DeleteRepository", json!({"repositoryName": "gone"})).await;
    assert_eq!(missing.status, 400);
    assert_eq!(
        missing.json(),
        json!({"__type": "RepositoryNotFoundException",
               "message": "The repository with name 'gone' does not exist in the registry with id '123456789012'"})
    );
}

#[tokio::test]
async fn signatures() {
    let local = start().await;
    let code = |who, service, time| {
        let request = sign_request(&local, who, service, DESCRIBE, "{}", time);
        async move { send(request).await.unwrap().code() }
    };
    let now = SystemTime::now();
    assert_eq!(code(keys("AKIANOBODY", SECRET), "ecr", now).await, "UnrecognizedClientException");
    assert_eq!(code(keys(KEY, "wrong"), "ecr", now).await, "InvalidSignatureException");
    assert_eq!(code(admin(), "s3", now).await, "InvalidSignatureException");
    assert_eq!(code(admin(), "ecr", now - Duration::from_mins(20)).await, "InvalidSignatureException");
    assert_eq!(code(admin(), "ecr", now + Duration::from_mins(20)).await, "InvalidSignatureException");
    local.advance(Duration::from_mins(20));
    let ahead = sign_request(&local, admin(), "ecr", DESCRIBE, "{}", now + Duration::from_mins(20));
    assert!(send(ahead).await.unwrap().status.is_success(), "the model's own clock is right as well");

    let mut tampered = sign_request(&local, admin(), "ecr", DESCRIBE, "{}", now);
    *tampered.body_mut() = Full::new(Bytes::from_static(b"{\"maxResults\":5}"));
    assert_eq!(send(tampered).await.unwrap().code(), "InvalidSignatureException");
    let unsigned = |authorization: Option<&str>| {
        let mut request = Request::post(local.url()).header("x-amz-target", DESCRIBE);
        if let Some(authorization) = authorization {
            request = request.header("authorization", authorization);
        }
        send(request.body(Full::default()).unwrap())
    };
    assert_eq!(unsigned(None).await.unwrap().code(), "MissingAuthenticationTokenException");
    assert_eq!(unsigned(Some("Bearer x")).await.unwrap().code(), "IncompleteSignatureException");
    assert!(
        local.calls().iter().filter(|call| !call.is_ok()).all(|call| call.account.is_empty()),
        "nobody was recognised"
    );
}

#[tokio::test]
async fn malformed_requests() {
    let local = start().await;
    let raw = async |target: &str, body: &str| signed(&local, admin(), "ecr", target, body).await;
    assert_eq!(raw(DESCRIBE, "{").await.code(), "SerializationException");
    assert_eq!(raw(DESCRIBE, "[]").await.code(), "SerializationException");
    assert_eq!(raw(DESCRIBE, r#"{"maxResults": "ten"}"#).await.code(), "SerializationException");
    assert_eq!(raw(DESCRIBE, r#"{"maxResults": null}"#).await.status, 200, "null is as good as absent");
    assert_eq!(raw("AmazonEC2ContainerRegistry_V20150921.MakeCoffee", "{}").await.code(), "UnknownOperationException");
    assert_eq!(raw("DynamoDB_20120810.ListTables", "{}").await.code(), "UnknownOperationException");
}

#[tokio::test]
async fn sts_speaks_xml() {
    let local = start().await;
    let request = Request::post(format!("{}/", local.url()))
        .header("content-type", "application/x-www-form-urlencoded")
        .body(Full::new(Bytes::from_static(b"Action=GetCallerIdentity&Version=2011-06-15")))
        .unwrap();
    let answer = send(request).await.unwrap();
    assert_eq!(answer.status, 403);
    assert_eq!(answer.headers["content-type"], "text/xml");
    assert!(answer.text().contains("<Code>MissingAuthenticationToken</Code>"), "{}", answer.text());
}
