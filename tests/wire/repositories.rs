//! Repositories: what is sent is what ECR takes, and what is read back means the same.

use ecr_operator::core::lifecycle::LifecycleDocument;
use ecr_operator::core::policy::PolicyDocument;
use ecr_operator::core::repository::{Creation, Encryption, Mutability, Reading, Step};

use local_ecr::{Action, Fault, Matcher};
use serde_json::json;

use crate::support::{ACCOUNT, REGION, arn, created, delete, ecr, local, surely};

const LIFECYCLE: &str = r#"{"rules":[{"rulePriority":1,"selection":{"tagStatus":"any","countType":"imageCountMoreThan","countNumber":3},"action":{"type":"expire"}}]}"#;
const POLICY: &str = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":["210987654321","310987654321","410987654321"]},"Action":["ecr:BatchGetImage","ecr:GetDownloadUrlForLayer"]}]}"#;

fn creation() -> Creation {
    Creation {
        mutability: Some(Mutability::new("IMMUTABLE_WITH_EXCLUSION", vec!["dev-*".into(), "a*".into()])),
        scan_on_push: Some(true),
        encryption: Some(Encryption { kind: "KMS".into(), key: Some("alias/images".into()) }),
        tags: [("team".to_owned(), "a".to_owned())].into(),
    }
}

#[tokio::test]
async fn a_creation_carries_every_setting_and_what_is_read_back_is_no_difference() {
    let local = local().await;
    let ecr = ecr(&local).await;
    let made = created(&ecr, "team-a/app", &creation()).await.unwrap();
    let there = ecr.describe("team-a/app").await.unwrap().unwrap();
    assert_eq!(made, there);
    assert_eq!(there.mutability, creation().mutability.unwrap());
    assert!(there.scan_on_push);
    assert!(!creation().encryption.unwrap().differs(&there.encryption), "an alias against {:?}", there.encryption);
    assert_eq!(ecr.tags(&arn("team-a/app")).await.unwrap().unwrap(), creation().tags);
    assert_eq!(local.calls().len(), 3);
}

#[tokio::test]
async fn every_step_does_what_it_says() {
    let local = local().await;
    let ecr = ecr(&local).await;
    let (name, arn) = ("team-a/app", arn("team-a/app"));
    created(&ecr, name, &Creation { encryption: None, ..creation() }).await.unwrap();
    let lifecycle = LifecycleDocument::parse(LIFECYCLE).unwrap();
    let policy = PolicyDocument::parse(POLICY).unwrap();
    for step in [
        Step::PutImageTagMutability(Mutability::new("MUTABLE", vec![])),
        Step::PutImageScanningConfiguration(false),
        Step::TagResource([("new".to_owned(), "x".to_owned())].into()),
        Step::UntagResource(vec!["team".to_owned()]),
        Step::PutLifecyclePolicy { document: lifecycle.clone(), changes: vec![] },
        Step::SetRepositoryPolicy { document: policy.clone(), changes: vec![] },
    ] {
        ecr.perform(name, &arn, &step, surely).await.unwrap().unwrap();
    }
    let there = ecr.describe(name).await.unwrap().unwrap();
    assert_eq!((there.mutability.mode.as_str(), there.scan_on_push), ("MUTABLE", false));
    assert_eq!(ecr.tags(&arn).await.unwrap().unwrap(), [("new".to_owned(), "x".to_owned())].into());
    assert_eq!(ecr.lifecycle_policy(name).await.unwrap(), Reading::Found(lifecycle));
    // AWS gives principals in another order each time, and spells accounts as roots.
    for _ in 0..5 {
        assert_eq!(ecr.repository_policy(name).await.unwrap(), Reading::Found(policy.clone()));
    }
    for step in [Step::DeleteLifecyclePolicy { changes: vec![] }, Step::DeleteRepositoryPolicy { changes: vec![] }] {
        ecr.perform(name, &arn, &step, surely).await.unwrap().unwrap();
        ecr.perform(name, &arn, &step, surely).await.unwrap().expect("gone already is gone");
    }
    assert_eq!(ecr.lifecycle_policy(name).await.unwrap(), Reading::Absent);
    assert_eq!(ecr.repository_policy(name).await.unwrap(), Reading::Absent);
}

#[tokio::test]
async fn a_rule_of_the_registry_decides_on_scanning_for_every_repository() {
    let local = local().await;
    let ecr = ecr(&local).await;
    assert_eq!(ecr.registry_scanning().await.unwrap(), None, "as every account begins");
    let rule = json!({"scanFrequency": "SCAN_ON_PUSH", "repositoryFilters": [{"filter": "nothing-here*", "filterType": "WILDCARD"}]});
    for (scanning, decides) in [
        (json!({"scanType": "BASIC", "rules": [rule]}), Some("BASIC")),
        (json!({"scanType": "ENHANCED", "rules": []}), Some("ENHANCED")),
        (json!({"scanType": "BASIC", "rules": []}), None),
    ] {
        local.behind_the_back(ACCOUNT, REGION, "PutRegistryScanningConfiguration", scanning).unwrap();
        assert_eq!(ecr.registry_scanning().await.unwrap().as_deref(), decides);
    }
}

#[tokio::test]
async fn the_newest_push_is_told_only_where_all_images_were_seen() {
    let local = local().await;
    let ecr = ecr(&local).await;
    created(&ecr, "app", &Creation { encryption: None, ..creation() }).await.unwrap();
    for n in 0..1_000 {
        local.put_image(ACCOUNT, REGION, "app", &[&format!("v{n}")]).unwrap();
    }
    let all = ecr.images("app").await.unwrap();
    assert_eq!((all.count, all.more, all.newest.is_some()), (1_000, false, true));
    local.put_image(ACCOUNT, REGION, "app", &["latest"]).unwrap();
    let some = ecr.images("app").await.unwrap();
    assert_eq!((some.count, some.more, some.newest), (1_000, true, None), "they come in no order");
}

#[tokio::test]
async fn what_is_not_there_is_an_answer_and_no_error() {
    let local = local().await;
    let ecr = ecr(&local).await;
    assert_eq!(ecr.describe("nobody").await.unwrap(), None);
    assert_eq!(ecr.tags(&arn("nobody")).await.unwrap(), None);
    delete(&ecr, "nobody", false).await.expect("gone already is gone");
}

#[tokio::test]
async fn words_of_a_newer_api_are_kept_as_they_are() {
    let local = local().await;
    let ecr = ecr(&local).await;
    let newer = json!({"repositories": [{
        "repositoryName": "app", "repositoryArn": arn("app"), "registryId": ACCOUNT, "createdAt": 1_700_000_000.5,
        "repositoryUri": "x", "imageTagMutability": "FROZEN", "quantum": {"entangled": true},
        "imageTagMutabilityExclusionFilters": [{"filterType": "REGEX", "filter": "dev-*"}],
        "encryptionConfiguration": {"encryptionType": "QUANTUM"},
    }]});
    local.fault(Fault::always(
        Matcher::operation("DescribeRepositories"),
        Action::Body { status: 200, body: newer.to_string() },
    ));
    let there = ecr.describe("app").await.unwrap().unwrap();
    assert_eq!(there.mutability.describe(), "FROZEN (except REGEX dev-*)");
    assert_ne!(there.mutability, Mutability::new("FROZEN", vec!["dev-*".into()]), "no wildcard");
    assert_eq!((there.encryption.kind.as_str(), there.scan_on_push), ("QUANTUM", false));
}
