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

/// What the pod's environment says of its own identity, in the SDK's own order.
#[derive(Debug, Clone, Default)]
pub struct PodIdentity {
    pub(super) key: Option<StaticKey>,
    pub(super) web: Option<(Role, Arc<TokenFile>)>,
    pub(super) container: bool,
}

impl PodIdentity {
    /// From the variables that the AWS SDKs share.
    #[must_use]
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> Self {
        let read = |name| variable(name).filter(|value| !value.is_empty());
        let key = read("AWS_ACCESS_KEY_ID").zip(read("AWS_SECRET_ACCESS_KEY")).map(|(id, secret)| StaticKey {
            access_key_id: id,
            secret_access_key: Secret::new(secret),
            session_token: read("AWS_SESSION_TOKEN").map(Secret::new),
        });
        let web = read("AWS_ROLE_ARN").zip(read("AWS_WEB_IDENTITY_TOKEN_FILE")).map(|(arn, file)| {
            let name = read("AWS_ROLE_SESSION_NAME").unwrap_or_else(|| SESSION_NAME.to_owned());
            (Role::new(arn, name), Arc::new(TokenFile(file.into())))
        });
        let container = ["AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"];
        Self { key, web, container: container.into_iter().any(|name| read(name).is_some()) }
    }
}

/// The name of sessions that nobody named, and of federated users.
pub(super) const SESSION_NAME: &str = "ecr-operator";

/// A token that somebody else keeps fresh in a file: the kubelet.
#[derive(Debug, Clone)]
pub(super) struct TokenFile(PathBuf);

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

    #[test]
    fn a_pod_is_known_by_its_environment() {
        let pod = |variables: &[(&str, &str)]| {
            PodIdentity::read(|name| {
                variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
            })
        };
        let irsa = pod(&[("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/r"), ("AWS_WEB_IDENTITY_TOKEN_FILE", "/t")]);
        assert_eq!(irsa.web.unwrap().0.session_name, "ecr-operator");
        assert!(irsa.key.is_none() && !irsa.container);
        assert!(pod(&[("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://169.254.170.23/v1/credentials")]).container);
        let key = pod(&[("AWS_ACCESS_KEY_ID", "AKIA1"), ("AWS_SECRET_ACCESS_KEY", "hush"), ("AWS_SESSION_TOKEN", "")]);
        assert!(!format!("{key:?}").contains("hush"));
        assert_eq!(key.key.unwrap().session_token, None);
        assert!(pod(&[("AWS_ACCESS_KEY_ID", "AKIA1")]).key.is_none());
    }
}
