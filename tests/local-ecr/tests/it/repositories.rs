use aws_sdk_ecr::types::{
    EncryptionConfiguration, EncryptionType, ImageScanningConfiguration, ImageTagMutability,
    ImageTagMutabilityExclusionFilter, ImageTagMutabilityExclusionFilterType, Tag,
};
use local_ecr::PageQuirks;
use serde_json::json;

use crate::support::{ACCOUNT, OTHER, REGION, admin, call, code, ecr, ecr_as, keys, start, start_with};

#[tokio::test]
async fn create_takes_everything_in_one_call() {
    let local = start().await;
    let filter = ImageTagMutabilityExclusionFilter::builder()
        .filter_type(ImageTagMutabilityExclusionFilterType::Wildcard)
        .filter("dev-*")
        .build()
        .unwrap();
    let kms = EncryptionConfiguration::builder().encryption_type(EncryptionType::Kms).kms_key("alias/images").build();
    let created = ecr(&local)
        .create_repository()
        .repository_name("team-a/app")
        .image_tag_mutability(ImageTagMutability::ImmutableWithExclusion)
        .image_tag_mutability_exclusion_filters(filter)
        .image_scanning_configuration(ImageScanningConfiguration::builder().scan_on_push(true).build())
        .encryption_configuration(kms.unwrap())
        .tags(Tag::builder().key("team").value("a").build().unwrap())
        .send()
        .await
        .unwrap();
    let repository = created.repository().unwrap();
    assert_eq!(repository.repository_arn(), Some("arn:aws:ecr:eu-west-1:123456789012:repository/team-a/app"));
    assert_eq!(repository.repository_uri(), Some("123456789012.dkr.ecr.eu-west-1.amazonaws.com/team-a/app"));
    assert_eq!(repository.registry_id(), Some(ACCOUNT));
    assert_eq!(repository.image_tag_mutability(), Some(&ImageTagMutability::ImmutableWithExclusion));
    assert_eq!(repository.image_tag_mutability_exclusion_filters()[0].filter(), "dev-*");
    assert!(repository.image_scanning_configuration().unwrap().scan_on_push());
    let key = repository.encryption_configuration().unwrap().kms_key().unwrap();
    assert!(key.starts_with("arn:aws:kms:eu-west-1:123456789012:key/"), "the alias is answered as a key ARN: {key}");

    let snapshot = local.repository(ACCOUNT, REGION, "team-a/app").unwrap();
    assert_eq!(snapshot.tags["team"], "a");
    let described = ecr(&local).describe_repositories().repository_names("team-a/app").send().await.unwrap();
    assert_eq!(described.repositories()[0], *repository);
    assert_eq!(
        code(ecr(&local).create_repository().repository_name("team-a/app").send().await),
        "RepositoryAlreadyExistsException"
    );
}

#[tokio::test]
async fn defaults_are_filled_in() {
    let local = start().await;
    let created = ecr(&local).create_repository().repository_name("app").send().await.unwrap();
    let repository = created.repository().unwrap();
    assert_eq!(repository.image_tag_mutability(), Some(&ImageTagMutability::Mutable));
    assert!(!repository.image_scanning_configuration().unwrap().scan_on_push());
    let encryption = repository.encryption_configuration().unwrap();
    assert_eq!((encryption.encryption_type(), encryption.kms_key()), (&EncryptionType::Aes256, None));
    let age = std::time::SystemTime::now().duration_since((*repository.created_at().unwrap()).try_into().unwrap());
    assert!(age.unwrap().as_secs() < 60);
}

#[tokio::test]
async fn what_create_refuses() {
    let local = start().await;
    let long_tag = json!([{"Key": "a".repeat(129), "Value": "b"}]);
    let kms = |kind: &str, key: &str| json!({"encryptionType": kind, "kmsKey": key});
    let wildcard = |filter: &str| json!([{"filterType": "WILDCARD", "filter": filter}]);
    let cases = [
        (json!({}), "InvalidParameterException"),
        (json!({"repositoryName": "A"}), "InvalidParameterException"),
        (json!({"repositoryName": "a..b"}), "InvalidParameterException"),
        (json!({"repositoryName": "x".repeat(257)}), "InvalidParameterException"),
        (json!({"repositoryName": "app", "registryId": "1"}), "InvalidParameterException"),
        (json!({"repositoryName": "app", "imageTagMutability": "MOVABLE"}), "InvalidParameterException"),
        (
            json!({"repositoryName": "app", "imageTagMutability": "IMMUTABLE_WITH_EXCLUSION"}),
            "InvalidParameterException",
        ),
        (
            json!({"repositoryName": "app", "imageTagMutabilityExclusionFilters": wildcard("a")}),
            "InvalidParameterException",
        ),
        (
            json!({"repositoryName": "app", "imageTagMutability": "MUTABLE_WITH_EXCLUSION", "imageTagMutabilityExclusionFilters": wildcard("***")}),
            "InvalidParameterException",
        ),
        (
            json!({"repositoryName": "app", "imageTagMutability": "MUTABLE_WITH_EXCLUSION", "imageTagMutabilityExclusionFilters": [{"filter": "a"}]}),
            "InvalidParameterException",
        ),
        (
            json!({"repositoryName": "app", "encryptionConfiguration": {"encryptionType": "ROT13"}}),
            "InvalidParameterException",
        ),
        (
            json!({"repositoryName": "app", "encryptionConfiguration": kms("AES256", "alias/x")}),
            "InvalidParameterException",
        ),
        (json!({"repositoryName": "app", "encryptionConfiguration": kms("KMS", "")}), "InvalidParameterException"),
        (
            json!({"repositoryName": "app", "encryptionConfiguration": kms("KMS", "arn:aws:kms:us-east-1:123456789012:key/1")}),
            "KmsException",
        ),
        (json!({"repositoryName": "app", "tags": long_tag}), "InvalidParameterException"),
        (json!({"repositoryName": "app", "tags": [{"Key": "aws:x", "Value": ""}]}), "InvalidTagParameterException"),
        (json!({"repositoryName": 5}), "SerializationException"),
        (
            json!({"repositoryName": "app", "imageScanningConfiguration": {"scanOnPush": "yes"}}),
            "SerializationException",
        ),
    ];
    for (body, expected) in cases {
        let answer = call(&local, "CreateRepository", body.clone()).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (400, expected), "{body}: {}", answer.message());
    }
    assert!(local.repositories().is_empty());
    let odd = json!({"repositoryName": "a--b__c", "unknownMember": [1]});
    assert!(call(&local, "CreateRepository", odd).await.status.is_success(), "unknown members are accepted");
}

#[tokio::test]
async fn describe_by_name_fails_as_a_whole() {
    let local = start().await;
    for name in ["one", "two"] {
        ecr(&local).create_repository().repository_name(name).send().await.unwrap();
    }
    let both =
        ecr(&local).describe_repositories().repository_names("two").repository_names("one").send().await.unwrap();
    assert_eq!(both.repositories().len(), 2);
    let missing = ecr(&local).describe_repositories().repository_names("one").repository_names("gone").send().await;
    assert_eq!(code(missing), "RepositoryNotFoundException");
    let names: Vec<String> = (0..101).map(|n| format!("r{n}")).collect();
    assert_eq!(
        call(&local, "DescribeRepositories", json!({"repositoryNames": names})).await.code(),
        "InvalidParameterException"
    );
    for body in [
        json!({"repositoryNames": ["one"], "maxResults": 5}),
        json!({"repositoryNames": []}),
        json!({"maxResults": 0}),
        json!({"maxResults": 1001}),
        json!({"nextToken": "made-up"}),
    ] {
        assert_eq!(call(&local, "DescribeRepositories", body).await.code(), "InvalidParameterException");
    }
}

#[tokio::test]
async fn pages_of_one_hundred_unless_asked_for() {
    let repositories: Vec<_> =
        (0..1005).map(|n| json!({"account": ACCOUNT, "region": REGION, "name": format!("r{n:04}")})).collect();
    let local = start_with(json!({"repositories": repositories})).await;
    let first = ecr(&local).describe_repositories().send().await.unwrap();
    assert_eq!(first.repositories().len(), 100);
    let big = ecr(&local).describe_repositories().max_results(1000).send().await.unwrap();
    assert_eq!(big.repositories().len(), 1000);
    let rest = ecr(&local)
        .describe_repositories()
        .max_results(1000)
        .next_token(big.next_token().unwrap())
        .send()
        .await
        .unwrap();
    assert_eq!((rest.repositories().len(), rest.next_token()), (5, None));

    let elsewhere = ecr_as(&local, admin(), "us-east-1").describe_repositories().next_token(big.next_token().unwrap());
    assert_eq!(code(elsewhere.send().await), "InvalidParameterException", "a token belongs to its list");

    local.set_page_quirks(PageQuirks { longest: Some(300), empty_pages: true });
    let pages = ecr(&local)
        .describe_repositories()
        .max_results(1000)
        .into_paginator()
        .send()
        .collect::<Result<Vec<_>, _>>()
        .await;
    let lengths: Vec<usize> = pages.unwrap().iter().map(|page| page.repositories().len()).collect();
    assert_eq!(lengths, [0, 300, 0, 300, 0, 300, 0, 105]);
}

#[tokio::test]
async fn paging_goes_on_where_it_was_although_repositories_vanish() {
    let repositories: Vec<_> =
        (0..6).map(|n| json!({"account": ACCOUNT, "region": REGION, "name": format!("r{n}")})).collect();
    let local = start_with(json!({"repositories": repositories})).await;
    let first = ecr(&local).describe_repositories().max_results(3).send().await.unwrap();
    for gone in ["r2", "r3"] {
        local.behind_the_back(ACCOUNT, REGION, "DeleteRepository", json!({"repositoryName": gone})).unwrap();
    }
    let rest = ecr(&local)
        .describe_repositories()
        .max_results(3)
        .next_token(first.next_token().unwrap())
        .send()
        .await
        .unwrap();
    let names: Vec<_> = rest.repositories().iter().map(|repository| repository.repository_name().unwrap()).collect();
    assert_eq!(names, ["r4", "r5"]);
}

#[tokio::test]
async fn delete_keeps_images_unless_forced() {
    let local = start().await;
    let client = ecr(&local);
    client.create_repository().repository_name("app").send().await.unwrap();
    local.put_image(ACCOUNT, REGION, "app", &["v1"]).unwrap();
    assert_eq!(code(client.delete_repository().repository_name("app").send().await), "RepositoryNotEmptyException");
    let deleted = client.delete_repository().repository_name("app").force(true).send().await.unwrap();
    assert_eq!(deleted.repository().unwrap().repository_name(), Some("app"));
    assert_eq!(code(client.delete_repository().repository_name("app").send().await), "RepositoryNotFoundException");
}

#[tokio::test]
async fn settings_change() {
    let local = start().await;
    let client = ecr(&local);
    client.create_repository().repository_name("app").send().await.unwrap();
    let put = |body| call(&local, "PutImageTagMutability", body);
    let filters =
        json!([{"filterType": "WILDCARD", "filter": "dev-*"}, {"filterType": "WILDCARD", "filter": "latest"}]);
    let both = json!({"repositoryName": "app", "imageTagMutability": "IMMUTABLE_WITH_EXCLUSION", "imageTagMutabilityExclusionFilters": filters});
    assert_eq!(put(both).await.json()["imageTagMutabilityExclusionFilters"], filters);
    put(json!({"repositoryName": "app", "imageTagMutability": "IMMUTABLE"})).await;
    let description = local.repository(ACCOUNT, REGION, "app").unwrap().description;
    assert_eq!(description["imageTagMutability"], "IMMUTABLE");
    assert!(description.get("imageTagMutabilityExclusionFilters").is_none(), "the filters went with the mode");
    assert_eq!(put(json!({"repositoryName": "app"})).await.code(), "InvalidParameterException");

    let scanning = ImageScanningConfiguration::builder().scan_on_push(true).build();
    client
        .put_image_scanning_configuration()
        .repository_name("app")
        .image_scanning_configuration(scanning.clone())
        .send()
        .await
        .unwrap();
    assert_eq!(
        local.repository(ACCOUNT, REGION, "app").unwrap().description["imageScanningConfiguration"]["scanOnPush"],
        true
    );
    let missing =
        client.put_image_scanning_configuration().repository_name("gone").image_scanning_configuration(scanning);
    assert_eq!(code(missing.send().await), "RepositoryNotFoundException");
}

#[tokio::test]
async fn accounts_and_regions_are_apart() {
    let everything = json!({"Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}});
    let user = json!({"name": "other", "accessKey": "AKIAOTHER", "secretKey": "s", "policies": [everything]});
    let local = start_with(json!({"accounts": [{"id": OTHER, "users": [user]}]})).await;
    ecr(&local).create_repository().repository_name("app").send().await.unwrap();
    let other = ecr_as(&local, keys("AKIAOTHER", "s"), REGION);
    assert!(other.describe_repositories().send().await.unwrap().repositories().is_empty());
    assert!(
        ecr_as(&local, admin(), "us-east-1").describe_repositories().send().await.unwrap().repositories().is_empty()
    );
    other.create_repository().repository_name("app").send().await.unwrap();
    assert_eq!(local.repositories().len(), 2);

    let across = || other.describe_repositories().registry_id(ACCOUNT).repository_names("app").send();
    assert_eq!(code(across().await), "AccessDeniedException", "the owner's policy has to allow it");
    let policy =
        json!({"Statement": {"Effect": "Allow", "Principal": {"AWS": OTHER}, "Action": "ecr:DescribeRepositories"}});
    ecr(&local).set_repository_policy().repository_name("app").policy_text(policy.to_string()).send().await.unwrap();
    assert_eq!(across().await.unwrap().repositories()[0].registry_id(), Some(ACCOUNT));
}

#[tokio::test]
async fn the_quota_is_an_error_of_its_own() {
    let local = start().await;
    local.set_repository_quota(ACCOUNT, REGION, 1);
    ecr(&local).create_repository().repository_name("one").send().await.unwrap();
    assert_eq!(code(ecr(&local).create_repository().repository_name("two").send().await), "LimitExceededException");
    ecr_as(&local, admin(), "us-east-1").create_repository().repository_name("two").send().await.unwrap();
}
