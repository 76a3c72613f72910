//! What an earlier version left behind, which noted less than this one does: taken over as it is, and nothing is lost.

use ecr_operator::api::{EcrPullSecret, EcrRepository};
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;
use kube::api::{Patch, PatchParams};
use local_ecr::Config;
use serde_json::json;

use crate::plans::QUIET;
use crate::story::{everything, ready};
use crate::support::faults::state::dead_secrets;
use crate::support::faults::{Scope, Upstream, Wire, cluster};
use crate::support::world::World;

/// Not noted by the version before: what a Secret's fields were when it was written, and the life of each of its tokens.
const NEW_MARKS: [&str; 2] = ["ecr-operator.dev/fields", "ecr-operator.dev/tokens"];

#[tokio::test]
async fn what_an_earlier_version_wrote_is_taken_over_in_place_and_nothing_is_lost() {
    let kubernetes = Upstream::kubernetes().await;
    let world = World::bare(cluster().await, "upgrade", Config::default()).await;
    let scope = Scope::new(&world.namespace, Vec::new());
    let wire = Wire::start(&kubernetes, Upstream::aws(&world.ecr.url()), scope).await;
    world.registry_at(&wire.aws_url, json!({})).await;
    let mut earlier = wire.operator();
    world.repository("app", everything("Delete")).await;
    ready(&world).await;
    world.pull_secret("pull", json!({})).await;
    world.pull_secret_says("pull", "True", "Ready").await;
    wire.quiet(QUIET).await;
    earlier.kill();

    // The Secret with fewer marks, by the same hand; the objects without a status.
    let secrets = world.api::<Secret>();
    let there = secrets.get("pull").await.unwrap();
    let owner = world.api::<EcrPullSecret>().get("pull").await.unwrap();
    let mut marks = there.annotations().clone();
    marks.retain(|key, _| !NEW_MARKS.contains(&key.as_str()));
    assert_eq!(marks.len() + NEW_MARKS.len(), there.annotations().len(), "they have other names now");
    let meta = &there.metadata;
    let older = json!({
        "apiVersion": "v1", "kind": "Secret", "type": there.type_, "data": there.data,
        "metadata": {"name": "pull", "labels": meta.labels, "annotations": marks, "ownerReferences": meta.owner_references},
    });
    let by_the_same = PatchParams::apply(&format!("ecr-operator/{}", owner.uid().unwrap())).force();
    secrets.patch("pull", &by_the_same, &Patch::Apply(older)).await.unwrap();
    let nothing = Patch::Merge(json!({"status": null}));
    world.api::<EcrRepository>().patch_status("app", &PatchParams::default(), &nothing).await.unwrap();
    world.api::<EcrPullSecret>().patch_status("pull", &PatchParams::default(), &nothing).await.unwrap();
    world.ecr.clear_calls();
    wire.revive();

    let _later = wire.operator();
    ready(&world).await;
    world.pull_secret_says("pull", "True", "Ready").await;
    wire.quiet(QUIET).await;
    assert_eq!(world.writes(), ["CreateRepository"]);
    let created = world.ecr.calls_of("CreateRepository");
    assert!(!created[0].is_ok(), "ECR says that it is there; then it is known as ours, and is as declared");
    let now = secrets.get("pull").await.unwrap();
    assert_eq!(now.uid(), there.uid(), "in place");
    assert!(NEW_MARKS.iter().all(|mark| now.annotations().contains_key(*mark)), "noted as this version does");
    assert_eq!(dead_secrets(&world, std::slice::from_ref(&world.namespace)).await, [""; 0]);
    assert!(world.ecr.calls_of("GetAuthorizationToken").len() <= 1, "at most one new token");
    assert_eq!(world.api::<EcrRepository>().get("app").await.unwrap().finalizers().len(), 1);
}
