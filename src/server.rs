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

use crate::metrics::Metrics;

/// From 0, starting.
const READY: u8 = 1;
const STOPPING: u8 = 2;

/// A loop that didn't move for so long is stuck.
const STUCK: Duration = Duration::from_mins(1);

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
    loop {
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
            // A client that goes away early is its own affair.
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
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
}
