//! moto: an independent emulator of ECR, so that a misunderstanding of ours can't hide in the local ECR.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use super::operator::get;
use super::world::{REGION, There};

const MOTO: &str = r#""$0" --host 127.0.0.1 --port "$1" >/dev/null 2>&1 & moto=$!; cat >/dev/null; kill "$moto""#;
/// What ECR's operations are called on the wire.
const TARGET: &str = "AmazonEC2ContainerRegistry_V20150921.";
/// Tells our own calls from the operator's.
const BY_HAND: &str = "X-By-Hand";

/// A running moto; it ends with this process.
pub struct Moto {
    _process: Child,
    address: String,
    /// Where it records the calls that it gets.
    log: PathBuf,
}

impl Moto {
    /// From `ECR_OPERATOR_TEST_MOTO`, the folder of its program; `None` where that isn't set.
    pub async fn start() -> Option<Self> {
        let program = PathBuf::from(std::env::var_os("ECR_OPERATOR_TEST_MOTO")?);
        let program = [program.join("moto_server"), program.join("bin/moto_server"), program]
            .into_iter()
            .find(|path| path.is_file())?;
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let log = std::env::temp_dir().join(format!("ecr-operator-moto-{}-{}", std::process::id(), address.port()));
        let process = Command::new("sh")
            .args(["-c", MOTO])
            .arg(program)
            .arg(address.port().to_string())
            .env("MOTO_ENABLE_RECORDING", "1")
            .env("MOTO_RECORDER_FILEPATH", &log)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let moto = Self { _process: process, address: address.to_string(), log };
        let up = async {
            while get(&moto.address, "/moto-api/data.json").await.is_none() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(Duration::from_mins(1), up).await.expect("moto is up in time");
        Some(moto)
    }

    /// Its endpoint, for every service.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// An operation of ECR by somebody else's hand: it isn't counted.
    pub fn call(&self, operation: &str, body: &Value) -> Result<Value, Value> {
        let body = body.to_string();
        let mut stream = TcpStream::connect(&self.address).unwrap();
        write!(
            stream,
            "POST / HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: {}\r\n{BY_HAND}: yes\r\n\
             X-Amz-Target: {TARGET}{operation}\r\nContent-Type: application/x-amz-json-1.1\r\n\
             Authorization: AWS4-HMAC-SHA256 Credential=MOTO/20260101/{REGION}/ecr/aws4_request\r\n\r\n{body}",
            self.address,
            body.len(),
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let body = serde_json::from_str(body).unwrap_or_else(|_| json!(body));
        if head.starts_with("HTTP/1.1 200") { Ok(body) } else { Err(body) }
    }

    /// A repository as it is.
    pub fn there(&self, name: &str) -> Option<There> {
        let of = json!({"repositoryName": name});
        let described = self.call("DescribeRepositories", &json!({"repositoryNames": [name]})).ok()?;
        let description = described["repositories"][0].clone();
        let arn = description["repositoryArn"].as_str()?.to_owned();
        let listed = self.call("ListTagsForResource", &json!({"resourceArn": arn})).ok()?;
        let text = |tag: &Value, member: &str| tag[member].as_str().map(str::to_owned);
        let tags = listed["tags"].as_array()?.iter().filter_map(|tag| Some((text(tag, "Key")?, text(tag, "Value")?)));
        let policy = |operation: &str, member: &str| {
            let answer = self.call(operation, &of).ok()?;
            serde_json::from_str(answer[member].as_str()?).ok()
        };
        Some(There {
            arn,
            tags: tags.collect(),
            lifecycle_policy: policy("GetLifecyclePolicy", "lifecyclePolicyText"),
            policy: policy("GetRepositoryPolicy", "policyText"),
            description,
        })
    }

    /// The operations that ECR was asked for since the log was cleared, in order.
    pub fn operations(&self) -> Vec<String> {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let operation = |line| {
            let call: Value = serde_json::from_str(line).ok()?;
            let headers = &call["headers"];
            let target = headers["X-Amz-Target"].as_str()?.strip_prefix(TARGET)?;
            headers[BY_HAND].is_null().then(|| target.to_owned())
        };
        log.lines().filter_map(operation).collect()
    }

    /// Forgets the calls so far.
    pub fn clear_calls(&self) {
        std::fs::write(&self.log, "").unwrap();
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.log);
    }
}
