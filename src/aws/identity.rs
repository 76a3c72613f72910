//! Who speaks to AWS: an identity of an `EcrRegistry` in one Region, with the clients that speak for it.

use std::sync::Arc;
use std::time::Duration;

use aws_config::identity::IdentityCache;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{AppName, BehaviorVersion, SdkConfig};
use aws_credential_types::Credentials as AwsCredentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use jiff::Timestamp;

use crate::aws::ecr::{Ecr, timestamp};
use crate::aws::error::{faulty, incomplete};
use crate::aws::fence::Fence;
use crate::aws::keyring::{Keyring, Provider};
use crate::aws::limiter::{Calls, Line, Priority};
use crate::aws::tagging::Tagging;
use crate::aws::{AwsError, Credentials, Kind, PodIdentity};
use crate::core::names::{AccountId, Region};
use crate::core::scope::Scope;
use crate::core::token::{Life, Secret, Service};
use crate::core::token_slot::Minted;
use crate::tenure::Tenure;

/// Which of AWS's endpoints.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// FIPS 140 endpoints.
    pub fips: bool,
    /// Endpoints that answer over IPv6 too.
    pub dual_stack: bool,
    /// Instead of AWS's: for tests and demos.
    pub url: Option<String>,
}

/// What holds for every session.
#[derive(Debug, Clone, Default)]
pub struct SessionOptions {
    /// Let the ambient identity be the node's own (IMDS).
    pub allow_imds: bool,
    /// The pod's own identity.
    pub pod: PodIdentity,
    /// Instead of the SDK's HTTP client: for tests.
    pub http_client: Option<SharedHttpClient>,
    /// Without it nothing is asked of ECR.
    pub tenure: Tenure,
    /// What is known of each account's limits.
    pub calls: Calls,
}

/// One identity in one Region.
#[derive(Debug, Clone)]
pub struct Session {
    unsigned: SdkConfig,
    region: Region,
    keyring: Arc<Keyring>,
    tenure: Tenure,
    calls: Calls,
    /// For what is asked before, or whatever, the account is.
    line: Line,
}

/// Who a session is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Its account.
    pub account: AccountId,
    /// Its ARN.
    pub arn: String,
}

impl Caller {
    /// Whoever has this ARN.
    #[must_use]
    pub fn of(arn: &str) -> Option<Self> {
        let account = AccountId::parse(arn.split(':').nth(4)?).ok()?;
        Some(Self { account, arn: arn.to_owned() })
    }
}

impl Session {
    /// Makes a session; nothing is sent before the first call.
    pub async fn new(
        credentials: &Credentials,
        region: &Region,
        endpoint: &Endpoint,
        options: &SessionOptions,
    ) -> Self {
        // Retries are the operator's own, with what it knows of the object and of the account's rate.
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .region(aws_config::Region::new(region.as_str().to_owned()))
            .retry_config(RetryConfig::standard().with_max_attempts(1))
            .timeout_config(
                TimeoutConfig::builder()
                    .connect_timeout(options.tenure.connect())
                    .operation_attempt_timeout(Duration::from_secs(15))
                    // With what it takes to have credentials that are at hand.
                    .operation_timeout(Duration::from_secs(20))
                    .build(),
            )
            // Credentials are kept by the keyring: what the SDK keeps by itself, it keeps of each session for good.
            .identity_cache(IdentityCache::no_cache())
            .use_fips(endpoint.fips)
            .use_dual_stack(endpoint.dual_stack);
        if let Ok(name) = AppName::new("ecr-operator") {
            loader = loader.app_name(name);
        }
        if let Some(url) = &endpoint.url {
            loader = loader.endpoint_url(url);
        }
        if let Some(client) = &options.http_client {
            loader = loader.http_client(client.clone());
        }
        let unsigned = loader.no_credentials().load().await;
        let keyring = Arc::new(Keyring::new(credentials, &unsigned, options));
        let whose = format!("{credentials:?}");
        let line = options.calls.line(Err(&whose), region.as_str(), endpoint.url.as_deref()).at(Priority::Urgent);
        Self {
            unsigned,
            region: region.clone(),
            keyring,
            tenure: options.tenure.clone(),
            calls: options.calls.clone(),
            line,
        }
    }

    /// For calls that are made as this session, as long as it is of `account`.
    fn signed(&self, account: &AccountId) -> SdkConfig {
        let signer = SharedCredentialsProvider::new(self.signer(account));
        self.unsigned.to_builder().credentials_provider(signer).build()
    }

    fn signer(&self, account: &AccountId) -> Provider {
        Provider { keyring: self.keyring.clone(), account: account.clone() }
    }

    /// ECR in this session's Region, for the registry of `account`.
    #[must_use]
    pub fn ecr(&self, account: &AccountId) -> Ecr {
        Ecr::new(&self.signed(account), account, self.line_to(account), &self.tenure)
    }

    /// The tagging API in this session's Region.
    #[must_use]
    pub fn tagging(&self, account: &AccountId) -> Tagging {
        Tagging::new(&self.signed(account), self.line_to(account).at(Priority::Background))
    }

    fn line_to(&self, account: &AccountId) -> Line {
        self.calls.line(Ok(account), self.region.as_str(), self.unsigned.endpoint_url()).signed_by(self.signer(account))
    }

    /// Who this is. Needs no permission.
    ///
    /// # Errors
    /// Where STS can't be asked or the credentials can't be had or are refused.
    pub async fn caller(&self) -> Result<Caller, AwsError> {
        self.keyring.caller().await
    }

    /// A token that may do no more than `scope` says, asked for by nobody but `account`. For ECR Public this session must be one of
    /// [`crate::core::hosts::PUBLIC_REGION`].
    ///
    /// # Errors
    /// Needs `ecr:GetAuthorizationToken`; for ECR Public, `ecr-public:GetAuthorizationToken` and
    /// `sts:GetServiceBearerToken`. [`Kind::Invalid`] where the scope is too long for a session policy,
    /// [`Kind::Untrusted`] and [`Kind::Unscopable`] where the identity can't be cut down, [`Kind::OtherAccount`] where it
    /// is of another one.
    pub async fn mint(&self, account: &AccountId, service: Service, scope: &Scope) -> Result<Minted, AwsError> {
        let policy = scope.session_policy(&self.region).map_err(|too_long| AwsError {
            call: "session policy",
            kind: Kind::Invalid,
            code: "PolicyTooLong".to_owned(),
            message: too_long.to_string(),
        })?;
        let credentials = match &policy {
            Some(policy) => self.keyring.scoped(account, policy).await?,
            None => self.keyring.of(account).await?,
        };
        let session_ends_at = credentials.expiry().and_then(|end| Timestamp::try_from(end).ok());
        let (auth, life) = self.token(service, credentials).await?;
        Ok(Minted { auth, life, session_ends_at })
    }

    async fn token(&self, service: Service, by: AwsCredentials) -> Result<(Secret, Life), AwsError> {
        let now = Timestamp::now();
        let signed = self.unsigned.to_builder().credentials_provider(SharedCredentialsProvider::new(by)).build();
        let fence = Fence(self.tenure.clone());
        let (call, token, expires_at) = match service {
            Service::Private => {
                const CALL: &str = "ecr:GetAuthorizationToken";
                let config = aws_sdk_ecr::config::Builder::from(&signed).interceptor(fence).build();
                let client = aws_sdk_ecr::Client::from_conf(config);
                let answer = self.line.call(CALL, || client.get_authorization_token().send()).await?;
                let data = answer.authorization_data().first();
                (CALL, data.and_then(|data| data.authorization_token.clone()), data.and_then(|data| data.expires_at))
            }
            Service::Public => {
                const CALL: &str = "ecr-public:GetAuthorizationToken";
                let config = aws_sdk_ecrpublic::config::Builder::from(&signed).interceptor(fence).build();
                let client = aws_sdk_ecrpublic::Client::from_conf(config);
                let answer = self.line.call(CALL, || client.get_authorization_token().send()).await?;
                let data = answer.authorization_data();
                (CALL, data.and_then(|data| data.authorization_token.clone()), data.and_then(|data| data.expires_at))
            }
        };
        let token = token.ok_or_else(|| incomplete(call, "authorizationToken"))?;
        let life = Life::of(now, expires_at.as_ref().and_then(timestamp));
        Ok((Secret::new(token), life.map_err(|fault| faulty(call, &fault.to_string()))?))
    }
}
