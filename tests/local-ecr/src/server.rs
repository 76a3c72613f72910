//! The listeners: one port speaks AWS's API, the registry's, and ours for tests.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Either, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

use crate::api::{self, Reply};
use crate::registry::guard::{self, Body};
use crate::shared::Shared;
use crate::{ADMIN_PREFIX, admin};

/// The largest request body of an API call.
const MAX_BODY: usize = 8 * 1024 * 1024;

/// Serves on an address until the handle is aborted.
pub(crate) async fn listen(shared: Arc<Shared>, address: SocketAddr) -> io::Result<(SocketAddr, AbortHandle)> {
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    let task = tokio::spawn(accept(shared, listener));
    Ok((address, task.abort_handle()))
}

async fn accept(shared: Arc<Shared>, listener: TcpListener) {
    // Ends its connections when it is dropped.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((stream, _)) = accepted {
                    connections.spawn(serve(Arc::clone(&shared), stream));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(shared: Arc<Shared>, stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let shared = Arc::clone(&shared);
        async move { answer(&shared, request).await }
    });
    // A client that goes away, or is sent away, is no error of ours.
    let _ = http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service).await;
}

/// An `Err` makes hyper close the connection without an answer.
async fn answer(shared: &Shared, request: Request<Incoming>) -> io::Result<Response<Body>> {
    let path = request.uri().path();
    if path.starts_with(ADMIN_PREFIX) {
        let (parts, body) = request.into_parts();
        let body = read(body).await?;
        return Ok(admin::handle(shared, &parts, &body).await.map(|body| Either::Left(Full::new(body))));
    }
    if shared.down.load(Ordering::Relaxed) {
        return Err(io::ErrorKind::ConnectionReset.into());
    }
    let reply = if path == "/v2" || path.starts_with("/v2/") {
        guard::handle(shared, request).await
    } else {
        let (parts, body) = request.into_parts();
        let body = read(body).await?;
        match api::handle(shared, &parts, &body).await {
            Reply::Answer(response) => Reply::Answer(response.map(|body| Either::Left(Full::new(body)))),
            Reply::Closed => Reply::Closed,
            Reply::Silence => Reply::Silence,
        }
    };
    match reply {
        Reply::Answer(response) => Ok(response),
        Reply::Closed => Err(io::ErrorKind::ConnectionReset.into()),
        Reply::Silence => match std::future::pending::<Infallible>().await {},
    }
}

async fn read(body: Incoming) -> io::Result<Bytes> {
    let body = Limited::new(body, MAX_BODY).collect().await.map_err(io::Error::other)?;
    Ok(body.to_bytes())
}

/// An answer in JSON, for the test interface.
pub(crate) fn json(status: StatusCode, body: &serde_json::Value) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(body.to_string()));
    *response.status_mut() = status;
    let json = http::HeaderValue::from_static("application/json");
    response.headers_mut().insert(http::header::CONTENT_TYPE, json);
    response
}
