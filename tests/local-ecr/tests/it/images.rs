use aws_sdk_ecr::types::{DescribeImagesFilter, ImageFailureCode, ImageIdentifier, ListImagesFilter, TagStatus};
use local_ecr::LocalEcr;
use serde_json::json;

use crate::support::{ACCOUNT, REGION, call, code, ecr, start_with};

async fn with_images() -> LocalEcr {
    let app = json!({"account": ACCOUNT, "region": REGION, "name": "app", "images": [["v1", "latest"], ["v0"], []]});
    start_with(json!({"repositories": [app]})).await
}

fn tag(tag: &str) -> ImageIdentifier {
    ImageIdentifier::builder().image_tag(tag).build()
}

fn digest(digest: &str) -> ImageIdentifier {
    ImageIdentifier::builder().image_digest(digest).build()
}

#[tokio::test]
async fn listed_and_described() {
    let local = with_images().await;
    let client = ecr(&local);
    let all = client.list_images().repository_name("app").send().await.unwrap();
    assert_eq!(all.image_ids().len(), 4, "one row for each tag, one for the untagged image");
    let untagged = ListImagesFilter::builder().tag_status(TagStatus::Untagged).build();
    let rows = client.list_images().repository_name("app").filter(untagged).send().await.unwrap();
    assert_eq!((rows.image_ids().len(), rows.image_ids()[0].image_tag()), (1, None));

    let details = client.describe_images().repository_name("app").send().await.unwrap();
    assert_eq!(details.image_details().len(), 3);
    let tagged = DescribeImagesFilter::builder().tag_status(TagStatus::Tagged).build();
    assert_eq!(
        client.describe_images().repository_name("app").filter(tagged).send().await.unwrap().image_details().len(),
        2
    );
    let one = client.describe_images().repository_name("app").image_ids(tag("v1")).send().await.unwrap();
    let detail = &one.image_details()[0];
    assert_eq!(detail.image_tags(), ["latest", "v1"]);
    assert_eq!(detail.image_size_in_bytes(), Some(1_000_200));
    assert!(detail.image_pushed_at().is_some() && detail.last_recorded_pull_time().is_none());
    let missing = client.describe_images().repository_name("app").image_ids(tag("v9")).send().await;
    assert_eq!(code(missing), "ImageNotFoundException");
    let page = client.describe_images().repository_name("app").max_results(2).send().await.unwrap();
    assert_eq!(page.image_details().len(), 2);
    let rest = client.describe_images().repository_name("app").max_results(2).next_token(page.next_token().unwrap());
    assert_eq!(rest.send().await.unwrap().image_details().len(), 1);
}

#[tokio::test]
async fn fetched_and_deleted_in_batches() {
    let local = with_images().await;
    let client = ecr(&local);
    let got =
        client.batch_get_image().repository_name("app").image_ids(tag("v1")).image_ids(tag("v9")).send().await.unwrap();
    assert!(got.images()[0].image_manifest().unwrap().contains("schemaVersion"));
    assert_eq!(got.failures()[0].failure_code(), Some(&ImageFailureCode::ImageNotFound));
    let v1 = got.images()[0].image_id().unwrap().image_digest().unwrap().to_owned();

    client.batch_delete_image().repository_name("app").image_ids(tag("latest")).send().await.unwrap();
    let snapshot = local.repository(ACCOUNT, REGION, "app").unwrap();
    assert_eq!(snapshot.images[&v1], ["v1"], "one tag fewer, the image stays");
    client.batch_delete_image().repository_name("app").image_ids(tag("v1")).send().await.unwrap();
    assert!(
        !local.repository(ACCOUNT, REGION, "app").unwrap().images.contains_key(&v1),
        "the last tag takes the image along"
    );
    let wrong = client.batch_delete_image().repository_name("app").image_ids(digest("v1")).image_ids(digest(&v1));
    let codes: Vec<_> =
        wrong.send().await.unwrap().failures().iter().map(|failure| failure.failure_code().unwrap().clone()).collect();
    assert_eq!(codes, [ImageFailureCode::InvalidImageDigest, ImageFailureCode::ImageNotFound]);
    for digest_left in local.repository(ACCOUNT, REGION, "app").unwrap().images.keys() {
        client.batch_delete_image().repository_name("app").image_ids(digest(digest_left)).send().await.unwrap();
    }
    client.delete_repository().repository_name("app").send().await.unwrap();
}

#[tokio::test]
async fn bounds() {
    let local = with_images().await;
    let ids: Vec<_> = (0..101).map(|n| json!({"imageTag": format!("t{n}")})).collect();
    for (operation, body) in [
        ("BatchGetImage", json!({"repositoryName": "app", "imageIds": ids})),
        ("BatchGetImage", json!({"repositoryName": "app"})),
        ("BatchDeleteImage", json!({"repositoryName": "app", "imageIds": []})),
        ("ListImages", json!({"repositoryName": "app", "maxResults": 1001})),
        ("ListImages", json!({"repositoryName": "app", "filter": {"tagStatus": "BOTH"}})),
        ("DescribeImages", json!({"repositoryName": "app", "imageIds": [{"imageTag": "v1"}], "maxResults": 5})),
    ] {
        assert_eq!(
            call(&local, operation, body.clone()).await.code(),
            "InvalidParameterException",
            "{operation} {body}"
        );
    }
    assert_eq!(
        call(&local, "ListImages", json!({"repositoryName": "gone"})).await.code(),
        "RepositoryNotFoundException"
    );
}
