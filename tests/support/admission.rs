//! Admission policies of the cluster, as its administrators put on whatever they like.

use serde_json::json;

use super::world::World;

/// What nobody may do in a namespace.
pub struct Refusal<'a> {
    pub group: &'a str,
    pub resource: &'a str,
    pub operations: &'a [&'a str],
    /// In CEL: what may be done all the same.
    pub unless: &'a str,
    pub message: &'a str,
}

/// Puts it into force in `namespace`, a moment later: its name is that of the policy, too.
pub async fn refuse(world: &World, namespace: &str, refusal: Refusal<'_>) {
    let Refusal { group, resource, operations, unless, message } = refusal;
    world.apply(&json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": namespace},
        "spec": {
            "policyName": namespace, "validationActions": ["Deny"],
            "matchResources": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}},
        },
    })).await;
    world.apply(&json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": {"name": namespace},
        "spec": {
            "matchConstraints": {"resourceRules": [{"apiGroups": [group], "apiVersions": ["*"], "operations": operations, "resources": [resource]}]},
            "validations": [{"expression": unless, "message": message, "reason": "Forbidden"}],
        },
    })).await;
}
