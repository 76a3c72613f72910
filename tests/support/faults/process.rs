//! An operator that can be killed: the real binary, whose only ways out lead through a [`super::Wire`].

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::support::operator::NAMESPACE;
use crate::support::signals;

/// Ends the operator, with SIGKILL, when its own standard input ends: with this process, whatever becomes of it.
const OPERATOR: &str = r#"
exec 3<&0
"$@" </dev/null 3<&- & operator=$!
{ cat <&3 >/dev/null; kill -9 "$operator"; } 2>/dev/null & watcher=$!
exec 3<&-
wait "$operator"; status=$?
kill -9 "$watcher" 2>/dev/null
exit "$status""#;

/// A running operator.
pub struct Process {
    child: Child,
    kubeconfig: PathBuf,
    log: PathBuf,
}

impl Process {
    /// With this kubeconfig; what it logs is added to `log`.
    pub fn start(kubeconfig: &Path, log: &Path, environment: &[(&str, &str)]) -> Self {
        let to = std::fs::File::options().create(true).append(true).open(log).unwrap();
        let mut command = Command::new("sh");
        command
            .args(["-c", OPERATOR, "operator", env!("CARGO_BIN_EXE_ecr-operator"), "run"])
            .args(["--allow-endpoint-override", "--listen", "127.0.0.1:0", "--namespace", NAMESPACE])
            .args(["--log", "info,ecr_operator=debug"])
            .env("KUBECONFIG", kubeconfig)
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .env("ECR_OPERATOR_LEADER_ELECT", "false")
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(to);
        let child = command.spawn().unwrap();
        Self { child, kubeconfig: kubeconfig.to_owned(), log: log.to_owned() }
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(&mut self) {
        drop(self.child.stdin.take());
        self.child.wait().unwrap();
    }

    /// The operator's own process.
    pub fn pid(&self) -> String {
        let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.child.id())).unwrap();
        // Where it was built anew meanwhile, its name tells that too.
        let is_operator = |pid: &&str| {
            std::fs::read_link(format!("/proc/{pid}/exe"))
                .is_ok_and(|exe| exe.to_string_lossy().contains("/ecr-operator"))
        };
        children.split_whitespace().find(is_operator).unwrap().to_owned()
    }

    /// Sends the operator itself a signal, as in `STOP`.
    pub fn signal(&self, name: &str) {
        signals::send(name, &self.pid());
    }

    /// Whether it ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Starts it again if it ended by itself, as the kubelet does. Returns whether it did.
    pub fn restart_if_ended(&mut self) -> bool {
        let ended = self.has_ended();
        if ended {
            *self = Self::start(&self.kubeconfig, &self.log, &[]);
        }
        ended
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
