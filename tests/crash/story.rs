//! What the operator is in the middle of when it is struck.

use std::time::Duration;

use ecr_operator::api::{ClusterEcrPullSecret, EcrPullSecret, EcrRepository};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use local_ecr::Config;
use serde_json::{Value, json};

use crate::support::cluster::Cluster;
use crate::support::world::{ACCOUNT, REGION, World, merge};

/// A story, by its name in plans.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Story {
    /// With everything that can be declared, from the operator's very start.
    Create,
    /// The same, and its user deletes it before the next operator starts.
    CreateRevoked,
    /// One aspect changes.
    Change,
    /// A repository that nobody owns.
    Adopt,
    /// One that somebody owned.
    TakeOver,
    Delete,
    DeleteWithImages,
    /// A user says Retain before the next operator starts.
    DeleteRevoked,
    /// A new token for a Secret that is there.
    Renew,
    /// One object, ten namespaces.
    FanOut,
    /// Three namespaces are deselected.
    FanIn,
    ServiceAccounts,
    ServiceAccountsBack,
    /// Other defaults and one more Region.
    Registry,
    /// All is as it should be.
    Restart,
}

pub const ALL: [Story; 15] = [
    Story::Create,
    Story::CreateRevoked,
    Story::Change,
    Story::Adopt,
    Story::TakeOver,
    Story::Delete,
    Story::DeleteWithImages,
    Story::DeleteRevoked,
    Story::Renew,
    Story::FanOut,
    Story::FanIn,
    Story::ServiceAccounts,
    Story::ServiceAccountsBack,
    Story::Registry,
    Story::Restart,
];

const SECRET: &str = "pull";
const HAND: &str = "2026-01-01";

impl Story {
    pub fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::CreateRevoked => "create-revoked",
            Self::Change => "change",
            Self::Adopt => "adopt",
            Self::TakeOver => "take-over",
            Self::Delete => "delete",
            Self::DeleteWithImages => "delete-with-images",
            Self::DeleteRevoked => "delete-revoked",
            Self::Renew => "renew",
            Self::FanOut => "fan-out",
            Self::FanIn => "fan-in",
            Self::ServiceAccounts => "accounts",
            Self::ServiceAccountsBack => "accounts-back",
            Self::Registry => "registry",
            Self::Restart => "restart",
        }
    }

    /// Whether the operator starts with the story, rather than being at rest when it begins.
    pub fn begins_with_the_operator(self) -> bool {
        matches!(self, Self::Create | Self::CreateRevoked | Self::Restart)
    }

    fn spans_namespaces(self) -> bool {
        matches!(self, Self::FanOut | Self::FanIn)
    }

    /// The names of the namespaces besides the world's own.
    pub fn more_namespaces(self, own: &str) -> Vec<String> {
        let count = if self.spans_namespaces() { 10 } else { 0 };
        (0..count).map(|number| format!("{own}-{number}")).collect()
    }

    /// A world as it is before any operator starts.
    pub async fn world(self, cluster: &Cluster) -> World {
        let world = World::bare(cluster, self.name(), Config::default()).await;
        let aws = |operation, body| world.ecr.behind_the_back(ACCOUNT, REGION, operation, body).unwrap();
        aws("CreateRepository", json!({"repositoryName": "foreign", "tags": [{"Key": "team", "Value": "other"}]}));
        let theirs = json!([{"Key": "team", "Value": "them"}]);
        match self {
            Self::Adopt => drop(aws("CreateRepository", json!({"repositoryName": "app", "tags": theirs}))),
            Self::TakeOver => {
                let keys = ["owner", "namespace", "name", "uid"];
                let tags: Vec<_> = keys
                    .iter()
                    .map(|key| json!({"Key": format!("ecr-operator.dev/{key}"), "Value": "another"}))
                    .collect();
                aws("CreateRepository", json!({"repositoryName": "app", "tags": tags}));
            }
            _ => {}
        }
        if self.spans_namespaces() {
            for number in 0..10 {
                world.selected_namespace(&number.to_string()).await;
            }
        }
        world
    }

    /// What is there, and at rest, before the story begins.
    pub async fn before(self, world: &World) {
        match self {
            Self::Change | Self::Delete | Self::DeleteRevoked => world.repository("app", everything("Delete")).await,
            Self::DeleteWithImages => world.repository("app", everything("DeleteWithImages")).await,
            Self::Renew => world.pull_secret(SECRET, json!({})).await,
            Self::FanIn => {
                world
                    .cluster_pull_secret(
                        &world.namespace,
                        json!({"secretName": SECRET, "serviceAccounts": ["default"]}),
                    )
                    .await;
            }
            Self::ServiceAccounts => account(world).await,
            Self::ServiceAccountsBack => {
                account(world).await;
                world.pull_secret(SECRET, json!({"serviceAccounts": ["builder"]})).await;
            }
            Self::Registry => {
                world.repository("app", json!({})).await;
                world.pull_secret(SECRET, json!({})).await;
            }
            Self::Create | Self::CreateRevoked | Self::Adopt | Self::TakeOver | Self::FanOut | Self::Restart => {}
        }
        match self {
            Self::Change => ready(world).await,
            Self::Delete | Self::DeleteRevoked | Self::DeleteWithImages => {
                ready(world).await;
                // Of a young one that isn't there nobody knows if it isn't shown yet: its deletion waits until it is old.
                world.age("app").await;
            }
            Self::Renew => served(world).await,
            Self::FanIn => fanned(world, "10/10").await,
            Self::ServiceAccountsBack => {
                served(world).await;
                named(world, &["theirs", SECRET]).await;
            }
            Self::Registry => {
                ready(world).await;
                served(world).await;
            }
            _ => drop(world.registry_says("True", "Ready").await),
        }
        if self == Self::DeleteWithImages {
            world.ecr.put_image(ACCOUNT, REGION, "app", &["v1"]).unwrap();
        }
    }

    /// What a user does.
    pub async fn act(self, world: &World, aws_url: &str) {
        let repositories = world.api::<EcrRepository>();
        match self {
            Self::Create | Self::CreateRevoked | Self::Restart => world.repository("app", everything("Delete")).await,
            Self::Change => {
                let mut spec = everything("Delete");
                merge(&mut spec, json!({"lifecyclePolicy": {"rules": [expire(30)]}}));
                world.repository("app", spec).await;
            }
            Self::Adopt | Self::TakeOver => {
                let policy = if self == Self::Adopt { "Adopt" } else { "TakeOver" };
                let mut spec = everything("Retain");
                merge(&mut spec, json!({"adoptionPolicy": policy, "inheritDefaults": false}));
                world.repository("app", spec).await;
            }
            Self::Delete | Self::DeleteRevoked | Self::DeleteWithImages => {
                repositories.delete("app", &DeleteParams::default()).await.unwrap();
            }
            Self::Renew => {
                let annotate = json!({"metadata": {"annotations": {"ecr-operator.dev/reconcile-at": HAND}}});
                let api = world.api::<EcrPullSecret>();
                api.patch(SECRET, &PatchParams::default(), &Patch::Merge(annotate)).await.unwrap();
            }
            Self::FanOut => world.cluster_pull_secret(&world.namespace, json!({"secretName": SECRET})).await,
            Self::FanIn => {
                for name in self.more_namespaces(&world.namespace).iter().take(3) {
                    world.apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})).await;
                }
            }
            Self::ServiceAccounts => world.pull_secret(SECRET, json!({"serviceAccounts": ["builder"]})).await,
            Self::ServiceAccountsBack => {
                world.api::<EcrPullSecret>().delete(SECRET, &DeleteParams::default()).await.unwrap();
            }
            Self::Registry => {
                let defaults = json!({"tags": {"cost": "x"}, "imageTagMutability": "IMMUTABLE"});
                world.registry_at(aws_url, json!({"defaults": defaults, "pull": {"regions": ["us-east-1"]}})).await;
            }
        }
    }

    /// What the user does while no operator runs.
    pub async fn meanwhile(self, world: &World) {
        let api = world.api::<EcrRepository>();
        match self {
            Self::CreateRevoked => drop(api.delete("app", &DeleteParams::default()).await.unwrap()),
            // It may be gone already.
            Self::DeleteRevoked if api.get_opt("app").await.unwrap().is_some() => {
                world.repository("app", everything("Retain")).await;
            }
            _ => {}
        }
    }

    /// Whether the user does anything then.
    pub fn is_revoked(self) -> bool {
        matches!(self, Self::CreateRevoked | Self::DeleteRevoked)
    }

    /// Whether the end doesn't depend on the operator here.
    pub fn leaves_open(self, what: &str) -> bool {
        match self {
            // Gone or not, as far as deletion had come.
            Self::DeleteRevoked => what == "repository app",
            // The garbage collector's part, which takes its time.
            Self::ServiceAccountsBack => what.starts_with("Secret "),
            _ => false,
        }
    }

    /// Waits until all is as declared.
    pub async fn at_rest(self, world: &World, revoked: bool) {
        match self {
            Self::Create | Self::Change | Self::Adopt | Self::TakeOver | Self::Restart => ready(world).await,
            Self::CreateRevoked if !revoked => ready(world).await,
            Self::CreateRevoked | Self::Delete | Self::DeleteRevoked | Self::DeleteWithImages => {
                // Of a creation that nobody heard of, and that ECR doesn't show: two minutes, and a pause between tries.
                world.until_gone_within(Duration::from_mins(4), &world.api::<EcrRepository>(), "app").await;
            }
            Self::Renew => {
                let handled = |object: &EcrPullSecret| {
                    let status = object.status.as_ref();
                    status.and_then(|status| status.last_handled_reconcile_at.as_deref()) == Some(HAND)
                };
                world.until(&world.api(), SECRET, "renewed", handled).await;
                served(world).await;
            }
            Self::FanOut => fanned(world, "10/10").await,
            Self::FanIn => fanned(world, "7/7").await,
            Self::ServiceAccounts => {
                served(world).await;
                named(world, &["theirs", SECRET]).await;
            }
            Self::ServiceAccountsBack => {
                world.until_gone(&world.api::<EcrPullSecret>(), SECRET).await;
                named(world, &["theirs"]).await;
            }
            Self::Registry => {
                world.registry_says("True", "Ready").await;
                let tagged = || async { world.there("app")?.tags.contains_key("cost").then_some(()) };
                world.eventually("the new default", tagged).await;
                ready(world).await;
                let both =
                    |object: &EcrPullSecret| object.status.as_ref().is_some_and(|status| status.registries.len() == 2);
                world.until(&world.api(), SECRET, "with both Regions", both).await;
                served(world).await;
            }
        }
    }
}

pub async fn ready(world: &World) {
    world.repository_says("app", "True", "Ready").await;
}

async fn served(world: &World) {
    world.pull_secret_says(SECRET, "True", "Ready").await;
}

async fn fanned(world: &World, wanted: &'static str) {
    let api: Api<ClusterEcrPullSecret> = Api::all(world.client.clone());
    let counts = |object: &ClusterEcrPullSecret| {
        object.status.as_ref().is_some_and(|status| status.secrets.as_deref() == Some(wanted))
    };
    world.until(&api, &world.namespace, wanted, counts).await;
}

/// A ServiceAccount that has a pull secret of its own.
async fn account(world: &World) {
    let account = json!({
        "apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "builder", "namespace": world.namespace},
        "imagePullSecrets": [{"name": "theirs"}],
    });
    world.apply(&account).await;
}

async fn named(world: &World, wanted: &[&str]) {
    let is = |account: &ServiceAccount| {
        account.image_pull_secrets.iter().flatten().map(|entry| entry.name.as_str()).eq(wanted.iter().copied())
    };
    world.until(&world.api::<ServiceAccount>(), "builder", &format!("with {wanted:?}"), is).await;
}

fn expire(days: u32) -> Value {
    json!({
        "rulePriority": 1, "action": {"type": "expire"},
        "selection": {"tagStatus": "untagged", "countType": "sinceImagePushed", "countUnit": "days", "countNumber": days},
    })
}

pub fn everything(deletion: &str) -> Value {
    json!({
        "imageTagMutability": "IMMUTABLE",
        "imageScanningConfiguration": {"scanOnPush": true},
        "lifecyclePolicy": {"rules": [expire(14)]},
        "repositoryPolicy": {"grants": [{"access": "Pull", "accounts": ["210987654321"]}]},
        "tags": {"team": "a"},
        "deletionPolicy": deletion,
        "exportTo": {"configMap": "images", "keys": {"uri": "IMAGE"}},
    })
}
