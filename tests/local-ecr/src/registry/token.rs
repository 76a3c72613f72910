//! Reads the token of a registry request and finds out whose it is.

use http::HeaderMap;
use jiff::Timestamp;

use crate::digest;
use crate::model::Model;
use crate::model::identity::Caller;

/// Why a request isn't let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// No credentials, or not of the kind that ECR takes.
    NoCredentials,
    /// Nobody issued this token.
    Unknown,
    /// Too old, or of another Region: ECR says the same to both.
    Expired,
}

/// The caller behind the `Authorization` header, if the token is good here and now.
pub(crate) fn caller(model: &Model, headers: &HeaderMap, region: &str, now: Timestamp) -> Result<Caller, Refusal> {
    let header = headers.get(http::header::AUTHORIZATION).and_then(|header| header.to_str().ok());
    let encoded = header.and_then(|header| header.strip_prefix("Basic ")).ok_or(Refusal::NoCredentials)?;
    let pair = digest::base64_decode(encoded.trim()).and_then(|pair| String::from_utf8(pair).ok());
    let pair = pair.ok_or(Refusal::NoCredentials)?;
    let ("AWS", password) = pair.split_once(':').ok_or(Refusal::NoCredentials)? else {
        return Err(Refusal::NoCredentials);
    };
    let token = model.tokens.find(password).filter(|token| !token.public).ok_or(Refusal::Unknown)?;
    let session_ended = token.caller.session.as_ref().is_some_and(|session| session.expires_at <= now);
    let dead = token.expires_at <= now || (model.settings.tokens_end_with_session && session_ended);
    if dead || token.region != region { Err(Refusal::Expired) } else { Ok(token.caller.clone()) }
}
