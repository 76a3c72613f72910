//! AWS grants only so many calls a second: the operator learns how many, and nobody notices but by the time it takes.

use std::collections::BTreeMap;

use ecr_operator::api::EcrRepository;
use kube::api::{DeleteParams, ListParams};
use local_ecr::{Action, Fault, Matcher, Outcome, RateLimit};
use serde_json::json;

use crate::support::world::World;

async fn ready(world: &World) -> usize {
    let all = world.api::<EcrRepository>().list(&ListParams::default()).await.unwrap().items;
    let is_ready = |object: &&EcrRepository| {
        let conditions = object.status.iter().flat_map(|status| &status.conditions);
        conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
    };
    all.iter().filter(is_ready).count()
}

#[tokio::test]
async fn an_account_that_grants_twenty_creations_a_second_is_hardly_ever_asked_for_more() {
    let world = World::new("rate").await;
    world.ecr.rate_limit(RateLimit::new(Matcher::operation("CreateRepository"), 20.0, 4.0));
    let names: Vec<_> = (0..100).map(|n| format!("app-{n}")).collect();
    for name in &names {
        world.repository(name, json!({})).await;
    }
    for name in &names {
        world.repository_says(name, "True", "Ready").await;
        let events = world.events(name).await;
        assert!(!events.iter().any(|reason| reason == "Throttled"), "{name} was told of it: {events:?}");
    }
    let calls = world.ecr.calls_of("CreateRepository");
    let throttled = calls.iter().filter(|call| call.outcome != Outcome::Ok).count();
    assert_eq!(calls.len() - throttled, 100);
    assert!(throttled <= 15, "{throttled} calls were throttled");
}

#[tokio::test]
async fn throttling_by_any_name_is_waited_out() {
    let world = World::new("spellings").await;
    for (n, (code, status)) in [
        ("ThrottlingException", 400),
        ("TooManyRequestsException", 429),
        ("Throttling", 400),
        ("RequestLimitExceeded", 503),
        ("SlowDown", 503),
        ("SomethingNew", 429),
        ("ServiceUnavailable", 503),
    ]
    .into_iter()
    .enumerate()
    {
        let throttled = Action::Before { code: code.to_owned(), status };
        world.ecr.fault(Fault { times: Some(2), ..Fault::always(Matcher::operation("CreateRepository"), throttled) });
        let name = format!("app-{n}");
        world.repository(&name, json!({})).await;
        world.repository_says(&name, "True", "Ready").await;
        let events = world.events(&name).await;
        assert!(!events.iter().any(|reason| reason == "Throttled"), "{code}: {events:?}");
    }
    assert_eq!(world.ecr.calls_of("CreateRepository").len(), 21);
}

#[tokio::test]
async fn nothing_is_created_any_more_for_objects_that_were_deleted_while_it_waited_for_its_turn() {
    let world = World::new("turn").await;
    world.ecr.rate_limit(RateLimit::new(Matcher::operation("CreateRepository"), 1.0, 1.0));
    for n in 0..30 {
        // Nothing holds the object back when it is deleted.
        world.repository(&format!("app-{n}"), json!({"deletionPolicy": "Retain"})).await;
    }
    let created = || world.ecr.calls_of("CreateRepository").iter().filter(|call| call.outcome == Outcome::Ok).count();
    world.eventually("the first few", || async { (created() >= 3).then_some(()) }).await;
    let api = world.api::<EcrRepository>();
    api.delete_collection(&DeleteParams::default(), &ListParams::default()).await.unwrap();
    let until_then = created();
    // In turn, it comes after all that still wait.
    world.repository("after", json!({})).await;
    world.repository_says("after", "True", "Ready").await;
    // Its own; what was under way; what the API server had answered for a moment before.
    assert!(created() <= until_then + 3, "{} and then {}", until_then, created());
}

#[tokio::test]
async fn one_throttled_account_does_not_slow_another() {
    let (slow, quick) = (World::new("slow").await, World::new("quick").await);
    slow.ecr.rate_limit(RateLimit::new(Matcher::operation("CreateRepository"), 1.0, 1.0));
    for n in 0..60 {
        slow.repository(&format!("app-{n}"), json!({})).await;
    }
    for n in 0..20 {
        quick.repository(&format!("app-{n}"), json!({})).await;
    }
    for n in 0..20 {
        quick.repository_says(&format!("app-{n}"), "True", "Ready").await;
    }
    assert!(ready(&slow).await < 60, "the slow one is still at it");
    slow.ecr.clear_faults();
    for n in 0..60 {
        slow.repository_says(&format!("app-{n}"), "True", "Ready").await;
    }
}

#[tokio::test]
async fn objects_that_fail_again_and_again_hold_up_no_others() {
    let world = World::new("failing").await;
    let broken = Action::Before { code: "ServerException".to_owned(), status: 500 };
    world.ecr.fault(Fault::always(Matcher::operation("CreateRepository").on("bad-*"), broken));
    let tries = || {
        let mut tries = BTreeMap::<String, usize>::new();
        for call in world.ecr.calls_of("CreateRepository") {
            *tries.entry(call.resource).or_default() += 1;
        }
        tries
    };
    for n in 0..60 {
        world.repository(&format!("bad-{n}"), json!({})).await;
    }
    // Three passes each, of two calls: the next comes after three seconds at the earliest.
    let all_failed = || async {
        let tries = tries();
        (tries.len() == 60 && tries.values().all(|tries| *tries >= 6)).then_some(())
    };
    world.eventually("all of them failed three times", all_failed).await;
    world.ecr.clear_calls();
    for n in 0..20 {
        world.repository(&format!("good-{n}"), json!({})).await;
    }
    for n in 0..20 {
        world.repository_says(&format!("good-{n}"), "True", "Ready").await;
    }
    for (name, tries) in tries() {
        let most = if name.starts_with("good-") { 1 } else { 4 };
        assert!(tries <= most, "{name} had {tries} tries before the last of the others was there");
    }
}

#[tokio::test]
async fn whoever_is_healthy_never_waits_for_a_round_of_those_that_fail() {
    const FAILING: usize = 100;
    let world = World::new("round").await;
    let broken = Action::Before { code: "ServerException".to_owned(), status: 500 };
    world.ecr.fault(Fault::always(Matcher::operation("CreateRepository").on("bad-*"), broken));
    for n in 0..FAILING {
        world.repository(&format!("bad-{n}"), json!({})).await;
    }
    let mut ahead = Vec::new();
    for n in 0..9 {
        world.ecr.clear_calls();
        let name = format!("good-{n}");
        world.repository(&name, json!({})).await;
        world.repository_says(&name, "True", "Ready").await;
        let calls = world.ecr.calls_of("CreateRepository");
        ahead.push(calls.iter().position(|call| call.resource == name).unwrap());
    }
    ahead.sort_unstable();
    assert!(ahead[4] < FAILING / 2, "so many calls for those that fail came first: {ahead:?}");
}

#[tokio::test]
async fn a_crowd_in_one_namespace_holds_up_nobody_in_another() {
    const CROWD: usize = 120;
    let world = World::new("crowd").await;
    let other = world.selected_namespace("other").await;
    world.ecr.rate_limit(RateLimit::new(Matcher::operation("CreateRepository"), 5.0, 1.0));
    for n in 0..CROWD {
        world.repository(&format!("app-{n}"), json!({})).await;
    }
    let created = || {
        let calls = world.ecr.calls_of("CreateRepository");
        calls.into_iter().filter(|call| call.outcome == Outcome::Ok).map(|call| call.resource).collect::<Vec<_>>()
    };
    let before = created().len();
    world.repository_in(&other, "alone", json!({})).await;
    let place = || async { created().iter().position(|name| name == "alone") };
    let ahead = world.eventually("the one in the other namespace", place).await - before;
    // Those that are under way when it comes, and some that end before it is seen at all.
    assert!(ahead <= 40, "{ahead} of the crowd came first, {before} were there before it");
    assert!(before + ahead < CROWD, "nobody had to wait");
    world.ecr.clear_faults();
    for n in 0..CROWD {
        world.repository_says(&format!("app-{n}"), "True", "Ready").await;
    }
}

#[tokio::test]
async fn a_registry_whose_aws_never_answers_holds_up_no_other() {
    let (silent, quick) = (World::new("silent").await, World::new("lively").await);
    silent.ecr.fault(Fault::always(Matcher::operation("CreateRepository"), Action::Hang));
    for n in 0..60 {
        silent.repository(&format!("app-{n}"), json!({})).await;
    }
    for n in 0..20 {
        quick.repository(&format!("app-{n}"), json!({})).await;
    }
    for n in 0..20 {
        quick.repository_says(&format!("app-{n}"), "True", "Ready").await;
    }
    assert_eq!(ready(&silent).await, 0);
    assert_eq!(quick.ecr.calls_of("CreateRepository").len(), 20);
}
