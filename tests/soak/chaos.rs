//! What users, others with AWS's console and the network do, drawn from a seed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ecr_operator::api::{ClusterEcrPullSecret, EcrRepository};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::support::dice::Dice;
use crate::support::faults::{Fault, Rule, Side, Wire};
use crate::support::world::{ACCOUNT, REGION, World};

/// What the cluster-wide pull secret and its Secrets are called.
pub const PULL: &str = "pull";

/// What is declared, as whoever declared it knows it.
pub struct Declared {
    pub namespaces: Vec<String>,
    /// Those with the label that the pull secret selects, by number.
    pub selected: BTreeSet<usize>,
    /// By the number of the repository; those that aren't here were deleted.
    pub specs: BTreeMap<usize, Value>,
    pub repositories: usize,
    /// What was done, with how often.
    pub changes: BTreeMap<&'static str, usize>,
}

pub fn spec(dice: &mut Dice) -> Value {
    json!({
        "imageTagMutability": dice.of(&["MUTABLE", "IMMUTABLE"]),
        "imageScanningConfiguration": {"scanOnPush": dice.one_in(2)},
        "tags": {"team": format!("team-{}", dice.below(1000))},
        "lifecyclePolicy": {"rules": [{
            "rulePriority": 1, "action": {"type": "expire"},
            "selection": {"tagStatus": "untagged", "countType": "sinceImagePushed", "countUnit": "days", "countNumber": 1 + dice.below(99)},
        }]},
        "deletionPolicy": "Delete",
    })
}

pub fn name(number: usize) -> String {
    format!("app-{number}")
}

impl Declared {
    /// Where the object of a repository is.
    pub fn namespace(&self, number: usize) -> &str {
        &self.namespaces[number % self.namespaces.len()]
    }

    /// One change; some find nothing to change.
    pub async fn change(&mut self, world: &World, dice: &mut Dice) {
        let number = dice.below(self.repositories);
        let done = match dice.below(100) {
            0..45 => self.edit_or_make(world, dice, number).await,
            45..55 => self.delete(world, number).await,
            55..75 => change_in_aws(world, dice, &name(number)),
            75..80 => {
                let gone = aws(world, "DeleteRepository", json!({"repositoryName": name(number), "force": true}));
                gone.then_some("repository deleted in AWS")
            }
            80..88 => self.change_secret(world, dice).await,
            88..98 => self.relabel(world, dice).await,
            _ => {
                let api: Api<ClusterEcrPullSecret> = Api::all(world.client.clone());
                world.again(&api, PULL).await;
                Some("new token asked for")
            }
        };
        if let Some(done) = done {
            *self.changes.entry(done).or_default() += 1;
        }
    }

    async fn edit_or_make(&mut self, world: &World, dice: &mut Dice, number: usize) -> Option<&'static str> {
        let namespace = self.namespace(number).to_owned();
        let is_new = !self.specs.contains_key(&number);
        let api: Api<EcrRepository> = Api::namespaced(world.client.clone(), &namespace);
        if is_new && api.get_metadata_opt(&name(number)).await.unwrap().is_some() {
            return None;
        }
        let spec = spec(dice);
        world.repository_in(&namespace, &name(number), spec.clone()).await;
        self.specs.insert(number, spec);
        Some(if is_new { "object made anew" } else { "spec edited" })
    }

    async fn delete(&mut self, world: &World, number: usize) -> Option<&'static str> {
        self.specs.remove(&number)?;
        let api: Api<EcrRepository> = Api::namespaced(world.client.clone(), self.namespace(number));
        api.delete(&name(number), &DeleteParams::default()).await.unwrap();
        Some("object deleted")
    }

    async fn change_secret(&self, world: &World, dice: &mut Dice) -> Option<&'static str> {
        let namespace = &self.namespaces[dice.below(self.namespaces.len())];
        let api: Api<Secret> = Api::namespaced(world.client.clone(), namespace);
        let (what, done) = match dice.below(3) {
            0 => ("Secret deleted", api.delete(PULL, &DeleteParams::default()).await.map(drop)),
            1 => {
                let patch = Patch::Merge(json!({"stringData": {".dockerconfigjson": r#"{"auths": {}}"#}}));
                ("Secret edited", api.patch(PULL, &PatchParams::default(), &patch).await.map(drop))
            }
            _ => {
                let patch = Patch::Merge(json!({"metadata": {"labels": {"ecr-operator.dev/owner-uid": null}}}));
                ("Secret's label stripped", api.patch(PULL, &PatchParams::default(), &patch).await.map(drop))
            }
        };
        done.ok().map(|()| what)
    }

    async fn relabel(&mut self, world: &World, dice: &mut Dice) -> Option<&'static str> {
        let number = dice.below(self.namespaces.len());
        let select = !self.selected.remove(&number);
        let value = if select { json!(world.namespace) } else { json!(null) };
        let patch = Patch::Merge(json!({"metadata": {"labels": {"world": value}}}));
        let api: Api<Namespace> = Api::all(world.client.clone());
        api.patch(&self.namespaces[number], &PatchParams::default(), &patch).await.unwrap();
        if select {
            self.selected.insert(number);
        }
        Some(if select { "namespace selected" } else { "namespace deselected" })
    }
}

fn aws(world: &World, operation: &str, body: Value) -> bool {
    world.ecr.behind_the_back(ACCOUNT, REGION, operation, body).is_ok()
}

fn change_in_aws(world: &World, dice: &mut Dice, name: &str) -> Option<&'static str> {
    let (operation, body) = match dice.below(3) {
        0 => {
            let mutability = dice.of(&["MUTABLE", "IMMUTABLE"]);
            ("PutImageTagMutability", json!({"repositoryName": name, "imageTagMutability": mutability}))
        }
        1 => {
            let scanning = json!({"scanOnPush": dice.one_in(2)});
            ("PutImageScanningConfiguration", json!({"repositoryName": name, "imageScanningConfiguration": scanning}))
        }
        _ => {
            let arn = world.there(name)?.arn;
            ("TagResource", json!({"resourceArn": arn, "tags": [{"Key": "team", "Value": "another"}]}))
        }
    };
    aws(world, operation, body).then_some("repository edited in AWS")
}

/// What the network and the servers do for the next second or two.
pub fn weather(wire: &Wire, dice: &mut Dice) {
    wire.clear_rules();
    wire.let_watches_flow();
    if dice.below(3) > 0 {
        let fault = match dice.below(8) {
            0..3 => answer(400, &json!({"__type": "ThrottlingException", "message": "Rate exceeded"})),
            3 => answer(503, &json!({"__type": "ServiceUnavailable", "message": "planted"})),
            4 => answer(500, &json!({"__type": "ServerException", "message": "planted"})),
            5 => slow(dice),
            6 => Fault::Cut,
            _ => Fault::Lost,
        };
        wire.rule(Rule::next(Side::Aws, "", fault).times(1 + dice.below(10)));
    }
    if dice.below(3) > 0 {
        let fault = match dice.below(6) {
            0 => refused(429, "TooManyRequests"),
            1 => refused(500, "InternalError"),
            2 => refused(503, "ServiceUnavailable"),
            3 => slow(dice),
            4 => Fault::Cut,
            _ => Fault::Lost,
        };
        // A watch has no answer that could be lost or late.
        let verb = dice.of(&["PATCH", "POST", "DELETE", "GET", "LIST"]);
        wire.rule(Rule::next(Side::Kubernetes, verb, fault).times(1 + dice.below(10)));
    }
    match dice.below(12) {
        0 => wire.freeze_watches(dice.of(&["WATCH", "WATCH ecrrepositories", "WATCH secrets", "WATCH namespaces"])),
        1 => wire.expire_watches(),
        2 => wire.rule(Rule::next(Side::Kubernetes, "WATCH", Fault::Cut).times(5)),
        _ => {}
    }
}

fn slow(dice: &mut Dice) -> Fault {
    Fault::Delay(Duration::from_millis(u64::try_from(dice.below(2000)).unwrap()))
}

fn refused(code: u16, reason: &str) -> Fault {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code, "reason": reason,
        "message": "planted",
    });
    answer(code, &status)
}

fn answer(status: u16, body: &Value) -> Fault {
    let headers = vec![("content-type", "application/json"), ("retry-after", "1")];
    Fault::Answer { status, headers, body: body.to_string() }
}

/// What a fault is called in the report.
pub fn called(side: Side, fault: &Fault) -> String {
    match fault {
        Fault::Answer { status, .. } => format!("{side:?} {status}"),
        Fault::Delay(_) => format!("{side:?} slow"),
        other => format!("{side:?} {other:?}"),
    }
}
