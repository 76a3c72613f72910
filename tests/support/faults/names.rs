//! What a request is called in logs and plans, and how an operator's view is narrowed to one world.

use hyper::body::Bytes;
use hyper::http::request::Parts;
use serde_json::Value;

use super::Side;

/// The namespaces of one world; the first is its own, and the name of its cluster-scoped objects.
#[derive(Debug, Clone)]
pub struct Scope {
    namespaces: Vec<String>,
    /// Whether the operator has the API server for itself.
    whole: bool,
}

impl Scope {
    /// Of `own`, with more namespaces that a selector of this world is about.
    pub fn new(own: &str, more: Vec<String>) -> Self {
        Self { namespaces: [vec![own.to_owned()], more].concat(), whole: false }
    }

    /// All that there is: for one world that is alone on its API server.
    pub fn whole(own: &str) -> Self {
        Self { whole: true, ..Self::new(own, Vec::new()) }
    }

    /// What its files are called.
    pub fn name(&self) -> &str {
        self.own()
    }

    fn own(&self) -> &str {
        &self.namespaces[0]
    }

    /// `text` as any other world would have it.
    pub fn anonymous(&self, text: &str) -> String {
        text.replace(self.own(), "{ns}")
    }

    /// Path and query of the API server: of collections over the whole cluster, only this world's part. Without it, each
    /// operator of a hundred worlds on one API server would work on all of them.
    pub fn narrow(&self, path_and_query: &str) -> String {
        if self.whole {
            return path_and_query.to_owned();
        }
        let (path, query) = path_and_query.split_once('?').unwrap_or((path_and_query, ""));
        let (base, collection) = path.rsplit_once('/').unwrap_or_default();
        let only = |selector: String| format!("{path}?{query}&{selector}");
        let within = || format!("{base}/namespaces/{}/{collection}?{query}", self.own());
        match (base, collection) {
            ("/apis/ecr-operator.dev/v1alpha1", "ecrrepositories" | "ecrpullsecrets") => within(),
            ("/api/v1", "secrets" | "serviceaccounts") if self.namespaces.len() == 1 => within(),
            ("/apis/ecr-operator.dev/v1alpha1", _) => only(format!("fieldSelector=metadata.name%3D{}", self.own())),
            ("/api/v1", "namespaces") => {
                only(format!("labelSelector=kubernetes.io%2Fmetadata.name%20in%20({})", self.namespaces.join("%2C")))
            }
            _ => path_and_query.to_owned(),
        }
    }
}

/// Whether it is a watch, which never ends by itself.
pub fn is_watch(parts: &Parts) -> bool {
    parts.uri.query().is_some_and(|query| query.split('&').any(|pair| pair == "watch=true" || pair == "watch=1"))
}

/// The name of a request: the same in each run of the same story, and never anything secret.
pub fn name(side: Side, scope: &Scope, parts: &Parts, body: &Bytes) -> String {
    scope.anonymous(&match side {
        Side::Kubernetes => kubernetes(scope, parts),
        Side::Aws => aws(parts, body),
    })
}

/// `PATCH ecrrepositories/app/status`, `LIST secrets`.
fn kubernetes(scope: &Scope, parts: &Parts) -> String {
    let path = parts.uri.path();
    let path = path.strip_prefix("/api/v1/").unwrap_or_else(|| path.splitn(5, '/').last().unwrap_or(path));
    let own = format!("namespaces/{}/", scope.own());
    let path = path.strip_prefix(&own).or_else(|| path.strip_prefix("namespaces/")).unwrap_or(path);
    let several = parts.method == "GET" && parts.uri.query().is_some_and(|query| query.contains("limit="));
    let verb = if is_watch(parts) {
        "WATCH"
    } else if several {
        "LIST"
    } else {
        parts.method.as_str()
    };
    format!("{verb} {path}")
}

/// `CreateRepository app`, `GetCallerIdentity`.
fn aws(parts: &Parts, body: &Bytes) -> String {
    let target = parts.headers.get("x-amz-target").and_then(|target| target.to_str().ok()?.rsplit('.').next());
    let Some(operation) = target else {
        let text = String::from_utf8_lossy(body);
        let action = text.split('&').find_map(|pair| pair.strip_prefix("Action="));
        return action.unwrap_or_else(|| parts.uri.path()).to_owned();
    };
    let request: Value = serde_json::from_slice(body).unwrap_or_default();
    let about = ["repositoryName", "resourceArn"].iter().find_map(|key| request[key].as_str());
    about.map_or_else(
        || operation.to_owned(),
        |about| format!("{operation} {}", about.rsplit('/').next().unwrap_or(about)),
    )
}

/// To whom a request of this name goes.
pub fn side(name: &str) -> Side {
    let verbs = ["GET ", "LIST ", "WATCH ", "POST ", "PUT ", "PATCH ", "DELETE "];
    if verbs.iter().any(|verb| name.starts_with(verb)) { Side::Kubernetes } else { Side::Aws }
}

/// Whether a request of this name changes something.
pub fn writes(side: Side, name: &str) -> bool {
    let reads: &[&str] = match side {
        Side::Kubernetes => &["GET ", "LIST ", "WATCH "],
        Side::Aws => &["Get", "Describe", "List", "Batch", "Assume"],
    };
    !reads.iter().any(|read| name.starts_with(read))
}
