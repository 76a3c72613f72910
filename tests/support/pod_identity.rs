//! The operator's pod with a role of its own by EKS Pod Identity: an identity whose sessions end.

use std::path::PathBuf;

use serde_json::json;

use super::cluster::Cluster;
use super::iam;
use super::operator::NAMESPACE;
use super::world::{ACCOUNT, World};

/// What the operator's pod finds in its environment.
pub struct PodIdentity {
    agent: String,
    file: PathBuf,
    /// What it shows to the agent.
    pub token: String,
}

impl PodIdentity {
    /// A role in this world's account that may do everything. An operator was installed before.
    pub async fn associate(cluster: &Cluster, world: &World) -> Self {
        Self::hand_out(world, "operator");
        let audience = ["create", "token", "ecr-operator", "-n", NAMESPACE, "--audience", "pods.eks.amazonaws.com"];
        let token = cluster.kubectl(&audience, "").await;
        assert!(token.ok, "{}", token.text);
        let token = token.text.trim().to_owned();
        let file = cluster.directory().join("pod-identity-token");
        std::fs::write(&file, &token).unwrap();
        Self { agent: format!("{}/_local/pod-identity", world.ecr.url()), file, token }
    }

    /// For the operator.
    pub fn environment(&self) -> [(&str, &str); 2] {
        [
            ("AWS_CONTAINER_CREDENTIALS_FULL_URI", &self.agent),
            ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", self.file.to_str().unwrap()),
        ]
    }

    /// From now on the operator's pod is this role, which may do everything.
    pub fn hand_out(world: &World, role: &str) {
        let trust = iam::document("trust-pod-identity", &[("ROLE", role)]);
        let all = json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]});
        let arn = format!("arn:aws:iam::{ACCOUNT}:role/{role}");
        let seed = json!({"accounts": [{
            "id": ACCOUNT,
            "roles": [{"name": role, "trust": trust, "policies": [all]}],
            "podIdentities": [{"namespace": NAMESPACE, "serviceAccount": "ecr-operator", "roleArn": arn}],
        }]});
        world.ecr.seed(&serde_json::from_value(seed).unwrap()).unwrap();
    }
}
