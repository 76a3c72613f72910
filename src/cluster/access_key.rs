//! Access keys from Secrets in the operator's own namespace: each watched by name, so that a rotation is noticed.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Secret as KubeSecret;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::watch_object;
use kube::{Api, Client};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::patience::Patience;
use crate::aws::StaticKey;
use crate::core::reason::{Problem, Reason};
use crate::core::token::{Secret, fingerprint};

/// An access key and a name for this version of it.
#[derive(Debug, Clone)]
struct Version {
    id: String,
    key: Result<StaticKey, String>,
}

/// What is known of a Secret.
#[derive(Debug, Clone)]
enum State {
    /// Nothing yet.
    Unread,
    /// It can't be read.
    Failed(String),
    /// There is none.
    Absent,
    /// It is there.
    There(Version),
}

/// A key that nobody asked for in so long is forgotten, and no longer watched: each registry asks at each look at it.
const UNUSED: Duration = Duration::from_hours(1);

/// The access keys that registries name.
#[derive(Debug)]
pub struct AccessKeys {
    api: Api<KubeSecret>,
    namespace: String,
    /// With when each was last asked for.
    watched: Mutex<HashMap<String, (watch::Receiver<State>, Instant)>>,
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
        const PATIENCE: Duration = Duration::from_secs(10);
        let mut state = self.watched(name);
        let at = format!("Secret {}/{name}", self.namespace);
        let read = tokio::time::timeout(PATIENCE, state.wait_for(|state| !matches!(state, State::Unread))).await;
        let known = match read {
            Ok(Ok(known)) => known.clone(),
            _ => State::Failed("no answer from the API server yet".to_owned()),
        };
        match known {
            State::There(version) => {
                let key =
                    version.key.map_err(|missing| Problem::new(Reason::Denied, format!("{at} has no {missing}")))?;
                Ok((version.id, key))
            }
            State::Unread => Err(Problem::new(Reason::Transient, format!("{at} wasn't read yet"))),
            State::Failed(why) => Err(Problem::new(
                Reason::Transient,
                format!("{at} can't be read; the operator needs list and watch on it: {why}"),
            )),
            State::Absent => Err(Problem::new(
                Reason::Denied,
                format!("{at} doesn't exist; create it with the keys accessKeyId and secretAccessKey"),
            )),
        }
    }

    fn watched(&self, name: &str) -> watch::Receiver<State> {
        let now = Instant::now();
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        watched.retain(|other, (_, used)| other == name || now.duration_since(*used) < UNUSED);
        if let Some((receiver, used)) = watched.get_mut(name) {
            *used = now;
            return receiver.clone();
        }
        let (sender, receiver) = watch::channel(State::Unread);
        watched.insert(name.to_owned(), (receiver.clone(), now));
        let (api, changed, name) = (self.api.clone(), self.changed.clone(), name.to_owned());
        self.tasks.spawn(async move {
            let mut seen = Box::pin(watch_object(api, &name).backoff(Patience::default()));
            loop {
                let event = tokio::select! {
                    () = sender.closed() => return,
                    event = seen.next() => event,
                };
                let Some(event) = event else { return };
                match event {
                    Ok(secret) => {
                        sender.send_replace(
                            secret.as_ref().map_or(State::Absent, |secret| State::There(version(secret))),
                        );
                        if changed.send(name.clone()).is_err() {
                            return;
                        }
                    }
                    Err(error) => {
                        tracing::warn!(secret = name, %error, "access key can't be watched");
                        // What was read before is still good.
                        sender.send_if_modified(|state| {
                            let unread = matches!(state, State::Unread | State::Failed(_));
                            if unread {
                                *state = State::Failed(error.to_string());
                            }
                            unread
                        });
                    }
                }
            }
        });
        receiver
    }
}

fn version(secret: &KubeSecret) -> Version {
    let key = parse(secret);
    // Named by what it holds: an edit of a label is no rotation.
    let id = key.as_ref().map_or_else(Clone::clone, |key| {
        let session = key.session_token.as_ref().map_or("", Secret::expose);
        fingerprint(&[&key.access_key_id, key.secret_access_key.expose(), session])
    });
    Version { id, key }
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
    use http::{Request, Response};
    use k8s_openapi::ByteString;
    use kube::client::Body;

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

    #[tokio::test(start_paused = true)]
    async fn a_key_that_no_registry_names_any_more_is_forgotten_and_no_longer_watched() {
        let silent =
            tower::service_fn(|_: Request<Body>| std::future::pending::<Result<Response<Body>, kube::Error>>());
        let keys = AccessKeys::new(Client::new(silent, "default"), "default", mpsc::unbounded_channel().0);
        assert!(keys.get("old").await.is_err() && keys.get("used").await.is_err());
        assert_eq!(keys.tasks.len(), 2);
        for _ in 0..3 {
            tokio::time::sleep(UNUSED / 2).await;
            assert!(keys.get("used").await.is_err(), "not read yet");
        }
        assert_eq!((keys.watched.lock().unwrap().len(), keys.tasks.len()), (1, 1));
    }
}
