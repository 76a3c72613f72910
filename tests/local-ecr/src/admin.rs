//! The test interface over HTTP, under `/_local/`: what [`crate::LocalEcr`] offers in process, for other processes.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Response, StatusCode};
use jiff::Timestamp;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::calls::{self, Call};
use crate::control;
use crate::model::PageQuirks;
use crate::model::policy::ReadBack;
use crate::ops::pod_identity;
use crate::seed;
use crate::server::json as respond;
use crate::shared::Shared;
use crate::wire::jwt::WebIdentity;
use crate::{ADMIN_PREFIX, lock};

type Outcome = Result<Value, (StatusCode, String)>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Lifetime {
    seconds: f64,
    account: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Seconds {
    seconds: Option<f64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Flag {
    value: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PutImage {
    account: Option<String>,
    region: Option<String>,
    repository: String,
    #[serde(default)]
    tags: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Role {
    arn: String,
}

/// What `GET calls` selects, as query parameters.
#[derive(Default)]
struct Query {
    service: Option<String>,
    operation: Option<String>,
    resource: Option<String>,
    /// Wait until there are so many.
    at_least: usize,
    /// …but no longer than so many seconds.
    timeout: Duration,
}

pub(crate) async fn handle(shared: &Shared, request: &Parts, body: &Bytes) -> Response<Bytes> {
    let path = request.uri.path().strip_prefix(ADMIN_PREFIX).unwrap_or_default();
    let outcome = match (&request.method, path) {
        (&Method::GET, "calls") => Ok(select_calls(shared, request.uri.query().unwrap_or_default()).await),
        (&Method::GET, "pod-identity") => pod_identity(shared, request),
        _ => act(shared, &request.method, path, body),
    };
    match outcome {
        Ok(answer) => respond(StatusCode::OK, &answer),
        Err((status, error)) => respond(status, &json!({"error": error})),
    }
}

async fn select_calls(shared: &Shared, query: &str) -> Value {
    let mut wanted = Query::default();
    for (key, value) in form_urlencoded::parse(query.as_bytes()) {
        match key.as_ref() {
            "service" => wanted.service = Some(value.into_owned()),
            "operation" => wanted.operation = Some(value.into_owned()),
            "resource" => wanted.resource = Some(value.into_owned()),
            "atLeast" => wanted.at_least = value.parse().unwrap_or(0),
            "timeout" => {
                wanted.timeout = Duration::from_secs_f64(value.parse::<f64>().unwrap_or(0.0).clamp(0.0, 600.0));
            }
            _ => {}
        }
    }
    let fits = |want: &Option<String>, is: &str| want.as_deref().is_none_or(|want| want == is);
    let found = shared.calls.wait(wanted.at_least, wanted.timeout, |call| {
        fits(&wanted.service, &call.service)
            && fits(&wanted.operation, &call.operation)
            && fits(&wanted.resource, &call.resource)
    });
    json!(found.await)
}

/// The one address here that speaks AWS's language: the agent of EKS Pod Identity.
fn pod_identity(shared: &Shared, request: &Parts) -> Outcome {
    let now = shared.clock.now();
    let token = request.headers.get(http::header::AUTHORIZATION).and_then(|token| token.to_str().ok());
    let identity = WebIdentity::parse(token.unwrap_or_default(), Timestamp::now());
    let answer = identity.and_then(|identity| {
        let found = pod_identity::credentials(&mut lock(&shared.model), &identity, now);
        found.map(|(credentials, role)| (credentials, role, identity.subject))
    });
    let (outcome, role, subject) = match &answer {
        Ok((_, role, subject)) => (calls::Outcome::Ok, role.clone(), subject.clone()),
        Err(error) => (calls::Outcome::Error(error.code.to_string()), String::new(), String::new()),
    };
    shared.calls.push(Call {
        at: now,
        service: "eks-auth".to_owned(),
        operation: "AssumeRoleForPodIdentity".to_owned(),
        account: role.split(':').nth(4).unwrap_or_default().to_owned(),
        region: shared.region.clone(),
        access_key: String::new(),
        principal: subject,
        resource: role,
        outcome,
        request: json!({}),
    });
    answer.map(|(credentials, ..)| credentials).map_err(|error| {
        let status = StatusCode::from_u16(error.status).unwrap_or(StatusCode::BAD_REQUEST);
        (status, error.to_string())
    })
}

fn act(shared: &Shared, method: &Method, path: &str, body: &[u8]) -> Outcome {
    let mut model = lock(&shared.model);
    match (method, path) {
        (&Method::GET, "health") => {}
        (&Method::GET, "repositories") => {
            drop(model);
            return Ok(json!(control::repositories(shared)));
        }
        (&Method::DELETE, "calls") => shared.calls.clear(),
        (&Method::DELETE, "faults") => lock(&shared.faults).clear(),
        (&Method::POST, "faults") => lock(&shared.faults).add(parse(body)?),
        (&Method::POST, "rate-limits") => lock(&shared.faults).limit(parse(body)?),
        (&Method::POST, "down") => shared.down.store(parse::<Flag>(body)?.value, Ordering::Relaxed),
        (&Method::POST, "advance") => {
            shared.clock.advance(seconds(parse::<Seconds>(body)?.seconds)?.unwrap_or_default());
        }
        (&Method::POST, "token-lifetime") => {
            let wish: Lifetime = parse(body)?;
            let lifetime = seconds(Some(wish.seconds))?.unwrap_or_default();
            match wish.account {
                Some(account) => _ = model.settings.token_lifetime_of_account.insert(account, lifetime),
                None => model.settings.token_lifetime = lifetime,
            }
        }
        (&Method::POST, "session-lifetime") => {
            model.settings.session_lifetime = seconds(parse::<Seconds>(body)?.seconds)?;
        }
        (&Method::POST, "tokens-end-with-session") => {
            model.settings.tokens_end_with_session = parse::<Flag>(body)?.value;
        }
        (&Method::POST, "consistency-delay") => {
            model.settings.consistency_delay = seconds(parse::<Seconds>(body)?.seconds)?.unwrap_or_default();
        }
        (&Method::POST, "read-back") => model.settings.read_back = parse::<ReadBack>(body)?,
        (&Method::POST, "page-quirks") => model.settings.page_quirks = parse::<PageQuirks>(body)?,
        (&Method::POST, "known-roles") => {
            model.identities.known_elsewhere.insert(parse::<Role>(body)?.arn);
        }
        (&Method::POST, "seed") => {
            drop(model);
            control::seed_into(shared, &parse(body)?).map_err(|error| refuse(&error))?;
        }
        (&Method::POST, "put-image") => {
            let put: PutImage = parse(body)?;
            let account = put.account.as_deref().unwrap_or(&shared.account);
            let region = put.region.as_deref().unwrap_or(&shared.region);
            let now = shared.clock.now();
            let digest = seed::put_image(&mut model, account, region, &put.repository, &put.tags, now);
            return digest.map(|digest| json!({"imageDigest": digest})).map_err(|error| refuse(&error));
        }
        _ => return Err((StatusCode::NOT_FOUND, format!("no {method} {path} here"))),
    }
    Ok(json!({}))
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, (StatusCode, String)> {
    serde_json::from_slice(body).map_err(|error| refuse(&error))
}

fn seconds(seconds: Option<f64>) -> Result<Option<Duration>, (StatusCode, String)> {
    seconds.map(Duration::try_from_secs_f64).transpose().map_err(|error| refuse(&error))
}

fn refuse(error: &dyn std::fmt::Display) -> (StatusCode, String) {
    (StatusCode::BAD_REQUEST, error.to_string())
}
