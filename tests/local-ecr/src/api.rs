//! The AWS side: recognises a call, checks who signed it, plays the scripted faults, runs it and logs it.

use bytes::Bytes;
use http::Response;
use http::request::Parts;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::calls::{Call, Outcome};
use crate::error::ApiError;
use crate::faults::{self, Action, Subject};
use crate::model::identity::Caller;
use crate::ops::sts::{self, Form};
use crate::ops::{self, Context};
use crate::shared::Shared;
use crate::wire::answer::{self, Protocol};
use crate::wire::jwt::WebIdentity;
use crate::wire::query;
use crate::wire::sigv4::{Fault as SignatureFault, Signature};
use crate::{digest, lock};

/// What the caller gets.
#[derive(Debug)]
pub(crate) enum Reply<B> {
    Answer(Response<B>),
    /// The connection ends without an answer.
    Closed,
    /// Nothing, for as long as the caller waits.
    Silence,
}

/// A call as it came in, before anybody looked at who sent it.
struct Incoming {
    service: &'static str,
    protocol: Protocol,
    operation: String,
    members: Members,
}

enum Members {
    Json(Value),
    Form(Form),
}

/// Who calls, when that is known.
enum Who {
    Signed { caller: Box<Caller>, region: String },
    Web { identity: WebIdentity, account: String },
}

/// Prefixes of `X-Amz-Target`, and the names that the services sign with.
const TARGETS: [(&str, &str); 3] = [
    ("AmazonEC2ContainerRegistry_V20150921.", "ecr"),
    ("SpencerFrontendService.", "ecr-public"),
    ("ResourceGroupsTaggingAPI_20170126.", "tagging"),
];

pub(crate) async fn handle(shared: &Shared, request: &Parts, body: &Bytes) -> Reply<Bytes> {
    let now = shared.clock.now();
    let incoming = match recognise(request, body) {
        Ok(incoming) => incoming,
        Err((protocol, error)) => return Reply::Answer(answer::render(protocol, "", &Err(error))),
    };
    let who = identify(shared, request, body, &incoming, now);
    let mut call = Call {
        at: now,
        service: incoming.service.to_owned(),
        operation: incoming.operation.clone(),
        account: String::new(),
        region: String::new(),
        access_key: String::new(),
        principal: String::new(),
        resource: incoming.members.resource(),
        outcome: Outcome::Ok,
        request: incoming.members.logged(),
    };
    match &who {
        Ok(Who::Signed { caller, region }) => {
            call.account.clone_from(&caller.account);
            call.region.clone_from(region);
            call.access_key.clone_from(&caller.access_key);
            call.principal.clone_from(&caller.arn);
        }
        Ok(Who::Web { identity, account }) => {
            call.account.clone_from(account);
            call.principal.clone_from(&identity.subject);
        }
        Err(_) => {}
    }
    let (reply, outcome) = match who {
        Err(error) => {
            let outcome = Outcome::Error(error.code.to_string());
            (Reply::Answer(answer::render(incoming.protocol, &incoming.operation, &Err(error))), outcome)
        }
        Ok(who) => play(shared, incoming, who, &call).await,
    };
    call.outcome = outcome;
    shared.calls.push(call);
    reply
}

/// Runs the call under the scripted faults.
async fn play(shared: &Shared, incoming: Incoming, who: Who, call: &Call) -> (Reply<Bytes>, Outcome) {
    let subject = Subject {
        service: incoming.service,
        operation: &incoming.operation,
        resource: &call.resource,
        account: &call.account,
        region: &call.region,
    };
    let verdict = lock(&shared.faults).judge(&subject);
    if !verdict.delay.is_zero() {
        tokio::time::sleep(verdict.delay).await;
    }
    let (protocol, operation) = (incoming.protocol, incoming.operation.clone());
    let told = |answer: Result<Value, ApiError>| {
        let outcome = match &answer {
            Ok(_) => Outcome::Ok,
            Err(error) => Outcome::Error(error.code.to_string()),
        };
        (Reply::Answer(answer::render(protocol, &operation, &answer)), outcome)
    };
    match verdict.action {
        Some(Action::Before { code, status }) => return told(Err(faults::scripted(&code, status))),
        Some(Action::Cut) => return (Reply::Closed, Outcome::Cut),
        _ => {}
    }
    let answer = run(shared, incoming, who);
    match verdict.action {
        Some(Action::After { code, status }) => {
            let outcome = if answer.is_ok() { Outcome::Lost } else { Outcome::Error(code.clone()) };
            (told(Err(faults::scripted(&code, status))).0, outcome)
        }
        Some(Action::Lost) => (Reply::Closed, Outcome::Lost),
        Some(Action::Hang) => (Reply::Silence, Outcome::Lost),
        Some(Action::Body { status, body }) => (Reply::Answer(answer::raw(protocol, status, &body)), Outcome::Lost),
        _ => told(answer),
    }
}

fn run(shared: &Shared, incoming: Incoming, who: Who) -> Result<Value, ApiError> {
    let now = shared.clock.now();
    let mut model = lock(&shared.model);
    match (who, incoming.members) {
        (Who::Web { identity, .. }, Members::Form(form)) => {
            sts::assume_role_with_web_identity(&mut model, &form, &identity, now)
        }
        (Who::Signed { caller, region }, members) => {
            let mut cx = Context { model: &mut model, caller: &caller, region: &region, now };
            match (incoming.service, members) {
                ("ecr", Members::Json(body)) => ops::ecr(&mut cx, &incoming.operation, body),
                ("ecr-public", Members::Json(_)) if incoming.operation == "GetAuthorizationToken" => {
                    ops::registry::public_authorization_token(&mut cx)
                }
                ("tagging", Members::Json(body)) if incoming.operation == "GetResources" => {
                    ops::tagging::get_resources(&mut cx, ops::decode(body)?)
                }
                (_, Members::Json(_)) => Err(ops::unknown_operation(&incoming.operation)),
                (_, Members::Form(form)) => sts::run(&mut cx, &incoming.operation, &form),
            }
        }
        (Who::Web { .. }, Members::Json(_)) => Err(ops::unknown_operation(&incoming.operation)),
    }
}

fn recognise(request: &Parts, body: &[u8]) -> Result<Incoming, (Protocol, ApiError)> {
    let header = |name: &str| request.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if let Some((service, operation)) =
        TARGETS.iter().find_map(|(prefix, service)| Some((*service, header("x-amz-target").strip_prefix(prefix)?)))
    {
        let json: Value = if body.is_empty() { Ok(json!({})) } else { serde_json::from_slice(body) }
            .map_err(|error| (Protocol::Json, ApiError::new("SerializationException", error.to_string())))?;
        if !json.is_object() {
            let error = ApiError::new("SerializationException", "Start of structure or map found where not expected.");
            return Err((Protocol::Json, error));
        }
        let (protocol, members) = (Protocol::Json, Members::Json(json));
        return Ok(Incoming { service, protocol, operation: operation.to_owned(), members });
    }
    if header("content-type").starts_with("application/x-www-form-urlencoded") {
        let form = query::parse(body);
        let operation = form.get("Action").cloned().unwrap_or_default();
        return Ok(Incoming { service: "sts", protocol: Protocol::Query, operation, members: Members::Form(form) });
    }
    Err((Protocol::Json, ApiError::new("UnknownOperationException", "No such service").status(404)))
}

fn identify(
    shared: &Shared,
    request: &Parts,
    body: &[u8],
    incoming: &Incoming,
    now: Timestamp,
) -> Result<Who, ApiError> {
    let wall = Timestamp::now();
    if let Members::Form(form) = &incoming.members
        && incoming.operation == "AssumeRoleWithWebIdentity"
    {
        let token = form.get("WebIdentityToken").map(String::as_str).unwrap_or_default();
        let identity = WebIdentity::parse(token, wall)?;
        let account = form.get("RoleArn").and_then(|arn| arn.split(':').nth(4)).unwrap_or_default().to_owned();
        return Ok(Who::Web { identity, account });
    }
    let protocol = incoming.protocol;
    let signature = Signature::parse(&request.headers).map_err(|fault| signature_error(protocol, fault))?;
    let model = lock(&shared.model);
    let known = model.identities.credentials(&signature.access_key);
    let credentials = known
        .filter(|credentials| credentials.session_token == signature.session_token)
        .ok_or_else(|| unknown_key(protocol))?;
    signature
        .verify(&credentials.secret, request, body, &[wall, now])
        .map_err(|fault| signature_error(protocol, fault))?;
    if signature.service != incoming.service {
        let text = format!("Credential should be scoped to correct service: '{}'.", incoming.service);
        return Err(rejected(protocol, "InvalidSignatureException", "SignatureDoesNotMatch", &text));
    }
    if credentials.caller.session.as_ref().is_some_and(|session| session.expires_at <= now) {
        let text = "The security token included in the request is expired";
        return Err(rejected(protocol, "ExpiredTokenException", "ExpiredToken", text));
    }
    Ok(Who::Signed { caller: Box::new(credentials.caller.clone()), region: signature.region })
}

fn signature_error(protocol: Protocol, fault: SignatureFault) -> ApiError {
    let (json, query, text) = match fault {
        SignatureFault::Missing => (
            "MissingAuthenticationTokenException",
            "MissingAuthenticationToken",
            "Request is missing Authentication Token".to_owned(),
        ),
        SignatureFault::Incomplete(text) => ("IncompleteSignatureException", "IncompleteSignature", text),
        SignatureFault::Mismatch => (
            "InvalidSignatureException",
            "SignatureDoesNotMatch",
            "The request signature we calculated does not match the signature you provided. Check your AWS Secret \
             Access Key and signing method. Consult the service documentation for details."
                .to_owned(),
        ),
        SignatureFault::Skewed(text) => ("InvalidSignatureException", "SignatureDoesNotMatch", text),
    };
    rejected(protocol, json, query, &text)
}

fn unknown_key(protocol: Protocol) -> ApiError {
    let text = "The security token included in the request is invalid.";
    rejected(protocol, "UnrecognizedClientException", "InvalidClientTokenId", text)
}

/// The JSON services say 400 to bad credentials, the query ones 403.
fn rejected(protocol: Protocol, json: &'static str, query: &'static str, text: &str) -> ApiError {
    match protocol {
        Protocol::Json => ApiError::new(json, text),
        Protocol::Query => ApiError::new(query, text).status(403),
    }
}

impl Members {
    /// What the call is about, for the log and for faults.
    fn resource(&self) -> String {
        match self {
            Self::Json(body) => {
                let name = body["repositoryName"].as_str().map(str::to_owned);
                let names = || {
                    let names = body["repositoryNames"].as_array()?;
                    Some(names.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(","))
                };
                let from_arn =
                    || body["resourceArn"].as_str()?.split_once(":repository/").map(|(_, name)| name.to_owned());
                name.or_else(names).or_else(from_arn).unwrap_or_default()
            }
            Self::Form(form) => form.get("RoleArn").or_else(|| form.get("Name")).cloned().unwrap_or_default(),
        }
    }

    fn logged(&self) -> Value {
        match self {
            Self::Json(body) => body.clone(),
            Self::Form(form) => form
                .iter()
                .filter(|(member, _)| *member != "WebIdentityToken")
                .map(|(member, value)| (member.clone(), json!(value)))
                .collect(),
        }
    }
}

/// A name for things of this process that no other process uses.
pub(crate) fn nonce() -> String {
    digest::random_id("", 10).to_lowercase()
}
