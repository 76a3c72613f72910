//! Where credentials come from, as declared and as the pod's environment says.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use futures::future::BoxFuture;

use crate::aws::{AwsError, Kind};
use crate::core::token::Secret;

/// Where credentials come from.
#[derive(Debug, Clone)]
pub enum Credentials {
    /// The pod's own: environment, IRSA, EKS Pod Identity, and the node's (IMDS) only if that is allowed.
    Ambient,
    /// An access key from a Secret.
    AccessKey(StaticKey),
    /// A role that trusts the cluster's OIDC provider, assumed with these tokens.
    WebIdentity(Role, Arc<dyn IdentityTokens>),
    /// A role assumed as somebody else.
    AssumeRole(Role, Box<Credentials>),
}

/// An access key. Its `Debug` shows the id alone.
#[derive(Clone, PartialEq, Eq)]
pub struct StaticKey {
    /// `AKIA…`
    pub access_key_id: String,
    /// Never shown.
    pub secret_access_key: Secret,
    /// For temporary keys; never shown.
    pub session_token: Option<Secret>,
}

impl fmt::Debug for StaticKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StaticKey").field("access_key_id", &self.access_key_id).finish_non_exhaustive()
    }
}

/// A role and how its sessions are opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Role {
    /// Its ARN.
    pub arn: String,
    /// What CloudTrail shows.
    pub session_name: String,
    /// What its trust policy asks for.
    pub external_id: Option<String>,
    /// Tags of the session.
    pub tags: BTreeMap<String, String>,
    /// In seconds; an hour where it isn't said.
    pub duration: Option<i32>,
}

impl Role {
    /// With sessions as they are by default.
    #[must_use]
    pub fn new(arn: String, session_name: String) -> Self {
        Self { arn, session_name, external_id: None, tags: BTreeMap::new(), duration: None }
    }
}

/// Tokens of an OIDC provider, which a role is assumed with.
pub trait IdentityTokens: fmt::Debug + Send + Sync {
    /// One that is good now.
    fn token(&self) -> BoxFuture<'_, Result<Secret, AwsError>>;
}

/// What the pod's environment says of its own identity.
#[derive(Debug, Clone, Default)]
pub enum PodIdentity {
    /// Nothing.
    #[default]
    Absent,
    /// An access key.
    Key(StaticKey),
    /// A role that is assumed with the token in a file: IRSA.
    Web(Role, Arc<TokenFile>),
    /// Credentials are handed to the container: EKS Pod Identity.
    Container,
    /// Something that isn't whole.
    Incomplete(Missing),
}

/// Variables that go together, of which one isn't set. What is there is meant, so nothing else is used in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{has} is set and {lacks} is not: set both, or neither")]
pub struct Missing {
    has: &'static str,
    lacks: &'static str,
}

impl PodIdentity {
    /// From the variables that the AWS SDKs share, in their order.
    #[must_use]
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> Self {
        Self::found(|name| variable(name).filter(|value| !value.is_empty())).unwrap_or_else(Self::Incomplete)
    }

    fn found(read: impl Fn(&str) -> Option<String>) -> Result<Self, Missing> {
        let both = |one, other| match (read(one), read(other)) {
            (Some(first), Some(second)) => Ok(Some((first, second))),
            (Some(_), None) => Err(Missing { has: one, lacks: other }),
            (None, Some(_)) => Err(Missing { has: other, lacks: one }),
            (None, None) => Ok(None),
        };
        let session_token = read("AWS_SESSION_TOKEN").map(Secret::new);
        if let Some((access_key_id, secret)) = both("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")? {
            return Ok(Self::Key(StaticKey { access_key_id, secret_access_key: Secret::new(secret), session_token }));
        }
        if session_token.is_some() {
            return Err(Missing { has: "AWS_SESSION_TOKEN", lacks: "AWS_ACCESS_KEY_ID" });
        }
        if let Some((arn, file)) = both("AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE")? {
            let name = read("AWS_ROLE_SESSION_NAME").unwrap_or_else(|| SESSION_NAME.to_owned());
            return Ok(Self::Web(Role::new(arn, name), Arc::new(TokenFile(file.into()))));
        }
        let set = |names: [&'static str; 2]| names.into_iter().find(|name| read(name).is_some());
        match (set(CONTAINER_URIS), set(CONTAINER_TOKENS)) {
            (Some(_), _) => Ok(Self::Container),
            (None, Some(has)) => Err(Missing { has, lacks: CONTAINER_URIS[0] }),
            (None, None) => Ok(Self::Absent),
        }
    }
}

/// One of them says where a container's credentials are.
const CONTAINER_URIS: [&str; 2] = ["AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"];
/// One of them may say what is shown there.
const CONTAINER_TOKENS: [&str; 2] = ["AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "AWS_CONTAINER_AUTHORIZATION_TOKEN"];

/// The name of sessions that nobody named, and of federated users.
pub(super) const SESSION_NAME: &str = "ecr-operator";

/// A token that somebody else keeps fresh in a file: the kubelet.
#[derive(Debug, Clone)]
pub struct TokenFile(PathBuf);

impl IdentityTokens for TokenFile {
    /// Read each time: the file is replaced well before its token dies.
    fn token(&self) -> BoxFuture<'_, Result<Secret, AwsError>> {
        let read = std::fs::read_to_string(&self.0);
        let token = read.map(|text| Secret::new(text.trim().to_owned())).map_err(|error| AwsError {
            call: "AWS_WEB_IDENTITY_TOKEN_FILE",
            kind: Kind::Transient,
            code: "no token".to_owned(),
            message: format!("{}: {error}", self.0.display()),
        });
        Box::pin(std::future::ready(token))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(variables: &[(&str, &str)]) -> PodIdentity {
        PodIdentity::read(|name| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
    }

    const ROLE: (&str, &str) = ("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/r");
    const FILE: (&str, &str) = ("AWS_WEB_IDENTITY_TOKEN_FILE", "/t");
    const ID: (&str, &str) = ("AWS_ACCESS_KEY_ID", "AKIA1");
    const KEY: (&str, &str) = ("AWS_SECRET_ACCESS_KEY", "hush");
    const URI: (&str, &str) = ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://169.254.170.23/v1/credentials");
    const TOKEN: (&str, &str) = ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "/t");

    #[test]
    fn a_pod_is_known_by_its_environment() {
        let PodIdentity::Web(role, _) = pod(&[ROLE, FILE, URI, TOKEN]) else { panic!() };
        assert_eq!(role.session_name, "ecr-operator");
        assert!(matches!(pod(&[URI, TOKEN]), PodIdentity::Container));
        assert!(matches!(pod(&[("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/x")]), PodIdentity::Container));
        assert!(matches!(pod(&[]), PodIdentity::Absent));
        let found = pod(&[ID, KEY, ("AWS_SESSION_TOKEN", ""), ROLE, FILE]);
        assert!(!format!("{found:?}").contains("hush"));
        let PodIdentity::Key(key) = found else { panic!() };
        assert_eq!(key.session_token, None);
    }

    #[test]
    fn half_of_an_identity_is_an_error_that_names_the_other_half_whatever_else_there_is() {
        for (has, lacks) in [
            (ID, KEY),
            (KEY, ID),
            (ROLE, FILE),
            (FILE, ROLE),
            (TOKEN, URI),
            (("AWS_CONTAINER_AUTHORIZATION_TOKEN", "t"), URI),
            (("AWS_SESSION_TOKEN", "t"), ID),
        ] {
            let lower: &[(&str, &str)] = if lacks == URI { &[] } else { &[URI, TOKEN] };
            let found = pod(&[&[has, (lacks.0, "")], lower].concat());
            let PodIdentity::Incomplete(missing) = found else { panic!("{found:?}") };
            assert_eq!(missing, Missing { has: has.0, lacks: lacks.0 });
        }
        assert!(matches!(pod(&[ID, ROLE, FILE]), PodIdentity::Incomplete(_)), "no other kind in its place");
    }
}
