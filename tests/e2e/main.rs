//! End-to-end tests on a real API server.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that can't go on has failed")]

#[path = "../support/mod.rs"]
#[expect(dead_code, reason = "some of it serves the tests on a real node")]
mod support;

/// Runs each story in a world whose AWS is the local ECR, and in one whose AWS is moto. Those `but not on moto` are
/// skipped there, by name: moto deviates from AWS, or can't do what the story needs. `--ignored moto` tries them.
macro_rules! stories {
    ($($story:ident),+ $(,)? $(; but not on moto: $($local:ident = $why:literal),+ $(,)?)?) => {
        mod local {
            use super::World;
            $(#[tokio::test] async fn $story() { super::$story(World::new(stringify!($story)).await).await; })+
            $($(#[tokio::test] async fn $local() { super::$local(World::new(stringify!($local)).await).await; })+)?
        }

        mod moto {
            use super::World;
            $(#[tokio::test] async fn $story() {
                if let Some(world) = World::on_moto(stringify!($story)).await { super::$story(world).await; }
            })+
            $($(#[tokio::test] #[ignore = $why] async fn $local() {
                if let Some(world) = World::on_moto(stringify!($local)).await { super::$local(world).await; }
            })+)?
        }
    };
}

mod afterwards;
mod api_rules;
mod api_rules_apply;
mod api_rules_aspects;
mod api_rules_lifecycle;
mod api_rules_pull_secret;
mod api_rules_registry;
mod api_rules_repository;
mod api_rules_updates;
mod api_server;
mod aspects;
mod at_once;
mod canary;
mod clocks;
mod contested;
mod cost;
mod examples;
mod exports;
mod held_up;
mod iam;
mod identities;
mod leader;
mod merge;
mod mishaps;
mod moto;
mod ownership;
mod policies;
mod pull_secret;
mod pull_secret_failures;
mod rate;
mod registry;
mod repository;
mod restart;
mod scope;
mod security;
mod semantics;
mod session_end;
mod shown;
mod stuck_pods;
mod template;
mod unread;
mod unwanted;
mod verify;
mod waiting;
