//! `/healthz`, `/readyz` and `/metrics`, over plain HTTP for the kubelet and Prometheus.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::metrics::Metrics;

/// From 0, starting.
const READY: u8 = 1;
const STOPPING: u8 = 2;

/// A loop that didn't move for so long is stuck.
const STUCK: Duration = Duration::from_mins(1);

/// Connections at once. More of them wait: they must not use up the process's file descriptors.
const MOST: usize = 128;
/// For a request and its answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// How far the process is.
#[derive(Debug, Clone, Default)]
pub struct Health(Arc<Parts>);

#[derive(Debug, Default)]
struct Parts {
    stage: AtomicU8,
    /// When each loop last moved.
    beats: Mutex<BTreeMap<String, Instant>>,
    /// Kinds that can't be watched, and what for.
    unseen: Mutex<BTreeMap<String, String>>,
}

impl Health {
    /// All objects were read.
    pub fn ready(&self) {
        self.0.stage.store(READY, Ordering::Relaxed);
    }

    /// It is about to end.
    pub fn stopping(&self) {
        self.0.stage.store(STOPPING, Ordering::Relaxed);
    }

    /// This kind can't be watched, for a reason that somebody has to do something about.
    pub fn cannot_see(&self, kind: &str, why: &str) {
        self.0.unseen.lock().unwrap_or_else(PoisonError::into_inner).insert(kind.to_owned(), why.to_owned());
    }

    /// This kind is watched.
    pub fn sees(&self, kind: &str) {
        self.0.unseen.lock().unwrap_or_else(PoisonError::into_inner).remove(kind);
    }

    /// Whether `/readyz` says so.
    #[cfg(test)]
    pub(crate) fn is_ready(&self) -> bool {
        self.readiness().0 == StatusCode::OK
    }

    /// This loop moves.
    pub fn beat(&self, name: &str) {
        self.0.beats.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), Instant::now());
    }

    /// The loop came to its end.
    pub fn ended(&self, name: &str) {
        self.0.beats.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    /// That AWS or the API server is away is no reason to be started anew.
    fn liveness(&self, now: Instant) -> (StatusCode, String) {
        let beats = self.0.beats.lock().unwrap_or_else(PoisonError::into_inner);
        match beats.iter().find(|(_, last)| now.saturating_duration_since(**last) > STUCK) {
            None => (StatusCode::OK, "ok\n".to_owned()),
            Some((name, _)) => (StatusCode::SERVICE_UNAVAILABLE, format!("the queue of {name} is stuck\n")),
        }
    }

    fn readiness(&self) -> (StatusCode, String) {
        let unseen = self.0.unseen.lock().unwrap_or_else(PoisonError::into_inner);
        let waits: Vec<_> = unseen.iter().map(|(kind, why)| format!("{kind}: {why}\n")).collect();
        match self.0.stage.load(Ordering::Relaxed) {
            STOPPING => (StatusCode::SERVICE_UNAVAILABLE, "stopping\n".to_owned()),
            _ if !waits.is_empty() => (StatusCode::SERVICE_UNAVAILABLE, waits.concat()),
            READY => (StatusCode::OK, "ok\n".to_owned()),
            _ => (StatusCode::SERVICE_UNAVAILABLE, "objects are being read\n".to_owned()),
        }
    }
}

/// Opens the port.
///
/// # Errors
/// Where it is taken, or not ours to open.
pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Answers until it is dropped.
pub async fn serve(listener: TcpListener, health: Health, metrics: Metrics) {
    let places = Arc::new(Semaphore::new(MOST));
    // It is never closed.
    while let Ok(place) = places.clone().acquire_owned().await {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of file descriptors, or the like: they come back when others are done.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let (health, metrics) = (health.clone(), metrics.clone());
        tokio::spawn(async move {
            let answer = service_fn(move |request| {
                let response = answer(&request, &health, &metrics);
                async move { Ok::<_, Infallible>(response) }
            });
            let mut http = hyper::server::conn::http1::Builder::new();
            let serving = http.keep_alive(false).serve_connection(TokioIo::new(stream), answer);
            // A client that goes away early, or says nothing, is its own affair.
            let _ = tokio::time::timeout(PATIENCE, serving).await;
            drop(place);
        });
    }
}

fn answer(request: &Request<Incoming>, health: &Health, metrics: &Metrics) -> Response<Full<Bytes>> {
    let (status, body) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/healthz") => health.liveness(Instant::now()),
        (&Method::GET, "/readyz") => health.readiness(),
        (&Method::GET, "/metrics") => match metrics.text() {
            Ok(text) => (StatusCode::OK, text),
            Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, "metrics can't be written\n".to_owned()),
        },
        _ => (StatusCode::NOT_FOUND, "there are /healthz, /readyz and /metrics\n".to_owned()),
    };
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use super::*;

    #[test]
    fn readiness_names_what_is_missing_and_forgets_it_once_it_is_there() {
        let health = Health::default();
        assert_eq!(health.readiness().0, StatusCode::SERVICE_UNAVAILABLE);
        health.ready();
        assert_eq!(health.readiness().0, StatusCode::OK);
        health.cannot_see("EcrRegistry", "no such kind");
        assert_eq!(health.readiness(), (StatusCode::SERVICE_UNAVAILABLE, "EcrRegistry: no such kind\n".to_owned()));
        assert_eq!(health.liveness(Instant::now()).0, StatusCode::OK, "a new process would see no more");
        health.sees("EcrRegistry");
        assert_eq!(health.readiness().0, StatusCode::OK);
        health.stopping();
        assert_eq!(health.readiness().0, StatusCode::SERVICE_UNAVAILABLE);
    }

    #[test]
    fn a_loop_that_does_not_move_is_told_and_one_that_ended_is_not() {
        let (health, now) = (Health::default(), Instant::now());
        assert_eq!(health.liveness(now).0, StatusCode::OK, "nothing has begun");
        health.beat("EcrRepository");
        health.beat("EcrRegistry");
        assert_eq!(health.liveness(now + STUCK / 2).0, StatusCode::OK);
        health.ended("EcrRegistry");
        let (status, text) = health.liveness(now + 2 * STUCK);
        assert_eq!((status, text.as_str()), (StatusCode::SERVICE_UNAVAILABLE, "the queue of EcrRepository is stuck\n"));
    }

    #[tokio::test]
    async fn whoever_connects_and_says_nothing_holds_up_nobody_for_long() {
        tokio::time::pause();
        let listener = bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(serve(listener, Health::default(), Metrics::default()));
        let mut silent = Vec::new();
        for _ in 0..=MOST {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        let mut asks = TcpStream::connect(address).await.unwrap();
        asks.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        asks.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
        assert_eq!(silent[0].read(&mut [0]).await.unwrap(), 0, "it was closed");
        server.abort();
    }
}
