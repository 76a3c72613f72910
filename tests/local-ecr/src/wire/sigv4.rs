//! Signature Version 4: who signed a request, and whether rightly.

use std::collections::BTreeMap;

use http::HeaderMap;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use crate::digest::{hex, hmac_sha256, sha256_hex};

/// How far the signer's clock may be off.
const TOLERANCE: SignedDuration = SignedDuration::from_mins(5);

/// The claims of an `Authorization` header.
#[derive(Debug, Clone)]
pub(crate) struct Signature {
    pub access_key: String,
    pub region: String,
    pub service: String,
    pub session_token: Option<String>,
    date: String,
    time: String,
    signed_headers: Vec<String>,
    hex: String,
}

/// What is wrong with a signature; each protocol has its own code for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing was signed.
    Missing,
    /// Not a complete signature of this version.
    Incomplete(String),
    /// Another secret, another request.
    Mismatch,
    /// Signed too long ago, or in the future.
    Skewed(String),
}

impl Signature {
    pub fn parse(headers: &HeaderMap) -> Result<Self, Fault> {
        let header = headers.get(http::header::AUTHORIZATION).ok_or(Fault::Missing)?;
        let header = header.to_str().map_err(|_| Fault::Incomplete("Authorization is not text".to_owned()))?;
        let incomplete = |what: &str| Fault::Incomplete(format!("Authorization header requires {what}"));
        let fields = header.strip_prefix("AWS4-HMAC-SHA256").ok_or_else(|| incomplete("'AWS4-HMAC-SHA256'"))?;
        let fields: BTreeMap<&str, &str> = fields.split(',').filter_map(|field| field.trim().split_once('=')).collect();
        let field =
            |name: &'static str| fields.get(name).copied().ok_or_else(|| incomplete(&format!("'{name}' parameter")));
        let credential: Vec<&str> = field("Credential")?.split('/').collect();
        let [access_key, date, region, service, "aws4_request"] = credential.as_slice() else {
            return Err(incomplete("a 'Credential' of five parts"));
        };
        let time = headers.get("x-amz-date").and_then(|date| date.to_str().ok()).ok_or_else(|| incomplete("a date"))?;
        let session_token = headers.get("x-amz-security-token").and_then(|token| token.to_str().ok());
        Ok(Self {
            access_key: (*access_key).to_owned(),
            region: (*region).to_owned(),
            service: (*service).to_owned(),
            session_token: session_token.map(str::to_owned),
            date: (*date).to_owned(),
            time: time.to_owned(),
            signed_headers: field("SignedHeaders")?.split(';').map(str::to_owned).collect(),
            hex: field("Signature")?.to_owned(),
        })
    }

    /// Checks the signature over a request, and that it was made about now by one of the given clocks.
    pub fn verify(
        &self,
        secret: &str,
        request: &http::request::Parts,
        body: &[u8],
        clocks: &[Timestamp],
    ) -> Result<(), Fault> {
        let canonical = self.canonical_request(request, body);
        let scope = format!("{}/{}/{}/aws4_request", self.date, self.region, self.service);
        let to_sign = format!("AWS4-HMAC-SHA256\n{}\n{scope}\n{}", self.time, sha256_hex(canonical.as_bytes()));
        let mut key = format!("AWS4{secret}").into_bytes();
        for part in [&self.date, &self.region, &self.service, "aws4_request"] {
            key = hmac_sha256(&key, part.as_bytes());
        }
        let own_headers = ["host", "x-amz-date"];
        let covered = own_headers.iter().all(|header| self.signed_headers.iter().any(|signed| signed == header));
        if !covered || hex(&hmac_sha256(&key, to_sign.as_bytes())) != self.hex {
            return Err(Fault::Mismatch);
        }
        let signed_at = DateTime::strptime("%Y%m%dT%H%M%SZ", &self.time)
            .and_then(|time| time.to_zoned(TimeZone::UTC))
            .map_err(|_| Fault::Incomplete("Date must be in ISO-8601 'basic format'".to_owned()))?
            .timestamp();
        if clocks.iter().any(|clock| clock.duration_since(signed_at).abs() <= TOLERANCE) {
            Ok(())
        } else {
            let early = clocks.iter().all(|clock| signed_at > *clock);
            let words = if early { "not yet current" } else { "expired" };
            Err(Fault::Skewed(format!("Signature {words}: {} is too far from the current time", self.time)))
        }
    }

    fn canonical_request(&self, request: &http::request::Parts, body: &[u8]) -> String {
        let headers: String = self.signed_headers.iter().map(|name| canonical_header(name, &request.headers)).collect();
        format!(
            "{}\n{}\n{}\n{headers}\n{}\n{}",
            request.method,
            request.uri.path(),
            canonical_query(request.uri.query().unwrap_or_default()),
            self.signed_headers.join(";"),
            sha256_hex(body)
        )
    }
}

fn canonical_header(name: &str, headers: &HeaderMap) -> String {
    let values: Vec<String> = headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .map(|value| value.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    format!("{name}:{}\n", values.join(","))
}

fn canonical_query(query: &str) -> String {
    let mut pairs: Vec<&str> = query.split('&').filter(|pair| !pair.is_empty()).collect();
    pairs.sort_unstable();
    pairs.join("&")
}
