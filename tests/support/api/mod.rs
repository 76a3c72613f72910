//! Tries objects of our kinds on the API server: what it takes, and what it says when it doesn't.

use ecr_operator::api::{ClusterEcrPullSecret, EcrPullSecret, EcrRegistry, EcrRepository, SUSPEND};
use futures::StreamExt as _;
use kube::api::{Api, PostParams};
use kube::core::{ApiResource, DynamicObject};
use kube::{Client, CustomResourceExt as _, Error, ResourceExt as _};
use serde_json::{Map, Value, json};

use super::cluster::Cluster;

/// A rule: objects that keep it and objects that break it, as the YAML of their specs.
pub struct Rule {
    name: String,
    good: Vec<String>,
    bad: Vec<Bad>,
}

struct Bad {
    spec: String,
    /// Where the API server sees the fault.
    path: String,
    /// Part of what it says.
    message: String,
}

/// A rule to be filled.
pub fn rule(name: &str) -> Rule {
    Rule { name: name.to_owned(), good: Vec::new(), bad: Vec::new() }
}

impl Rule {
    /// A spec that keeps it.
    pub fn good(mut self, spec: impl Into<String>) -> Self {
        self.good.push(spec.into());
        self
    }

    /// A spec that breaks it, and is refused so.
    pub fn bad(mut self, spec: impl Into<String>, path: &str, message: &str) -> Self {
        self.bad.push(Bad { spec: spec.into(), path: path.to_owned(), message: message.to_owned() });
        self
    }

    /// The same rule for the fields below `field`.
    pub fn below(mut self, field: &str) -> Self {
        let nest = |spec: &str| format!("{field}: {{{spec}}}");
        self.good = self.good.iter().map(|spec| nest(spec)).collect();
        for bad in &mut self.bad {
            bad.spec = nest(&bad.spec);
            bad.path = bad.path.replacen("spec", &format!("spec.{field}"), 1);
        }
        self
    }
}

/// A kind of ours.
pub fn resource(kind: &str) -> ApiResource {
    match kind {
        "EcrRegistry" => EcrRegistry::api_resource(),
        "EcrRepository" => EcrRepository::api_resource(),
        "EcrPullSecret" => EcrPullSecret::api_resource(),
        "ClusterEcrPullSecret" => ClusterEcrPullSecret::api_resource(),
        _ => unreachable!("{kind} is no kind of ours"),
    }
}

/// The objects of a kind; of `default` where it is namespaced.
pub fn objects(client: &Client, kind: &str) -> Api<DynamicObject> {
    match kind {
        "EcrRepository" | "EcrPullSecret" => Api::namespaced_with(client.clone(), "default", &resource(kind)),
        _ => Api::all_with(client.clone(), &resource(kind)),
    }
}

/// An object with this spec, over what its kind can't do without. `%N%` in it stands for N letters. It is suspended: an
/// operator that runs for other tests leaves it alone.
pub fn object(kind: &str, name: &str, spec: &str) -> DynamicObject {
    let mut all = match kind {
        "EcrRegistry" => json!({"region": "eu-west-1"}),
        "ClusterEcrPullSecret" => json!({"namespaceSelector": {}}),
        _ => json!({}),
    };
    let parts: Vec<_> = spec.split('%').collect();
    let expand = |(index, part): (usize, &&str)| match index % 2 {
        0 => (*part).to_owned(),
        _ => "a".repeat(part.parse().expect("a number of letters between % and %")),
    };
    let text = parts.iter().enumerate().map(expand).collect::<String>();
    let given: Map<String, Value> = serde_saphyr::from_str(&format!("{{{text}}}")).expect(spec);
    all.as_object_mut().unwrap().extend(given);
    let mut object = DynamicObject::new(name, &resource(kind)).data(json!({"spec": all}));
    object.annotations_mut().insert(SUSPEND.to_owned(), "true".to_owned());
    object
}

/// Tries all objects of all rules without creating any, and fails with a list of those that were judged wrongly.
pub async fn try_all(kind: &'static str, rules: Vec<Rule>) {
    let client = Cluster::shared().await.client().await;
    let api = objects(&client, kind);
    let judge = |rule: Rule| {
        let api = api.clone();
        async move { wrongs(&api, kind, &rule).await }
    };
    let wrongs: Vec<_> = futures::stream::iter(rules).map(judge).buffer_unordered(8).concat().await;
    assert!(wrongs.is_empty(), "{}", wrongs.join("\n"));
}

async fn wrongs(api: &Api<DynamicObject>, kind: &str, rule: &Rule) -> Vec<String> {
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    let mut wrongs = Vec::new();
    for spec in &rule.good {
        if let Err(error) = api.create(&dry, &object(kind, "tried", spec)).await {
            wrongs.push(format!("{kind}, {}: {spec} was refused: {error}", rule.name));
        }
    }
    for bad in &rule.bad {
        let answer = api.create(&dry, &object(kind, "tried", &bad.spec)).await;
        wrongs.extend(
            misjudged(answer, &bad.path, &bad.message).map(|how| format!("{kind}, {}: {} {how}", rule.name, bad.spec)),
        );
    }
    wrongs
}

/// How an answer differs from a refusal for one fault, there, in these words.
pub fn misjudged(answer: Result<DynamicObject, Error>, path: &str, message: &str) -> Option<String> {
    let status = match answer {
        Ok(_) => return Some("was accepted".to_owned()),
        Err(Error::Api(status)) => status,
        Err(error) => return Some(format!("was not judged: {error}")),
    };
    let causes = status.details.iter().flat_map(|details| &details.causes);
    // The API server's remark that CEL wasn't looked at.
    let causes: Vec<_> =
        causes.filter(|cause| !cause.message.contains("some validation rules were not checked")).collect();
    let fits = causes.iter().all(|cause| cause.field == path && cause.message.contains(message));
    (causes.len() != 1 || !fits)
        .then(|| format!("should be refused at {path} with {message:?}, but: {}", status.message))
}
