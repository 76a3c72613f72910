use serde_json::{Value, json};

use crate::support::{call, ecr, start};

fn rule(frequency: &str, filter: &str) -> Value {
    json!({"scanFrequency": frequency, "repositoryFilters": [{"filter": filter, "filterType": "WILDCARD"}]})
}

#[tokio::test]
async fn the_registry_decides_over_the_repository() {
    let local = start().await;
    for name in ["prod/app", "dev/app"] {
        ecr(&local).create_repository().repository_name(name).send().await.unwrap();
    }
    let before = call(&local, "GetRegistryScanningConfiguration", json!({})).await.json();
    assert_eq!(before["scanningConfiguration"], json!({"scanType": "BASIC", "rules": []}));
    let wish =
        json!({"scanType": "ENHANCED", "rules": [rule("CONTINUOUS_SCAN", "prod/*"), rule("SCAN_ON_PUSH", "*x")]});
    let answer = call(&local, "PutRegistryScanningConfiguration", wish.clone()).await.json();
    assert_eq!(answer["registryScanningConfiguration"], wish);
    let names = json!({"repositoryNames": ["prod/app", "dev/app", "gone"]});
    let effective = call(&local, "BatchGetRepositoryScanningConfiguration", names).await.json();
    assert_eq!(effective["scanningConfigurations"][0]["scanFrequency"], "CONTINUOUS_SCAN");
    assert_eq!(effective["scanningConfigurations"][0]["appliedScanFilters"][0]["filter"], "prod/*");
    assert_eq!(effective["scanningConfigurations"][1]["scanFrequency"], "MANUAL");
    assert_eq!(effective["failures"][0]["failureCode"], "REPOSITORY_NOT_FOUND");
    let described = ecr(&local).describe_repositories().repository_names("prod/app").send().await.unwrap();
    assert!(
        !described.repositories()[0].image_scanning_configuration().unwrap().scan_on_push(),
        "as AWS: it doesn't show here"
    );
}

#[tokio::test]
async fn what_it_refuses() {
    let local = start().await;
    let two = rule("SCAN_ON_PUSH", "*");
    for wish in [
        json!({"scanType": "DEEP"}),
        json!({"scanType": "BASIC", "rules": [rule("CONTINUOUS_SCAN", "*")]}),
        json!({"scanType": "ENHANCED", "rules": [rule("MANUAL", "*")]}),
        json!({"scanType": "ENHANCED", "rules": [two, rule("CONTINUOUS_SCAN", "a"), rule("MANUAL", "*")]}),
        json!({"scanType": "BASIC", "rules": [rule("SCAN_ON_PUSH", "A b")]}),
        json!({"scanType": "BASIC", "rules": [{"scanFrequency": "SCAN_ON_PUSH"}]}),
    ] {
        let answer = call(&local, "PutRegistryScanningConfiguration", wish.clone()).await;
        assert_eq!(answer.code(), "InvalidParameterException", "{wish}");
    }
    assert!(
        call(&local, "PutRegistryScanningConfiguration", json!({})).await.status.is_success(),
        "rules may be left out"
    );
}
