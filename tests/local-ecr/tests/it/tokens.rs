use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use aws_sdk_ecr::config::{BehaviorVersion, Region};
use http::Method;
use serde_json::json;

use crate::support::{ACCOUNT, OTHER, REGION, admin, call, code, ecr, ecr_as, keys, password, start, start_with, v2};

#[tokio::test]
async fn fresh_opaque_and_twelve_hours_long() {
    let local = start().await;
    let mut seen = BTreeSet::new();
    for _ in 0..3 {
        let output = ecr(&local).get_authorization_token().send().await.unwrap();
        let data = &output.authorization_data()[0];
        assert_eq!(data.proxy_endpoint(), Some("https://123456789012.dkr.ecr.eu-west-1.amazonaws.com"));
        let expires: SystemTime = (*data.expires_at().unwrap()).try_into().unwrap();
        let left = expires.duration_since(SystemTime::now()).unwrap();
        assert!(left > Duration::from_mins(12 * 60 - 1) && left <= Duration::from_hours(12));
        let token = data.authorization_token().unwrap();
        assert!((1500..3000).contains(&token.len()), "of AWS's size: {}", token.len());
        seen.insert(token.to_owned());
    }
    assert_eq!(seen.len(), 3);
}

#[tokio::test]
async fn lifetime_is_the_tests_choice() {
    let local = start().await;
    local.set_token_lifetime(Duration::from_secs(20));
    local.set_token_lifetime_of(OTHER, Duration::from_secs(5));
    let first = password(&ecr(&local)).await;
    let ping = || v2(&local, Method::GET, "/v2/", Some(&first), b"");
    assert_eq!(ping().await.status, 200);
    local.advance(Duration::from_secs(19));
    assert_eq!(ping().await.status, 200);
    local.advance(Duration::from_secs(2));
    let refused = ping().await;
    assert_eq!((refused.status.as_u16(), refused.code().as_str()), (403, "DENIED"));
    assert_eq!(refused.message(), "Your authorization token has expired. Reauthenticate and try again.");
    let second = password(&ecr(&local)).await;
    assert_eq!(v2(&local, Method::GET, "/v2/", Some(&second), b"").await.status, 200, "a new one works");
}

#[tokio::test]
async fn a_token_is_good_in_its_own_region_only() {
    let local = start().await;
    let elsewhere = password(&ecr_as(&local, admin(), "us-east-1")).await;
    let refused = v2(&local, Method::GET, "/v2/", Some(&elsewhere), b"").await;
    assert_eq!(refused.status, 403);
    assert!(refused.message().contains("authorization token has expired"), "AWS is as misleading");
    let there = "/v2/?ns=123456789012.dkr.ecr.us-east-1.amazonaws.com";
    assert_eq!(v2(&local, Method::GET, there, Some(&elsewhere), b"").await.status, 200);
}

#[tokio::test]
async fn registry_ids_get_an_entry_each() {
    let local = start().await;
    let answer = call(&local, "GetAuthorizationToken", json!({"registryIds": [ACCOUNT, OTHER]})).await.json();
    let endpoints: Vec<_> =
        answer["authorizationData"].as_array().unwrap().iter().map(|data| data["proxyEndpoint"].clone()).collect();
    assert_eq!(endpoints[1], "https://210987654321.dkr.ecr.eu-west-1.amazonaws.com");
    for bad in [json!([]), json!(["1"]), json!(vec![ACCOUNT; 11])] {
        assert_eq!(
            call(&local, "GetAuthorizationToken", json!({"registryIds": bad})).await.code(),
            "InvalidParameterException"
        );
    }
}

#[tokio::test]
async fn permission_is_needed() {
    let user = json!({"name": "nobody", "accessKey": "AKIANOBODY", "secretKey": "s"});
    let local = start_with(json!({"accounts": [{"id": ACCOUNT, "users": [user]}]})).await;
    let denied = ecr_as(&local, keys("AKIANOBODY", "s"), REGION).get_authorization_token().send().await;
    assert_eq!(code(denied), "AccessDeniedException");
}

#[tokio::test]
async fn ecr_public_answers_in_us_east_1_only() {
    let statement = json!({"Effect": "Allow", "Action": "ecr-public:GetAuthorizationToken", "Resource": "*"});
    let user =
        json!({"name": "half", "accessKey": "AKIAHALF", "secretKey": "s", "policies": [{"Statement": statement}]});
    let local = start_with(json!({"accounts": [{"id": ACCOUNT, "users": [user]}]})).await;
    let client = |credentials, region: &'static str| {
        let config = aws_sdk_ecrpublic::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .http_client(local.connector())
            .region(Region::new(region))
            .credentials_provider(credentials)
            .endpoint_url("http://local")
            .build();
        aws_sdk_ecrpublic::Client::from_conf(config)
    };
    let output = client(admin(), "us-east-1").get_authorization_token().send().await.unwrap();
    let data = output.authorization_data().unwrap();
    assert!(data.authorization_token().is_some() && data.expires_at().is_some());
    assert_eq!(
        code(client(admin(), "eu-west-1").get_authorization_token().send().await),
        "UnsupportedCommandException"
    );
    let half = client(keys("AKIAHALF", "s"), "us-east-1").get_authorization_token().send().await;
    assert_eq!(code(half), "AccessDeniedException", "sts:GetServiceBearerToken is needed too");
}
