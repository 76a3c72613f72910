//! Absent and empty stay apart under both kinds of apply, and what is defaulted is written out.

use std::fmt::Write as _;

use kube::api::PostParams;
use serde_json::{Value, json};

use crate::support::api::{object, objects};
use crate::support::cluster::Cluster;

/// A field for which empty means something: kind, path below spec, filled, empty, and what its block is left with when
/// it is absent.
struct Field {
    kind: &'static str,
    path: &'static str,
    filled: &'static str,
    empty: &'static str,
    absent: &'static str,
}

const fn field(kind: &'static str, path: &'static str, filled: &'static str, empty: &'static str) -> Field {
    Field { kind, path, filled, empty, absent: "" }
}

const RULE: &str = "lifecyclePolicy: {rules: [{rulePriority: 1, selection: {tagStatus: untagged, countType: imageCountMoreThan, countNumber: 5}, action: {type: expire}}]}";
const GRANT: &str = "repositoryPolicy: {grants: [{access: Pull, accounts: ['123456789012']}]}";
const STATEMENT: &str = "repositoryPolicy: {statements: [{Effect: Allow, Principal: {AWS: [a, b]}, Action: 'ecr:*', Condition: {Bool: {x: 'true'}}}]}";
const GRANT_DEFAULT: &str = "defaults: {repositoryPolicy: {grants: [{access: Pull, accounts: ['123456789012']}]}}";
const RULE_DEFAULT: &str = "defaults: {lifecyclePolicy: {rules: [{rulePriority: 1, selection: {tagStatus: untagged, countType: imageCountMoreThan, countNumber: 5}, action: {type: expire}}]}}";

const STATEMENT_DEFAULT: &str =
    "defaults: {repositoryPolicy: {statements: [{Effect: Allow, Principal: '*', Action: ['ecr:*']}]}}";

const FIELDS: &[Field] = &[
    field("EcrRepository", "/tags", "tags: {a: b, c: d}", "tags: {}"),
    field("EcrRepository", "/lifecyclePolicy/rules", RULE, "lifecyclePolicy: {rules: []}"),
    field("EcrRepository", "/repositoryPolicy/grants", GRANT, "repositoryPolicy: {grants: []}"),
    field("EcrRepository", "/repositoryPolicy/statements", STATEMENT, "repositoryPolicy: {statements: []}"),
    field("EcrRegistry", "/allow", "allow: [{namespaces: {}, pull: ['*']}]", "allow: []"),
    field(
        "EcrRegistry",
        "/allow/0/pull",
        "allow: [{namespaces: {}, pull: ['*']}]",
        "allow: [{namespaces: {}, pull: []}]",
    ),
    field(
        "EcrRegistry",
        "/allow/0/manage",
        "allow: [{namespaces: {}, manage: ['*']}]",
        "allow: [{namespaces: {}, manage: []}]",
    ),
    field(
        "EcrRegistry",
        "/allow/0/push",
        "allow: [{namespaces: {}, push: ['*']}]",
        "allow: [{namespaces: {}, push: []}]",
    ),
    Field {
        kind: "EcrRegistry",
        path: "/allow/0/namespaces",
        filled: "allow: [{namespaces: {matchNames: [a]}}]",
        empty: "allow: [{namespaces: {}}]",
        absent: "allow: []",
    },
    field("EcrRegistry", "/takeOverFrom", "takeOverFrom: [a]", "takeOverFrom: []"),
    field("EcrRegistry", "/requiredTags", "requiredTags: {a: '{name}'}", "requiredTags: {}"),
    field("EcrRegistry", "/endpoint", "endpoint: {fips: true}", "endpoint: {}"),
    field("EcrRegistry", "/defaults", "defaults: {deletionPolicy: Delete}", "defaults: {}"),
    field("EcrRegistry", "/pull/accounts", "pull: {accounts: ['123456789012']}", "pull: {accounts: []}"),
    field("EcrRegistry", "/pull/regions", "pull: {regions: [us-east-1]}", "pull: {regions: []}"),
    field("EcrRegistry", "/defaults/tags", "defaults: {tags: {a: b}}", "defaults: {tags: {}}"),
    field("EcrRegistry", "/defaults/lifecyclePolicy/rules", RULE_DEFAULT, "defaults: {lifecyclePolicy: {rules: []}}"),
    field(
        "EcrRegistry",
        "/defaults/repositoryPolicy/grants",
        GRANT_DEFAULT,
        "defaults: {repositoryPolicy: {grants: []}}",
    ),
    field(
        "EcrRegistry",
        "/defaults/repositoryPolicy/statements",
        STATEMENT_DEFAULT,
        "defaults: {repositoryPolicy: {statements: []}}",
    ),
    Field {
        kind: "EcrRegistry",
        path: "/pull/accounts",
        filled: "pull: {accounts: ['123456789012']}",
        empty: "pull: {accounts: []}",
        absent: "pull: {}",
    },
    field("EcrPullSecret", "/secretTemplate", "secretTemplate: {labels: {a: b}}", "secretTemplate: {}"),
    field("EcrPullSecret", "/serviceAccounts", "serviceAccounts: [default]", "serviceAccounts: []"),
    field(
        "EcrPullSecret",
        "/secretTemplate/labels",
        "secretTemplate: {labels: {a: b}}",
        "secretTemplate: {labels: {}}",
    ),
    field("ClusterEcrPullSecret", "/serviceAccounts", "serviceAccounts: [default]", "serviceAccounts: []"),
    field("ClusterEcrPullSecret", "/excludeNamespaces", "excludeNamespaces: [a]", "excludeNamespaces: []"),
    Field {
        kind: "ClusterEcrPullSecret",
        path: "/namespaceSelector",
        filled: "namespaceSelector: {matchLabels: {a: b}, matchNames: [a]}",
        empty: "namespaceSelector: {}",
        absent: "namespaceSelector: {}",
    },
];

#[tokio::test]
async fn by_server_side_apply() {
    filled_empty_absent("server", &["apply", "--server-side"]).await;
}

#[tokio::test]
async fn by_client_side_apply() {
    filled_empty_absent("client", &["apply"]).await;
}

async fn filled_empty_absent(side: &str, apply: &[&str]) {
    let cluster = Cluster::shared().await;
    let client = cluster.client().await;
    let apply = [apply, &["-f", "-"]].concat();
    // Absent after filled and absent after empty differ: the one takes something away.
    let rounds = ["filled", "empty", "absent", "empty", "filled", "absent"];
    let mut wrongs = Vec::new();
    for (round, state) in rounds.iter().enumerate() {
        let applied = cluster.kubectl(&apply, &manifests(side, state)).await;
        assert!(applied.ok, "round {round}, {state}: {}", applied.text);
        for (index, field) in FIELDS.iter().enumerate() {
            let there = objects(&client, field.kind).get(&format!("{side}-{index}")).await.unwrap();
            let value = there.data["spec"].pointer(field.path);
            let is_empty = match value {
                Some(Value::Object(members)) => Some(members.is_empty()),
                Some(Value::Array(items)) => Some(items.is_empty()),
                _ => None,
            };
            let is_right = match *state {
                "filled" => is_empty == Some(false),
                "empty" => is_empty == Some(true),
                _ => value.is_none() || field.absent == field.empty,
            };
            if !is_right {
                wrongs.push(format!(
                    "round {round}: {} {} is not {state}: {}",
                    field.kind, field.path, there.data["spec"]
                ));
            }
        }
    }
    cluster.kubectl(&["delete", "-f", "-"], &manifests(side, "absent")).await;
    assert!(wrongs.is_empty(), "{}", wrongs.join("\n"));
}

/// All fields in this state, each in an object of its own.
fn manifests(side: &str, state: &str) -> String {
    FIELDS.iter().enumerate().fold(String::new(), |mut all, (index, field)| {
        let spec = match state {
            "filled" => field.filled,
            "empty" => field.empty,
            _ => field.absent,
        };
        let object = object(field.kind, &format!("{side}-{index}"), spec);
        writeln!(all, "---\n{}", serde_json::to_string(&object).unwrap()).unwrap();
        all
    })
}

#[tokio::test]
async fn a_way_to_log_in_can_be_exchanged_for_another() {
    let cluster = Cluster::shared().await;
    for (side, apply) in [("server", &["apply", "--server-side", "-f", "-"][..]), ("client", &["apply", "-f", "-"][..])]
    {
        let ways = [
            "ambient: {}",
            "accessKey: {secretName: key}",
            "assumeRole: {roleArn: 'arn:aws:iam::123456789012:role/a'}",
            "ambient: {}",
        ];
        for way in ways {
            let registry = object(
                "EcrRegistry",
                &format!("exchanged-{side}"),
                &format!("identity: {{{way}}}, push: {{identity: {{{way}}}}}"),
            );
            let applied = cluster.kubectl(apply, &serde_json::to_string(&registry).unwrap()).await;
            assert!(applied.ok, "{side}-side, {way}: {}", applied.text);
        }
        cluster.kubectl(&["delete", "ecrreg", &format!("exchanged-{side}")], "").await;
    }
}

#[tokio::test]
async fn defaults_are_written_out_and_nothing_else_is() {
    let client = Cluster::shared().await.client().await;
    let expected = [
        ("EcrRepository", "", json!({"registryRef": {"name": "default"}, "adoptionPolicy": "Deny", "mode": "Apply"})),
        ("EcrRegistry", "", json!({"region": "eu-west-1", "mode": "Apply"})),
        (
            "EcrRegistry",
            "pull: {}",
            json!({"region": "eu-west-1", "mode": "Apply", "pull": {"scopeTokens": "Required", "whenNotAllowed": "Keep"}}),
        ),
        ("EcrRegistry", "defaults: {}", json!({"region": "eu-west-1", "mode": "Apply", "defaults": {}})),
        ("EcrPullSecret", "", json!({"access": "Pull", "format": "DockerConfigJson", "mergePolicy": "Own"})),
        (
            "ClusterEcrPullSecret",
            "registries: [{}]",
            json!({
                "access": "Pull", "format": "DockerConfigJson", "mergePolicy": "Own",
                "namespaceSelector": {}, "registries": [{}],
            }),
        ),
    ];
    for (kind, spec, expected) in expected {
        let dry = PostParams { dry_run: true, ..PostParams::default() };
        let created = objects(&client, kind).create(&dry, &object(kind, "defaulted", spec)).await.unwrap();
        assert_eq!(created.data["spec"], expected, "{kind} {spec}");
    }
}
