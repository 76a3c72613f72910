//! Who may push: a pod that holds a secret with `access: Push`, and no other.

use local_ecr::Outcome;
use serde_json::json;

use crate::node::Place;

#[tokio::test]
async fn a_pod_pushes_with_a_push_secret_and_is_refused_with_one_to_pull() {
    let place = Place::at("pushes", 80).await;
    let world = &place.world;
    let image = place.push("1").await;
    let identity = json!({"accessKey": {"secretName": world.registry}});
    let allow = json!([{"namespaces": {}, "pull": ["team-a/*"], "push": ["team-a/*"]}]);
    world.register(json!({"pull": {"scopeTokens": "Required"}, "push": {"identity": identity}, "allow": allow})).await;
    world.registry_says("True", "Ready").await;
    for (name, access) in [("pull", "Pull"), ("push", "Push")] {
        world.pull_secret(name, json!({"access": access})).await;
        world.pull_secret_says(name, "True", "Ready").await;
    }
    world.clear_calls();

    let (phase, words) = place.push_from_pod("pull", &image, "2").await;
    assert!(phase == "Failed" && words.contains("denied"), "{phase}: {words}");
    let uploads = world.ecr.calls_of("StartUpload");
    assert!(!uploads.is_empty() && uploads.iter().all(|call| call.outcome != Outcome::Ok), "{uploads:?}");
    assert!(world.ecr.calls_of("PutManifest").is_empty());

    let (phase, words) = place.push_from_pod("push", &image, "2").await;
    assert_eq!((phase.as_str(), words.as_str()), ("Succeeded", ""));
    place.pod(&world.namespace, "hello", &place.image("2"), &["pull"]).await;
    place.runs(&world.namespace, "hello").await;
}
