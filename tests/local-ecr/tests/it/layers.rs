//! With Debian's docker-registry behind: layers go in and out. Without the package there is nothing to test.

use http::{Method, Request};
use http_body_util::Full;
use local_ecr::{BackendError, Config, Layers, LocalEcr, StartError};
use serde_json::json;

use crate::support::{ACCOUNT, Answer, REGION, ecr, password, send, v2};

async fn start() -> Option<LocalEcr> {
    let mut config = Config::default();
    config.layers = Layers::DockerRegistry { directory: None };
    let app = json!({"account": ACCOUNT, "region": REGION, "name": "team-a/app"});
    config.seed = serde_json::from_value(json!({"repositories": [app]})).unwrap();
    match LocalEcr::start(config).await {
        Ok(local) => Some(local),
        Err(StartError::Backend(BackendError::Missing)) => None,
        Err(error) => panic!("{error}"),
    }
}

async fn upload(local: &LocalEcr, token: &str, name: &str, content: &'static [u8]) -> (String, Answer) {
    use base64::Engine as _;
    use sha2::Digest as _;
    let digest = sha2::Sha256::digest(content).iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
    let start = format!("/v2/{name}/blobs/uploads/?mount=sha256:{digest}&from=other/app");
    let started = v2(local, Method::POST, &start, Some(token), b"").await;
    assert_eq!(started.status, 202, "mounts are not done, as ECR without the setting: {:?}", started.body);
    let location = started.headers["location"].to_str().unwrap().to_owned();
    assert!(location.starts_with(&format!("/v2/{name}/blobs/uploads/")), "the public name: {location}");
    let separator = if location.contains('?') { '&' } else { '?' };
    let pair = base64::prelude::BASE64_STANDARD.encode(format!("AWS:{token}"));
    let request = Request::put(format!("{}{location}{separator}digest=sha256:{digest}", local.url()))
        .header("authorization", format!("Basic {pair}"))
        .header("content-type", "application/octet-stream")
        .body(Full::new(bytes::Bytes::from_static(content)))
        .unwrap();
    (format!("sha256:{digest}"), send(request).await.unwrap())
}

#[tokio::test]
async fn layers_in_and_out() {
    let Some(local) = start().await else { return };
    let token = password(&ecr(&local)).await;
    let (layer, uploaded) = upload(&local, &token, "team-a/app", b"a layer").await;
    assert_eq!(uploaded.status, 201);
    let (config, _) = upload(&local, &token, "team-a/app", b"{}").await;
    let blob = v2(&local, Method::GET, &format!("/v2/team-a/app/blobs/{layer}"), Some(&token), b"").await;
    assert_eq!((blob.status.as_u16(), &blob.body[..]), (200, &b"a layer"[..]));

    let manifest = |layer: &str| {
        json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": 2},
            "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer, "size": 7}]})
        .to_string()
        .into_bytes()
    };
    let path = "/v2/team-a/app/manifests/v1";
    let absent = format!("sha256:{:064}", 0);
    let refused = v2(&local, Method::PUT, path, Some(&token), &manifest(&absent)).await;
    assert_eq!(refused.code(), "MANIFEST_BLOB_UNKNOWN", "a manifest needs its layers");
    assert_eq!(v2(&local, Method::PUT, path, Some(&token), &manifest(&layer)).await.status, 201);
    let detail =
        &ecr(&local).describe_images().repository_name("team-a/app").send().await.unwrap().image_details()[0].clone();
    assert_eq!((detail.image_size_in_bytes(), detail.image_tags()), (Some(9), &["v1".to_owned()][..]));

    let anonymous = v2(&local, Method::GET, &format!("/v2/team-a/app/blobs/{layer}"), None, b"").await;
    assert_eq!(anonymous.status, 401);

    local
        .behind_the_back(ACCOUNT, REGION, "DeleteRepository", json!({"repositoryName": "team-a/app", "force": true}))
        .unwrap();
    local.behind_the_back(ACCOUNT, REGION, "CreateRepository", json!({"repositoryName": "team-a/app"})).unwrap();
    let after = v2(&local, Method::HEAD, &format!("/v2/team-a/app/blobs/{layer}"), Some(&token), b"").await;
    assert_eq!(after.status, 404, "a new repository of an old name is empty");
}

#[tokio::test]
async fn repositories_keep_their_layers_apart() {
    let Some(local) = start().await else { return };
    local.behind_the_back(ACCOUNT, REGION, "CreateRepository", json!({"repositoryName": "team-b/app"})).unwrap();
    let token = password(&ecr(&local)).await;
    let (layer, _) = upload(&local, &token, "team-a/app", b"private").await;
    let other = v2(&local, Method::GET, &format!("/v2/team-b/app/blobs/{layer}"), Some(&token), b"").await;
    assert_eq!(other.status, 404);
}
