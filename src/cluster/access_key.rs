//! Access keys from Secrets in the operator's own namespace: each watched by name, so that a rotation is noticed.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use futures::StreamExt;
use k8s_openapi::api::core::v1::Secret as KubeSecret;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::watch_object;
use kube::{Api, Client, ResourceExt};
use tokio::sync::{mpsc, watch};
use tokio_util::task::TaskTracker;

use crate::aws::StaticKey;
use crate::core::reason::{Problem, Reason};
use crate::core::token::Secret;

/// An access key and a name for this version of it.
#[derive(Debug, Clone)]
struct Version {
    id: String,
    key: Result<StaticKey, String>,
}

/// What a Secret holds: nothing known yet, no such Secret, or a version.
type State = Option<Option<Version>>;

/// The access keys that registries name.
#[derive(Debug)]
pub struct AccessKeys {
    api: Api<KubeSecret>,
    namespace: String,
    watched: Mutex<HashMap<String, watch::Receiver<State>>>,
    changed: mpsc::UnboundedSender<String>,
    tasks: TaskTracker,
}

impl AccessKeys {
    /// Of `namespace`. The name of each Secret that changes is sent to `changed`.
    #[must_use]
    pub fn new(client: Client, namespace: &str, changed: mpsc::UnboundedSender<String>) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            namespace: namespace.to_owned(),
            watched: Mutex::default(),
            changed,
            tasks: TaskTracker::new(),
        }
    }

    /// The key in the Secret `name`, with a name for this version of it.
    ///
    /// # Errors
    /// Where there is no such Secret, or no access key in it.
    pub async fn get(&self, name: &str) -> Result<(String, StaticKey), Problem> {
        let mut state = self.watched(name);
        let waited = tokio::time::timeout(std::time::Duration::from_secs(10), state.wait_for(Option::is_some)).await;
        let at = format!("Secret {}/{name}", self.namespace);
        let known = match waited {
            Ok(Ok(known)) => known.clone().flatten(),
            _ => {
                return Err(Problem::new(
                    Reason::Transient,
                    format!("{at} couldn't be read yet; the operator needs get, list and watch on it"),
                ));
            }
        };
        let version = known.ok_or_else(|| {
            Problem::new(
                Reason::Denied,
                format!("{at} doesn't exist; create it with keys accessKeyId and secretAccessKey"),
            )
        })?;
        let key = version.key.map_err(|missing| Problem::new(Reason::Denied, format!("{at} has no {missing}")))?;
        Ok((version.id, key))
    }

    fn watched(&self, name: &str) -> watch::Receiver<State> {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(receiver) = watched.get(name) {
            return receiver.clone();
        }
        let (sender, receiver) = watch::channel(None);
        watched.insert(name.to_owned(), receiver.clone());
        let (api, changed, name) = (self.api.clone(), self.changed.clone(), name.to_owned());
        self.tasks.spawn(async move {
            let mut seen = Box::pin(watch_object(api, &name).default_backoff());
            while let Some(event) = seen.next().await {
                match event {
                    Ok(secret) => {
                        sender.send_replace(Some(secret.as_ref().map(version)));
                        if changed.send(name.clone()).is_err() {
                            return;
                        }
                    }
                    Err(error) => tracing::warn!(secret = name, %error, "access key can't be watched"),
                }
            }
        });
        receiver
    }
}

fn version(secret: &KubeSecret) -> Version {
    let id = format!("{}/{}", secret.uid().unwrap_or_default(), secret.resource_version().unwrap_or_default());
    Version { id, key: parse(secret) }
}

/// Our spelling or that of the AWS command line.
fn parse(secret: &KubeSecret) -> Result<StaticKey, String> {
    let value = |names: [&str; 2]| {
        let data = secret.data.as_ref()?;
        let bytes = names.iter().find_map(|name| data.get(*name))?;
        let text = std::str::from_utf8(&bytes.0).ok()?.trim();
        (!text.is_empty()).then(|| text.to_owned())
    };
    Ok(StaticKey {
        access_key_id: value(["accessKeyId", "AWS_ACCESS_KEY_ID"]).ok_or("accessKeyId")?,
        secret_access_key: value(["secretAccessKey", "AWS_SECRET_ACCESS_KEY"])
            .map(Secret::new)
            .ok_or("secretAccessKey")?,
        session_token: value(["sessionToken", "AWS_SESSION_TOKEN"]).map(Secret::new),
    })
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;

    use super::*;

    fn secret(entries: &[(&str, &str)]) -> KubeSecret {
        let data =
            entries.iter().map(|(key, value)| ((*key).to_owned(), ByteString(value.as_bytes().to_vec()))).collect();
        KubeSecret { data: Some(data), ..KubeSecret::default() }
    }

    #[test]
    fn both_spellings_are_read_and_a_missing_key_is_named() {
        let ours = parse(&secret(&[("accessKeyId", "AKIA1"), ("secretAccessKey", "s\n")])).unwrap();
        let theirs = parse(&secret(&[("AWS_ACCESS_KEY_ID", "AKIA1"), ("AWS_SECRET_ACCESS_KEY", "s")])).unwrap();
        assert_eq!(ours, theirs);
        assert_eq!(parse(&secret(&[("accessKeyId", "AKIA1")])).unwrap_err(), "secretAccessKey");
        assert_eq!(parse(&KubeSecret::default()).unwrap_err(), "accessKeyId");
        assert!(
            !format!("{:?}", parse(&secret(&[("accessKeyId", "AKIA1"), ("secretAccessKey", "hush")]))).contains("hush")
        );
    }
}
