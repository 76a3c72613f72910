//! One identity's credentials: held while they are good, renewed before they end, cut down on request.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use aws_config::SdkConfig;
use aws_config::ecs::EcsCredentialsProvider;
use aws_config::imds::credentials::ImdsCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_credential_types::Credentials as AwsCredentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider, future};
use futures::future::BoxFuture;

use crate::aws::credentials::{Credentials, IdentityTokens, Role, SESSION_NAME, StaticKey};
use crate::aws::error::with_causes;
use crate::aws::sts::Sts;
use crate::aws::{AwsError, Caller, Kind, PodIdentity, Priority, SessionOptions};
use crate::core::names::AccountId;
use crate::core::trust::Principal;

/// Credentials are renewed so long before they end, or at three quarters of their life if that is later.
const AHEAD: Duration = Duration::from_mins(5);
/// When renewal failed and the old ones still live, it isn't tried again at once.
const AGAIN: Duration = Duration::from_secs(30);
/// Nor where there are none: all who ask within this time get the same answer.
const SOON: Duration = Duration::from_secs(3);

/// Who has its turn doesn't wait longer for credentials, which were had just before: it takes the last, or gives its turn
/// back.
const AT_HAND: Duration = Duration::from_secs(1);

/// One identity's credentials.
#[derive(Debug)]
pub(super) struct Keyring {
    source: Source,
    sts: Sts,
    held: Mutex<Held>,
    /// Taken by whoever asks for new ones, for all the others.
    asking: tokio::sync::Mutex<()>,
    /// Whom an access key id belongs to, which never changes.
    owner: tokio::sync::Mutex<Option<(String, Caller)>>,
}

#[derive(Debug)]
enum Source {
    Key(StaticKey),
    Token(Role, Arc<dyn IdentityTokens>),
    Role(Role, Box<Keyring>),
    /// Handed to the pod by EKS Pod Identity, or to the node.
    Handed(SharedCredentialsProvider),
    /// There is none, for this reason.
    Nothing(AwsError),
}

/// The last credentials, and how it went when there should have been newer ones.
#[derive(Debug, Default)]
struct Held {
    credentials: Option<AwsCredentials>,
    renew_at: Option<SystemTime>,
    failure: Option<(AwsError, Instant)>,
}

impl Held {
    fn alive(&self) -> Option<&AwsCredentials> {
        self.credentials.as_ref().filter(|own| own.expiry().is_none_or(|end| SystemTime::now() < end))
    }

    /// What can be answered without asking; `None`: it is time to ask.
    fn answer(&self) -> Option<Result<AwsCredentials, AwsError>> {
        let due = self.renew_at.is_none_or(|at| at <= SystemTime::now());
        let failure = self.failure.as_ref().filter(|(_, until)| Instant::now() < *until);
        match (self.alive(), failure) {
            (Some(own), failure) if !due || failure.is_some() => Some(Ok(own.clone())),
            (None, Some((error, _))) => Some(Err(error.clone())),
            _ => None,
        }
    }
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
        Self::with(source, Sts::new(unsigned.clone(), line))
    }

    fn with(source: Source, sts: Sts) -> Self {
        Self {
            source,
            sts,
            held: Mutex::default(),
            asking: tokio::sync::Mutex::default(),
            owner: tokio::sync::Mutex::default(),
        }
    }

    /// The identity's own credentials. Where renewal fails, or takes its time, the last ones as long as they live.
    pub async fn current(&self) -> Result<AwsCredentials, AwsError> {
        if let Some(answer) = self.held().answer() {
            return answer;
        }
        let _asking = if let Ok(asking) = self.asking.try_lock() {
            asking
        } else {
            let last = self.held().alive().cloned();
            if let Some(own) = last {
                return Ok(own);
            }
            self.asking.lock().await
        };
        if let Some(answer) = self.held().answer() {
            return answer;
        }
        let fetched = self.fetch(None).await;
        let mut held = self.held();
        match fetched {
            Ok(own) => {
                // Those without an end need no call, and are had anew each time.
                let renew_at = own.expiry().map(|end| renewal(SystemTime::now(), end));
                *held = Held { credentials: Some(own.clone()), renew_at, failure: None };
                Ok(own)
            }
            Err(error) => {
                let last = held.alive().cloned();
                let pause = if last.is_some() {
                    tracing::warn!(%error, "credentials can't be renewed; the last ones still live");
                    AGAIN
                } else {
                    SOON
                };
                // Counted from now: the attempt itself may have taken longer.
                held.failure = Some((error.clone(), Instant::now() + pause));
                last.ok_or(error)
            }
        }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same, if they are of `account`: others are of no use to whoever works with that one, and may do harm.
    pub async fn of(&self, account: &AccountId) -> Result<AwsCredentials, AwsError> {
        let own = self.current().await?;
        self.belongs(&own, account).await?;
        Ok(own)
    }

    /// The last ones, if they still live and are known to be of `account`. Nobody is asked.
    fn last_of(&self, account: &AccountId) -> Result<AwsCredentials, AwsError> {
        let own = self.held().alive().cloned().ok_or_else(not_at_hand)?;
        let caller = match own.get_property::<Caller>() {
            Some(caller) => Some(caller.clone()),
            None => self.owner.try_lock().ok().and_then(|owner| known(owner.as_ref(), &own)),
        };
        must_be_of(&caller.ok_or_else(not_at_hand)?, account)?;
        Ok(own)
    }

    /// Credentials of `account` in a session that may do no more than `policy` says, for as long as STS grants.
    pub async fn scoped(&self, account: &AccountId, policy: &str) -> Result<AwsCredentials, AwsError> {
        let session = match &self.source {
            Source::Key(_) | Source::Handed(_) => self.cut_down(&self.of(account).await?, policy).await?,
            Source::Token(..) | Source::Role(..) | Source::Nothing(_) => self.fetch(Some(policy)).await?,
        };
        self.belongs(&session, account).await?;
        Ok(session)
    }

    /// Whose credentials these are.
    pub async fn caller(&self) -> Result<Caller, AwsError> {
        self.owner(&self.current().await?).await
    }

    /// From where they come from; sessions of a role that is assumed can be opened within a policy.
    async fn fetch(&self, policy: Option<&str>) -> Result<AwsCredentials, AwsError> {
        match &self.source {
            Source::Token(role, tokens) => self.sts.assume_with_token(tokens.as_ref(), role, policy).await,
            Source::Role(role, by) => self.sts.assume(&Box::pin(by.current()).await?, role, policy).await,
            Source::Key(key) => Ok(static_credentials(key)),
            Source::Handed(provider) => provider.provide_credentials().await.map_err(|error| handed(&error)),
            Source::Nothing(why) => Err(why.clone()),
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

    async fn belongs(&self, credentials: &AwsCredentials, account: &AccountId) -> Result<(), AwsError> {
        must_be_of(&self.owner(credentials).await?, account)
    }

    /// Who they belong to is asked before they are used for the first time, unless the answer that brought them says so.
    async fn owner(&self, credentials: &AwsCredentials) -> Result<Caller, AwsError> {
        if let Some(caller) = credentials.get_property::<Caller>() {
            return Ok(caller.clone());
        }
        let mut owner = self.owner.lock().await;
        if let Some(caller) = known(owner.as_ref(), credentials) {
            return Ok(caller);
        }
        let caller = self.sts.caller(credentials).await?;
        *owner = Some((credentials.access_key_id().to_owned(), caller.clone()));
        Ok(caller)
    }
}

/// A keyring as the SDK's clients take it: for calls to one account. These have their turn already, and others wait for it:
/// see [`crate::aws::limiter::Line::signed_by`].
#[derive(Debug, Clone)]
pub(super) struct Provider {
    pub keyring: Arc<Keyring>,
    pub account: AccountId,
}

impl Provider {
    /// Waits until they are at hand. In a box: whoever hands them out makes calls that come here as well.
    pub fn ready(&self) -> BoxFuture<'_, Result<(), AwsError>> {
        Box::pin(async { self.keyring.of(&self.account).await.map(drop) })
    }
}

impl ProvideCredentials for Provider {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async {
            let ready = tokio::time::timeout(AT_HAND, self.keyring.of(&self.account)).await;
            ready.unwrap_or_else(|_| self.keyring.last_of(&self.account)).map_err(CredentialsError::provider_error)
        })
    }
}

fn known(owner: Option<&(String, Caller)>, credentials: &AwsCredentials) -> Option<Caller> {
    owner.filter(|(id, _)| id == credentials.access_key_id()).map(|(_, caller)| caller.clone())
}

fn must_be_of(Caller { account: own, arn }: &Caller, account: &AccountId) -> Result<(), AwsError> {
    if own == account {
        return Ok(());
    }
    Err(AwsError {
        call: "sts:GetCallerIdentity",
        kind: Kind::OtherAccount,
        code: "another account".to_owned(),
        message: format!(
            "the identity has become {arn} of account {own}; nothing is done with it in account {account}"
        ),
    })
}

fn not_at_hand() -> AwsError {
    AwsError {
        call: "credentials",
        kind: Kind::Transient,
        code: "not at hand".to_owned(),
        message: "they ended while the call waited for its turn".to_owned(),
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
    match &options.pod {
        PodIdentity::Key(key) => Source::Key(key.clone()),
        PodIdentity::Web(role, tokens) => Source::Token(role.clone(), tokens.clone()),
        PodIdentity::Container => {
            let container = EcsCredentialsProvider::builder().configure(&provider()).build();
            Source::Handed(SharedCredentialsProvider::new(container))
        }
        PodIdentity::Incomplete(missing) => Source::Nothing(unavailable(Kind::Invalid, missing.to_string())),
        PodIdentity::Absent if options.allow_imds => {
            let node = ImdsCredentialsProvider::builder().configure(&provider()).build();
            Source::Handed(SharedCredentialsProvider::new(node))
        }
        PodIdentity::Absent => Source::Nothing(unavailable(
            Kind::Transient,
            "the pod has none of its own; give it a role (IRSA, EKS Pod Identity), or name another identity in the EcrRegistry (the node's own is used with --allow-imds only)".to_owned(),
        )),
    }
}

fn handed(error: &CredentialsError) -> AwsError {
    unavailable(Kind::Transient, with_causes(error))
}

fn unavailable(kind: Kind, message: String) -> AwsError {
    AwsError { call: "ambient identity", kind, code: "no credentials".to_owned(), message }
}

#[cfg(test)]
mod tests;
