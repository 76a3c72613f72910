//! Objects as an API server may give them: those of another version, those that came past a schema that was relaxed.

use std::fmt::Debug;

use ecr_operator::api::{Allow, ClusterEcrPullSecret, EcrPullSecret, EcrRegistry, EcrRegistrySpec, EcrRepository};
use ecr_operator::core::access::Access;
use ecr_operator::core::names::{AccountId, Region};
use ecr_operator::core::ownership::Owner;
use ecr_operator::core::repository::{Context, Desired, Digests, Doomed, Guard, plan};
use ecr_operator::core::selector::NamespaceView;
use kube::Resource;
use kube::core::{DeserializeGuard, ObjectList};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::mutate::fuzz;

/// A list with a good object and this one: the good one is there, whatever this one is.
fn isolated<K: Resource + DeserializeOwned + Clone + Debug>(good: &Value, any: &Value) {
    // What isn't an object at all no API server sends.
    if !any.is_object() || !any["metadata"].is_null() && !any["metadata"].is_object() {
        return;
    }
    let mut any = any.clone();
    any["metadata"] = json!({"name": "bad", "namespace": "a"});
    let list = json!({"apiVersion": "ecr-operator.dev/v1alpha1", "kind": "List", "metadata": {}, "items": [good, any]});
    let list: ObjectList<DeserializeGuard<K>> = serde_json::from_value(list).unwrap();
    assert!(list.items[0].0.is_ok());
}

fn good(spec: &Value) -> Value {
    json!({"apiVersion": "ecr-operator.dev/v1alpha1", "kind": "Any", "metadata": {"name": "good"}, "spec": spec})
}

#[test]
fn objects_of_every_kind() {
    let owner = Owner { id: "id".into(), namespace: "a".into(), name: "app".into(), uid: "u".into() };
    let registry: EcrRegistrySpec = serde_json::from_value(json!({"region": "eu-west-1"})).unwrap();
    let allow: Vec<Allow> = serde_json::from_value(json!([{"namespaces": {}, "manage": ["*"]}])).unwrap();
    let access = Access::of(&allow, NamespaceView { name: "a", labels: &[].into() });
    let (account, region) = (AccountId::parse("123456789012").unwrap(), Region::parse("eu-west-1").unwrap());
    fuzz("object", |bytes| {
        let Ok(value) = serde_json::from_slice::<Value>(bytes) else { return };
        isolated::<EcrRepository>(&good(&json!({})), &value);
        isolated::<EcrPullSecret>(&good(&json!({})), &value);
        isolated::<ClusterEcrPullSecret>(&good(&json!({"namespaceSelector": {}})), &value);
        isolated::<EcrRegistry>(&good(&json!({"region": "eu-west-1"})), &value);
        if let Ok(object) = serde_json::from_value::<EcrRegistry>(value.clone()) {
            let rules = object.spec.allow.clone().unwrap_or_default();
            let _ = Access::of(&rules, NamespaceView { name: "a", labels: &[].into() }).manages("a/app");
        }
        let Ok(object) = serde_json::from_value::<EcrRepository>(value) else { return };
        let context = Context {
            registry: &registry,
            registry_name: "default",
            account: &account,
            region: &region,
            access: &access,
            owner: &owner,
        };
        drop(Doomed::parse(&object.spec, context));
        let Ok(desired) = Desired::parse(&object.spec, context) else { return };
        let tags = desired.all_tags();
        assert!(owner.tags().iter().all(|(key, value)| tags.get(key) == Some(value)), "no spec overrides whose it is");
        let digests = Digests::of(&desired);
        assert!(Digests::parse(&digests.text()).are_of(&desired));
        let ownership = ecr_operator::core::ownership::Ownership::Nobody;
        drop(plan(
            &desired,
            None,
            &Guard { ownership, managed_tags: &[], reclaims: 0, registry_scans: false, policy_is_ours: false },
        ));
    });
}
