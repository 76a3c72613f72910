//! Tokens of a named `ServiceAccount`, from the `TokenRequest` API: what a role is assumed with that trusts the cluster.

use futures::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::sync::Mutex;

use crate::aws::{AwsError, IdentityTokens, Kind};
use crate::cluster::words;
use crate::core::token::Secret;

/// Each lives so long, and is used for half of it.
const LIFE: SignedDuration = SignedDuration::from_hours(1);

/// Tokens of one `ServiceAccount` for one audience.
pub struct ServiceAccountToken {
    api: Api<ServiceAccount>,
    namespace: String,
    name: String,
    audience: String,
    held: Mutex<Option<(Secret, Timestamp)>>,
}

impl std::fmt::Debug for ServiceAccountToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ServiceAccountToken({}/{} for {})", self.namespace, self.name, self.audience)
    }
}

impl ServiceAccountToken {
    /// None is asked for yet.
    #[must_use]
    pub fn new(client: Client, namespace: &str, name: &str, audience: &str) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            audience: audience.to_owned(),
            held: Mutex::default(),
        }
    }

    async fn request(&self) -> Result<(Secret, Timestamp), AwsError> {
        let now = Timestamp::now();
        let wanted = TokenRequest {
            spec: Some(TokenRequestSpec {
                audiences: Some(vec![self.audience.clone()]),
                expiration_seconds: Some(LIFE.as_secs()),
                ..TokenRequestSpec::default()
            }),
            ..TokenRequest::default()
        };
        let answer = self.api.create_token_request(&self.name, &PostParams::default(), &wanted).await;
        let answer = answer.map_err(|error| self.refused(&error))?;
        let granted = answer.status.and_then(|status| status.token.zip(status.expiration_timestamp));
        let (token, end) = granted.ok_or_else(|| self.failed(Kind::Transient, "the answer has no token"))?;
        let life = end.0.duration_since(now);
        Ok((Secret::new(token), now.saturating_add(life / 2).unwrap_or(now)))
    }

    fn refused(&self, error: &kube::Error) -> AwsError {
        let Self { namespace, name, .. } = self;
        match error {
            kube::Error::Api(status) if status.is_forbidden() => self.failed(
                Kind::Untrusted,
                &format!(
                    "{}; the operator needs the verb create on serviceaccounts/token with resourceNames [{name}] in namespace {namespace}: the chart's value serviceAccountTokens gives it",
                    status.message
                ),
            ),
            kube::Error::Api(status) if status.is_not_found() => {
                self.failed(Kind::Untrusted, &format!("{}; create the ServiceAccount", status.message))
            }
            other => self.failed(Kind::Transient, &words(other)),
        }
    }

    fn failed(&self, kind: Kind, why: &str) -> AwsError {
        let message = format!("ServiceAccount {}/{}: {why}", self.namespace, self.name);
        AwsError { call: "create serviceaccounts/token", kind, code: "no token".to_owned(), message }
    }
}

impl IdentityTokens for ServiceAccountToken {
    fn token(&self) -> BoxFuture<'_, Result<Secret, AwsError>> {
        Box::pin(async {
            let mut held = self.held.lock().await;
            if let Some((token, _)) = held.as_ref().filter(|(_, until)| Timestamp::now() < *until) {
                return Ok(token.clone());
            }
            let fresh = self.request().await?;
            Ok(held.insert(fresh).0.clone())
        })
    }
}
