//! One identity's credentials: held while they are good, renewed before they end, cut down on request.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_config::SdkConfig;
use aws_config::ecs::EcsCredentialsProvider;
use aws_config::imds::credentials::ImdsCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_credential_types::Credentials as AwsCredentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider, future};
use tokio::sync::Mutex;

use crate::aws::credentials::{Credentials, IdentityTokens, Role, SESSION_NAME, StaticKey};
use crate::aws::error::with_causes;
use crate::aws::sts::Sts;
use crate::aws::{AwsError, Caller, Kind, Priority, SessionOptions};
use crate::core::trust::Principal;

/// Credentials are renewed so long before they end, or at three quarters of their life if that is later.
const AHEAD: Duration = Duration::from_mins(5);
/// When renewal failed and the old ones still live, it isn't tried again at once.
const AGAIN: Duration = Duration::from_secs(30);

/// One identity's credentials.
#[derive(Debug)]
pub(super) struct Keyring {
    source: Source,
    sts: Sts,
    held: Mutex<Option<Held>>,
    /// Whom an access key id belongs to, which never changes.
    owner: Mutex<Option<(String, Caller)>>,
}

#[derive(Debug)]
enum Source {
    Key(StaticKey),
    Token(Role, Arc<dyn IdentityTokens>),
    Role(Role, Box<Keyring>),
    /// Handed to the pod by EKS Pod Identity, or to the node.
    Handed(SharedCredentialsProvider),
    Nothing,
}

#[derive(Debug)]
struct Held {
    credentials: AwsCredentials,
    renew_at: SystemTime,
}

impl Keyring {
    /// Nothing is asked before credentials are. `unsigned` has none.
    pub fn new(credentials: &Credentials, unsigned: &SdkConfig, options: &SessionOptions) -> Self {
        let whose = format!("{credentials:?}");
        let region = unsigned.region().map(ToString::to_string).unwrap_or_default();
        let line = options.calls.line(Err(&whose), &region, unsigned.endpoint_url()).at(Priority::Urgent);
        let source = match credentials {
            Credentials::AccessKey(key) => Source::Key(key.clone()),
            Credentials::WebIdentity(role, tokens) => Source::Token(role.clone(), tokens.clone()),
            Credentials::AssumeRole(role, by) => Source::Role(role.clone(), Box::new(Self::new(by, unsigned, options))),
            Credentials::Ambient => ambient(unsigned, options),
        };
        Self { source, sts: Sts::new(unsigned.clone(), line), held: Mutex::default(), owner: Mutex::default() }
    }

    /// The identity's own credentials. Where renewal fails, the last ones as long as they live.
    pub async fn current(&self) -> Result<AwsCredentials, AwsError> {
        let mut held = self.held.lock().await;
        let now = SystemTime::now();
        if let Some(held) = held.as_ref().filter(|held| now < held.renew_at) {
            return Ok(held.credentials.clone());
        }
        match self.fetch(None).await {
            Ok(credentials) => {
                // Those without an end need no call, and are had anew each time.
                *held = credentials
                    .expiry()
                    .map(|end| Held { credentials: credentials.clone(), renew_at: renewal(now, end) });
                Ok(credentials)
            }
            Err(error) => match held.as_mut() {
                Some(held) => match held.credentials.expiry() {
                    Some(end) if end > now => {
                        tracing::warn!(%error, "credentials can't be renewed; the last ones still live");
                        held.renew_at = end.min(now + AGAIN);
                        Ok(held.credentials.clone())
                    }
                    _ => Err(error),
                },
                None => Err(error),
            },
        }
    }

    /// Credentials of a session that may do no more than `policy` says, for as long as STS grants.
    pub async fn scoped(&self, policy: &str) -> Result<AwsCredentials, AwsError> {
        self.fetch(Some(policy)).await
    }

    /// Whose credentials these are.
    pub async fn caller(&self) -> Result<Caller, AwsError> {
        self.sts.caller(&self.current().await?).await
    }

    async fn fetch(&self, policy: Option<&str>) -> Result<AwsCredentials, AwsError> {
        match (&self.source, policy) {
            (Source::Token(role, tokens), _) => self.sts.assume_with_token(tokens.as_ref(), role, policy).await,
            (Source::Role(role, by), _) => self.sts.assume(&Box::pin(by.current()).await?, role, policy).await,
            (Source::Nothing, _) => Err(nobody()),
            (Source::Key(key), None) => Ok(static_credentials(key)),
            (Source::Handed(provider), None) => provider.provide_credentials().await.map_err(|error| handed(&error)),
            (Source::Key(key), Some(policy)) => self.cut_down(&static_credentials(key), policy).await,
            (Source::Handed(_), Some(policy)) => self.cut_down(&Box::pin(self.current()).await?, policy).await,
        }
    }

    /// A user federates itself; a role's session assumes that role anew, which the role must trust itself for.
    async fn cut_down(&self, own: &AwsCredentials, policy: &str) -> Result<AwsCredentials, AwsError> {
        let Caller { arn, .. } = self.owner(own).await?;
        match Principal::of(&arn) {
            Principal::Role(role) => {
                self.sts.assume(own, &Role::new(role, SESSION_NAME.to_owned()), Some(policy)).await
            }
            Principal::User if own.session_token().is_none() => self.sts.federate(own, policy).await,
            Principal::User | Principal::Other => Err(AwsError {
                call: "session policy",
                kind: Kind::Unscopable,
                code: "not possible".to_owned(),
                message: format!(
                    "{arn} can't be given a session policy: use a role or a user's own key, or set pull.scopeTokens to Never with an identity that can only pull"
                ),
            }),
        }
    }

    async fn owner(&self, credentials: &AwsCredentials) -> Result<Caller, AwsError> {
        let mut owner = self.owner.lock().await;
        if let Some((_, caller)) = owner.as_ref().filter(|(id, _)| id == credentials.access_key_id()) {
            return Ok(caller.clone());
        }
        let caller = self.sts.caller(credentials).await?;
        *owner = Some((credentials.access_key_id().to_owned(), caller.clone()));
        Ok(caller)
    }
}

/// A keyring as the SDK's clients take it.
#[derive(Debug, Clone)]
pub(super) struct Provider(pub Arc<Keyring>);

impl ProvideCredentials for Provider {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async { self.0.current().await.map_err(CredentialsError::provider_error) })
    }
}

fn renewal(now: SystemTime, end: SystemTime) -> SystemTime {
    let left = end.duration_since(now).unwrap_or_default();
    end.checked_sub(AHEAD.min(left / 4)).unwrap_or(now)
}

fn static_credentials(key: &StaticKey) -> AwsCredentials {
    let session = key.session_token.as_ref().map(|token| token.expose().to_owned());
    AwsCredentials::new(&key.access_key_id, key.secret_access_key.expose(), session, None, "accessKey")
}

/// In the order of the SDK's own default chain, without profiles of a person's machine. What is there decides, never
/// what works: an identity that fails isn't replaced by another.
fn ambient(unsigned: &SdkConfig, options: &SessionOptions) -> Source {
    let provider = || {
        let config = ProviderConfig::default().with_region(unsigned.region().cloned());
        match &options.http_client {
            Some(client) => config.with_http_client(client.clone()),
            None => config,
        }
    };
    let pod = &options.pod;
    if let Some(key) = &pod.key {
        Source::Key(key.clone())
    } else if let Some((role, tokens)) = &pod.web {
        Source::Token(role.clone(), tokens.clone())
    } else if pod.container {
        let container = EcsCredentialsProvider::builder().configure(&provider()).build();
        Source::Handed(SharedCredentialsProvider::new(container))
    } else if options.allow_imds {
        let node = ImdsCredentialsProvider::builder().configure(&provider()).build();
        Source::Handed(SharedCredentialsProvider::new(node))
    } else {
        Source::Nothing
    }
}

fn nobody() -> AwsError {
    AwsError {
        call: "ambient identity",
        kind: Kind::Transient,
        code: "no credentials".to_owned(),
        message: "the pod has none of its own; give it a role (IRSA, EKS Pod Identity), or name another identity in the EcrRegistry (the node's own is used with --allow-imds only)".to_owned(),
    }
}

fn handed(error: &CredentialsError) -> AwsError {
    AwsError {
        call: "ambient identity",
        kind: Kind::Transient,
        code: "no credentials".to_owned(),
        message: with_causes(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_renewed_before_they_end_however_short_they_live() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_hours(1);
        assert_eq!(renewal(now, now + Duration::from_hours(1)), now + Duration::from_mins(55));
        assert_eq!(renewal(now, now + Duration::from_secs(8)), now + Duration::from_secs(6));
        let past = now.checked_sub(Duration::from_secs(8)).unwrap();
        assert!(renewal(now, past) <= now);
    }
}
