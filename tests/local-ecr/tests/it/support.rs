//! Clients for the tests: the SDK's over the connector, one that signs any JSON, and a plain one for `/v2/`.

use std::time::SystemTime;

use aws_credential_types::Credentials;
use aws_sdk_ecr::config::{BehaviorVersion, Region, retry::RetryConfig};
use aws_sdk_ecr::error::{ProvideErrorMetadata, SdkError};
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4::SigningParams;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use local_ecr::{Config, LocalEcr, Seed};
use serde_json::Value;

pub const ACCOUNT: &str = "123456789012";
pub const OTHER: &str = "210987654321";
pub const REGION: &str = "eu-west-1";
pub const KEY: &str = "AKIALOCALECRADMIN000";
pub const SECRET: &str = "local-ecr-admin-secret";

pub async fn start() -> LocalEcr {
    LocalEcr::start(Config::default()).await.unwrap()
}

pub async fn start_with(seed: Value) -> LocalEcr {
    let mut config = Config::default();
    config.seed = serde_json::from_value::<Seed>(seed).unwrap();
    LocalEcr::start(config).await.unwrap()
}

pub fn admin() -> Credentials {
    keys(KEY, SECRET)
}

pub fn keys(access_key: &str, secret: &str) -> Credentials {
    Credentials::new(access_key, secret, None, None, "test")
}

/// The SDK's client of ECR, as `admin`, in process, without retries.
pub fn ecr(local: &LocalEcr) -> aws_sdk_ecr::Client {
    ecr_as(local, admin(), REGION)
}

pub fn ecr_as(local: &LocalEcr, credentials: Credentials, region: &str) -> aws_sdk_ecr::Client {
    let config = aws_sdk_ecr::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .http_client(local.connector())
        .region(Region::new(region.to_owned()))
        .credentials_provider(credentials)
        .retry_config(RetryConfig::disabled())
        .build();
    aws_sdk_ecr::Client::from_conf(config)
}

pub fn sts_as(local: &LocalEcr, credentials: Credentials) -> aws_sdk_sts::Client {
    let config = aws_sdk_sts::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .http_client(local.connector())
        .region(Region::new(REGION))
        .credentials_provider(credentials)
        .retry_config(RetryConfig::disabled())
        .build();
    aws_sdk_sts::Client::from_conf(config)
}

/// Credentials as STS gave them.
pub fn session(credentials: Option<&aws_sdk_sts::types::Credentials>) -> Credentials {
    let credentials = credentials.unwrap();
    let token = Some(credentials.session_token().to_owned());
    Credentials::new(credentials.access_key_id(), credentials.secret_access_key(), token, None, "sts")
}

/// The error code of a call that was refused.
pub fn code<T: std::fmt::Debug, E: ProvideErrorMetadata + std::fmt::Debug, R: std::fmt::Debug>(
    result: Result<T, SdkError<E, R>>,
) -> String {
    let error = result.unwrap_err();
    error.code().unwrap_or_else(|| panic!("no code in {error:?}")).to_owned()
}

pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("not JSON: {:?}", self.body))
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.body.to_vec()).unwrap()
    }

    /// The code of an AWS error, or of the first error of the registry.
    pub fn code(&self) -> String {
        let json = self.json();
        let code = json["__type"].as_str().or(json["errors"][0]["code"].as_str());
        code.unwrap_or_else(|| panic!("no error: {json}")).to_owned()
    }

    pub fn message(&self) -> String {
        let json = self.json();
        json["message"].as_str().or(json["errors"][0]["message"].as_str()).unwrap_or_default().to_owned()
    }
}

pub async fn send(request: Request<Full<Bytes>>) -> Option<Answer> {
    let client: Client<HttpConnector, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let response = client.request(request).await.ok()?;
    let (status, headers) = (response.status(), response.headers().clone());
    let body = response.into_body().collect().await.ok()?.to_bytes();
    Some(Answer { status, headers, body })
}

/// Signs a request for a service and sends it over the socket; `target` is what `X-Amz-Target` says.
pub async fn signed(local: &LocalEcr, who: Credentials, service: &str, target: &str, body: &str) -> Answer {
    send(sign_request(local, who, service, target, body, SystemTime::now())).await.unwrap()
}

pub fn sign_request(
    local: &LocalEcr,
    who: Credentials,
    service: &str,
    target: &str,
    body: &str,
    time: SystemTime,
) -> Request<Full<Bytes>> {
    let url = format!("{}/", local.url());
    let headers = [("content-type", "application/x-amz-json-1.1"), ("x-amz-target", target)];
    let mut request = Request::post(&url);
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let mut request = request.body(Full::new(Bytes::from(body.to_owned()))).unwrap();
    let identity = who.into();
    let params = SigningParams::builder()
        .identity(&identity)
        .region(REGION)
        .name(service)
        .time(time)
        .settings(SigningSettings::default())
        .build()
        .unwrap()
        .into();
    let signable =
        SignableRequest::new("POST", &url, headers.into_iter(), SignableBody::Bytes(body.as_bytes())).unwrap();
    let (instructions, _) = sign(signable, &params).unwrap().into_parts();
    instructions.apply_to_request_http1x(&mut request);
    request
}

/// Calls an operation of ECR with any JSON, as `admin`.
pub async fn call(local: &LocalEcr, operation: &str, body: Value) -> Answer {
    let target = format!("AmazonEC2ContainerRegistry_V20150921.{operation}");
    signed(local, admin(), "ecr", &target, &body.to_string()).await
}

/// A registry token for `admin`: the password alone.
pub async fn password(client: &aws_sdk_ecr::Client) -> String {
    use base64::Engine as _;
    let output = client.get_authorization_token().send().await.unwrap();
    let token = output.authorization_data()[0].authorization_token().unwrap().to_owned();
    let pair = String::from_utf8(base64::prelude::BASE64_STANDARD.decode(token).unwrap()).unwrap();
    pair.strip_prefix("AWS:").unwrap().to_owned()
}

/// A request to the registry. `host` is the `Host` header, or nothing for the address itself.
pub async fn v2(local: &LocalEcr, method: Method, path: &str, password: Option<&str>, body: &[u8]) -> Answer {
    v2_at(local, None, method, path, password, body).await
}

pub async fn v2_at(
    local: &LocalEcr,
    host: Option<&str>,
    method: Method,
    path: &str,
    password: Option<&str>,
    body: &[u8],
) -> Answer {
    use base64::Engine as _;
    let mut request = Request::builder().method(method).uri(format!("{}{path}", local.url()));
    if let Some(host) = host {
        request = request.header("host", host);
    }
    if let Some(password) = password {
        let pair = base64::prelude::BASE64_STANDARD.encode(format!("AWS:{password}"));
        request = request.header("authorization", format!("Basic {pair}"));
    }
    if !body.is_empty() {
        request = request.header("content-type", "application/vnd.oci.image.manifest.v1+json");
    }
    send(request.body(Full::new(Bytes::copy_from_slice(body))).unwrap()).await.unwrap()
}

/// A manifest that no other call returns.
pub fn manifest(seed: &str) -> Vec<u8> {
    serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": format!("sha256:{:064}", 1), "size": 2},
        "layers": [],
        "annotations": {"seed": seed},
    })
    .to_string()
    .into_bytes()
}
