//! An image registry as clients see it: whether it lets a token in, and lets it read a repository.

use std::sync::OnceLock;
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper::header::{ACCEPT, AUTHORIZATION, HOST, HeaderValue, WWW_AUTHENTICATE};
use hyper::{Request, Response, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

use crate::aws::error::with_causes;
use crate::core::token::{Secret, Token};

/// For one answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Of an answer, in bytes; it is an error's text or a token.
const MOST: usize = 64 * 1024;
/// A tag that nobody uses: whether it is there isn't the question, and asking for it isn't a pull that ECR would record.
const TAG: &str = "ecr-operator-verify";
/// What manifests come as.
const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";

/// A registry, and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its name.
    pub host: String,
    /// Where it answers, if not under its name: for tests and demos.
    pub url: Option<String>,
}

/// What a registry says to a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It is let in; what was asked for needn't be there.
    Allowed,
    /// It isn't.
    Refused(Refusal),
}

/// In the registry's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// Why; may be empty.
    pub message: String,
}

/// No answer that says anything about the token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// No connection, or none in time.
    #[error("registry {host} can't be reached: {why}")]
    Unreachable {
        /// Its name.
        host: String,
        /// What happened.
        why: String,
    },
    /// Something else is wrong with it, or with the question.
    #[error("registry {host} answered HTTP {status}: {message}")]
    Unexpected {
        /// Its name.
        host: String,
        /// The HTTP status.
        status: u16,
        /// In its own words.
        message: String,
    },
}

type Https = Client<HttpsConnector<HttpConnector>, Empty<Bytes>>;

/// Asks registries. Certificates of authorities are read when it first does.
#[derive(Debug, Default)]
pub struct RegistryClient(OnceLock<Https>);

impl RegistryClient {
    /// Whether `token` is let in at all.
    ///
    /// # Errors
    /// Where the registry gives no answer to that.
    pub async fn login(&self, place: &Place, token: &Token) -> Result<Answer, RegistryError> {
        self.ask(place, "/v2/", token).await
    }

    /// Whether `token` may pull from `repository`.
    ///
    /// # Errors
    /// Where the registry gives no answer to that.
    pub async fn pull(&self, place: &Place, repository: &str, token: &Token) -> Result<Answer, RegistryError> {
        self.ask(place, &format!("/v2/{repository}/manifests/{TAG}"), token).await
    }

    async fn ask(&self, place: &Place, path: &str, token: &Token) -> Result<Answer, RegistryError> {
        let unreachable = |why: String| RegistryError::Unreachable { host: place.host.clone(), why };
        let basic = Secret::new(format!("Basic {}", token.auth.expose()));
        let asked = async {
            let (first, challenge) = self.send(place, path, &basic).await?;
            let Some(source) = challenge.filter(|_| first.status == StatusCode::UNAUTHORIZED) else {
                return Ok(first);
            };
            // ECR Public: the token buys another one, which then opens the registry.
            match self.send(place, &source, &basic).await?.0 {
                Told { status: StatusCode::OK, body, .. } => match bearer(&body) {
                    Some(bearer) => Ok(self.send(place, path, &bearer).await?.0),
                    None => Err("its token service gives no token".to_owned()),
                },
                refused => Ok(refused),
            }
        };
        let told = tokio::time::timeout(PATIENCE, asked).await;
        let told = told.map_err(|_| unreachable("no answer in time".to_owned()))?.map_err(unreachable)?;
        let (status, message) = (told.status.as_u16(), told.message());
        match told.status {
            status if status.is_success() || status == StatusCode::NOT_FOUND => Ok(Answer::Allowed),
            // ECR Public says 400 to a token that is too old.
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Ok(Answer::Refused(Refusal { status, message })),
            StatusCode::BAD_REQUEST if told.bought => Ok(Answer::Refused(Refusal { status, message })),
            _ => Err(RegistryError::Unexpected { host: place.host.clone(), status, message }),
        }
    }

    /// Sends one request; with the answer, the path where a token of another kind is to be had, if that is asked for.
    async fn send(&self, place: &Place, path: &str, authorization: &Secret) -> Result<(Told, Option<String>), String> {
        let base = place.url.clone().unwrap_or_else(|| format!("https://{}", place.host));
        let uri: Uri = format!("{}{path}", base.trim_end_matches('/')).parse().map_err(|error| format!("{error}"))?;
        let mut authorization = HeaderValue::from_str(authorization.expose()).map_err(|error| error.to_string())?;
        authorization.set_sensitive(true);
        let request = Request::get(uri)
            .header(HOST, &place.host)
            .header(ACCEPT, MANIFESTS)
            .header(AUTHORIZATION, authorization)
            .body(Empty::new())
            .map_err(|error| error.to_string())?;
        let response = self.client()?.request(request).await.map_err(|error| with_causes(&error))?;
        let challenge = challenge(&response, &place.host);
        let status = response.status();
        let body = Limited::new(response.into_body(), MOST).collect().await;
        let body = body.map_err(|error| with_causes(&*error))?.to_bytes();
        let bought = path.starts_with("/token");
        Ok((Told { status, body, bought }, challenge))
    }

    fn client(&self) -> Result<&Https, String> {
        if let Some(client) = self.0.get() {
            return Ok(client);
        }
        let connector = HttpsConnectorBuilder::new().with_native_roots().map_err(|error| error.to_string())?;
        let client = Client::builder(TokioExecutor::new()).build(connector.https_or_http().enable_http1().build());
        Ok(self.0.get_or_init(|| client))
    }
}

struct Told {
    status: StatusCode,
    body: Bytes,
    /// Whether it is the answer of a token service.
    bought: bool,
}

impl Told {
    /// The registry's own words, shortened.
    fn message(&self) -> String {
        let parsed: Option<Value> = serde_json::from_slice(&self.body).ok();
        let told = parsed.as_ref().and_then(|body| body.pointer("/errors/0/message")?.as_str());
        let text = told.map_or_else(|| String::from_utf8_lossy(&self.body).into_owned(), str::to_owned);
        text.trim().chars().take(500).collect()
    }
}

/// The path and query of the token service that a challenge names: on the registry's own host alone, as it is shown the
/// token.
fn challenge<B>(response: &Response<B>, host: &str) -> Option<String> {
    let header = response.headers().get(WWW_AUTHENTICATE)?.to_str().ok()?;
    let parameters = header.strip_prefix("Bearer ")?;
    let parameter = |name: &str| {
        let pair = parameters.split(',').find_map(|pair| pair.trim().strip_prefix(name)?.strip_prefix('='))?;
        Some(pair.trim_matches('"').to_owned())
    };
    let realm: Uri = parameter("realm")?.parse().ok()?;
    if realm.host() != Some(host) || !realm.path().starts_with("/token") {
        return None;
    }
    let query: Vec<_> =
        ["service", "scope"].iter().filter_map(|name| Some(format!("{name}={}", parameter(name)?))).collect();
    Some(format!("{}?{}", realm.path(), query.join("&")))
}

fn bearer(body: &[u8]) -> Option<Secret> {
    let body: Value = serde_json::from_slice(body).ok()?;
    Some(Secret::new(format!("Bearer {}", body.get("token")?.as_str()?)))
}
