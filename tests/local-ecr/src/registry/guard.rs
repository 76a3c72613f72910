//! The guard: token, permission, repository, tag rules; then the model answers, or the registry behind it.

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Either, Full, Limited};
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::backend;
use super::manifests;
use super::route::Route;
use super::token::{self, Refusal};
use crate::api::Reply;
use crate::calls::{Call, Outcome};
use crate::faults::{self, Action, Subject};
use crate::lock;
use crate::model::identity::{Ask, Caller};
use crate::model::names::{self, parse_registry_host};
use crate::model::repository::Repository;
use crate::shared::Shared;

pub(crate) type Body = Either<Full<Bytes>, Incoming>;

/// A request that is let in: whose, and what about.
struct Admitted {
    route: Route,
    account: String,
    region: String,
}

pub(crate) async fn handle(shared: &Shared, request: Request<Incoming>) -> Reply<Body> {
    let (parts, body) = request.into_parts();
    let route = Route::parse(parts.uri.path());
    let (account, region) = registry_of(shared, &parts);
    let (operation, _) = route.operation(&parts.method);
    let name = route.repository().unwrap_or_default().to_owned();
    let now = shared.clock.now();
    let caller = token::caller(&lock(&shared.model), &parts.headers, &region, now);
    let mut call = Call {
        at: now,
        service: "registry".to_owned(),
        operation: operation.to_owned(),
        account: account.clone(),
        region: region.clone(),
        access_key: caller.as_ref().map(|caller| caller.access_key.clone()).unwrap_or_default(),
        principal: caller.as_ref().map(|caller| caller.arn.clone()).unwrap_or_default(),
        resource: name.clone(),
        outcome: Outcome::Ok,
        request: json!({"method": parts.method.as_str(), "path": parts.uri.path()}),
    };
    let subject = Subject { service: "registry", operation, resource: &name, account: &account, region: &region };
    let verdict = lock(&shared.faults).judge(&subject);
    if !verdict.delay.is_zero() {
        tokio::time::sleep(verdict.delay).await;
    }
    let scripted = |code: &str, status: u16| {
        let error_answer = faults::scripted(code, status);
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Reply::Answer(error(status, &error_answer.code, &error_answer.message))
    };
    let reply = match verdict.action {
        Some(Action::Before { code, status }) => {
            call.outcome = Outcome::Error(code.clone());
            scripted(&code, status)
        }
        Some(Action::Cut) => {
            call.outcome = Outcome::Cut;
            Reply::Closed
        }
        action => {
            let response = admit_and_serve(shared, caller, Admitted { route, account, region }, parts, body).await;
            let status = response.status();
            if let Some(code) = response.extensions().get::<ErrorCode>() {
                call.outcome = Outcome::Error(code.0.clone());
            } else if status.is_client_error() || status.is_server_error() {
                call.outcome = Outcome::Error(status.as_str().to_owned());
            }
            let reply = match action {
                Some(Action::After { code, status }) => scripted(&code, status),
                Some(Action::Lost) => Reply::Closed,
                Some(Action::Hang) => Reply::Silence,
                Some(Action::Body { status, body }) => {
                    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
                    Reply::Answer(plain(status, Bytes::from(body)))
                }
                _ => {
                    shared.calls.push(call);
                    return Reply::Answer(response);
                }
            };
            call.outcome = Outcome::Lost;
            reply
        }
    };
    shared.calls.push(call);
    reply
}

async fn admit_and_serve(
    shared: &Shared,
    caller: Result<Caller, Refusal>,
    admitted: Admitted,
    parts: Parts,
    body: Incoming,
) -> Response<Body> {
    let caller = match caller {
        Ok(caller) => caller,
        Err(refusal) => return refuse(refusal, &admitted),
    };
    let (_, action) = admitted.route.operation(&parts.method);
    if admitted.route == Route::Ping {
        return json_response(StatusCode::OK, &json!({}));
    }
    let Some(action) = action else {
        return error(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", "The operation is unsupported.");
    };
    if let Err(response) = permit(shared, &caller, &admitted, action) {
        return *response;
    }
    serve(shared, admitted, parts, body).await
}

fn refuse(refusal: Refusal, admitted: &Admitted) -> Response<Body> {
    match refusal {
        Refusal::NoCredentials => {
            let mut response = plain(StatusCode::UNAUTHORIZED, Bytes::from_static(b"Not Authorized\n"));
            let host = names::registry_host(&admitted.account, &admitted.region);
            let challenge = format!("Basic realm=\"https://{host}/\",service=\"ecr.amazonaws.com\"");
            if let Ok(challenge) = HeaderValue::from_str(&challenge) {
                response.headers_mut().insert(http::header::WWW_AUTHENTICATE, challenge);
            }
            response.extensions_mut().insert(ErrorCode("UNAUTHORIZED".to_owned()));
            response
        }
        Refusal::Unknown => error(StatusCode::FORBIDDEN, "DENIED", "Your Authorization Token is invalid."),
        Refusal::Expired => {
            let text = "Your authorization token has expired. Reauthenticate and try again.";
            error(StatusCode::FORBIDDEN, "DENIED", text)
        }
    }
}

/// Permission first, then whether the repository exists: who may not know is told nothing.
fn permit(shared: &Shared, caller: &Caller, admitted: &Admitted, action: &str) -> Result<(), Box<Response<Body>>> {
    let Admitted { account, region, route } = admitted;
    let name = route.repository().unwrap_or_default();
    let model = lock(&shared.model);
    let repository = model.repository(account, region, name);
    let mut ask = Ask::new(action, names::repository_arn(account, region, name), account);
    if let Some(repository) = repository {
        ask = ask.policy(repository.policy.as_ref().map(|policy| &policy.document)).resource_tags(&repository.tags);
    }
    if let Err(denied) = model.identities.authorize(caller, &ask) {
        return Err(Box::new(error(StatusCode::FORBIDDEN, "DENIED", &denied.message)));
    }
    if repository.is_some() { Ok(()) } else { Err(Box::new(name_unknown(name, account))) }
}

fn name_unknown(name: &str, account: &str) -> Response<Body> {
    let text = format!("The repository with name '{name}' does not exist in the registry with id '{account}'");
    error(StatusCode::NOT_FOUND, "NAME_UNKNOWN", &text)
}

async fn serve(shared: &Shared, admitted: Admitted, parts: Parts, body: Incoming) -> Response<Body> {
    match &admitted.route {
        Route::Manifest { reference, .. } if parts.method == Method::PUT => {
            put_manifest(shared, &admitted, reference, &parts.headers, body).await
        }
        Route::Manifest { reference, .. } => with_repository(shared, &admitted, |repository| {
            manifests::get(repository, reference, &parts.method, shared.clock.now())
        }),
        Route::Tags { .. } => with_repository(shared, &admitted, |repository| manifests::list_tags(repository)),
        Route::Blob { rest, .. } => forward(shared, &admitted, &format!("blobs/{rest}"), parts, body).await,
        Route::Uploads { rest, .. } => forward(shared, &admitted, &format!("blobs/uploads/{rest}"), parts, body).await,
        Route::Referrers { .. } => {
            let none =
                json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": []});
            json_response(StatusCode::OK, &none)
        }
        Route::Ping | Route::Unknown => error(StatusCode::NOT_FOUND, "UNSUPPORTED", "The operation is unsupported."),
    }
}

fn with_repository(
    shared: &Shared,
    admitted: &Admitted,
    run: impl FnOnce(&mut Repository) -> Response<Body>,
) -> Response<Body> {
    let name = admitted.route.repository().unwrap_or_default();
    match lock(&shared.model).existing(&admitted.account, &admitted.region, name) {
        Ok(repository) => run(repository),
        Err(_) => name_unknown(name, &admitted.account),
    }
}

async fn put_manifest(
    shared: &Shared,
    admitted: &Admitted,
    reference: &str,
    headers: &HeaderMap,
    body: Incoming,
) -> Response<Body> {
    let Ok(manifest) =
        Limited::new(body, manifests::MAX_MANIFEST).collect().await.map(http_body_util::Collected::to_bytes)
    else {
        return error(
            StatusCode::BAD_REQUEST,
            "MANIFEST_INVALID",
            "The manifest can't be read or is larger than 4 MiB",
        );
    };
    let parsed: Option<Value> = serde_json::from_slice(&manifest).ok();
    let declared = headers.get(http::header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let own = parsed.as_ref().and_then(|manifest| manifest["mediaType"].as_str());
    let (Some(_), Some(media_type)) = (&parsed, declared.or(own)) else {
        return error(StatusCode::BAD_REQUEST, "MANIFEST_INVALID", "The manifest is no JSON, or of no media type");
    };
    let media_type = media_type.to_owned();
    let mut refused = None;
    let mut path = String::new();
    let checked = with_repository(shared, admitted, |repository| {
        refused = manifests::check_put(repository, reference, &manifest).err();
        path = shared.backend.as_ref().map(|backend| backend.path_of(repository.incarnation)).unwrap_or_default();
        plain(StatusCode::OK, Bytes::new())
    });
    if let Some(refused) = refused {
        return *refused;
    }
    if !checked.status().is_success() {
        return checked;
    }
    // The registry behind knows which layers it has: it refuses a manifest whose layers are missing.
    if let Some(backend) = &shared.backend {
        let digest = format!("sha256:{}", crate::digest::sha256_hex(&manifest));
        let request = Request::put(format!("/v2/{path}/manifests/{digest}"))
            .header(http::header::CONTENT_TYPE, &media_type)
            .body(backend::full(manifest.clone()));
        match request {
            Ok(request) => match backend.send(request).await {
                Ok(response) if response.status().is_success() => {}
                Ok(response) => return response.map(Either::Right),
                Err(failure) => return unreachable_backend(&failure.to_string()),
            },
            Err(failure) => return unreachable_backend(&failure.to_string()),
        }
    }
    let now = shared.clock.now();
    // Checked again: the tag may have been taken while the layers were looked at.
    with_repository(shared, admitted, |repository| match manifests::check_put(repository, reference, &manifest) {
        Ok(()) => manifests::put(repository, reference, manifest.clone(), media_type, now),
        Err(refused) => *refused,
    })
}

/// Streams a request to the registry behind, and the answer back.
async fn forward(shared: &Shared, admitted: &Admitted, rest: &str, parts: Parts, body: Incoming) -> Response<Body> {
    let Some(backend) = &shared.backend else {
        return error(
            StatusCode::NOT_IMPLEMENTED,
            "UNSUPPORTED",
            "This local ECR was started without a place for layers",
        );
    };
    let name = admitted.route.repository().unwrap_or_default();
    let Ok(incarnation) = lock(&shared.model)
        .existing(&admitted.account, &admitted.region, name)
        .map(|repository| repository.incarnation)
    else {
        return name_unknown(name, &admitted.account);
    };
    let path = backend.path_of(incarnation);
    let query = kept_query(parts.uri.query().unwrap_or_default());
    let mut request = Request::new(body.boxed());
    *request.method_mut() = parts.method;
    *request.headers_mut() = parts.headers;
    request.headers_mut().remove(http::header::AUTHORIZATION);
    request.headers_mut().remove(http::header::HOST);
    match format!("/v2/{path}/{rest}{query}").parse::<Uri>() {
        Ok(uri) => *request.uri_mut() = uri,
        Err(failure) => return unreachable_backend(&failure.to_string()),
    }
    match backend.send(request).await {
        Ok(response) => outward(response.map(Either::Right), &path, name),
        Err(failure) => unreachable_backend(&failure.to_string()),
    }
}

/// Query parameters without those that are for the guard: the mirror's `ns`, and cross-repository mounts, which ECR
/// doesn't do unless an account turns them on.
fn kept_query(query: &str) -> String {
    let kept: Vec<&str> = query
        .split('&')
        .filter(|pair| !pair.is_empty() && !["ns=", "mount=", "from="].iter().any(|prefix| pair.starts_with(prefix)))
        .collect();
    if kept.is_empty() { String::new() } else { format!("?{}", kept.join("&")) }
}

/// Puts the repository's public name back into `Location`.
fn outward(mut response: Response<Body>, path: &str, name: &str) -> Response<Body> {
    let location = response.headers().get(http::header::LOCATION).and_then(|location| location.to_str().ok());
    let renamed = location.map(|location| location.replacen(&format!("/v2/{path}/"), &format!("/v2/{name}/"), 1));
    if let Some(renamed) = renamed.and_then(|location| HeaderValue::from_str(&location).ok()) {
        response.headers_mut().insert(http::header::LOCATION, renamed);
    }
    response
}

/// Which registry a request means: containerd's `ns`, the host name, or the default.
fn registry_of(shared: &Shared, parts: &Parts) -> (String, String) {
    let pairs = form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes());
    let mirrored = pairs.into_iter().find(|(key, _)| key == "ns").map(|(_, host)| host.into_owned());
    let host = parts.headers.get(http::header::HOST).and_then(|host| host.to_str().ok());
    mirrored
        .as_deref()
        .and_then(parse_registry_host)
        .or_else(|| host.and_then(parse_registry_host))
        .unwrap_or_else(|| (shared.account.clone(), shared.region.clone()))
}

/// The error code of a response, for the log.
#[derive(Clone)]
struct ErrorCode(String);

pub(crate) fn error(status: StatusCode, code: &str, message: &str) -> Response<Body> {
    let mut response = json_response(status, &json!({"errors": [{"code": code, "message": message}]}));
    response.extensions_mut().insert(ErrorCode(code.to_owned()));
    response
}

fn unreachable_backend(failure: &str) -> Response<Body> {
    error(StatusCode::BAD_GATEWAY, "UNKNOWN", &format!("the registry behind doesn't answer: {failure}"))
}

pub(crate) fn json_response(status: StatusCode, body: &Value) -> Response<Body> {
    let mut response = plain(status, Bytes::from(body.to_string()));
    response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
    response
}

pub(crate) fn plain(status: StatusCode, body: Bytes) -> Response<Body> {
    let mut response = Response::new(Either::Left(Full::new(body)));
    *response.status_mut() = status;
    let version = HeaderValue::from_static("registry/2.0");
    response.headers_mut().insert("docker-distribution-api-version", version);
    response
}
