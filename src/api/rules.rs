//! Validation that several fields share: CEL rules, patterns, and what every schema gets at the end.
//!
//! What a person writes by hand is checked by CEL, whose messages say what to do; items of long lists are checked by
//! patterns, because CEL's estimated cost multiplies with the length of the list. The API server reports no CEL message
//! as long as a pattern, length or enum is violated.

use schemars::{Schema, SchemaGenerator, json_schema};
use serde::Serialize;
use serde_json::Value;

/// A CEL rule with the message that a user reads.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Rule {
    rule: &'static str,
    message: &'static str,
}

/// A CEL rule with the message that a user reads.
pub(super) const fn rule(rule: &'static str, message: &'static str) -> Rule {
    Rule { rule, message }
}

/// ECR's `RepositoryName` (service model of 2026).
pub(super) const REPOSITORY_NAME: Rule = rule(
    r"self.matches('^([a-z0-9]+((\\.|_|__|-+)[a-z0-9]+)*/)*[a-z0-9]+((\\.|_|__|-+)[a-z0-9]+)*$')",
    "must be an ECR repository name: parts of lower-case letters and digits joined by one '.', '_', '__' or any run of '-', with '/' between groups of parts, as in team-a/app",
);
/// Regions of all partitions, such as `eu-west-1`, `us-gov-west-1`, `eusc-de-east-1`.
pub(super) const REGION: Rule =
    rule(r"self.matches('^[a-z]{2,4}(-[a-z]+)+-[0-9]{1,2}$')", "must be an AWS Region such as eu-west-1");
/// AWS account ids.
pub(super) const ACCOUNT_ID: Rule =
    rule(r"self.matches('^[0-9]{12}$')", "must be an AWS account id of 12 digits; write it in quotes");
/// ARNs of roles, in any partition.
pub(super) const ROLE_ARN: Rule = rule(
    r"self.matches('^arn:aws(-[a-z]+)*:iam::[0-9]{12}:role/[!-)+-~]+$')",
    "must be the ARN of an IAM role, as in arn:aws:iam::123456789012:role/NAME (a role session, arn:aws:sts::…:assumed-role/…, isn't one)",
);
/// What is most often mistaken for one, in a list.
pub(super) const NO_ROLE_SESSIONS: Rule = rule(
    "self.all(arn, !arn.contains(':assumed-role/'))",
    "arn:aws:sts::…:assumed-role/ROLE/SESSION is a session, which ends; name its role, as in arn:aws:iam::123456789012:role/ROLE",
);
/// Names of most Kubernetes objects (DNS-1123 subdomain).
pub(super) const OBJECT_NAME: Rule = rule(
    r"self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')",
    "must be the name of a Kubernetes object: lower-case letters, digits, '-' and '.', beginning and ending with a letter or digit",
);
/// Names of namespaces (DNS-1123 label).
pub(super) const NAMESPACE_NAME: Rule = rule(
    r"self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",
    "must be the name of a namespace: lower-case letters, digits and '-', beginning and ending with a letter or digit",
);
/// Keys of ConfigMaps and Secrets.
pub(super) const DATA_KEY: Rule = rule(
    r"self.matches('^[-._a-zA-Z0-9]+$') && self != '.' && self != '..'",
    "must be a key as ConfigMaps and Secrets take: letters, digits, '-', '_' and '.'",
);
/// Keys of labels.
pub(super) const LABEL_KEY: Rule = rule(
    r"self.matches('^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$')",
    METADATA_KEYS[0].message,
);
/// A JSON document in a string.
pub(super) const JSON_OBJECT: Rule =
    rule("self.trim().startsWith('{') && self.trim().endsWith('}')", "must be a JSON object: { … }");
/// Mutability and its filters are one setting.
pub(super) const EXCLUSION_FILTERS: Rule = rule(
    "has(self.imageTagMutability) && self.imageTagMutability.endsWith('_WITH_EXCLUSION') ? has(self.imageTagMutabilityExclusionFilters) : !has(self.imageTagMutabilityExclusionFilters)",
    "imageTagMutabilityExclusionFilters goes with imageTagMutability MUTABLE_WITH_EXCLUSION or IMMUTABLE_WITH_EXCLUSION, and these need it: set both or neither",
);

/// AWS account ids in lists.
pub(super) const ACCOUNT_ID_PATTERN: &str = "^[0-9]{12}$";
/// Regions in lists.
pub(super) const REGION_PATTERN: &str = "^[a-z]{2,4}(-[a-z]+)+-[0-9]{1,2}$";
/// ARNs of roles in lists, and of their sessions, which [`NO_ROLE_SESSIONS`] then refuses in words.
pub(super) const ROLE_ARN_PATTERN: &str =
    "^arn:aws(-[a-z]+)*:(iam::[0-9]{12}:role|sts::[0-9]{12}:assumed-role)/[!-)+-~]+$";
/// Names of repositories in which `*` stands for any run of characters.
pub(super) const REPOSITORY_GLOB_PATTERN: &str = r"^[a-z0-9._/*-]+$";
/// The same with `{namespace}` for the name of a namespace.
pub(super) const REPOSITORY_TEMPLATE_PATTERN: &str = r"^([a-z0-9._/*-]|\{namespace\})+$";
/// Names of namespaces in which `*` stands for any run of characters.
pub(super) const NAMESPACE_GLOB_PATTERN: &str = "^[a-z0-9*]([-a-z0-9*]*[a-z0-9*])?$";

/// Values of labels.
pub(super) const LABEL_VALUE_PATTERN: &str = "^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$";

/// What AWS takes as the value of a tag.
const TAG_VALUE_PATTERN: &str = r"^[\p{L}\p{Z}\p{N}_.:/=+\-@]*$";
/// The same with the placeholders of `requiredTags`.
const TAG_TEMPLATE_PATTERN: &str = r"^([\p{L}\p{Z}\p{N}_.:/=+\-@]|\{namespace\}|\{name\})*$";

const TAG_KEYS: [Rule; 3] = [
    rule("self.all(key, key.size() >= 1 && key.size() <= 128)", "a tag's key has 1 to 128 characters"),
    rule(
        "self.all(key, !key.lowerAscii().startsWith('aws:') && !key.startsWith('ecr-operator.dev/'))",
        "tags that begin with aws: or ecr-operator.dev/ are reserved; choose another key",
    ),
    rule(
        r"self.all(key, key.matches('^[\\p{L}\\p{Z}\\p{N}_.:/=+\\-@]*$'))",
        "a tag's key takes letters, digits, spaces and _ . : / = + - @",
    ),
];

/// AWS tags of a repository. ECR keeps 50; four are the operator's own.
pub(super) fn tags(_: &mut SchemaGenerator) -> Schema {
    tags_with(46, TAG_VALUE_PATTERN)
}

/// AWS tags whose values may hold placeholders.
pub(super) fn tag_templates(_: &mut SchemaGenerator) -> Schema {
    tags_with(46, TAG_TEMPLATE_PATTERN)
}

/// Tags of a role session (STS takes 50).
pub(super) fn session_tags(_: &mut SchemaGenerator) -> Schema {
    tags_with(50, TAG_VALUE_PATTERN)
}

fn tags_with(most: u32, pattern: &str) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": most,
        "additionalProperties": {"type": "string", "maxLength": 256, "pattern": pattern},
        "x-kubernetes-validations": TAG_KEYS,
    })
}

/// Labels that are looked for.
pub(super) fn label_selector(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "minProperties": 1,
        "maxProperties": 32,
        "additionalProperties": {"type": "string", "maxLength": 63, "pattern": LABEL_VALUE_PATTERN},
        "x-kubernetes-validations": [METADATA_KEYS[0]],
    })
}

/// Labels of a Kubernetes object.
pub(super) fn labels(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 32,
        "additionalProperties": {
            "type": "string",
            "maxLength": 63,
            "pattern": LABEL_VALUE_PATTERN,
        },
        "x-kubernetes-validations": METADATA_KEYS,
    })
}

/// Annotations of a Kubernetes object.
pub(super) fn annotations(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 32,
        "additionalProperties": {"type": "string", "maxLength": 65_536},
        "x-kubernetes-validations": METADATA_KEYS,
    })
}

const METADATA_KEYS: [Rule; 2] = [
    rule(
        r"self.all(key, key.size() <= 317 && key.matches('^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$'))",
        "a key is a name of up to 63 letters, digits, '-', '_' and '.', with or without a DNS name and '/' before it",
    ),
    rule(
        "self.all(key, !key.startsWith('ecr-operator.dev/'))",
        "keys that begin with ecr-operator.dev/ are reserved; choose another key",
    ),
];

/// The data of a Secret, as templates.
pub(super) fn secret_data(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "minProperties": 1,
        "maxProperties": 32,
        "additionalProperties": {"type": "string", "maxLength": 65_536},
        "x-kubernetes-validations": [rule(
            r"self.all(key, key.size() >= 1 && key.size() <= 253 && key.matches('^[-._a-zA-Z0-9]+$') && key != '.' && key != '..')",
            DATA_KEY.message,
        )],
    })
}

/// A field of an IAM statement that is a string, a list or an object. A union isn't structural, so it has no type.
pub(super) fn any_json(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"x-kubernetes-preserve-unknown-fields": true})
}

/// Conditions merge by their type.
pub(super) fn conditions(generator: &mut SchemaGenerator) -> Schema {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
    let mut schema = generator.subschema_for::<Vec<Condition>>();
    schema.insert("x-kubernetes-list-type".into(), "map".into());
    schema.insert("x-kubernetes-list-map-keys".into(), ["type"].as_slice().into());
    schema
}

/// What every schema gets: null is nowhere a value (`has()` would be true for it), and maps and lists are replaced as a
/// whole (server-side apply makes null of a granular map that becomes empty; so does it of a granular object, and those
/// that may be empty say themselves that they are atomic). Descriptions are wrapped by whoever shows them.
pub(super) fn finish(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            members.remove("nullable");
            if let Some(Value::String(description)) = members.get_mut("description") {
                *description = description.replace('\n', " ");
            }
            if let Some(Value::Array(values)) = members.get_mut("enum") {
                values.retain(|value| !value.is_null());
            }
            if members.get("additionalProperties").is_some_and(Value::is_object) {
                members.entry("x-kubernetes-map-type").or_insert_with(|| "atomic".into());
            }
            if members.get("items").is_some_and(Value::is_object) {
                members.entry("x-kubernetes-list-type").or_insert_with(|| "atomic".into());
            }
            members.values_mut().for_each(finish);
        }
        Value::Array(items) => items.iter_mut().for_each(finish),
        _ => {}
    }
}
