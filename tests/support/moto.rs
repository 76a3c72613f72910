//! moto: an independent emulator of ECR, so that a misunderstanding of ours can't hide in the local ECR.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ecr_operator::aws::{Credentials, Ecr, Endpoint, Session, SessionOptions, StaticKey};
use ecr_operator::core::names::{AccountId, Region};
use ecr_operator::core::token::Secret;

use super::operator::get;
use super::world::{ACCOUNT, REGION};

const MOTO: &str = r#""$0" --host 127.0.0.1 --port "$1" >/dev/null 2>&1 & moto=$!; cat >/dev/null; kill "$moto""#;

/// A running moto; it ends with this process.
pub struct Moto {
    _process: Child,
    pub url: String,
}

impl Moto {
    /// From `ECR_OPERATOR_TEST_MOTO`, the folder of its program; `None` where that isn't set.
    pub async fn start() -> Option<Self> {
        let program = PathBuf::from(std::env::var_os("ECR_OPERATOR_TEST_MOTO")?);
        let program = [program.join("moto_server"), program.join("bin/moto_server"), program]
            .into_iter()
            .find(|path| path.is_file())?;
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let process = Command::new("sh")
            .args(["-c", MOTO])
            .arg(program)
            .arg(address.port().to_string())
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let up = async {
            while get(&address.to_string(), "/moto-api/data.json").await.is_none() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(Duration::from_mins(1), up).await.expect("moto is up in time");
        Some(Self { _process: process, url: format!("http://{address}") })
    }

    /// ECR as a person would look at it.
    pub async fn ecr(&self) -> Ecr {
        let key = StaticKey {
            access_key_id: "AKIAMOTO".into(),
            secret_access_key: Secret::new("moto".into()),
            session_token: None,
        };
        let endpoint = Endpoint { url: Some(self.url.clone()), ..Endpoint::default() };
        let region = Region::parse(REGION).unwrap();
        Session::new(&Credentials::AccessKey(key), &region, &endpoint, &SessionOptions::default())
            .await
            .ecr(&AccountId::parse(ACCOUNT).unwrap())
    }
}
