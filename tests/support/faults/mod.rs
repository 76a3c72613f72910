//! A proxy between one operator and its two servers, the API server and AWS: it names and counts every request, and does
//! to them what networks, servers and power cuts do.
//!
//! Towards the operator it speaks plain HTTP on loopback. What it asks of the API server bears the operator's own token;
//! what it asks of the local ECR, the operator's own signature.

mod names;
mod process;
pub mod state;

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::http::request::Parts;
use hyper::{Request, Response, StatusCode, header};
use hyper_util::client::legacy::{Client as HttpClient, ResponseFuture};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use kube::Config;
use kube::client::ConfigExt as _;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OnceCell, watch};
use tokio::task::{AbortHandle, JoinSet};

pub use names::{Scope, side};
pub use process::Process;

use crate::support::cluster::Cluster;
use crate::support::operator;

/// The control plane of all tests that bring their own operators.
pub async fn cluster() -> &'static Cluster {
    static CLUSTER: OnceCell<Cluster> = OnceCell::const_new();
    CLUSTER.get_or_init(|| Cluster::start("control-plane")).await
}

/// Which of the two servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    Kubernetes,
    Aws,
}

/// What befalls a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// It is never sent, and the operator dies.
    DieBefore,
    /// It is done, and the operator dies before it knows.
    DieAfter,
    /// It is held until the next operator is heard, and the operator is to be stopped meanwhile.
    Stop,
    /// It is done, and the connection is cut before the answer comes.
    Lost,
    /// The connection is cut and nothing is done.
    Cut,
    /// Nothing is done, no answer ever comes, and the connection stays: as when a firewall forgets it.
    Silence,
    /// It takes so much longer.
    Delay(Duration),
    /// Nothing is done, and this is answered.
    Answer { status: u16, headers: Vec<(&'static str, &'static str)>, body: String },
    /// What was answered to the first request of the same name: a server that lags behind.
    FirstAnswer,
}

/// One request.
#[derive(Debug, Clone)]
pub struct Seen {
    pub side: Side,
    /// Such as `PATCH ecrrepositories/app/status`, `CreateRepository app`; what is of this world alone is left out.
    pub name: String,
    /// So many of this name came before.
    pub earlier: usize,
    pub writes: bool,
    pub is_watch: bool,
    /// Which life of the operator it is of.
    pub life: usize,
    /// The status that the server answered.
    pub answer: Option<u16>,
    /// What befell it.
    pub fault: Option<Fault>,
}

enum Name {
    Is(String),
    Begins(String),
}

impl Name {
    fn fits(&self, name: &str) -> bool {
        match self {
            Self::Is(wanted) => name == wanted,
            Self::Begins(prefix) => name.starts_with(prefix),
        }
    }
}

/// Faults for requests to come.
pub struct Rule {
    side: Side,
    name: Name,
    skip: usize,
    times: usize,
    fault: Fault,
}

impl Rule {
    /// The next request whose name begins so.
    pub fn next(side: Side, prefix: &str, fault: Fault) -> Self {
        Self { side, name: Name::Begins(prefix.to_owned()), skip: 0, times: 1, fault }
    }

    /// The next request of this very name.
    pub fn exactly(side: Side, name: &str, fault: Fault) -> Self {
        Self { name: Name::Is(name.to_owned()), ..Self::next(side, name, fault) }
    }

    /// Not before so many have passed.
    pub fn after(self, skip: usize) -> Self {
        Self { skip, ..self }
    }

    /// So many in a row.
    pub fn times(self, times: usize) -> Self {
        Self { times, ..self }
    }
}

/// What watches do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Flow {
    #[default]
    Free,
    /// Of this kind: open, and nothing comes.
    Frozen(&'static str),
    /// Those that were open up to this turn end with 410 Gone.
    Gone(u64),
    /// On those that were open up to this turn nothing comes any more, and they never end.
    Silent(u64),
}

#[derive(Default)]
struct State {
    seen: Vec<Seen>,
    counts: HashMap<(Side, String), usize>,
    rules: Vec<Rule>,
    life: usize,
    dead: bool,
    under_way: usize,
    last: Option<Instant>,
    first_answers: HashMap<String, (StatusCode, Bytes)>,
    turn: u64,
    /// What was asked by whom nobody hears any more.
    unheard: Vec<String>,
}

impl State {
    fn hears(&self, life: usize) -> bool {
        !self.dead && self.life == life
    }
}

struct Inner {
    scope: Scope,
    kubernetes: Upstream,
    aws: Upstream,
    state: Mutex<State>,
    died: watch::Sender<bool>,
    flow: watch::Sender<Flow>,
}

/// The proxy of one world.
pub struct Wire {
    inner: Arc<Inner>,
    /// What the operator is to be started with.
    pub kubeconfig: PathBuf,
    /// Where the operator finds AWS.
    pub aws_url: String,
    log: PathBuf,
    tasks: Vec<AbortHandle>,
}

/// The way to a server.
#[derive(Clone)]
pub struct Upstream {
    base: String,
    send: Arc<dyn Fn(Request<Full<Bytes>>) -> ResponseFuture + Send + Sync>,
    /// For the API server: a kubeconfig of the operator.
    kubeconfig: PathBuf,
}

impl Upstream {
    /// To the API server of [`cluster`], as an operator with the chart's rights. A client belongs to the runtime of one
    /// test.
    pub async fn kubernetes() -> Self {
        static KUBECONFIG: OnceCell<PathBuf> = OnceCell::const_new();
        let install = || async { operator::install(cluster().await).await };
        let kubeconfig = KUBECONFIG.get_or_init(install).await.clone();
        let read = Kubeconfig::read_from(&kubeconfig).unwrap();
        let config = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await.unwrap();
        let client = HttpClient::builder(TokioExecutor::new()).build(config.rustls_https_connector().unwrap());
        let base = config.cluster_url.to_string().trim_end_matches('/').to_owned();
        Self { base, send: Arc::new(move |request| client.request(request)), kubeconfig }
    }

    /// To the local ECR.
    pub fn aws(url: &str) -> Self {
        let client = HttpClient::builder(TokioExecutor::new()).build_http();
        let base = url.trim_end_matches('/').to_owned();
        Self { base, send: Arc::new(move |request| client.request(request)), kubeconfig: PathBuf::new() }
    }
}

type Body = UnsyncBoxBody<Bytes, io::Error>;

impl Wire {
    /// Between an operator and these two.
    pub async fn start(kubernetes: &Upstream, aws: Upstream, scope: Scope) -> Self {
        let directory = kubernetes.kubeconfig.parent().unwrap();
        let own = scope.name().to_owned();
        let inner = Arc::new(Inner {
            scope,
            kubernetes: kubernetes.clone(),
            aws,
            state: Mutex::default(),
            died: watch::Sender::new(false),
            flow: watch::Sender::default(),
        });
        let (api_url, api_task) = listen(&inner, Side::Kubernetes).await;
        let (aws_url, aws_task) = listen(&inner, Side::Aws).await;
        let name = format!("{own}-{}", api_url.rsplit(':').next().unwrap());
        let kubeconfig = directory.join(format!("{name}.kubeconfig"));
        std::fs::write(&kubeconfig, leading_to(&kubernetes.kubeconfig, &api_url)).unwrap();
        let log = directory.join(format!("{name}.log"));
        Self { inner, kubeconfig, aws_url, log, tasks: vec![api_task, aws_task] }
    }

    /// An operator on this wire.
    pub fn operator(&self) -> Process {
        self.operator_with(&[])
    }

    /// The same, with this in its environment.
    pub fn operator_with(&self, environment: &[(&str, &str)]) -> Process {
        Process::start(&self.kubeconfig, &self.log, environment)
    }

    /// What all operators on this wire logged.
    pub fn logged(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// From now on this happens.
    pub fn rule(&self, rule: Rule) {
        self.inner.lock().rules.push(rule);
    }

    /// Nothing happens any more.
    pub fn clear_rules(&self) {
        self.inner.lock().rules.clear();
    }

    /// Forgets the requests so far, and counts anew.
    pub fn begin(&self) {
        let mut state = self.inner.lock();
        state.seen.clear();
        state.counts.clear();
        state.first_answers.clear();
        state.unheard.clear();
    }

    /// All requests since the last `begin`, in the order in which they came.
    pub fn seen(&self) -> Vec<Seen> {
        self.inner.lock().seen.clone()
    }

    /// Which changes an operator wanted that nobody hears any more, since the last `begin`.
    pub fn unheard_writes(&self) -> Vec<String> {
        let writes = |name: &&String| names::writes(side(name), name);
        self.inner.lock().unheard.iter().filter(writes).cloned().collect()
    }

    /// Waits until an operator that nobody hears any more has asked for nothing for so long.
    pub async fn unheard_and_quiet(&self, span: Duration) {
        let count = || self.inner.lock().unheard.len();
        let mut before = usize::MAX;
        while before != count() {
            before = count();
            tokio::time::sleep(span).await;
        }
    }

    /// Waits until the operator is to die: nothing that it asks is heard any more.
    pub async fn died(&self) {
        self.inner.died.subscribe().wait_for(|died| *died).await.unwrap();
    }

    /// Whether it is so.
    pub fn is_dead(&self) -> bool {
        self.inner.lock().dead
    }

    /// Which life of the operator this is; the first is 0.
    pub fn life(&self) -> usize {
        self.inner.lock().life
    }

    /// The next operator is heard.
    pub fn revive(&self) {
        let mut state = self.inner.lock();
        (state.dead, state.life) = (false, state.life + 1);
        drop(state);
        self.inner.died.send_replace(false);
    }

    /// Waits for a request since the last `begin` whose name begins so.
    pub async fn asked(&self, prefix: &str) {
        while !self.seen().iter().any(|seen| seen.name.starts_with(prefix)) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until nothing was asked for so long: the operator is at rest.
    pub async fn quiet(&self, span: Duration) {
        loop {
            let since = {
                let state = self.inner.lock();
                if state.under_way > 0 { Duration::ZERO } else { state.last.map_or(span, |last| last.elapsed()) }
            };
            if since >= span {
                return;
            }
            tokio::time::sleep(span.saturating_sub(since)).await;
        }
    }

    /// Watches whose name begins so stay open, and nothing comes.
    pub fn freeze_watches(&self, prefix: &'static str) {
        self.inner.flow.send_replace(Flow::Frozen(prefix));
    }

    /// Everything comes that was held back.
    pub fn let_watches_flow(&self) {
        self.inner.flow.send_replace(Flow::Free);
    }

    /// All watches that are open end with 410 Gone.
    pub fn expire_watches(&self) {
        self.inner.flow.send_replace(Flow::Gone(self.turn()));
    }

    /// On all watches that are open nothing comes any more, and they never end: as when a firewall forgot them.
    pub fn silence_watches(&self) {
        self.inner.flow.send_replace(Flow::Silent(self.turn()));
    }

    fn turn(&self) -> u64 {
        let mut state = self.inner.lock();
        state.turn += 1;
        state.turn
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a request, and says what befalls it; `None` where nobody hears it any more.
    fn note(&self, side: Side, life: usize, name: &str, is_watch: bool) -> Option<(usize, Option<Fault>)> {
        let mut state = self.lock();
        if !state.hears(life) {
            state.unheard.push(name.to_owned());
            return None;
        }
        let earlier = state.counts.entry((side, name.to_owned())).or_default();
        let seen = Seen {
            side,
            name: name.to_owned(),
            earlier: *earlier,
            writes: names::writes(side, name),
            is_watch,
            life,
            answer: None,
            fault: None,
        };
        *earlier += 1;
        let mut fault = None;
        for rule in &mut state.rules {
            if fault.is_some() || rule.side != side || rule.times == 0 || !rule.name.fits(name) {
                continue;
            }
            if rule.skip > 0 {
                rule.skip -= 1;
                continue;
            }
            rule.times -= 1;
            fault = Some(rule.fault.clone());
        }
        state.seen.push(Seen { fault: fault.clone(), ..seen });
        Some((state.seen.len() - 1, fault))
    }

    fn die(&self) {
        self.lock().dead = true;
        self.died.send_replace(true);
    }
}

/// Counts what is under way.
struct UnderWay<'a>(&'a Inner);

impl<'a> UnderWay<'a> {
    fn begin(inner: &'a Inner) -> Self {
        inner.lock().under_way += 1;
        Self(inner)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.under_way -= 1;
        state.last = Some(Instant::now());
    }
}

/// The same kubeconfig, with another server.
fn leading_to(kubeconfig: &std::path::Path, url: &str) -> String {
    let mut config: Value = serde_saphyr::from_str(&std::fs::read_to_string(kubeconfig).unwrap()).unwrap();
    for cluster in config["clusters"].as_array_mut().unwrap() {
        cluster["cluster"] = json!({"server": url});
    }
    config.to_string()
}

async fn listen(inner: &Arc<Inner>, side: Side) -> (String, AbortHandle) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    (url, tokio::spawn(accept(Arc::clone(inner), side, listener)).abort_handle())
}

async fn accept(inner: Arc<Inner>, side: Side, listener: TcpListener) {
    // Ends its connections when it is dropped.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((stream, _)) = accepted {
                    connections.spawn(serve(Arc::clone(&inner), side, stream));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(inner: Arc<Inner>, side: Side, stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    // A connection is of one process, and so of one life.
    let life = inner.lock().life;
    let service = hyper::service::service_fn(move |request| {
        let inner = Arc::clone(&inner);
        async move { handle(&inner, side, life, request).await }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service);
    // That it ends badly is what this is for.
    let _ = connection.await;
}

/// An `Err` makes hyper close the connection without an answer.
async fn handle(inner: &Arc<Inner>, side: Side, life: usize, request: Request<Incoming>) -> io::Result<Response<Body>> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let is_watch = side == Side::Kubernetes && names::is_watch(&parts);
    let name = names::name(side, &inner.scope, &parts, &body);
    // The election goes on all the time, and is no part of any story.
    if side == Side::Kubernetes && name.contains("/leases") {
        if !inner.lock().hears(life) {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        let answer = forward(inner, side, parts, body).await?;
        return whole(inner, &name, answer).await;
    }
    let Some((number, fault)) = inner.note(side, life, &name, is_watch) else {
        return Err(io::ErrorKind::ConnectionReset.into());
    };
    if is_watch && fault.is_none() {
        return Ok(follow(inner, name, forward(inner, side, parts, body).await?));
    }
    let under_way = UnderWay::begin(inner);
    // What was let through is followed to its answer, whether or not whoever asked lives to hear it.
    let forwarded = || {
        let (inner, name) = (Arc::clone(inner), name.clone());
        let task = tokio::spawn(async move {
            let _under_way = UnderWay::begin(&inner);
            let answer = forward(&inner, side, parts, body).await?;
            if let Some(seen) = inner.lock().seen.get_mut(number) {
                seen.answer = Some(answer.status().as_u16());
            }
            whole(&inner, &name, answer).await
        });
        async move { task.await.map_err(io::Error::other)? }
    };
    match fault {
        None => forwarded().await,
        Some(Fault::DieBefore) => {
            inner.die();
            Err(io::ErrorKind::ConnectionReset.into())
        }
        Some(Fault::Stop) => {
            inner.die();
            let _ = inner.died.subscribe().wait_for(|died| !died).await;
            Err(io::ErrorKind::ConnectionReset.into())
        }
        Some(Fault::DieAfter) => {
            forwarded().await?;
            inner.die();
            Err(io::ErrorKind::ConnectionReset.into())
        }
        Some(Fault::Lost) => {
            forwarded().await?;
            Err(io::ErrorKind::ConnectionReset.into())
        }
        Some(Fault::Cut) => Err(io::ErrorKind::ConnectionReset.into()),
        Some(Fault::Silence) => {
            drop(under_way);
            std::future::pending().await
        }
        Some(Fault::Delay(by)) => {
            tokio::time::sleep(by).await;
            forwarded().await
        }
        Some(Fault::Answer { status, headers, body }) => Ok(answer(status, &headers, body)),
        Some(Fault::FirstAnswer) => {
            let first = inner.lock().first_answers.get(&name).cloned();
            let (status, body) = first.unwrap_or_default();
            Ok(answer(status.as_u16(), &[("content-type", "application/json")], body))
        }
    }
}

fn answer(status: u16, headers: &[(&'static str, &'static str)], body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::builder().status(status);
    for (key, value) in headers {
        response = response.header(*key, *value);
    }
    response.body(Full::new(body.into()).map_err(|never| match never {}).boxed_unsync()).unwrap()
}

async fn forward(inner: &Inner, side: Side, mut parts: Parts, body: Bytes) -> io::Result<Response<Incoming>> {
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let (upstream, path) = match side {
        Side::Kubernetes => {
            parts.headers.remove(header::HOST);
            (&inner.kubernetes, inner.scope.narrow(path))
        }
        // The name of the host is signed.
        Side::Aws => (&inner.aws, path.to_owned()),
    };
    parts.uri = format!("{}{path}", upstream.base).parse().map_err(io::Error::other)?;
    (upstream.send)(Request::from_parts(parts, Full::new(body))).await.map_err(io::Error::other)
}

/// The whole answer.
async fn whole(inner: &Inner, name: &str, answer: Response<Incoming>) -> io::Result<Response<Body>> {
    let (mut parts, body) = answer.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    parts.headers.remove(header::TRANSFER_ENCODING);
    inner.lock().first_answers.entry(name.to_owned()).or_insert_with(|| (parts.status, body.clone()));
    Ok(Response::from_parts(parts, Full::new(body).map_err(|never| match never {}).boxed_unsync()))
}

/// A watch, as its flow is let through.
fn follow(inner: &Inner, name: String, answer: Response<Incoming>) -> Response<Body> {
    let (parts, body) = answer.into_parts();
    let since = inner.lock().turn;
    let start = (body, inner.flow.subscribe(), name, false);
    let frames = futures::stream::unfold(start, move |(mut body, mut flow, name, over)| async move {
        if over {
            return None;
        }
        loop {
            let now = *flow.borrow_and_update();
            match now {
                Flow::Gone(turn) if turn > since => {
                    let gone = json!({"type": "ERROR", "object": {
                        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 410,
                        "reason": "Expired", "message": "too old resource version",
                    }});
                    return Some((Ok(Frame::data(Bytes::from(format!("{gone}\n")))), (body, flow, name, true)));
                }
                Flow::Frozen(prefix) if name.starts_with(prefix) => {
                    flow.changed().await.ok()?;
                    continue;
                }
                Flow::Silent(turn) if turn > since => {
                    flow.changed().await.ok()?;
                    continue;
                }
                _ => {}
            }
            tokio::select! {
                biased;
                changed = flow.changed() => changed.ok()?,
                frame = body.frame() => {
                    return Some((frame?.map_err(io::Error::other), (body, flow, name, false)));
                }
            }
        }
    });
    Response::from_parts(parts, StreamBody::new(frames).boxed_unsync())
}
