//! `restartStuckPods`: one watch of pods for all pull secrets that want it, as long as there is one.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use futures::StreamExt;
use futures::stream::BoxStream;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ObjectReference, ServiceAccount};
use kube::runtime::reflector::{ObjectRef, Store};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::cluster::{Events, Evicted, PodNews, Pods, What};
use crate::controller::triggers::Dependants;
use crate::core::reason::{Problem, Reason};
use crate::core::stuck_pods::{Decision, Round, StuckPod, Tries, Wish, decide};
use crate::core::token::wait;

/// An eviction is a matter of the recent past for so long.
const RECENTLY: SignedDuration = SignedDuration::from_hours(1);

/// What a pull secret wants, and who it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    /// Which pods.
    pub wish: Wish,
    /// For events.
    pub about: ObjectReference,
}

/// Where pull secrets say what they want, by UID.
pub struct StuckPods {
    wanted: Mutex<BTreeMap<String, Wanted>>,
    changed: mpsc::UnboundedSender<()>,
    forbidden: Arc<Mutex<bool>>,
}

/// The other end.
pub struct Inbox {
    changed: mpsc::UnboundedReceiver<()>,
    forbidden: Arc<Mutex<bool>>,
}

impl StuckPods {
    /// Both ends.
    #[must_use]
    pub fn new() -> (Self, Inbox) {
        let (changed, receiver) = mpsc::unbounded_channel();
        let forbidden = Arc::new(Mutex::new(false));
        let inbox = Inbox { changed: receiver, forbidden: forbidden.clone() };
        (Self { wanted: Mutex::default(), changed, forbidden }, inbox)
    }

    /// What a pull secret wants from now on: `None` for nothing. Returns what is in the way of it, as far as known.
    pub fn want(&self, uid: &str, wanted: Option<&Wanted>) -> Option<Problem> {
        let mut all = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        let before = match wanted {
            Some(wanted) => all.insert(uid.to_owned(), wanted.clone()),
            None => all.remove(uid),
        };
        if before.as_ref() != wanted {
            // A closed channel means that the process is ending.
            let _ = self.changed.send(());
        }
        let forbidden = wanted.is_some() && *self.forbidden.lock().unwrap_or_else(PoisonError::into_inner);
        forbidden.then(|| {
            Problem::new(
                Reason::Denied,
                "restartStuckPods: the operator may not watch and evict pods; set restartStuckPods.enabled=true in the values of its chart. The Secrets are kept fresh",
            )
        })
    }

    fn all(&self) -> BTreeMap<String, Wanted> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What the task keeps.
struct Task {
    pods: Pods,
    events: Events,
    accounts: Store<ServiceAccount>,
    stuck: BTreeMap<String, StuckPod>,
    tries: Tries,
    may_not_watch: bool,
    /// When pods of a controller were last evicted for a pull secret.
    controllers: HashMap<(String, String), Round>,
    stop: CancellationToken,
}

/// Watches and evicts, until `stop`.
pub async fn restart(
    wanted: Arc<StuckPods>,
    mut inbox: Inbox,
    pods: Pods,
    events: Events,
    accounts: Store<ServiceAccount>,
    dependants: Dependants,
    stop: CancellationToken,
) -> &'static str {
    let mut watch: Option<BoxStream<'static, PodNews>> = None;
    let mut retry: Option<Instant> = None;
    let mut task = Task {
        pods,
        events,
        accounts,
        stuck: BTreeMap::new(),
        tries: Tries::default(),
        may_not_watch: false,
        controllers: HashMap::new(),
        stop,
    };
    loop {
        let news = async {
            match &mut watch {
                Some(watch) => watch.next().await,
                None => std::future::pending().await,
            }
        };
        let again = async {
            match retry {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = task.stop.cancelled() => return "watch of pods",
            changed = inbox.changed.recv() => match changed {
                Some(()) => {}
                None => return "watch of pods",
            },
            () = again => {}
            news = news => match news {
                Some(news) => task.note(news),
                None => return "watch of pods",
            },
        }
        let all = wanted.all();
        let may_not_evict = if all.is_empty() {
            watch = None;
            task.rest();
            false
        } else {
            watch.get_or_insert_with(|| task.pods.watch());
            task.act(&all).await
        };
        retry = task.tries.next_turn().map(|at| Instant::now() + wait(Timestamp::now(), at));
        let forbidden = task.may_not_watch || may_not_evict;
        let before = std::mem::replace(&mut *inbox.forbidden.lock().unwrap_or_else(PoisonError::into_inner), forbidden);
        if before != forbidden {
            dependants.all_pull_secrets();
        }
    }
}

impl Task {
    /// Nobody wants anything.
    fn rest(&mut self) {
        self.stuck.clear();
        self.tries = Tries::default();
        self.may_not_watch = false;
    }

    fn note(&mut self, news: PodNews) {
        self.may_not_watch = match news {
            PodNews::Forbidden => true,
            PodNews::Interrupted => self.may_not_watch,
            PodNews::Relisting | PodNews::Listed | PodNews::Pod(_) => false,
        };
        match news {
            PodNews::Relisting => self.stuck.clear(),
            PodNews::Listed => self.tries.forget_all_but(|uid| self.stuck.contains_key(uid)),
            PodNews::Pod(pod) => match *pod {
                Ok(pod) => drop(self.stuck.insert(pod.uid.clone(), pod)),
                Err(uid) => {
                    self.stuck.remove(&uid);
                    self.tries.forget(&uid);
                }
            },
            PodNews::Forbidden | PodNews::Interrupted => {}
        }
    }

    /// Returns whether there is a pod that is to be evicted, and the operator may not.
    async fn act(&mut self, wanted: &BTreeMap<String, Wanted>) -> bool {
        let mut may_not_evict = false;
        let stuck: BTreeSet<_> = self.stuck.values().filter_map(StuckPod::controller).collect();
        let recent = Timestamp::now() - RECENTLY;
        self.controllers.retain(|(controller, uid), round| {
            wanted.contains_key(uid) && (round.is_since(recent) || stuck.contains(controller.as_str()))
        });
        for (uid, wanted) in wanted {
            for pod in self.stuck.values().cloned().collect::<Vec<_>>() {
                let Some(controller) = pod.controller().map(str::to_owned) else { continue };
                let key = (controller, uid.clone());
                let last = self.controllers.get(&key).copied();
                let (now, has_it) = (Timestamp::now(), self.account_has(&pod, &wanted.wish.secret));
                let its_turn = self.tries.is_its_turn(&pod.uid, now) && !self.stop.is_cancelled();
                match (decide(&pod, &wanted.wish, has_it, last), its_turn) {
                    (Decision::Leave, _) | (Decision::InVain, false) => {}
                    (Decision::InVain, true) => self.give_up(&pod, wanted).await,
                    (Decision::Evict, its_turn) => {
                        if its_turn && self.evict(&pod, wanted, now).await {
                            self.controllers.insert(key, Round::with(last, &pod, now));
                        }
                        may_not_evict |= self.tries.is_forbidden(&pod.uid);
                    }
                }
            }
        }
        may_not_evict
    }

    /// Returns whether it goes.
    async fn evict(&mut self, pod: &StuckPod, wanted: &Wanted, now: Timestamp) -> bool {
        match self.pods.evict(pod).await {
            Ok(Evicted::Done) => {
                self.tries.done(&pod.uid);
                self.tell(pod, wanted).await;
                return true;
            }
            Ok(Evicted::Later) => self.tries.later(&pod.uid, now),
            Ok(Evicted::Forbidden) => self.tries.forbidden(&pod.uid, now),
            Err(error) => {
                tracing::warn!(pod = pod.name, namespace = pod.namespace, %error, "eviction failed");
                self.tries.later(&pod.uid, now);
            }
        }
        false
    }

    async fn give_up(&mut self, pod: &StuckPod, wanted: &Wanted) {
        self.tries.done(&pod.uid);
        let why = if pod.names_secrets() {
            "its template names imagePullSecrets of its own; add it there"
        } else {
            "its ServiceAccount has it, and something takes it out of new pods"
        };
        let note = format!(
            "pod {}/{} came without the Secret {} as well, and is left alone: {why}",
            pod.namespace, pod.name, wanted.wish.secret
        );
        self.events.tell_of(wanted.about.clone(), &What::warning("StuckPodLeft", note)).await;
    }

    /// Whether a new pod of that ServiceAccount would be admitted with the Secret.
    fn account_has(&self, pod: &StuckPod, secret: &str) -> bool {
        let account = self.accounts.get(&ObjectRef::new(&pod.service_account).within(&pod.namespace));
        account.is_some_and(|account| account.image_pull_secrets.iter().flatten().any(|entry| entry.name == secret))
    }

    async fn tell(&self, pod: &StuckPod, wanted: &Wanted) {
        let secret = &wanted.wish.secret;
        let reference = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            namespace: Some(pod.namespace.clone()),
            name: Some(pod.name.clone()),
            uid: Some(pod.uid.clone()),
            ..ObjectReference::default()
        };
        let what = format!(
            "evicted: it waited for an image and was admitted without the Secret {secret}, which a new one gets"
        );
        self.events.tell_of(reference, &What::done("StuckPodEvicted", what.clone())).await;
        let note = format!("pod {}/{} was {what}", pod.namespace, pod.name);
        self.events.tell_of(wanted.about.clone(), &What::done("StuckPodEvicted", note)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_the_right_whoever_asks_for_it_is_told_which_value_to_set() {
        let (stuck_pods, inbox) = StuckPods::new();
        let wanted = Wanted { wish: Wish::default(), about: ObjectReference::default() };
        assert_eq!(stuck_pods.want("u", Some(&wanted)), None);
        *inbox.forbidden.lock().unwrap() = true;
        let told = stuck_pods.want("u", Some(&wanted)).unwrap();
        assert_eq!(told.reason, Reason::Denied);
        assert!(told.message.contains("restartStuckPods.enabled=true"), "{told}");
        assert_eq!(stuck_pods.want("u", None), None);
    }
}
