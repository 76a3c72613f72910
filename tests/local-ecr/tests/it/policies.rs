use std::collections::BTreeSet;

use local_ecr::{ReadBack, SeedRole};
use serde_json::{Value, json};

use crate::support::{ACCOUNT, REGION, call, code, ecr, start};

fn rule(selection: &Value, action: &Value) -> Value {
    json!({"rulePriority": 1, "description": "of a length that makes the document long enough to be accepted",
           "selection": selection, "action": action})
}

/// A policy of these rules, long enough to be accepted.
fn policy(rules: &Value) -> String {
    format!("{:100}", json!({"rules": rules}).to_string())
}

#[tokio::test]
async fn lifecycle_rules() {
    let local = start().await;
    ecr(&local).create_repository().repository_name("app").send().await.unwrap();
    let put = |text: String| {
        call(&local, "PutLifecyclePolicy", json!({"repositoryName": "app", "lifecyclePolicyText": text}))
    };
    let expire = json!({"type": "expire"});
    let archive = json!({"type": "transition", "targetStorageClass": "archive"});
    let days = |kind: &str, number: u32| json!({"tagStatus": "any", "countType": kind, "countUnit": "days", "countNumber": number});
    let with = |mut selection: Value, key: &str, value: Value| {
        selection[key] = value;
        selection
    };
    let count = json!({"tagStatus": "untagged", "countType": "imageCountMoreThan", "countNumber": 3});
    let tagged = |key: &str, list: Value| with(with(count.clone(), "tagStatus", json!("tagged")), key, list);

    for (selection, action) in [
        (count.clone(), &expire),
        (days("sinceImagePushed", 14), &expire),
        (days("sinceImagePushed", 14), &archive),
        (days("sinceImagePulled", 14), &archive),
        (with(days("sinceImageTransitioned", 90), "storageClass", json!("archive")), &expire),
        (tagged("tagPrefixList", json!(["v", "release-"])), &expire),
        (tagged("tagPatternList", json!(["*a*b*c*"])), &expire),
    ] {
        let answer = put(policy(&json!([rule(&selection, action)]))).await;
        assert!(answer.status.is_success(), "{selection}: {}", answer.message());
    }

    for (selection, action, why) in [
        (with(count.clone(), "countUnit", json!("days")), &expire, "countUnit with a count of images"),
        (with(days("sinceImagePushed", 1), "countUnit", json!("weeks")), &expire, "another unit"),
        (with(count.clone(), "countType", json!("sinceImagePushed")), &expire, "no unit"),
        (days("sinceImagePulled", 14), &expire, "pulled pairs with transition"),
        (
            with(days("sinceImageTransitioned", 90), "storageClass", json!("archive")),
            &archive,
            "transitioned pairs with expire",
        ),
        (days("sinceImageTransitioned", 90), &expire, "transitioned needs archive"),
        (with(days("sinceImageTransitioned", 89), "storageClass", json!("archive")), &expire, "90 days at least"),
        (with(count.clone(), "storageClass", json!("archive")), &expire, "archive for others"),
        (with(count.clone(), "tagPrefixList", json!(["v"])), &expire, "prefixes with untagged"),
        (with(count.clone(), "tagStatus", json!("tagged")), &expire, "tagged without list"),
        (with(tagged("tagPrefixList", json!(["v"])), "tagPatternList", json!(["v*"])), &expire, "both lists"),
        (tagged("tagPatternList", json!(["*a*b*c*d*"])), &expire, "five wildcards"),
        (tagged("tagPatternList", json!([])), &expire, "empty list"),
        (tagged("tagPrefixList", json!(["v*"])), &expire, "wildcard in a prefix"),
        (with(count.clone(), "countNumber", json!(0)), &expire, "zero"),
        (with(count.clone(), "countNumber", json!("3")), &expire, "a number as text"),
        (with(count.clone(), "countNumber", json!(1.5)), &expire, "half an image"),
        (with(count.clone(), "tagPatternList", Value::Null), &expire, "null"),
        (with(count.clone(), "colour", json!("red")), &expire, "unknown member"),
        (count.clone(), &json!({"type": "delete"}), "unknown action"),
        (count.clone(), &json!({"type": "transition"}), "transition to nowhere"),
        (count.clone(), &json!({"type": "expire", "targetStorageClass": null}), "null in the action"),
        (count.clone(), &json!({"type": "expire", "targetStorageClass": "archive"}), "expire to archive"),
    ] {
        let answer = put(policy(&json!([rule(&selection, action)]))).await;
        assert_eq!(answer.code(), "InvalidParameterException", "{why}");
        assert!(answer.message().contains("Lifecycle policy validation failure"), "{why}: {}", answer.message());
    }

    let numbered = |number: u32, selection: &Value| with(rule(selection, &expire), "rulePriority", json!(number));
    let (any, untagged) = (days("sinceImagePushed", 9), count.clone());
    assert!(put(policy(&json!([numbered(5, &any), numbered(2, &untagged)]))).await.status.is_success());
    for (rules, why) in [
        (json!([numbered(1, &any), numbered(2, &untagged)]), "any isn't last"),
        (json!([numbered(1, &untagged), numbered(1, &any)]), "one number twice"),
        (json!([numbered(0, &untagged)]), "number zero"),
        (json!([]), "no rules"),
        (json!((1..=51).map(|n| numbered(n, &untagged)).collect::<Vec<_>>()), "51 rules"),
        (json!([with(rule(&count, &expire), "description", Value::Null)]), "null description"),
    ] {
        assert_eq!(put(policy(&rules)).await.code(), "InvalidParameterException", "{why}");
    }
    let short = json!({"rules": [{"rulePriority": 1, "selection": {}, "action": {}}]}).to_string();
    assert!(put(short).await.message().contains("greater than or equal to 100"));
    assert!(put(" ".repeat(30_721)).await.message().contains("less than or equal to 30720"));
    assert_eq!(put(format!("{:100}", "{")).await.code(), "InvalidParameterException");
}

#[tokio::test]
async fn lifecycle_policy_comes_and_goes() {
    let local = start().await;
    let client = ecr(&local);
    client.create_repository().repository_name("app").send().await.unwrap();
    assert_eq!(
        code(client.get_lifecycle_policy().repository_name("app").send().await),
        "LifecyclePolicyNotFoundException"
    );
    let selection = json!({"tagStatus": "untagged", "countType": "imageCountMoreThan", "countNumber": 3});
    let text = policy(&json!([rule(&selection, &json!({"type": "expire"}))]));
    client.put_lifecycle_policy().repository_name("app").lifecycle_policy_text(&text).send().await.unwrap();
    let got = client.get_lifecycle_policy().repository_name("app").send().await.unwrap();
    let got: Value = serde_json::from_str(got.lifecycle_policy_text().unwrap()).unwrap();
    assert_eq!(got, serde_json::from_str::<Value>(&text).unwrap());
    client.delete_lifecycle_policy().repository_name("app").send().await.unwrap();
    assert_eq!(
        code(client.delete_lifecycle_policy().repository_name("app").send().await),
        "LifecyclePolicyNotFoundException"
    );
    let nowhere = client.put_lifecycle_policy().repository_name("gone").lifecycle_policy_text(text).send().await;
    assert_eq!(code(nowhere), "RepositoryNotFoundException");
}

fn allow(principal: &Value) -> String {
    json!({"Version": "2012-10-17", "Statement": [
        {"Sid": "a", "Effect": "Allow", "Principal": principal, "Action": ["ecr:BatchGetImage"]}]})
    .to_string()
}

#[tokio::test]
async fn a_role_must_exist_before_a_policy_names_it() {
    let local = start().await;
    let client = ecr(&local);
    client.create_repository().repository_name("app").send().await.unwrap();
    let arn = "arn:aws:iam::210987654321:role/puller";
    let set = || client.set_repository_policy().repository_name("app").policy_text(allow(&json!({"AWS": arn}))).send();
    let refused = set().await.unwrap_err().into_service_error();
    assert!(refused.is_invalid_parameter_exception());
    assert!(refused.to_string().contains("Principal not found"), "{refused}");
    local.make_role_known(arn);
    set().await.unwrap();

    let own = "arn:aws:iam::123456789012:role/team/own";
    let named =
        || client.set_repository_policy().repository_name("app").policy_text(allow(&json!({"AWS": own}))).send();
    assert!(named().await.is_err());
    let mut role: SeedRole = serde_json::from_value(json!({"name": "team/own", "trust": {"Statement": {
        "Effect": "Allow", "Principal": {"AWS": ACCOUNT}, "Action": "sts:AssumeRole"}}}))
    .unwrap();
    role.max_session_seconds = 3600;
    let account = local_ecr::SeedAccount { id: ACCOUNT.to_owned(), roles: vec![role], ..Default::default() };
    local.seed(&local_ecr::Seed { accounts: vec![account], repositories: Vec::new() }).unwrap();
    named().await.unwrap();
}

#[tokio::test]
async fn repository_policy_comes_back_in_other_words() {
    let local = start().await;
    let client = ecr(&local);
    client.create_repository().repository_name("app").send().await.unwrap();
    assert_eq!(
        code(client.get_repository_policy().repository_name("app").send().await),
        "RepositoryPolicyNotFoundException"
    );
    let text = allow(&json!({"AWS": ["111111111111", "222222222222", "333333333333"]}));
    client.set_repository_policy().repository_name("app").policy_text(&text).send().await.unwrap();
    let mut seen = BTreeSet::new();
    for _ in 0..6 {
        let got = client.get_repository_policy().repository_name("app").send().await.unwrap();
        let got: Value = serde_json::from_str(got.policy_text().unwrap()).unwrap();
        assert_eq!(got["Statement"][0]["Action"], "ecr:BatchGetImage", "a list of one is its element");
        seen.insert(got["Statement"][0]["Principal"]["AWS"].to_string());
    }
    assert!(seen.len() > 1, "the order changes");
    assert!(seen.iter().all(|order| order.contains("arn:aws:iam::111111111111:root")));
    local.set_read_back(ReadBack { shuffle: false, normalise: false });
    let got = client.get_repository_policy().repository_name("app").send().await.unwrap();
    assert_eq!(
        serde_json::from_str::<Value>(got.policy_text().unwrap()).unwrap(),
        serde_json::from_str::<Value>(&text).unwrap()
    );
    client.delete_repository_policy().repository_name("app").send().await.unwrap();
    assert_eq!(
        code(client.delete_repository_policy().repository_name("app").send().await),
        "RepositoryPolicyNotFoundException"
    );
    assert!(local.repository(ACCOUNT, REGION, "app").unwrap().policy.is_none());
}

#[tokio::test]
async fn nobody_locks_themselves_out_by_accident() {
    let local = start().await;
    let client = ecr(&local);
    client.create_repository().repository_name("app").send().await.unwrap();
    let deny =
        json!({"Statement": {"Effect": "Deny", "Principal": "*", "Action": "ecr:SetRepositoryPolicy"}}).to_string();
    let set = |force| client.set_repository_policy().repository_name("app").policy_text(&deny).force(force).send();
    assert_eq!(code(set(false).await), "InvalidParameterException");
    set(true).await.unwrap();
    assert_eq!(code(set(true).await), "AccessDeniedException", "now they did");
}

#[tokio::test]
async fn what_a_repository_policy_may_not_be() {
    let local = start().await;
    ecr(&local).create_repository().repository_name("app").send().await.unwrap();
    let set = |text: String| call(&local, "SetRepositoryPolicy", json!({"repositoryName": "app", "policyText": text}));
    for text in [
        String::new(),
        "{}".to_owned(),
        "not JSON".to_owned(),
        json!({"Statement": {"Effect": "Allow", "Principal": "*", "Action": "ecr:*", "Resource": "*"}}).to_string(),
        json!({"Statement": {"Effect": "Allow", "Action": "ecr:*"}}).to_string(),
        json!({"Statement": {"Effect": "Allow", "Principal": "*", "Action": "s3:*"}}).to_string(),
        format!("{:10241}", allow(&json!("*"))),
    ] {
        assert_eq!(set(text.clone()).await.code(), "InvalidParameterException", "{text:.100}");
    }
    assert!(set(format!("{:10240}", allow(&json!("*")))).await.status.is_success());
}
