//! Registry tokens: opaque, fresh each time, bound to who asked and where.

use std::collections::HashMap;

use jiff::Timestamp;
use serde_json::json;

use super::identity::Caller;
use crate::clock::{epoch_seconds, later};
use crate::digest;

/// What a token stands for.
#[derive(Debug, Clone)]
pub(crate) struct Token {
    pub caller: Caller,
    pub region: String,
    /// For ECR Public rather than for private registries.
    pub public: bool,
    pub expires_at: Timestamp,
}

/// Tokens by the hash of their password: the model keeps no password either.
#[derive(Debug, Default)]
pub(crate) struct Tokens {
    issued: HashMap<String, Token>,
}

impl Tokens {
    /// A new token: the base64 of `AWS:PASSWORD`, of about the size that AWS's tokens have.
    pub fn issue(&mut self, token: Token, now: Timestamp) -> String {
        // Expired ones are told apart from unknown ones for a day.
        let day = std::time::Duration::from_hours(24);
        self.issued.retain(|_, token| later(token.expires_at, day) > now);
        let inner = json!({
            "payload": digest::random_base64(780),
            "datakey": digest::random_base64(137),
            "version": "2",
            "type": "DATA_KEY",
            "expiration": epoch_seconds(token.expires_at).as_f64().map(f64::floor),
        });
        let password = digest::base64_encode(inner.to_string());
        self.issued.insert(digest::sha256_hex(password.as_bytes()), token);
        digest::base64_encode(format!("AWS:{password}"))
    }

    pub fn find(&self, password: &str) -> Option<&Token> {
        self.issued.get(&digest::sha256_hex(password.as_bytes()))
    }
}
