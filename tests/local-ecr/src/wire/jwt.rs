//! Web identity tokens. The model checks no signature: it believes what a token says about itself.

use jiff::Timestamp;
use serde::Deserialize;

use crate::digest;
use crate::error::ApiError;

/// What a token says, with the issuer's scheme taken off as IAM does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WebIdentity {
    pub issuer: String,
    pub subject: String,
    pub audiences: Vec<String>,
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    aud: Audience,
    exp: Option<f64>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

impl WebIdentity {
    /// Reads the claims; `wall` is the clock that the issuer goes by.
    pub fn parse(token: &str, wall: Timestamp) -> Result<Self, ApiError> {
        let invalid = |why: &str| {
            ApiError::new("InvalidIdentityToken", format!("The ID Token provided is not a valid JWT. {why}"))
        };
        let mut parts = token.split('.');
        let (Some(_), Some(claims), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
            return Err(invalid("(You may see this error if you sent an Access Token)"));
        };
        let claims = digest::base64url_decode(claims).ok_or_else(|| invalid("Claims are not base64url"))?;
        let claims: Claims = serde_json::from_slice(&claims).map_err(|error| invalid(&error.to_string()))?;
        if claims.exp.is_none_or(|expiry| expiry <= wall.as_duration().as_secs_f64()) {
            let message = "Token expired: current date/time must be before the expiration date/time";
            return Err(ApiError::new("ExpiredTokenException", message));
        }
        let audiences = match claims.aud {
            Audience::One(audience) => vec![audience],
            Audience::Many(audiences) => audiences,
        };
        let issuer = claims.iss.strip_prefix("https://").ok_or_else(|| invalid("The issuer must be an https URL"))?;
        Ok(Self { issuer: issuer.to_owned(), subject: claims.sub, audiences })
    }
}
