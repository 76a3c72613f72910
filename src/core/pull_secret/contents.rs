//! The text of a docker config, as the kubelet, containerd's clients, skopeo and docker read it.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::core::pull_secret::MOST_BYTES;
use crate::core::token::{Secret, Token, USERNAME};

/// Why there can be no such document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ContentError {
    /// Beyond what the API server takes.
    #[error(
        "the docker config for {hosts} hosts has {bytes} bytes; a Secret holds {MOST_BYTES}: ask for fewer accounts, regions or hosts"
    )]
    TooLarge {
        /// How large.
        bytes: usize,
        /// With how many entries.
        hosts: usize,
    },
    /// Can't happen with text as keys.
    #[error("the docker config can't be written: {0}")]
    Json(String),
}

#[derive(Serialize)]
struct DockerConfig<'a> {
    auths: BTreeMap<&'a str, Entry<'a>>,
}

/// `auth` is what clients read; `username` and `password` are for those that look at nothing else.
#[derive(Serialize)]
struct Entry<'a> {
    auth: &'a str,
    username: &'static str,
    password: &'a str,
}

impl<'a> Entry<'a> {
    fn of(token: &'a Token) -> Self {
        Entry { auth: token.auth.expose(), username: USERNAME, password: token.password.expose() }
    }
}

/// One entry by itself.
///
/// # Errors
/// Can't happen with text as values.
pub fn docker_entry(token: &Token) -> Result<Secret, ContentError> {
    serde_json::to_string(&Entry::of(token)).map(Secret::new).map_err(|error| ContentError::Json(error.to_string()))
}

/// The document with one entry a host. Keys are bare host names: the form that every reader takes.
///
/// # Errors
/// [`ContentError::TooLarge`] beyond the size of a Secret.
pub fn docker_config<'a>(logins: impl IntoIterator<Item = (&'a str, &'a Token)>) -> Result<Secret, ContentError> {
    let config = DockerConfig { auths: logins.into_iter().map(|(host, token)| (host, Entry::of(token))).collect() };
    let text = serde_json::to_string(&config).map_err(|error| ContentError::Json(error.to_string()))?;
    let (bytes, hosts) = (text.len(), config.auths.len());
    if bytes > MOST_BYTES {
        return Err(ContentError::TooLarge { bytes, hosts });
    }
    Ok(Secret::new(text))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::core::token::Life;

    fn token(auth: &str) -> Token {
        let life = Life::of(Timestamp::UNIX_EPOCH, Some(Timestamp::from_second(100).unwrap())).unwrap();
        Token::parse(Secret::new(auth.to_owned()), life, "").unwrap()
    }

    #[test]
    fn an_entry_has_what_every_reader_looks_for() {
        let token = token("QVdTOnB3");
        let text = docker_config([("123456789012.dkr.ecr.eu-west-1.amazonaws.com", &token)]).unwrap();
        assert_eq!(
            text.expose(),
            r#"{"auths":{"123456789012.dkr.ecr.eu-west-1.amazonaws.com":{"auth":"QVdTOnB3","username":"AWS","password":"pw"}}}"#
        );
    }

    #[test]
    fn beyond_the_size_of_a_secret_the_number_is_told() {
        let long =
            token(&base64::Engine::encode(&base64::prelude::BASE64_STANDARD, format!("AWS:{}", "x".repeat(3000))));
        let hosts: Vec<_> = (0..200).map(|n| format!("host-{n}")).collect();
        let error = docker_config(hosts.iter().map(|host| (host.as_str(), &long))).unwrap_err();
        assert!(matches!(error, ContentError::TooLarge { hosts: 200, bytes } if bytes > MOST_BYTES));
    }
}
