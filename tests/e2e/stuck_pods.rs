//! Pods that were admitted too early are restarted, and no others. The kubelet's part is played through the status.

use ecr_operator::api::EcrPullSecret;
use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicyBinding;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, ServiceAccount};
use kube::api::{Api, EvictParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::support::admission::{Refusal, refuse};
use crate::support::world::World;

const HOST: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";

/// Something that owns a pod as its controller would, and does nothing else: a controller of the cluster would interfere,
/// and without an owner the garbage collector.
async fn owner(world: &World, name: &str) -> Value {
    let object =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": world.namespace}});
    world.apply(&object).await;
    let uid = world.api::<ConfigMap>().get(name).await.unwrap().metadata.uid;
    json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": uid, "controller": true, "blockOwnerDeletion": false}])
}

/// A pod that can't pull its image.
async fn stuck(world: &World, name: &str, image: &str, over: Value) -> Pod {
    let owner = owner(world, "controller").await;
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": world.namespace, "labels": {"app": name}, "ownerReferences": owner, "finalizers": ["example.com/stay"]},
        "spec": {"containers": [{"name": "c", "image": image}], "schedulerName": "nobody"},
    });
    crate::support::world::merge(&mut pod, over);
    world.apply(&pod).await;
    waiting(world, name, "Pending").await
}

async fn waiting(world: &World, name: &str, phase: &str) -> Pod {
    let container = json!({"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": {"waiting": {"reason": "ImagePullBackOff"}}});
    let status = Patch::Merge(json!({"status": {"phase": phase, "containerStatuses": [container]}}));
    world.api::<Pod>().patch_status(name, &PatchParams::default(), &status).await.unwrap()
}

async fn free(world: &World, name: &str) {
    let free = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    world.api::<Pod>().patch(name, &PatchParams::default(), &free).await.unwrap();
}

fn is_going(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

#[tokio::test]
async fn a_pod_that_came_before_the_secret_is_evicted_and_no_other() {
    let world = World::new("stuck").await;
    let accounts: Api<ServiceAccount> = world.api();
    world.until(&accounts, "default", "there", |_: &ServiceAccount| true).await;
    let ours = format!("{HOST}/team-a/app:1");
    let early = stuck(&world, "early", &ours, json!({})).await;
    stuck(&world, "foreign", "docker.io/library/app:1", json!({})).await;
    stuck(&world, "alone", &ours, json!({"metadata": {"ownerReferences": []}})).await;
    stuck(&world, "has-it", &ours, json!({"spec": {"imagePullSecrets": [{"name": "pull"}]}})).await;
    world.pull_secret("pull", json!({"serviceAccounts": ["default"], "restartStuckPods": true})).await;
    world.pull_secret_says("pull", "True", "Ready").await;
    let pods: Api<Pod> = world.api();
    let going = world.until(&pods, "early", "evicted", is_going).await;
    assert_eq!(going.metadata.uid, early.metadata.uid);
    world.event("early", "StuckPodEvicted").await;
    world.event("pull", "StuckPodEvicted").await;
    // One that gets stuck later: by then the others were looked at, too.
    stuck(&world, "late", &ours, json!({"spec": {"imagePullSecrets": [{"name": "theirs"}]}, "metadata": {"ownerReferences": owner(&world, "another").await}})).await;
    world.until(&pods, "late", "evicted", is_going).await;
    for name in ["foreign", "alone", "has-it"] {
        assert!(!is_going(&pods.get(name).await.unwrap()), "{name}");
    }
    let told = world.events("early").await;
    assert_eq!(told.iter().filter(|reason| *reason == "StuckPodEvicted").count(), 1, "once");
    for name in ["early", "late", "foreign", "alone", "has-it"] {
        free(&world, name).await;
    }
    world.delete(&world.api::<EcrPullSecret>(), "pull").await;
}

#[tokio::test]
async fn nobody_is_evicted_unless_it_is_asked_for() {
    let world = World::new("unasked").await;
    let accounts: Api<ServiceAccount> = world.api();
    world.until(&accounts, "default", "there", |_: &ServiceAccount| true).await;
    let ours = format!("{HOST}/team-a/app:1");
    stuck(&world, "early", &ours, json!({})).await;
    world.pull_secret("pull", json!({"serviceAccounts": ["default"]})).await;
    world.pull_secret_says("pull", "True", "Ready").await;
    assert!(!is_going(&world.api::<Pod>().get("early").await.unwrap()));
    // A second look, when it is asked for, is what evicts it.
    world.pull_secret("pull", json!({"serviceAccounts": ["default"], "restartStuckPods": true})).await;
    world.until(&world.api::<Pod>(), "early", "evicted", is_going).await;
    free(&world, "early").await;
}

#[tokio::test]
async fn a_disruption_budget_is_respected() {
    let world = World::new("budget").await;
    let accounts: Api<ServiceAccount> = world.api();
    world.until(&accounts, "default", "there", |_: &ServiceAccount| true).await;
    let ours = format!("{HOST}/team-a/app:1");
    let budget = json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "budget", "namespace": world.namespace},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "guarded"}}},
    });
    world.apply(&budget).await;
    stuck(&world, "guarded", &ours, json!({})).await;
    // One that ran and is restarted: budgets don't count those that never did.
    waiting(&world, "guarded", "Running").await;
    stuck(&world, "free", &ours, json!({})).await;
    world.pull_secret("pull", json!({"serviceAccounts": ["default"], "restartStuckPods": true})).await;
    let pods: Api<Pod> = world.api();
    world.until(&pods, "free", "evicted", is_going).await;
    world.pull_secret_says("pull", "True", "Ready").await;
    assert!(!is_going(&pods.get("guarded").await.unwrap()));
    let budgets: Api<k8s_openapi::api::policy::v1::PodDisruptionBudget> = world.api();
    world.delete(&budgets, "budget").await;
    world.until(&pods, "guarded", "evicted, now that it may be", is_going).await;
    for name in ["guarded", "free"] {
        free(&world, name).await;
    }
}

/// An admission policy of the cluster that lets nobody evict the pod `guarded` of this namespace.
async fn guard(world: &World) {
    let refusal = Refusal {
        group: "",
        resource: "pods/eviction",
        operations: &["CREATE"],
        unless: "object.metadata.name != 'guarded'",
        message: "not this one",
    };
    refuse(world, &world.namespace, refusal).await;
}

#[tokio::test]
async fn a_pod_that_admission_keeps_from_eviction_holds_up_no_other_and_is_tried_again() {
    let world = World::new("guarded").await;
    let accounts: Api<ServiceAccount> = world.api();
    world.until(&accounts, "default", "there", |_: &ServiceAccount| true).await;
    guard(&world).await;
    let ours = format!("{HOST}/team-a/app:1");
    stuck(&world, "guarded", &ours, json!({})).await;
    let pods: Api<Pod> = world.api();
    let dry =
        EvictParams { post_options: PostParams { dry_run: true, ..PostParams::default() }, ..EvictParams::default() };
    // A policy is in force a moment after it was made.
    world.eventually("in force", || async { pods.evict("guarded", &dry).await.is_err().then_some(()) }).await;
    stuck(&world, "free", &ours, json!({})).await;
    world.pull_secret("pull", json!({"serviceAccounts": ["default"], "restartStuckPods": true})).await;
    world.until(&pods, "free", "evicted", is_going).await;
    world.pull_secret_says("pull", "True", "Ready").await;
    assert!(!is_going(&pods.get("guarded").await.unwrap()));
    let told = world.events("pull").await;
    assert_eq!(told.iter().filter(|reason| *reason == "StuckPodEvicted").count(), 1, "{told:?}");
    world.delete(&Api::<ValidatingAdmissionPolicyBinding>::all(world.client.clone()), &world.namespace).await;
    world.until(&pods, "guarded", "evicted, now that it may be", is_going).await;
    for name in ["guarded", "free"] {
        free(&world, name).await;
    }
}
