//! STS: sessions of roles, of web identities and of federated users, cut down by a session policy where there is one.

use aws_config::SdkConfig;
use aws_credential_types::Credentials as AwsCredentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_sts::types::{AssumedRoleUser, Credentials as Issued, FederatedUser, Tag};

use crate::aws::credentials::{IdentityTokens, Role, SESSION_NAME};
use crate::aws::error::{faulty, incomplete};
use crate::aws::limiter::Line;
use crate::aws::{AwsError, Caller, Kind};
use crate::core::trust;

/// STS as one place calls it.
#[derive(Debug, Clone)]
pub(super) struct Sts {
    unsigned: SdkConfig,
    line: Line,
}

impl Sts {
    /// With the endpoint, Region, time-outs and HTTP client of `unsigned`, which holds no credentials.
    pub fn new(unsigned: SdkConfig, line: Line) -> Self {
        Self { unsigned, line }
    }

    fn signed(&self, by: &AwsCredentials) -> aws_sdk_sts::Client {
        let provider = SharedCredentialsProvider::new(by.clone());
        aws_sdk_sts::Client::new(&self.unsigned.to_builder().credentials_provider(provider).build())
    }

    /// Whose credentials these are. Needs no permission.
    pub async fn caller(&self, credentials: &AwsCredentials) -> Result<Caller, AwsError> {
        const CALL: &str = "sts:GetCallerIdentity";
        let client = self.signed(credentials);
        let answer = self.line.call(CALL, || client.get_caller_identity().send()).await?;
        answer.arn().and_then(Caller::of).ok_or_else(|| incomplete(CALL, "ARN"))
    }

    /// A session of `role`, assumed by `by`. A refusal tells what its trust policy lacks.
    pub async fn assume(
        &self,
        by: &AwsCredentials,
        role: &Role,
        policy: Option<&str>,
    ) -> Result<AwsCredentials, AwsError> {
        const CALL: &str = "sts:AssumeRole";
        let tags = role.tags.iter().map(|(key, value)| Tag::builder().key(key).value(value).build());
        let tags = tags.collect::<Result<Vec<_>, _>>().map_err(|error| faulty(CALL, &error.to_string()))?;
        let request = self
            .signed(by)
            .assume_role()
            .role_arn(&role.arn)
            .role_session_name(&role.session_name)
            .set_external_id(role.external_id.clone())
            .set_tags((!tags.is_empty()).then_some(tags))
            .set_duration_seconds(role.duration)
            .set_policy(policy.map(str::to_owned));
        match self.line.call(CALL, || request.clone().send()).await {
            Ok(answer) => issued(CALL, answer.credentials(), answer.assumed_role_user().map(AssumedRoleUser::arn)),
            Err(error) => {
                let error = packed(error, policy);
                if error.kind != Kind::Denied || error.code != "AccessDenied" {
                    return Err(error);
                }
                let caller = self.caller(by).await.map_or_else(|_| "the caller's ARN".to_owned(), |caller| caller.arn);
                // A pod's own session brings tags along, which have to be let in as well.
                let tagged = !role.tags.is_empty() || by.session_token().is_some();
                let statement = trust::of_caller(&caller, role.external_id.as_deref(), tagged);
                Err(untrusted(error, &role.arn, &statement))
            }
        }
    }

    /// A session of `role`, assumed by whoever holds one of `tokens`; nobody signs this call.
    pub async fn assume_with_token(
        &self,
        tokens: &dyn IdentityTokens,
        role: &Role,
        policy: Option<&str>,
    ) -> Result<AwsCredentials, AwsError> {
        const CALL: &str = "sts:AssumeRoleWithWebIdentity";
        let token = tokens.token().await?;
        let request = aws_sdk_sts::Client::new(&self.unsigned)
            .assume_role_with_web_identity()
            .role_arn(&role.arn)
            .role_session_name(&role.session_name)
            .web_identity_token(token.expose())
            .set_duration_seconds(role.duration)
            .set_policy(policy.map(str::to_owned));
        match self.line.call(CALL, || request.clone().send()).await {
            Ok(answer) => issued(CALL, answer.credentials(), answer.assumed_role_user().map(AssumedRoleUser::arn)),
            Err(error) => {
                let error = packed(error, policy);
                match trust::of_token(&role.arn, token.expose()) {
                    Some(statement) if error.kind == Kind::Denied => Err(untrusted(error, &role.arn, &statement)),
                    _ => Err(error),
                }
            }
        }
    }

    /// A session of the IAM user `by` that may do what both the user and `policy` allow.
    pub async fn federate(&self, by: &AwsCredentials, policy: &str) -> Result<AwsCredentials, AwsError> {
        const CALL: &str = "sts:GetFederationToken";
        let request = self.signed(by).get_federation_token().name(SESSION_NAME).policy(policy);
        let answer = self.line.call(CALL, || request.clone().send()).await;
        let answer = answer.map_err(|error| packed(error, Some(policy)))?;
        issued(CALL, answer.credentials(), answer.federated_user().map(FederatedUser::arn))
    }
}

/// A refusal with its remedy.
fn untrusted(error: AwsError, role: &str, statement: &str) -> AwsError {
    let message = format!(
        "{}; the trust policy of {role} must have a statement like {statement}, and the role must exist",
        error.message
    );
    AwsError { kind: Kind::Untrusted, message, ..error }
}

/// STS packs policies in a way of its own, which may overflow before the plain limit is reached.
fn packed(error: AwsError, policy: Option<&str>) -> AwsError {
    match policy {
        Some(policy) if error.code == "PackedPolicyTooLarge" => {
            let length = policy.chars().count();
            let message = format!(
                "{} (the session policy has {length} characters; name fewer repositories, or wider globs)",
                error.message
            );
            AwsError { message, ..error }
        }
        _ => error,
    }
}

/// What STS issued, and to whom: it says so with the credentials.
fn issued(call: &'static str, answer: Option<&Issued>, arn: Option<&str>) -> Result<AwsCredentials, AwsError> {
    let issued = answer.ok_or_else(|| incomplete(call, "credentials"))?;
    let caller = arn.and_then(Caller::of).ok_or_else(|| incomplete(call, "ARN"))?;
    let expires = std::time::SystemTime::try_from(*issued.expiration())
        .map_err(|_| faulty(call, "the session's expiration is out of range"))?;
    let mut credentials = AwsCredentials::new(
        issued.access_key_id(),
        issued.secret_access_key(),
        Some(issued.session_token().to_owned()),
        Some(expires),
        call,
    );
    credentials.set_property(caller);
    Ok(credentials)
}
