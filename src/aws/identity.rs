//! Who speaks to AWS: an identity of an `EcrRegistry` becomes credentials, and these the clients of a Region.

use std::fmt;
use std::time::Duration;

use aws_config::ecs::EcsCredentialsProvider;
use aws_config::environment::EnvironmentVariableCredentialsProvider;
use aws_config::imds::credentials::ImdsCredentialsProvider;
use aws_config::meta::credentials::CredentialsProviderChain;
use aws_config::provider_config::ProviderConfig;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::web_identity_token::WebIdentityTokenCredentialsProvider;
use aws_config::{AppName, BehaviorVersion, SdkConfig};
use aws_credential_types::Credentials as AwsCredentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use jiff::Timestamp;

use crate::aws::AwsError;
use crate::aws::ecr::{Ecr, timestamp};
use crate::aws::error::{faulty, incomplete};
use crate::aws::session_end::{Remembering, SessionEnd};
use crate::aws::tagging::Tagging;
use crate::core::names::{AccountId, Region};
use crate::core::token::{Life, Secret, Service};
use crate::core::token_slot::Minted;

/// Where credentials come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credentials {
    /// The pod's own: environment, IRSA, EKS Pod Identity, and the node's (IMDS) only if that is allowed.
    Ambient,
    /// An access key from a Secret.
    AccessKey(StaticKey),
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
    /// Instead of the SDK's HTTP client: for tests.
    pub http_client: Option<SharedHttpClient>,
}

/// One identity in one Region.
#[derive(Debug, Clone)]
pub struct Session {
    config: SdkConfig,
    ends: SessionEnd,
    sts: aws_sdk_sts::Client,
}

/// Who a session is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Its account.
    pub account: AccountId,
    /// Its ARN.
    pub arn: String,
}

impl Session {
    /// Makes a session; nothing is sent before the first call.
    pub async fn new(
        credentials: &Credentials,
        region: &Region,
        endpoint: &Endpoint,
        options: &SessionOptions,
    ) -> Self {
        let region = aws_config::Region::new(region.as_str().to_owned());
        // Retries are the operator's own: by requeue, with what it knows of the object and of the account's rate.
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .region(region.clone())
            .retry_config(RetryConfig::standard().with_max_attempts(2))
            .timeout_config(
                TimeoutConfig::builder()
                    .connect_timeout(Duration::from_secs(5))
                    .operation_attempt_timeout(Duration::from_secs(15))
                    .operation_timeout(Duration::from_secs(35))
                    .build(),
            )
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
        let provider = match credentials {
            Credentials::AccessKey(key) => SharedCredentialsProvider::new(AwsCredentials::new(
                &key.access_key_id,
                key.secret_access_key.expose(),
                key.session_token.as_ref().map(|token| token.expose().to_owned()),
                None,
                "accessKey",
            )),
            Credentials::Ambient => ambient(region, options),
        };
        let (provider, ends) = Remembering::new(provider);
        let config = loader.credentials_provider(provider).load().await;
        Self { sts: aws_sdk_sts::Client::new(&config), config, ends }
    }

    /// ECR in this session's Region, for the registry of `account`.
    #[must_use]
    pub fn ecr(&self, account: &AccountId) -> Ecr {
        Ecr::new(&self.config, account)
    }

    /// The tagging API in this session's Region.
    #[must_use]
    pub fn tagging(&self) -> Tagging {
        Tagging::new(&self.config)
    }

    /// Who this is. Needs no permission.
    ///
    /// # Errors
    /// Where STS can't be asked or the credentials are refused.
    pub async fn caller(&self) -> Result<Caller, AwsError> {
        const CALL: &str = "sts:GetCallerIdentity";
        let answer = self.sts.get_caller_identity().send().await.map_err(|error| AwsError::new(CALL, &error))?;
        let account = answer.account().and_then(|account| AccountId::parse(account).ok());
        match (account, answer.arn()) {
            (Some(account), Some(arn)) => Ok(Caller { account, arn: arn.to_owned() }),
            _ => Err(incomplete(CALL, "account and ARN")),
        }
    }

    /// A token. For ECR Public this session must be one of [`crate::core::hosts::PUBLIC_REGION`].
    ///
    /// # Errors
    /// Needs `ecr:GetAuthorizationToken`; for ECR Public, `ecr-public:GetAuthorizationToken` and
    /// `sts:GetServiceBearerToken`.
    pub async fn token(&self, service: Service) -> Result<Minted, AwsError> {
        let now = Timestamp::now();
        let (auth, life) = match service {
            Service::Private => self.private_authorization_token(now).await?,
            Service::Public => self.public_authorization_token(now).await?,
        };
        Ok(Minted { auth, life, session_ends_at: self.ends.get() })
    }

    async fn private_authorization_token(&self, now: Timestamp) -> Result<(Secret, Life), AwsError> {
        const CALL: &str = "ecr:GetAuthorizationToken";
        let client = aws_sdk_ecr::Client::new(&self.config);
        let answer = client.get_authorization_token().send().await.map_err(|error| AwsError::new(CALL, &error))?;
        let data = answer.authorization_data().first().ok_or_else(|| incomplete(CALL, "authorizationData"))?;
        let token = data.authorization_token().ok_or_else(|| incomplete(CALL, "authorizationToken"))?;
        let life =
            Life::of(now, data.expires_at().and_then(timestamp)).map_err(|fault| faulty(CALL, &fault.to_string()))?;
        Ok((Secret::new(token.to_owned()), life))
    }

    async fn public_authorization_token(&self, now: Timestamp) -> Result<(Secret, Life), AwsError> {
        const CALL: &str = "ecr-public:GetAuthorizationToken";
        let client = aws_sdk_ecrpublic::Client::new(&self.config);
        let answer = client.get_authorization_token().send().await.map_err(|error| AwsError::new(CALL, &error))?;
        let data = answer.authorization_data().ok_or_else(|| incomplete(CALL, "authorizationData"))?;
        let token = data.authorization_token().ok_or_else(|| incomplete(CALL, "authorizationToken"))?;
        let life =
            Life::of(now, data.expires_at().and_then(timestamp)).map_err(|fault| faulty(CALL, &fault.to_string()))?;
        Ok((Secret::new(token.to_owned()), life))
    }
}

/// In the order of the SDK's own default chain, without profiles of a person's machine.
fn ambient(region: aws_config::Region, options: &SessionOptions) -> SharedCredentialsProvider {
    let provider = ProviderConfig::default().with_region(Some(region));
    let chain = CredentialsProviderChain::first_try("Environment", EnvironmentVariableCredentialsProvider::new())
        .or_else("WebIdentityToken", WebIdentityTokenCredentialsProvider::builder().configure(&provider).build())
        .or_else("Container", EcsCredentialsProvider::builder().configure(&provider).build());
    SharedCredentialsProvider::new(if options.allow_imds {
        chain.or_else("Imds", ImdsCredentialsProvider::builder().configure(&provider).build())
    } else {
        chain
    })
}
