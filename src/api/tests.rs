//! What holds for the schemas of all kinds.

use serde_json::{Value, json};

use super::*;

fn schemas() -> Vec<(String, Value)> {
    let crds = all_crds().unwrap();
    let schema = |crd: &CustomResourceDefinition| {
        let schema = crd.spec.versions[0].schema.clone().unwrap().open_api_v3_schema.unwrap();
        (crd.spec.names.kind.clone(), serde_json::to_value(schema).unwrap())
    };
    crds.iter().map(schema).collect()
}

/// Visits each schema with its path; those of list items and map values end in `[]`.
fn visit(path: &str, schema: &Value, look: &mut dyn FnMut(&str, &Value)) {
    look(path, schema);
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        visit(&format!("{path}.{name}"), property, look);
    }
    for inner in ["items", "additionalProperties"] {
        if schema[inner].is_object() {
            visit(&format!("{path}[]"), &schema[inner], look);
        }
    }
}

fn offenders(is_bad: impl Fn(&Value) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for (kind, schema) in schemas() {
        visit(&kind, &schema, &mut |path, schema| {
            if is_bad(schema) {
                found.push(path.to_owned());
            }
        });
    }
    found
}

#[test]
fn null_is_nowhere_a_value() {
    let none: [&str; 0] = [];
    assert_eq!(offenders(|schema| schema.get("nullable").is_some()), none);
    let has_null = |schema: &Value| schema["enum"].as_array().is_some_and(|values| values.contains(&Value::Null));
    assert_eq!(offenders(has_null), none);
}

#[test]
fn every_field_is_explained() {
    let is_mute = |schema: &Value| schema["description"].as_str().is_none_or(str::is_empty);
    // Items of lists and values of maps are explained by the list or map.
    let mute: Vec<_> = offenders(is_mute).into_iter().filter(|path| !path.ends_with("[]")).collect();
    assert!(mute.is_empty(), "no description: {mute:?}");
}

#[test]
fn lists_and_maps_are_replaced_as_a_whole() {
    let is_list = |schema: &Value| schema["type"] == "array" && schema["x-kubernetes-list-type"] != "atomic";
    let conditions = |kind: &str| format!("{kind}.status.conditions");
    let kinds = ["EcrRegistry", "EcrRepository", "EcrPullSecret", "ClusterEcrPullSecret"];
    assert_eq!(offenders(is_list), kinds.map(conditions), "conditions merge by type");
    let is_map =
        |schema: &Value| schema["additionalProperties"].is_object() && schema["x-kubernetes-map-type"] != "atomic";
    assert!(offenders(is_map).is_empty());
}

#[test]
fn only_what_can_never_come_from_elsewhere_has_a_default() {
    let mut defaults = Vec::new();
    for (kind, schema) in schemas() {
        visit(&kind, &schema, &mut |path, schema| {
            if let Some(default) = schema.get("default") {
                defaults.push(format!("{path}={default}"));
            }
        });
    }
    let expected = [
        r#"EcrRegistry.spec.mode="Apply""#,
        r#"EcrRegistry.spec.pull.scopeTokens="Required""#,
        r#"EcrRegistry.spec.pull.whenNotAllowed="Keep""#,
        r#"EcrRepository.spec.adoptionPolicy="Deny""#,
        r#"EcrRepository.spec.mode="Apply""#,
        r#"EcrRepository.spec.registryRef={"name":"default"}"#,
        r#"EcrPullSecret.spec.access="Pull""#,
        r#"EcrPullSecret.spec.format="DockerConfigJson""#,
        r#"EcrPullSecret.spec.mergePolicy="Own""#,
        r#"ClusterEcrPullSecret.spec.access="Pull""#,
        r#"ClusterEcrPullSecret.spec.format="DockerConfigJson""#,
        r#"ClusterEcrPullSecret.spec.mergePolicy="Own""#,
    ];
    assert_eq!(defaults, expected);
}

#[test]
fn names_and_groups_are_those_that_the_constants_say() {
    for crd in all_crds().unwrap() {
        assert_eq!(crd.spec.group, GROUP);
        assert_eq!(crd.spec.versions[0].name, VERSION);
        assert_eq!(crd.spec.names.categories.as_deref(), Some(&["ecr".to_owned()][..]));
        assert!(crd.spec.versions[0].subresources.as_ref().is_some_and(|all| all.status.is_some()));
    }
}

#[test]
fn absent_and_empty_both_survive() {
    let survives = |spec: Value| {
        let parsed: EcrRepositorySpec = serde_json::from_value(spec.clone()).unwrap();
        let mut written = serde_json::to_value(parsed).unwrap();
        for defaulted in ["registryRef", "adoptionPolicy", "mode"] {
            written.as_object_mut().unwrap().remove(defaulted);
        }
        assert_eq!(written, spec);
    };
    survives(json!({}));
    survives(
        json!({"tags": {}, "lifecyclePolicy": {"rules": []}, "repositoryPolicy": {"grants": [], "statements": []}}),
    );
    survives(json!({"repositoryPolicy": {"statements": [
        {"Effect": "Allow", "Principal": {"AWS": ["a", "b"]}, "Action": "ecr:*", "Condition": {"Bool": {"x": true}}},
    ]}}));

    let cluster: ClusterEcrPullSecretSpec =
        serde_json::from_value(json!({"namespaceSelector": {}, "excludeNamespaces": [], "serviceAccounts": []}))
            .unwrap();
    assert_eq!(cluster.exclude_namespaces, Some(vec![]));
    assert_eq!(cluster.common.service_accounts, Some(vec![]));
    assert_eq!(cluster.common.registries, None);
}
