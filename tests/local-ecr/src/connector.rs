//! The local ECR as the AWS SDK's HTTP client: calls go into the model without a socket in between.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use http::HeaderValue;
use http_body_util::BodyExt as _;

use crate::api::{self, Reply};
use crate::shared::Shared;

/// Give it to an SDK configuration as `http_client`.
#[derive(Debug, Clone)]
pub struct Connector {
    shared: Arc<Shared>,
    read_timeout: Option<Duration>,
}

impl Connector {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, read_timeout: None }
    }
}

impl HttpClient for Connector {
    fn http_connector(&self, settings: &HttpConnectorSettings, _components: &RuntimeComponents) -> SharedHttpConnector {
        let read_timeout = settings.read_timeout();
        SharedHttpConnector::new(Self { shared: Arc::clone(&self.shared), read_timeout })
    }
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let Self { shared, read_timeout } = self.clone();
        HttpConnectorFuture::new(async move {
            let answer = send(&shared, request);
            match read_timeout {
                None => answer.await,
                Some(limit) => match tokio::time::timeout(limit, answer).await {
                    Ok(answer) => answer,
                    Err(elapsed) => Err(ConnectorError::timeout(elapsed.into())),
                },
            }
        })
    }
}

async fn send(shared: &Shared, request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
    let closed = || ConnectorError::io(std::io::Error::from(std::io::ErrorKind::ConnectionReset).into());
    if shared.down.load(Ordering::Relaxed) {
        return Err(closed());
    }
    let request = request.try_into_http1x().map_err(|error| ConnectorError::user(error.into()))?;
    let (mut parts, body) = request.into_parts();
    if !parts.headers.contains_key(http::header::HOST)
        && let Some(host) = parts.uri.authority().and_then(|host| HeaderValue::from_str(host.as_str()).ok())
    {
        parts.headers.insert(http::header::HOST, host);
    }
    let body = body.collect().await.map_err(ConnectorError::user)?.to_bytes();
    match api::handle(shared, &parts, &body).await {
        Reply::Answer(response) => HttpResponse::try_from(response.map(SdkBody::from))
            .map_err(|error| ConnectorError::other(error.into(), None)),
        Reply::Closed => Err(closed()),
        Reply::Silence => std::future::pending().await,
    }
}
