//! A proxy in front of the API server that keeps what the operator asks and is answered, and may be in the way of it.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::header::{ACCEPT, HOST};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use kube::Client;
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::json;
use tokio::net::TcpListener;

use super::cluster::Cluster;

/// One request, with all that was answered so far.
#[derive(Clone)]
pub struct Exchange {
    pub method: String,
    /// Path and query.
    pub uri: String,
    pub accept: String,
    answer: Arc<Mutex<Vec<u8>>>,
}

impl Exchange {
    /// Whether these bytes were in the answer.
    pub fn told(&self, needle: &str) -> bool {
        self.answer.lock().unwrap().windows(needle.len()).any(|window| window == needle.as_bytes())
    }
}

/// What is in the way of a request.
#[derive(Clone, Copy)]
pub enum Hurdle {
    /// It isn't answered.
    Lost,
    /// It is passed on only after so long.
    Slow(Duration),
}

/// For requests with this method, and these words in their path.
type Hurdles = Arc<Mutex<Vec<(&'static str, String, Hurdle)>>>;

/// The proxy; it speaks plain HTTP, and to the API server as the operator.
pub struct Proxy {
    /// Leads through it.
    pub kubeconfig: PathBuf,
    exchanges: Arc<Mutex<Vec<Exchange>>>,
    hurdles: Hurdles,
}

impl Proxy {
    /// In front of a cluster in which an operator was installed before.
    pub async fn start(cluster: &Cluster) -> Self {
        let operator = Kubeconfig::read_from(cluster.kubeconfig().with_file_name("operator.kubeconfig")).unwrap();
        let config = kube::Config::from_custom_kubeconfig(operator, &KubeConfigOptions::default()).await.unwrap();
        let client = Client::try_from(config).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = format!("http://{}", listener.local_addr().unwrap());
        let kubeconfig = cluster.directory().join("proxy.kubeconfig");
        let leading_here = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "proxy",
            "clusters": [{"name": "proxy", "cluster": {"server": server}}],
            "users": [{"name": "proxy", "user": {}}],
            "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "proxy"}}],
        });
        std::fs::write(&kubeconfig, leading_here.to_string()).unwrap();
        let exchanges = Arc::new(Mutex::new(Vec::new()));
        let hurdles = Hurdles::default();
        let (kept, in_the_way) = (exchanges.clone(), hurdles.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (client, kept, hurdles) = (client.clone(), kept.clone(), in_the_way.clone());
                let service =
                    service_fn(move |request| pass_on(client.clone(), kept.clone(), hurdles.clone(), request));
                let connection = hyper::server::conn::http1::Builder::new();
                tokio::spawn(async move { drop(connection.serve_connection(TokioIo::new(stream), service).await) });
            }
        });
        Self { kubeconfig, exchanges, hurdles }
    }

    /// Puts something in the way of requests with this method and these words in their path.
    pub fn hinder(&self, method: &'static str, path: &str, hurdle: Hurdle) {
        self.hurdles.lock().unwrap().push((method, path.to_owned(), hurdle));
    }

    /// Nothing is in the way any more.
    pub fn let_pass(&self) {
        self.hurdles.lock().unwrap().clear();
    }

    /// All so far.
    pub fn exchanges(&self) -> Vec<Exchange> {
        self.exchanges.lock().unwrap().clone()
    }
}

async fn pass_on(
    client: Client,
    kept: Arc<Mutex<Vec<Exchange>>>,
    hurdles: Hurdles,
    request: Request<Incoming>,
) -> Result<Response<impl hyper::body::Body<Data = hyper::body::Bytes, Error = kube::Error>>, kube::Error> {
    let (mut parts, body) = request.into_parts();
    let body = body.collect().await.map_err(kube::Error::HyperError)?.to_bytes();
    let accept = parts.headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default().to_owned();
    let answer = Arc::new(Mutex::new(Vec::new()));
    let (method, uri) = (parts.method.to_string(), parts.uri.to_string());
    let is_met = |(hindered, path, _): &&(&str, String, Hurdle)| *hindered == method && uri.contains(path);
    let hurdle = hurdles.lock().unwrap().iter().find(is_met).map(|(.., hurdle)| *hurdle);
    kept.lock().unwrap().push(Exchange { method, uri, accept, answer: answer.clone() });
    match hurdle {
        None => {}
        Some(Hurdle::Lost) => return Err(kube::Error::Service("lost on the way".into())),
        Some(Hurdle::Slow(pause)) => tokio::time::sleep(pause).await,
    }
    parts.headers.remove(HOST);
    let response = client.send(Request::from_parts(parts, Body::from(body.to_vec()))).await?;
    Ok(response.map(move |body| {
        body.map_frame(move |frame| {
            answer.lock().unwrap().extend_from_slice(frame.data_ref().map(AsRef::as_ref).unwrap_or_default());
            frame
        })
        .map_err(|error| kube::Error::Service(error.into()))
    }))
}
