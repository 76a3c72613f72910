//! Somebody keeps undoing what the operator does to a ServiceAccount or Secret: no fight, nothing lost, and it is told who.

use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ecr_operator::api::EcrPullSecret;
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use serde_json::{Value, json};

use crate::support::world::{ACCOUNT, PATIENCE, REGION, World};

fn names(account: &ServiceAccount) -> Vec<String> {
    account.image_pull_secrets.iter().flatten().map(|entry| entry.name.clone()).collect()
}

fn theirs(world: &World) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "builder", "namespace": world.namespace},
        "imagePullSecrets": [{"name": "theirs"}],
    })
}

#[tokio::test]
async fn after_three_reverts_in_a_minute_it_is_left_alone_and_the_message_names_who() {
    let world = World::new("contested").await;
    world.apply(&theirs(&world)).await;
    let accounts: Api<ServiceAccount> = world.api();
    let seen = watcher(accounts.clone(), watcher::Config::default()).applied_objects();
    let mut seen =
        Box::pin(seen.try_filter(|account| std::future::ready(account.metadata.name.as_deref() == Some("builder"))));
    world.pull_secret("pull", json!({"serviceAccounts": ["builder"]})).await;
    let mut added = 0;
    let fight = async {
        while let Some(account) = seen.next().await {
            if names(&account.unwrap()).contains(&"pull".to_owned()) {
                added += 1;
                let patch = PatchParams::apply("stubborn").force();
                accounts.patch("builder", &patch, &Patch::Apply(theirs(&world))).await.unwrap();
            }
        }
    };
    let told = world.pull_secret_says("pull", "False", "Contested");
    let told = tokio::select! {
        () = fight => unreachable!("a watch has no end"),
        told = told => told,
    };
    let message = told.status.unwrap().conditions[0].message.clone();
    assert!(message.contains("ServiceAccount builder") && message.contains("stubborn"), "{message}");
    assert_eq!(added, 3, "then it was left alone");
    assert_eq!(names(&accounts.get("builder").await.unwrap()), ["theirs"]);
    world.event("pull", "Contested").await;
    // Whoever gives in ends it at once.
    let mut both = theirs(&world);
    both["imagePullSecrets"] = json!([{"name": "theirs"}, {"name": "pull"}]);
    accounts.patch("builder", &PatchParams::apply("stubborn").force(), &Patch::Apply(both)).await.unwrap();
    world.pull_secret_says("pull", "True", "Ready").await;
    world.delete(&world.api::<EcrPullSecret>(), "pull").await;
}

#[tokio::test]
async fn what_others_add_at_the_same_time_is_not_lost() {
    let world = World::new("race").await;
    world.apply(&theirs(&world)).await;
    let accounts: Api<ServiceAccount> = world.api();
    let writers = (0..4).map(|writer| {
        let accounts = accounts.clone();
        async move {
            for number in 0..5 {
                loop {
                    let mut account = accounts.get("builder").await.unwrap();
                    let name = format!("of-{writer}-{number}");
                    account
                        .image_pull_secrets
                        .get_or_insert_default()
                        .push(k8s_openapi::api::core::v1::LocalObjectReference { name });
                    if accounts.replace("builder", &kube::api::PostParams::default(), &account).await.is_ok() {
                        break;
                    }
                }
            }
        }
    });
    let writing = futures::future::join_all(writers);
    let (_, ()) = tokio::join!(writing, world.pull_secret("pull", json!({"serviceAccounts": ["builder"]})));
    world.pull_secret_says("pull", "True", "Ready").await;
    let all = |account: &ServiceAccount| names(account).contains(&"pull".to_owned()) && names(account).len() == 22;
    tokio::time::timeout(PATIENCE, world.until(&accounts, "builder", "with all names", all)).await.unwrap();
}

#[tokio::test]
async fn an_admission_policy_that_strips_what_is_written_is_met_three_times_and_told() {
    let world = World::new("stripped").await;
    let accounts: Api<ServiceAccount> = world.api();
    strip(&world).await;
    let stripped = |account: &ServiceAccount| names(account).is_empty();
    let tried = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "tried", "namespace": world.namespace}, "imagePullSecrets": [{"name": "theirs"}]});
    // A policy is in force a moment after it was made.
    world
        .eventually("in force", || async {
            world.apply(&tried).await;
            stripped(&accounts.get("tried").await.unwrap()).then_some(())
        })
        .await;
    world.pull_secret("pull", json!({"serviceAccounts": ["tried"]})).await;
    let told = world.pull_secret_says("pull", "False", "Contested").await;
    let message = told.status.unwrap().conditions[0].message.clone();
    assert!(message.contains("ServiceAccount tried") && message.contains("admission"), "{message}");
    world.delete(&world.api::<EcrPullSecret>(), "pull").await;
}

/// An admission policy of the cluster that lets no ServiceAccount of this namespace have imagePullSecrets.
async fn strip(world: &World) {
    world.apply(&json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicyBinding", "metadata": {"name": world.namespace},
        "spec": {
            "policyName": world.namespace,
            "matchResources": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": world.namespace}}},
        },
    })).await;
    world.apply(&json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicy", "metadata": {"name": world.namespace},
        "spec": {
            "matchConstraints": {"resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": ["serviceaccounts"]}]},
            "reinvocationPolicy": "Never",
            "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": "has(object.imagePullSecrets) ? [JSONPatch{op: 'remove', path: '/imagePullSecrets'}] : []"}}],
        },
    })).await;
}

/// Whether anything is missing of what was written.
fn is_undone(secret: &Secret) -> bool {
    let data = secret.data.as_ref().and_then(|data| data.get(".dockerconfigjson"));
    let has_token = data.is_some_and(|data| String::from_utf8_lossy(&data.0).contains(&format!("{ACCOUNT}.dkr")));
    let labels = secret.labels();
    !has_token || !labels.contains_key("team") || !labels.contains_key("ecr-operator.dev/owner-uid")
}

/// How somebody undoes what is written into a Secret.
#[derive(Debug, Clone, Copy)]
enum Undo {
    /// Another operator's data.
    Data,
    /// The same, in the clear: the API server then doesn't tell that it is the same field.
    StringData,
    /// The template's label is taken off.
    Label,
    /// The label by which it is found is taken off.
    OwnerLabel,
    Delete,
}

impl Undo {
    async fn act(self, secrets: &Api<Secret>) {
        let strip = |label: &str| Patch::Merge(json!({"metadata": {"labels": {label: null}}}));
        let by = PatchParams { field_manager: Some("stubborn".to_owned()), ..PatchParams::default() };
        let theirs = r#"{"auths":{"theirs.example":{"auth":"eDp5"}}}"#;
        let over = |field: &str, value: &str| {
            Patch::Apply(json!({"apiVersion": "v1", "kind": "Secret", field: {".dockerconfigjson": value}}))
        };
        let forced = by.clone().force();
        let done = match self {
            Self::Data => {
                let theirs = BASE64_STANDARD.encode(theirs);
                secrets.patch("pull", &forced, &over("data", &theirs)).await.map(drop)
            }
            Self::StringData => secrets.patch("pull", &forced, &over("stringData", theirs)).await.map(drop),
            Self::Label => secrets.patch("pull", &by, &strip("team")).await.map(drop),
            Self::OwnerLabel => secrets.patch("pull", &by, &strip("ecr-operator.dev/owner-uid")).await.map(drop),
            Self::Delete => secrets.delete("pull", &DeleteParams::default()).await.map(drop),
        };
        done.unwrap_or_else(|error| panic!("{self:?}: {error}"));
    }
}

/// Undoes what is written into the Secret as long as `until` isn't done. Returns how often it was written.
async fn undo_until<T>(world: &World, undo: Undo, until: impl Future<Output = T>) -> (usize, T) {
    let secrets: Api<Secret> = world.api();
    let seen = watcher(secrets.clone(), watcher::Config::default().fields("metadata.name=pull")).applied_objects();
    let (mut seen, mut written) = (Box::pin(seen), 0);
    let fight = async {
        while let Some(secret) = seen.next().await {
            if !is_undone(&secret.unwrap()) {
                written += 1;
                undo.act(&secrets).await;
            }
        }
    };
    let reached = tokio::select! {
        () = fight => unreachable!("a watch has no end"),
        reached = until => reached,
    };
    (written, reached)
}

fn spec() -> Value {
    json!({"secretTemplate": {"labels": {"team": "a"}}})
}

#[tokio::test]
async fn a_secret_that_somebody_keeps_undoing_is_put_right_three_times_then_left_alone_and_it_is_told_who() {
    let one = |undo: Undo| async move {
        let world = World::new(&format!("fight-{undo:?}").to_lowercase()).await;
        world.pull_secret("pull", spec()).await;
        let (written, told) = undo_until(&world, undo, world.pull_secret_says("pull", "False", "Contested")).await;
        assert_eq!(written, 4, "{undo:?}: written, and put right three times");
        assert_eq!(world.ecr.calls_of("GetAuthorizationToken").len(), 1, "{undo:?}: from the token at hand");
        let message = told.status.unwrap().conditions[0].message.clone();
        // Who takes things off leaves no trace.
        let who = if matches!(undo, Undo::Data | Undo::StringData) { "stubborn" } else { "somebody" };
        assert!(message.contains("Secret pull: ") && message.contains(who), "{message}");
        world.event("pull", "Contested").await;
        // Whoever gives in and says so has it put right at once.
        world.again(&world.api::<EcrPullSecret>(), "pull").await;
        world.pull_secret_says("pull", "True", "Ready").await;
        assert!(!is_undone(&world.api::<Secret>().get("pull").await.unwrap()), "{undo:?}");
    };
    futures::future::join_all([Undo::Data, Undo::StringData, Undo::Label, Undo::OwnerLabel, Undo::Delete].map(one))
        .await;
}

#[tokio::test]
async fn in_a_fight_over_a_secret_each_new_token_is_written_all_the_same() {
    let world = World::new("renewed").await;
    world.ecr.set_token_lifetime(Duration::from_secs(12));
    world.pull_secret("pull", spec()).await;
    let renewed = async {
        world.pull_secret_says("pull", "False", "Contested").await;
        let calls = world.ecr.calls_of("GetAuthorizationToken").len() + 2;
        let mints = |call: &local_ecr::Call| call.operation == "GetAuthorizationToken";
        world.ecr.wait_for_calls(calls, PATIENCE, mints).await;
        world.api::<Secret>().get("pull").await.unwrap()
    };
    let (written, secret) = undo_until(&world, Undo::Label, renewed).await;
    let minted = world.ecr.calls_of("GetAuthorizationToken").len();
    assert!(minted >= 3 && (minted + 2..=minted + 3).contains(&written), "{written} writes of {minted} tokens");
    let ends: jiff::Timestamp = secret.annotations()["ecr-operator.dev/expires-at"].parse().unwrap();
    assert!(ends > jiff::Timestamp::now(), "it never dies of a fight");
    let told = world.pull_secret_says("pull", "False", "Contested").await.status.unwrap();
    assert_eq!(told.secrets.as_deref(), Some("0/1"));
}

#[tokio::test]
async fn entries_that_somebody_keeps_taking_out_of_a_shared_secret_are_left_out_after_three_times() {
    let world = World::new("fight-merged").await;
    let theirs = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/dockerconfigjson", "metadata": {"name": "pull", "namespace": world.namespace},
        "stringData": {".dockerconfigjson": r#"{"auths":{"theirs.example":{"auth":"eDp5"}}}"#},
    });
    world.apply(&theirs).await;
    let secrets: Api<Secret> = world.api();
    world.pull_secret("pull", json!({"mergePolicy": "Merge"})).await;
    let host = format!("{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com");
    let has_ours = |secret: &Secret| {
        String::from_utf8_lossy(&secret.data.as_ref().unwrap()[".dockerconfigjson"].0).contains(&host)
    };
    let seen = watcher(secrets.clone(), watcher::Config::default().fields("metadata.name=pull")).applied_objects();
    let (mut seen, mut written) = (Box::pin(seen), 0);
    let fight = async {
        while let Some(secret) = seen.next().await {
            if has_ours(&secret.unwrap()) {
                written += 1;
                world.apply(&theirs).await;
            }
        }
    };
    tokio::select! {
        () = fight => unreachable!("a watch has no end"),
        told = world.pull_secret_says("pull", "False", "Contested") => {
            let message = told.status.unwrap().conditions[0].message.clone();
            assert!(message.contains("Secret pull: e2e keeps undoing"), "{message}");
        }
    }
    assert_eq!(written, 4, "written, and put right three times");
    assert!(!has_ours(&secrets.get("pull").await.unwrap()));
    world.again(&world.api::<EcrPullSecret>(), "pull").await;
    world.pull_secret_says("pull", "True", "Ready").await;
    assert!(has_ours(&secrets.get("pull").await.unwrap()));
    world.delete(&world.api::<EcrPullSecret>(), "pull").await;
}
