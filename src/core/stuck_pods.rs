//! Pods that wait in an image pull error because they were admitted without the Secret: which of them to evict, so that their
//! controllers make new ones that have it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

use crate::core::backoff::Backoff;

/// What the kubelet says of a container whose image it can't pull.
const PULL_ERRORS: [&str; 2] = ["ErrImagePull", "ImagePullBackOff"];

/// Between tries to evict a pod where a disruption budget or the API server is in the way.
const PAUSES: Backoff = Backoff { first: Duration::from_secs(10), most: Duration::from_mins(5) };

/// A pod that waits for images: of all that a pod is, what is decided by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StuckPod {
    /// Where it is.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// UID of whatever makes a new one when it goes.
    controller: Option<String>,
    created: Option<Timestamp>,
    /// The ServiceAccount that it runs as.
    pub service_account: String,
    secrets: BTreeSet<String>,
    images: Vec<String>,
}

impl StuckPod {
    /// `None` where the pod waits for no image, or is going.
    #[must_use]
    pub fn read(pod: &Pod) -> Option<Self> {
        let (spec, status) = (pod.spec.as_ref()?, pod.status.as_ref()?);
        let waits = |status: &&ContainerStatus| {
            let waiting = status.state.as_ref().and_then(|state| state.waiting.as_ref());
            waiting.and_then(|waiting| waiting.reason.as_deref()).is_some_and(|reason| PULL_ERRORS.contains(&reason))
        };
        let statuses = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
        let waiting: BTreeSet<_> = statuses.filter(waits).map(|status| status.name.as_str()).collect();
        let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
        let images: Vec<_> = containers
            .filter(|container| waiting.contains(container.name.as_str()))
            .filter_map(|container| container.image.clone())
            .collect();
        if images.is_empty() || pod.metadata.deletion_timestamp.is_some() {
            return None;
        }
        let owners = pod.metadata.owner_references.iter().flatten();
        Some(Self {
            namespace: pod.metadata.namespace.clone()?,
            name: pod.metadata.name.clone()?,
            uid: pod.metadata.uid.clone()?,
            controller: owners.filter(|owner| owner.controller == Some(true)).map(|owner| owner.uid.clone()).next(),
            created: pod.metadata.creation_timestamp.as_ref().map(|time| time.0),
            service_account: spec.service_account_name.clone().unwrap_or_else(|| "default".to_owned()),
            secrets: spec.image_pull_secrets.iter().flatten().map(|secret| secret.name.clone()).collect(),
            images,
        })
    }

    /// UID of whatever makes a new one when it goes.
    #[must_use]
    pub fn controller(&self) -> Option<&str> {
        self.controller.as_deref()
    }

    /// Whether it names Secrets of its own: then it gets none of its ServiceAccount's.
    #[must_use]
    pub fn names_secrets(&self) -> bool {
        !self.secrets.is_empty()
    }

    /// Its time has whole seconds: in doubt it is an old one.
    fn came_after(&self, time: Timestamp) -> bool {
        self.created.is_some_and(|created| created > time)
    }
}

/// A pull secret that wants stuck pods restarted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wish {
    /// The hosts that its Secrets open.
    pub hosts: BTreeSet<String>,
    /// The name of its Secrets.
    pub secret: String,
    /// Where they are.
    pub namespaces: BTreeSet<String>,
}

/// What to do about a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Nothing: the Secret wouldn't help it, or nobody would make a new one.
    Leave,
    /// Evict it.
    Evict,
    /// Nothing more: earlier ones of its controller were evicted, and this one came without the Secret as well.
    InVain,
}

/// Evictions of one controller's pods for one Secret: of those that were there when the round began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Round {
    began: Timestamp,
    number: u32,
}

/// A ServiceAccount may be set back while a pod is made, more than once. Whoever takes the Secret out of pods on admission
/// does so every time.
const MOST_ROUNDS: u32 = 3;

impl Round {
    /// `pod` was evicted.
    #[must_use]
    pub fn with(before: Option<Self>, pod: &StuckPod, now: Timestamp) -> Self {
        match before {
            None => Self { began: now, number: 1 },
            Some(round) if pod.came_after(round.began) => Self { began: now, number: round.number.saturating_add(1) },
            Some(round) => round,
        }
    }

    /// Whether it began later than `time`.
    #[must_use]
    pub fn is_since(&self, time: Timestamp) -> bool {
        self.began > time
    }

    /// Whether `pod`, which came without the Secret, shows that evicting it is of no use.
    fn was_in_vain(&self, pod: &StuckPod) -> bool {
        pod.came_after(self.began) && (pod.names_secrets() || self.number >= MOST_ROUNDS)
    }
}

/// Decides about `pod`. `account_has_it`: a new pod of its ServiceAccount would be admitted with the Secret. `last`: when
/// pods of its controller were evicted for that.
#[must_use]
pub fn decide(pod: &StuckPod, wish: &Wish, account_has_it: bool, last: Option<Round>) -> Decision {
    let opens = |image: &String| image.split_once('/').is_some_and(|(host, _)| wish.hosts.contains(host));
    let helps = wish.namespaces.contains(&pod.namespace)
        && pod.images.iter().any(opens)
        && !pod.secrets.contains(&wish.secret)
        && account_has_it
        && pod.controller.is_some();
    match last {
        _ if !helps => Decision::Leave,
        Some(round) if round.was_in_vain(pod) => Decision::InVain,
        _ => Decision::Evict,
    }
}

/// What was done so far about pods that are stuck, by UID.
#[derive(Debug, Default)]
pub struct Tries(BTreeMap<String, Try>);

#[derive(Debug)]
enum Try {
    /// Nothing more is to be done about it.
    Done,
    /// Something was in the way, so many times; the last time, that the operator may not.
    Later { times: u32, not_before: Timestamp, forbidden: bool },
}

impl Tries {
    /// Whether something may be done about the pod, whatever happens elsewhere.
    #[must_use]
    pub fn is_its_turn(&self, uid: &str, now: Timestamp) -> bool {
        match self.0.get(uid) {
            None => true,
            Some(Try::Done) => false,
            Some(Try::Later { not_before, .. }) => *not_before <= now,
        }
    }

    /// It is dealt with, once and for all.
    pub fn done(&mut self, uid: &str) {
        self.0.insert(uid.to_owned(), Try::Done);
    }

    /// Something is in the way: it has its turn again after a while, longer each time.
    pub fn later(&mut self, uid: &str, now: Timestamp) {
        self.put_off(uid, now, false);
    }

    /// The same, and what is in the way is that the operator may not.
    pub fn forbidden(&mut self, uid: &str, now: Timestamp) {
        self.put_off(uid, now, true);
    }

    fn put_off(&mut self, uid: &str, now: Timestamp, forbidden: bool) {
        let times = match self.0.get(uid) {
            Some(Try::Later { times, .. }) => times.saturating_add(1),
            _ => 1,
        };
        let not_before = now + PAUSES.after(times, uid);
        self.0.insert(uid.to_owned(), Try::Later { times, not_before, forbidden });
    }

    /// Whether the operator may not do what is to be done about it, as far as known.
    #[must_use]
    pub fn is_forbidden(&self, uid: &str) -> bool {
        matches!(self.0.get(uid), Some(Try::Later { forbidden: true, .. }))
    }

    /// When the next of them has its turn.
    #[must_use]
    pub fn next_turn(&self) -> Option<Timestamp> {
        let turns = self.0.values().filter_map(|tried| match tried {
            Try::Done => None,
            Try::Later { not_before, .. } => Some(*not_before),
        });
        turns.min()
    }

    /// It is gone, or no longer stuck.
    pub fn forget(&mut self, uid: &str) {
        self.0.remove(uid);
    }

    /// The same for all that aren't `stuck`.
    pub fn forget_all_but(&mut self, is_stuck: impl Fn(&str) -> bool) {
        self.0.retain(|uid, _| is_stuck(uid));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const HOST: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";

    fn pod() -> Value {
        json!({
            "metadata": {
                "namespace": "a", "name": "p", "uid": "u", "creationTimestamp": "2026-01-01T00:00:10Z",
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "r", "controller": true}],
            },
            "spec": {"containers": [{"name": "c", "image": format!("{HOST}/team-a/app:1")}]},
            "status": {"containerStatuses": [status("c", "ImagePullBackOff")]},
        })
    }

    fn status(name: &str, reason: &str) -> Value {
        json!({"name": name, "ready": false, "restartCount": 0, "image": "", "imageID": "", "state": {"waiting": {"reason": reason}}})
    }

    fn read(pod: &Value) -> Option<StuckPod> {
        StuckPod::read(&serde_json::from_value(pod.clone()).unwrap())
    }

    fn wish() -> Wish {
        Wish { hosts: [HOST.to_owned()].into(), secret: "pull".into(), namespaces: ["a".to_owned()].into() }
    }

    fn decided(pod: &Value, account_has_it: bool, last: Option<Round>) -> Decision {
        read(pod).map_or(Decision::Leave, |pod| decide(&pod, &wish(), account_has_it, last))
    }

    fn round(began: &str, number: u32) -> Round {
        Round { began: began.parse().unwrap(), number }
    }

    #[test]
    fn a_pod_that_came_without_the_secret_and_waits_for_our_image_is_evicted() {
        assert_eq!(decided(&pod(), true, None), Decision::Evict);
        let mut init = pod();
        init["spec"]["initContainers"] = json!([{"name": "i", "image": format!("{HOST}/team-a/init:1")}]);
        init["spec"]["containers"][0]["image"] = json!("docker.io/app");
        init["status"] = json!({"initContainerStatuses": [status("i", "ErrImagePull")]});
        assert_eq!(decided(&init, true, None), Decision::Evict);
    }

    #[test]
    fn every_other_pod_is_left_alone() {
        let change = |pointer: &str, value: Value| {
            let mut pod = pod();
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            pod.pointer_mut(parent).unwrap()[key] = value;
            pod
        };
        for (pod, why) in [
            (change("/spec/imagePullSecrets", json!([{"name": "pull"}])), "it has the Secret"),
            (change("/metadata/ownerReferences", json!([])), "nobody makes a new one"),
            (change("/metadata/ownerReferences/0/controller", json!(false)), "nobody makes a new one"),
            (change("/metadata/deletionTimestamp", json!("2026-01-01T00:00:00Z")), "it is going"),
            (change("/metadata/namespace", json!("b")), "the Secret isn't there"),
            (change("/spec/containers/0/image", json!("docker.io/app:1")), "another host"),
            (change("/spec/containers/0/image", json!(format!("{HOST}.example.com/app:1"))), "a look-alike"),
            (change("/status/containerStatuses", json!([status("c", "CrashLoopBackOff")])), "another trouble"),
            (change("/status/containerStatuses", json!([status("other", "ErrImagePull")])), "another container"),
        ] {
            assert_eq!(decided(&pod, true, None), Decision::Leave, "{why}");
        }
        assert_eq!(decided(&pod(), false, None), Decision::Leave, "a new one would come without it, too");
    }

    #[test]
    fn a_controller_whose_pods_name_secrets_of_their_own_is_not_asked_again() {
        let mut own = pod();
        own["spec"]["imagePullSecrets"] = json!([{"name": "theirs"}]);
        assert_eq!(decided(&own, true, Some(round("2026-01-01T00:00:09Z", 1))), Decision::InVain);
        assert_eq!(decided(&own, true, Some(round("2026-01-01T00:00:10.5Z", 1))), Decision::Evict, "made before that");
    }

    #[test]
    fn a_pod_that_came_while_its_account_was_set_back_is_evicted_again_and_not_for_ever() {
        let (mut last, mut evicted) = (None, 0);
        for minute in 10..20 {
            let mut pod = pod();
            pod["metadata"]["creationTimestamp"] = json!(format!("2026-01-01T00:{minute}:00Z"));
            if decided(&pod, true, last) == Decision::Evict {
                evicted += 1;
                let now = format!("2026-01-01T00:{minute}:30Z").parse().unwrap();
                last = Some(Round::with(last, &read(&pod).unwrap(), now));
                let another_node = Round::with(last, &read(&pod).unwrap(), now + Duration::from_secs(1));
                assert_eq!(Some(another_node), last, "all pods that were there are one round");
            }
        }
        assert_eq!(evicted, 3, "something takes the Secret out of its pods");
    }

    #[test]
    fn what_the_operator_may_not_do_is_told_of_that_pod_until_it_may() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut tries = Tries::default();
        tries.forbidden("u", at(0));
        tries.later("guarded by a budget", at(0));
        assert!(tries.is_forbidden("u") && !tries.is_forbidden("guarded by a budget") && !tries.is_forbidden("new"));
        assert!(!tries.is_its_turn("u", at(5)), "and tried again like any other");
        tries.later("u", at(11));
        assert!(!tries.is_forbidden("u"));
    }

    #[test]
    fn a_pod_that_may_not_be_evicted_just_now_has_its_turn_later_whatever_happens_elsewhere() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut tries = Tries::default();
        assert!(tries.is_its_turn("u", at(0)));
        tries.later("u", at(0));
        assert!(!tries.is_its_turn("u", at(5)), "an event of any pod is no reason");
        assert!(tries.is_its_turn("other", at(5)));
        let next = tries.next_turn().unwrap();
        assert!(next > at(5) && next <= at(10) && tries.is_its_turn("u", next));
        let mut now = next;
        for _ in 0..10 {
            tries.later("u", now);
            now = tries.next_turn().unwrap();
        }
        tries.later("u", now);
        let wait = tries.next_turn().unwrap().duration_since(now);
        assert!(wait.as_secs() > 200 && wait.as_secs() <= 300, "ever longer, to five minutes: {wait}");
    }

    #[test]
    fn once_is_enough_and_what_is_no_longer_stuck_is_forgotten() {
        let now = Timestamp::UNIX_EPOCH;
        let mut tries = Tries::default();
        for uid in ["stays", "goes", "went"] {
            tries.done(uid);
        }
        assert!(!tries.is_its_turn("stays", now));
        assert_eq!(tries.next_turn(), None);
        tries.forget("went");
        tries.forget_all_but(|uid| uid == "stays");
        assert_eq!(tries.0.keys().collect::<Vec<_>>(), ["stays"], "a list that was read anew leaves nothing behind");
    }
}
