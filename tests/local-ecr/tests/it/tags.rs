use std::collections::BTreeMap;

use aws_sdk_ecr::types::Tag;
use serde_json::{Value, json};

use crate::support::{ACCOUNT, REGION, admin, call, code, ecr, signed, start, start_with};

const ARN: &str = "arn:aws:ecr:eu-west-1:123456789012:repository/app";

fn tags(range: std::ops::Range<usize>) -> Value {
    range.map(|n| json!({"Key": format!("k{n}"), "Value": "v"})).collect()
}

#[tokio::test]
async fn tags_come_and_go() {
    let local = start().await;
    let client = ecr(&local);
    client.create_repository().repository_name("app").send().await.unwrap();
    let tag = |key: &str, value: &str| Tag::builder().key(key).value(value).build().unwrap();
    client.tag_resource().resource_arn(ARN).tags(tag("a", "1")).tags(tag("b", "2")).send().await.unwrap();
    client.tag_resource().resource_arn(ARN).tags(tag("a", "3")).send().await.unwrap();
    client.untag_resource().resource_arn(ARN).tag_keys("b").tag_keys("never-there").send().await.unwrap();
    let listed = client.list_tags_for_resource().resource_arn(ARN).send().await.unwrap();
    assert_eq!(listed.tags(), [tag("a", "3")]);
    let gone = client.list_tags_for_resource().resource_arn(format!("{ARN}-gone")).send().await;
    assert_eq!(code(gone), "RepositoryNotFoundException");
}

#[tokio::test]
async fn limits_of_tags() {
    let local = start().await;
    assert!(
        call(&local, "CreateRepository", json!({"repositoryName": "app", "tags": tags(0..50)}))
            .await
            .status
            .is_success()
    );
    let more = json!({"repositoryName": "bpp", "tags": tags(0..51)});
    assert_eq!(call(&local, "CreateRepository", more).await.code(), "TooManyTagsException");
    let tag = |tags: Value| call(&local, "TagResource", json!({"resourceArn": ARN, "tags": tags}));
    assert_eq!(tag(tags(50..51)).await.code(), "TooManyTagsException", "the sum counts");
    assert!(tag(tags(0..3)).await.status.is_success(), "a key that is there already doesn't");
    for (tags, expected) in [
        (json!([{"Key": "AWS:x", "Value": "1"}]), "InvalidTagParameterException"),
        (json!([{"Key": "a", "Value": "1"}, {"Key": "a", "Value": "2"}]), "InvalidTagParameterException"),
        (json!([{"Key": "a\n", "Value": "1"}]), "InvalidTagParameterException"),
        (json!([{"Key": "", "Value": "1"}]), "InvalidParameterException"),
        (json!([{"Key": "a"}]), "InvalidParameterException"),
        (json!([{"Key": "a", "Value": "1".repeat(257)}]), "InvalidParameterException"),
        (json!([{"Key": "a", "Value": 1}]), "SerializationException"),
    ] {
        assert_eq!(tag(tags.clone()).await.code(), expected, "{tags}");
    }
    let untag = call(&local, "UntagResource", json!({"resourceArn": ARN, "tagKeys": ["aws:x"]})).await;
    assert_eq!(untag.code(), "InvalidTagParameterException");
    let letters = json!([{"Key": "ключ +-=._:/@", "Value": "значение"}]);
    call(&local, "UntagResource", json!({"resourceArn": ARN, "tagKeys": ["k1"]})).await;
    assert!(tag(letters).await.status.is_success());
}

#[tokio::test]
async fn arns_must_be_of_a_repository_here() {
    let local = start().await;
    for arn in [
        "app",
        "arn:aws:ecr:eu-west-1:123456789012:app",
        "arn:aws:ecr:eu-west-1:1:repository/app",
        "arn:aws:s3:eu-west-1:123456789012:repository/app",
        "arn:aws-cn:ecr:eu-west-1:123456789012:repository/app",
        "arn:aws:ecr:us-east-1:123456789012:repository/app",
    ] {
        let answer = call(&local, "ListTagsForResource", json!({"resourceArn": arn})).await;
        assert_eq!(answer.code(), "InvalidParameterException", "{arn}");
    }
}

#[tokio::test]
async fn all_tags_in_pages() {
    let repositories: Vec<_> = (0..130)
        .map(|n| {
            let tags = if n % 10 == 0 {
                json!({})
            } else {
                json!({"n": n.to_string(), "team": if n % 2 == 0 { "a" } else { "b" }})
            };
            json!({"account": ACCOUNT, "region": REGION, "name": format!("r{n:03}"), "tags": tags})
        })
        .collect();
    let local = start_with(json!({"repositories": repositories})).await;
    let get = async |body: Value| {
        let target = "ResourceGroupsTaggingAPI_20170126.GetResources";
        signed(&local, admin(), "tagging", target, &body.to_string()).await
    };
    let mut found = BTreeMap::new();
    let mut token = String::new();
    let mut pages = 0;
    loop {
        let page =
            get(json!({"ResourcesPerPage": 100, "ResourceTypeFilters": ["ecr:repository"], "PaginationToken": token}));
        let page = page.await.json();
        pages += 1;
        for mapping in page["ResourceTagMappingList"].as_array().unwrap() {
            found.insert(mapping["ResourceARN"].as_str().unwrap().to_owned(), mapping["Tags"].clone());
        }
        page["PaginationToken"].as_str().unwrap().clone_into(&mut token);
        if token.is_empty() {
            break;
        }
    }
    assert_eq!((pages, found.len()), (2, 117), "those without tags don't show");
    let team_a =
        get(json!({"TagFilters": [{"Key": "team", "Values": ["a", "c"]}], "ResourcesPerPage": 100})).await.json();
    assert_eq!(team_a["ResourceTagMappingList"].as_array().unwrap().len(), 52);
    assert_eq!(get(json!({"ResourcesPerPage": 101})).await.code(), "InvalidParameterException");
    assert_eq!(get(json!({"PaginationToken": "made-up"})).await.code(), "PaginationTokenExpiredException");
}
