//! The chart grants what the operator uses, and nothing else. The API servers of the other tests recorded what it asked
//! for while it ran under the chart's roles (`ECR_OPERATOR_TEST_AUDIT`); here that is compared with what the chart renders.
#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]
#![expect(clippy::print_stdout, reason = "the list of rights is worth a look")]

use std::collections::BTreeMap;
use std::fmt;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::Command;

use k8s_openapi::api::rbac::v1::PolicyRule;
use serde::Deserialize;
use serde_json::Value;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// Stands for names that an installation lists: whichever the tests had.
const ANY_NAME: &str = "any-name";

/// One line of an audit log.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    verb: String,
    #[serde(default)]
    object_ref: Option<Object>,
    #[serde(default)]
    response_status: Status,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Deserialize, Default)]
struct Status {
    #[serde(default)]
    code: u16,
}

#[derive(Deserialize, Clone, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "camelCase", default)]
struct Object {
    api_group: String,
    resource: String,
    subresource: String,
    namespace: String,
    name: String,
}

impl Default for Object {
    fn default() -> Self {
        let none = String::new;
        Self { api_group: none(), resource: none(), subresource: none(), namespace: none(), name: none() }
    }
}

impl Object {
    fn kind(&self) -> String {
        let parts = [self.resource.as_str(), self.subresource.as_str()];
        parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/")
    }
}

/// One verb on one resource, as a role of the chart has it.
struct Right {
    group: String,
    resource: String,
    verb: String,
    /// Empty: any.
    names: Vec<String>,
    /// Empty: all.
    namespace: String,
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dot = if self.group.is_empty() { "" } else { "." };
        write!(f, "{} {}{dot}{}", self.verb, self.resource, self.group)?;
        if !self.names.is_empty() {
            write!(f, " named {}", self.names.join(", "))?;
        }
        if self.namespace.is_empty() { Ok(()) } else { f.write_str(" (Role)") }
    }
}

impl Right {
    /// Whether this right was what allowed the request. Where a Role is, an installation chooses.
    fn covers(&self, verb: &str, object: &Object) -> bool {
        let named = |name: &String| *name == object.name || (name == ANY_NAME && !object.name.is_empty());
        self.verb == verb
            && self.group == object.api_group
            && self.resource == object.kind()
            && (self.names.is_empty() || self.names.iter().any(named))
            && (self.namespace.is_empty() || !object.namespace.is_empty())
    }
}

/// Everything that the chart can grant.
fn granted() -> Vec<Right> {
    let tools = Command::new(format!("{ROOT}/deploy/local/cluster")).args(["tools", "--control-plane-only"]).output();
    let tools = String::from_utf8(tools.unwrap().stdout).unwrap();
    let rendered = Command::new(Path::new(tools.trim()).join("helm"))
        .args(["template", "ecr-operator", &format!("{ROOT}/charts/ecr-operator")])
        .args(["--show-only", "templates/rbac.yaml", "--set", "restartStuckPods.enabled=true"])
        .args(["--set", &format!("accessKeySecrets={{{ANY_NAME}}}")])
        .args(["--set", &format!("serviceAccountTokens[0].namespace=x,serviceAccountTokens[0].names={{{ANY_NAME}}}")])
        .output()
        .unwrap();
    assert!(rendered.status.success(), "{}", String::from_utf8_lossy(&rendered.stderr));
    let text = String::from_utf8(rendered.stdout).unwrap();
    let mut rights = Vec::new();
    for document in serde_saphyr::from_multiple::<Value>(&text).unwrap() {
        let namespace = if document["kind"] == "Role" { "x" } else { "" };
        let rules = document.get("rules").cloned().unwrap_or_else(|| Value::Array(Vec::new()));
        for rule in serde_json::from_value::<Vec<PolicyRule>>(rules).unwrap() {
            for group in rule.api_groups.iter().flatten() {
                for resource in rule.resources.iter().flatten() {
                    for verb in &rule.verbs {
                        let names = rule.resource_names.clone().unwrap_or_default();
                        let (group, resource, verb) = (group.clone(), resource.clone(), verb.clone());
                        rights.push(Right { group, resource, verb, names, namespace: namespace.to_owned() });
                    }
                }
            }
        }
    }
    rights
}

/// What was asked, whether it was allowed, and how often.
fn asked() -> BTreeMap<(String, Object, bool), usize> {
    let records = std::env::var("ECR_OPERATOR_TEST_AUDIT").unwrap_or_else(|_| format!("{ROOT}/target/audit"));
    let mut asked = BTreeMap::new();
    for file in std::fs::read_dir(&records).unwrap() {
        let file = std::fs::File::open(file.unwrap().path()).unwrap();
        for line in BufReader::new(file).lines() {
            // The last line of an API server that was ended may be half of one.
            let Ok(event) = serde_json::from_str::<Event>(&line.unwrap()) else { continue };
            let Some(object) = event.object_ref else { continue };
            let allowed = event.annotations.get("authorization.k8s.io/decision").is_some_and(|it| it == "allow");
            // What server-side apply creates takes the right to do so as well, which no event of its own tells.
            if event.verb == "patch" && event.response_status.code == 201 {
                *asked.entry(("create".to_owned(), object.clone(), allowed)).or_default() += 1;
            }
            *asked.entry((event.verb, object, allowed)).or_default() += 1;
        }
    }
    assert!(!asked.is_empty(), "nothing was recorded in {records}: run deploy/local/test cluster first");
    asked
}

#[test]
#[ignore = "compares what the other tests recorded: deploy/local/test cluster rights"]
fn the_chart_grants_what_the_operator_uses_and_nothing_else() {
    let asked = asked();
    let mut unused = Vec::new();
    println!("{} requests of the operator; of what the chart grants it used:", asked.values().sum::<usize>());
    let granted = granted();
    for right in &granted {
        let uses = asked.iter().filter(|((verb, object, allowed), _)| *allowed && right.covers(verb, object));
        let times: usize = uses.map(|(_, times)| times).sum();
        println!("{times:>8} × {right}");
        if times == 0 {
            unused.push(right.to_string());
        }
    }
    // An API server that has just started refuses all until it has read its roles, and some tests leave a role out on purpose:
    // what the chart can grant isn't meant.
    let is_granted = |verb: &str, object: &Object| granted.iter().any(|right| right.covers(verb, object));
    let refused = asked.keys().filter(|(verb, object, allowed)| !allowed && !is_granted(verb, object));
    let mut refused: Vec<_> = refused.map(|(verb, object, _)| format!("{verb} {}", object.kind())).collect();
    refused.dedup();
    assert!(unused.is_empty(), "granted and never used: {unused:#?}");
    assert!(refused.is_empty(), "asked for and not granted: {refused:#?}");
}
