//! What a world has come to: its objects and its repositories, without what no two runs have in common.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use jiff::Timestamp;
use kube::api::{Api, DynamicObject, ListParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Client, ResourceExt as _};
use serde_json::{Map, Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::api::resource;
use crate::support::world::World;

/// Objects begin with this name that only tests know about.
pub const MARKER: &str = "marker";

/// Anything, by what it is called.
pub type State = BTreeMap<String, Value>;

/// Everything of this world, in `namespaces` (the first is its own).
pub async fn state(world: &World, namespaces: &[String], aws_url: &str) -> State {
    let mut objects = Vec::new();
    for kind in ["EcrRegistry", "ClusterEcrPullSecret"] {
        let api = Api::all_with(world.client.clone(), &resource(kind));
        objects.extend(api.get_opt(&world.registry).await.unwrap().map(|object| (kind, object)));
    }
    for kind in ["EcrRepository", "EcrPullSecret"] {
        let api = Api::namespaced_with(world.client.clone(), &world.namespace, &resource(kind));
        objects.extend(listed(&api).await.into_iter().map(|object| (kind, object)));
    }
    for namespace in namespaces {
        for kind in ["Secret", "ServiceAccount", "ConfigMap"] {
            objects.extend(core(&world.client, namespace, kind).await.into_iter().map(|object| (kind, object)));
        }
    }
    objects.retain(|(_, object)| object.name_any() != "kube-root-ca.crt" && !object.name_any().starts_with(MARKER));
    let uids = objects.iter().filter_map(|(kind, object)| {
        let name = object.name_any();
        Some((object.metadata.uid.clone()?, format!("{{uid of {kind} {name}}}")))
    });
    let names = Names::new(world, uids.collect(), aws_url);
    let mut state = State::new();
    for (kind, object) in &objects {
        let place = object.metadata.namespace.clone().unwrap_or_default();
        let name = names.plain(&format!("{kind} {place}/{}", object.name_any()));
        state.insert(name, told(world, &names, kind, object).await);
    }
    for repository in world.ecr.repositories() {
        let mut value = serde_json::to_value(&repository).unwrap();
        forget(&mut value, &["createdAt"]);
        forget(&mut value["description"], &["createdAt"]);
        state.insert(names.plain(&format!("repository {}", repository.name)), names.plain_value(value));
    }
    state
}

/// Where one state isn't as another, told leaf by leaf.
pub fn differences(now: &State, wanted: &State) -> Vec<String> {
    let keys: BTreeSet<_> = now.keys().chain(wanted.keys()).collect();
    let mut found = Vec::new();
    for key in keys {
        compare(key, now.get(key).unwrap_or(&Value::Null), wanted.get(key).unwrap_or(&Value::Null), &mut found);
    }
    found
}

fn compare(path: &str, now: &Value, wanted: &Value, found: &mut Vec<String>) {
    match (now, wanted) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: BTreeSet<_> = a.keys().chain(b.keys()).collect();
            for key in keys {
                compare(&format!("{path}.{key}"), &now[key], &wanted[key], found);
            }
        }
        _ if now != wanted => found.push(format!("{path} is {now}, in the reference run {wanted}")),
        _ => {}
    }
}

/// What was changed in AWS since the log was cleared, with how often.
pub fn effects(world: &World, aws_url: &str) -> BTreeMap<String, usize> {
    let reads = ["Describe", "List", "Get", "Batch"];
    let names = Names::new(world, Vec::new(), aws_url);
    let mut effects = BTreeMap::new();
    for call in world.ecr.calls() {
        let reads = call.service != "ecr" || reads.iter().any(|read| call.operation.starts_with(read));
        let done = matches!(call.outcome, local_ecr::Outcome::Ok | local_ecr::Outcome::Lost);
        if done && !reads {
            let request = names.plain_value(call.request);
            *effects.entry(format!("{} {request}", call.operation)).or_default() += 1;
        }
    }
    effects
}

/// Those of our Secrets that can't pull; there must never be one.
pub async fn dead_secrets(world: &World, namespaces: &[String]) -> Vec<String> {
    let mut dead = Vec::new();
    for namespace in namespaces {
        for secret in core(&world.client, namespace, "Secret").await {
            let logins = logins(world, &secret.data["data"]).await;
            if logins.is_empty() || logins.values().any(|login| *login != "works") {
                dead.push(format!("{}/{} {logins:?}", world_name(world, namespace), secret.name_any()));
            }
        }
    }
    dead
}

fn world_name(world: &World, text: &str) -> String {
    text.replace(&world.namespace, "{ns}")
}

async fn core(client: &Client, namespace: &str, kind: &str) -> Vec<DynamicObject> {
    let api =
        Api::namespaced_with(client.clone(), namespace, &ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", kind)));
    listed(&api).await
}

async fn listed(api: &Api<DynamicObject>) -> Vec<DynamicObject> {
    api.list(&ListParams::default()).await.unwrap().items
}

async fn told(world: &World, names: &Names, kind: &str, object: &DynamicObject) -> Value {
    let mut value = json!({
        "labels": object.metadata.labels,
        "annotations": object.metadata.annotations,
        "finalizers": object.metadata.finalizers,
        "owners": object.metadata.owner_references,
        "generation": object.metadata.generation,
        "going": object.metadata.deletion_timestamp.is_some(),
        "rest": object.data,
    });
    // Fingerprints of tokens, of the endpoint, and of fields that name the owner by its UID.
    forget(
        &mut value["annotations"],
        &["ecr-operator.dev/tokens", "ecr-operator.dev/content", "ecr-operator.dev/fields"],
    );
    match kind {
        "Secret" => value["rest"]["data"] = json!(logins(world, &object.data["data"]).await),
        // Digests with the owner's UID in them.
        "EcrRepository" => forget(&mut value["rest"]["status"], &["appliedDigest"]),
        // Counted now and then.
        "EcrRegistry" => forget(&mut value["rest"]["status"], &["repositories", "planned", "fullCheckEvery"]),
        _ => {}
    }
    names.plain_value(value)
}

/// Whether the registry lets each login of a pull secret in, by host.
pub async fn logins(world: &World, data: &Value) -> BTreeMap<String, &'static str> {
    let decode = |text: &Value| base64::prelude::BASE64_STANDARD.decode(text.as_str().unwrap_or_default());
    let document = decode(&data[".dockerconfigjson"]).unwrap_or_default();
    let document: Value = serde_json::from_slice(&document).unwrap_or_default();
    let mut logins = BTreeMap::new();
    for (host, entry) in document["auths"].as_object().unwrap_or(&Map::new()) {
        let works = lets_in(&world.ecr.url(), host, entry["auth"].as_str().unwrap_or_default()).await;
        logins.insert(host.clone(), if works { "works" } else { "is refused" });
    }
    logins
}

async fn lets_in(url: &str, host: &str, auth: &str) -> bool {
    let address = url.trim_start_matches("http://").trim_end_matches('/');
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request =
        format!("GET /v2/ HTTP/1.1\r\nHost: {host}\r\nAuthorization: Basic {auth}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer.starts_with("HTTP/1.1 200")
}

fn forget(value: &mut Value, keys: &[&str]) {
    if let Some(members) = value.as_object_mut() {
        members.retain(|key, _| !keys.contains(&key.as_str()));
    }
}

/// What differs between worlds, and what it is called in all of them.
struct Names(Vec<(String, String)>);

impl Names {
    fn new(world: &World, uids: Vec<(String, String)>, aws_url: &str) -> Self {
        let own = [(aws_url.to_owned(), "{aws}".to_owned()), (world.namespace.clone(), "{ns}".to_owned())];
        Self(uids.into_iter().chain(own).collect())
    }

    fn plain(&self, text: &str) -> String {
        if text.parse::<Timestamp>().is_ok() {
            return "{time}".to_owned();
        }
        let known = self.0.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to));
        without_uuids(&known)
    }

    fn plain_value(&self, value: Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.plain(&text)),
            Value::Array(all) => all.into_iter().map(|value| self.plain_value(value)).collect(),
            Value::Object(all) => {
                all.into_iter().map(|(key, value)| (self.plain(&key), self.plain_value(value))).collect()
            }
            other => other,
        }
    }
}

/// UUIDs of what is no longer there.
fn without_uuids(text: &str) -> String {
    const DASHES: [usize; 4] = [8, 13, 18, 23];
    let is_uuid = |bytes: &[u8]| {
        let fits =
            |(at, byte): (usize, &u8)| if DASHES.contains(&at) { *byte == b'-' } else { byte.is_ascii_hexdigit() };
        bytes.len() == 36 && bytes.iter().enumerate().all(fits)
    };
    let bytes = text.as_bytes();
    let (mut out, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        if at + 36 <= bytes.len() && is_uuid(&bytes[at..at + 36]) {
            out.extend(b"{uid}");
            at += 36;
        } else {
            out.push(bytes[at]);
            at += 1;
        }
    }
    String::from_utf8(out).unwrap()
}
