//! What moto alone shows. The stories of repositories run against it too: see `stories!`.

use k8s_openapi::api::core::v1::Secret;
use serde_json::json;

use crate::support::world::World;

#[tokio::test]
async fn a_token_that_arrives_dead_is_told_and_never_written() {
    let Some(world) = World::on_moto("mototoken").await else {
        return;
    };
    world.pull_secret("pull", json!({})).await;
    let told = world.pull_secret_says("pull", "False", "Transient").await;
    let message = told.status.unwrap().conditions[0].message.clone();
    assert!(message.contains("expired at 2015-01-01"), "{message}");
    assert!(world.api::<Secret>().get_opt("pull").await.unwrap().is_none());
}
