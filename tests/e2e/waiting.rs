//! Where AWS grants few calls a second, many objects wait for their pass for a long time: none is then brought to what it
//! no longer declares, and whoever is deleted doesn't wait behind changes.

use ecr_operator::api::EcrRepository;
use kube::api::{DeleteParams, Patch, PatchParams};
use local_ecr::{Action, Fault, Matcher, RateLimit};
use serde_json::{Value, json};

use crate::support::world::{PATIENCE, World};

const CALL: &str = "PutLifecyclePolicy";
const MANY: usize = 60;
/// Passes of a registry under way at once.
const UNDER_WAY: usize = 16;

fn lifecycle(count: u32) -> Value {
    json!({"rules": [{"rulePriority": 1, "selection": {"tagStatus": "any", "countType": "imageCountMoreThan", "countNumber": count}, "action": {"type": "expire"}}]})
}

fn names() -> Vec<String> {
    (0..MANY).map(|n| format!("app-{n}")).collect()
}

/// Repositories that are as declared, with a policy that is a mistake on its way to all of them, and few a second there.
async fn a_mistake_on_its_way(name: &str) -> World {
    let world = World::new(name).await;
    for name in names() {
        world.repository(&name, json!({"deletionPolicy": "Delete"})).await;
    }
    for name in names() {
        world.repository_says(&name, "True", "Ready").await;
    }
    world.ecr.rate_limit(RateLimit::new(Matcher::operation(CALL), 4.0, 1.0));
    for name in names() {
        world.repository(&name, json!({"deletionPolicy": "Delete", "lifecyclePolicy": lifecycle(1)})).await;
    }
    world.eventually("some have it", || async { (sent(&world).len() >= 2).then_some(()) }).await;
    world
}

/// Who got the policy so far.
fn sent(world: &World) -> Vec<String> {
    let calls = world.ecr.calls_of(CALL).into_iter().filter(local_ecr::Call::is_ok);
    calls.map(|call| call.resource).collect()
}

#[tokio::test]
async fn what_was_suspended_or_reverted_while_it_waited_is_not_sent() {
    let world = a_mistake_on_its_way("reverted").await;
    let suspend = Patch::Merge(json!({"metadata": {"annotations": {"ecr-operator.dev/suspend": "true"}}}));
    let revert = Patch::Merge(json!({"spec": {"lifecyclePolicy": null}}));
    let change = |n: usize| if n.is_multiple_of(2) { &suspend } else { &revert };
    // The last in line first.
    for (n, name) in names().iter().enumerate().rev() {
        world.api::<EcrRepository>().patch(name, &PatchParams::default(), change(n)).await.unwrap();
    }
    let before = sent(&world).len();
    world.ecr.clear_faults();
    let reasons = |object: &EcrRepository| -> Vec<_> {
        object.status.iter().flat_map(|status| &status.conditions).map(|condition| condition.reason.clone()).collect()
    };
    for (n, name) in names().iter().enumerate() {
        if n.is_multiple_of(2) {
            // Of the generation that it was brought to before.
            let suspended = |object: &EcrRepository| reasons(object).contains(&"Suspended".to_owned());
            world.until(&world.api(), name, "suspended", suspended).await;
        } else {
            world.repository_says(name, "True", "Ready").await;
        }
    }
    let after = sent(&world).len();
    assert!(after <= before + UNDER_WAY, "{before} had it when it was reverted, and then {after}");
}

#[tokio::test]
async fn whoever_is_deleted_does_not_wait_behind_changes() {
    let world = a_mistake_on_its_way("deleted").await;
    let last = names().pop().unwrap();
    world.delete(&world.api::<EcrRepository>(), &last).await;
    let sent = sent(&world);
    assert!(sent.len() < MANY - UNDER_WAY, "{} came before it", sent.len());
    assert!(!sent.contains(&last), "nothing is written to what is to go");
    assert_eq!(world.there(&last).map(|there| there.arn), None);
    world.ecr.clear_faults();
}

#[tokio::test]
async fn a_repository_whose_object_says_retain_by_the_time_it_could_be_deleted_stays() {
    let world = World::new("retain").await;
    world.repository("app", json!({"deletionPolicy": "DeleteWithImages"})).await;
    world.repository_says("app", "True", "Ready").await;
    let throttled = Action::Before { code: "ThrottlingException".to_owned(), status: 400 };
    world.ecr.fault(Fault { times: Some(4), ..Fault::always(Matcher::operation("DeleteRepository"), throttled) });
    let api = world.api::<EcrRepository>();
    api.delete("app", &DeleteParams::default()).await.unwrap();
    world.ecr.wait_for_call(PATIENCE, |call| call.operation == "DeleteRepository").await;
    let retain = Patch::Merge(json!({"spec": {"deletionPolicy": "Retain"}}));
    api.patch("app", &PatchParams::default(), &retain).await.unwrap();
    world.until_gone(&api, "app").await;
    assert!(world.there("app").is_some());
    let calls = world.ecr.calls_of("DeleteRepository");
    assert!(calls.iter().all(|call| !call.is_ok()) && calls.len() < 5, "{calls:?}");
    world.ecr.clear_faults();
}
