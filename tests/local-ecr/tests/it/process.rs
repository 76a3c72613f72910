//! `local-ecr serve`, as scripts use it.

use std::io::Write as _;
use std::process::Stdio;
use std::time::Duration;

use http::Request;
use http_body_util::Full;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::support::{ACCOUNT, Answer, REGION, send};

const PATIENCE: Duration = Duration::from_secs(20);

struct Serving {
    child: Child,
    url: String,
}

async fn serve(arguments: &[&str]) -> Serving {
    let mut child = Command::new(env!("CARGO_BIN_EXE_local-ecr"))
        .args(["serve", "--listen", "127.0.0.1:0", "--no-layers"])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let ready = tokio::time::timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap().unwrap();
    let url = ready.strip_prefix("READY url=").unwrap().split(' ').next().unwrap().to_owned();
    Serving { child, url }
}

impl Serving {
    async fn local(&self, method: &str, path: &str, body: Value) -> Answer {
        let request = Request::builder().method(method).uri(format!("{}/_local/{path}", self.url));
        send(request.body(Full::new(body.to_string().into())).unwrap()).await.unwrap()
    }

    async fn ends(mut self) -> bool {
        tokio::time::timeout(PATIENCE, self.child.wait()).await.unwrap().unwrap().success()
    }
}

#[tokio::test]
async fn seeded_steered_and_watched_from_outside() {
    let mut seed = tempfile("seed.json");
    let app = json!({"account": ACCOUNT, "region": REGION, "name": "app"});
    seed.1.write_all(json!({"repositories": [app]}).to_string().as_bytes()).unwrap();
    let serving = serve(&["--seed", &seed.0, "--token-lifetime", "20s"]).await;
    let put = serving.local("POST", "put-image", json!({"repository": "app", "tags": ["v1"]})).await.json();
    let digest = put["imageDigest"].as_str().unwrap();
    let repositories = serving.local("GET", "repositories", json!(null)).await.json();
    assert_eq!(repositories[0]["images"][digest], json!(["v1"]));

    for (path, body) in [
        ("token-lifetime", json!({"seconds": 0.5})),
        ("token-lifetime", json!({"seconds": 5, "account": ACCOUNT})),
        ("session-lifetime", json!({"seconds": 5})),
        ("tokens-end-with-session", json!({"value": true})),
        ("advance", json!({"seconds": 60})),
        ("consistency-delay", json!({"seconds": 1})),
        ("read-back", json!({"shuffle": false})),
        ("page-quirks", json!({"longest": 5})),
        ("known-roles", json!({"arn": "arn:aws:iam::123456789012:role/x"})),
        (
            "faults",
            json!({"calls": {"operation": "CreateRepository"}, "times": 1, "action": {"before": {"code": "X", "status": 400}}}),
        ),
        ("faults", json!({"action": "lost"})),
        ("faults", json!({"action": {"delay": {"millis": 1}}})),
        ("rate-limits", json!({"perSecond": 5, "burst": 5})),
        (
            "seed",
            json!({"accounts": [{"id": ACCOUNT, "users": [{"name": "u", "accessKey": "AKIAU", "secretKey": "s"}]}]}),
        ),
        ("down", json!({"value": true})),
        ("down", json!({"value": false})),
    ] {
        let answer = serving.local("POST", path, body).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    }
    assert_eq!(serving.local("DELETE", "faults", json!(null)).await.status, 200);
    for (path, body) in
        [("token-lifetime", json!({"second": 1})), ("put-image", json!({"repository": "gone"})), ("faults", json!({}))]
    {
        assert_eq!(serving.local("POST", path, body).await.status, 400, "{path}");
    }
    assert_eq!(serving.local("POST", "nonsense", json!({})).await.status, 404);

    let ping = Request::get(format!("{}/v2/", serving.url)).body(Full::default()).unwrap();
    assert_eq!(send(ping).await.unwrap().status, 401);
    let calls = serving.local("GET", "calls?service=registry&atLeast=1&timeout=5", json!(null)).await.json();
    assert_eq!(calls[0]["outcome"], json!({"error": "UNAUTHORIZED"}));
    serving.local("DELETE", "calls", json!(null)).await;
    assert_eq!(serving.local("GET", "calls", json!(null)).await.json(), json!([]));
}

#[tokio::test]
async fn ends_when_told_and_when_left_alone() {
    let terminated = serve(&[]).await;
    let pid = terminated.child.id().unwrap().to_string();
    assert!(Command::new("kill").arg(&pid).status().await.unwrap().success());
    assert!(terminated.ends().await);

    let mut orphan = serve(&["--exit-on-stdin-close"]).await;
    drop(orphan.child.stdin.take());
    assert!(orphan.ends().await);
}

#[tokio::test]
async fn says_why_it_does_not_start() {
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = holder.local_addr().unwrap().to_string();
    let output = Command::new(env!("CARGO_BIN_EXE_local-ecr"))
        .args(["serve", "--no-layers", "--listen", &address])
        .output()
        .await
        .unwrap();
    assert!(!output.status.success());
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains(&format!("can't listen on {address}")), "{error}");
}

fn tempfile(name: &str) -> (String, std::fs::File) {
    let path = format!("{}/{name}", env!("CARGO_TARGET_TMPDIR"));
    (path.clone(), std::fs::File::create(&path).unwrap())
}
