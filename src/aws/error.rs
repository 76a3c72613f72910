//! Errors of AWS, classed once and by code: throttling, denials and credential failures aren't modelled by the SDK, and
//! message texts change.

use aws_sdk_ecr::types::error::KmsException;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::display::DisplayErrorContext;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;

use crate::core::reason::{Problem, Reason};

/// What an error means, whatever it is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The thing isn't there.
    NotFound,
    /// A repository of that name is there.
    AlreadyExists,
    /// The repository has images.
    NotEmpty,
    /// The request can't be right.
    Invalid,
    /// IAM, an organisation's policy or a key policy says no.
    Denied,
    /// A role doesn't trust whoever would assume it; the message has the statement that is missing.
    Untrusted,
    /// The identity can't be given a session policy; the message has the remedy.
    Unscopable,
    /// The identity is of another account than it was.
    OtherAccount,
    /// Too fast.
    Throttled,
    /// A quota is used up.
    Quota,
    /// On the way, or by a fault on AWS's side: it may well succeed if it is just sent again.
    Lost,
    /// Passing in another way: time-outs, credentials that can't be had just now, refusals not known here.
    Transient,
}

impl Kind {
    /// For metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::AlreadyExists => "already_exists",
            Self::NotEmpty => "not_empty",
            Self::Invalid => "invalid",
            Self::Denied => "denied",
            Self::Untrusted => "untrusted",
            Self::Unscopable => "unscopable",
            Self::OtherAccount => "other_account",
            Self::Throttled => "throttled",
            Self::Quota => "quota",
            Self::Lost => "lost",
            Self::Transient => "transient",
        }
    }

    /// Whether it says nothing of what was asked for: it passes by itself.
    #[must_use]
    pub fn passes(self) -> bool {
        matches!(self, Self::Throttled | Self::Lost | Self::Transient)
    }
}

/// A failed call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{call}: {code}: {message}")]
pub struct AwsError {
    /// As in IAM: `ecr:CreateRepository`.
    pub call: &'static str,
    /// What it means.
    pub kind: Kind,
    /// AWS's own name for it, or what happened on the way.
    pub code: String,
    /// AWS's own words.
    pub message: String,
}

impl AwsError {
    /// Classes what the SDK returned.
    pub fn new<E>(call: &'static str, error: &SdkError<E, HttpResponse>) -> Self
    where
        E: std::error::Error + ProvideErrorMetadata + 'static,
    {
        // The identity's own failure, on the way to the call.
        if let Some(own) = causes(error).find_map(|cause| cause.downcast_ref::<Self>()) {
            return own.clone();
        }
        let status = error.raw_response().map_or(0, |response| response.status().as_u16());
        let service = error.as_service_error();
        let Some(code) = service.and_then(ProvideErrorMetadata::code) else {
            let (kind, code) = on_the_way(error, status);
            return Self { call, kind, code, message: chain(error) };
        };
        let message = service.and_then(ProvideErrorMetadata::message).unwrap_or("no message");
        // ECR passes on what KMS calls it beside its own words.
        let of_kms = causes(error).find_map(|cause| cause.downcast_ref::<KmsException>()?.kms_error());
        let message = of_kms.map_or_else(|| message.to_owned(), |kms| format!("{message} ({kms})"));
        let kind = if is_of_another_time(code, &message) { Kind::Transient } else { kind(code, status) };
        Self { call, kind, code: code.to_owned(), message }
    }

    /// A call that was given up before it was sent.
    pub(super) fn not_sent(call: &'static str, why: &str) -> Self {
        Self { call, kind: Kind::Transient, code: "not sent".to_owned(), message: why.to_owned() }
    }

    /// Told to a person: which call, on what, and what to do about it.
    #[must_use]
    pub fn problem(&self, resource: &str) -> Problem {
        let Self { call, code, message, .. } = self;
        let (reason, remedy) = match self.kind {
            Kind::Untrusted => (Reason::Denied, String::new()),
            Kind::Unscopable => (Reason::ScopeUnavailable, String::new()),
            Kind::OtherAccount => (Reason::AccountMismatch, String::new()),
            Kind::Denied => (Reason::Denied, format!("; {}", self.allowance(resource))),
            Kind::Invalid => (Reason::Invalid, String::new()),
            Kind::Throttled => (Reason::Throttled, String::new()),
            Kind::Quota => (Reason::Quota, "; ask for a higher quota or remove what is no longer needed".to_owned()),
            Kind::NotEmpty => (Reason::RepositoryNotEmpty, String::new()),
            Kind::Transient if is_of_another_time(code, message) => {
                (Reason::Transient, "; the clock of the operator's machine is off".to_owned())
            }
            Kind::AlreadyExists | Kind::NotFound | Kind::Lost | Kind::Transient => (Reason::Transient, String::new()),
        };
        Problem::new(reason, format!("{call} failed: {code}: {message}{remedy}"))
    }

    /// What has to change before it is allowed.
    fn allowance(&self, resource: &str) -> String {
        // One call may need several permissions, as CreateRepository with tags does: AWS names the one that is missing.
        let named = self.message.split_once("not authorized to perform: ").map(|(_, rest)| rest);
        let needed = named.and_then(|rest| rest.split_whitespace().next()).unwrap_or(self.call);
        match self.code.as_str() {
            code if BAD_KEY.contains(&code) => "the access key is wrong, inactive or deleted".to_owned(),
            "KmsException" => "the KMS key must exist in this Region and be enabled, and the identity needs kms:CreateGrant and kms:DescribeKey on it".to_owned(),
            "BlockedByOrganizationPolicyException" => {
                "a policy of the account's AWS organization forbids it; only whoever manages the organization can change that"
                    .to_owned()
            }
            "OptInRequired" | "RegionDisabledException" => {
                "the account has to enable this Region, or to sign up for the service there".to_owned()
            }
            _ if self.message.contains("explicit deny") => {
                format!("a policy denies {needed} on {resource} explicitly, and no permission outweighs that: change that policy")
            }
            _ if self.message.contains("no service control policy allows") => {
                format!("the service control policies of the account's AWS organization have to allow {needed} on {resource}")
            }
            _ if self.message.contains("no permissions boundary allows") => {
                format!("the identity's permissions boundary has to allow {needed} on {resource}")
            }
            _ => format!("the identity needs {needed} on {resource}"),
        }
    }
}

/// Refusals of the credentials themselves.
const BAD_KEY: [&str; 4] =
    ["InvalidClientTokenId", "UnrecognizedClientException", "SignatureDoesNotMatch", "InvalidSignatureException"];

/// Whether AWS refuses when it was signed, not by whom: it bears five minutes between its clock and ours. Most services
/// have no code of their own for that
/// ([signing](https://docs.aws.amazon.com/IAM/latest/UserGuide/signature-v4-troubleshooting.html)).
fn is_of_another_time(code: &str, message: &str) -> bool {
    let told = message.starts_with("Signature expired") || message.starts_with("Signature not yet current");
    BAD_KEY.contains(&code) && told || matches!(code, "RequestTimeTooSkewed" | "RequestExpired")
}

fn kind(code: &str, status: u16) -> Kind {
    match code {
        "RepositoryAlreadyExistsException" => Kind::AlreadyExists,
        "RepositoryNotEmptyException" => Kind::NotEmpty,
        "RepositoryNotFoundException"
        | "RepositoryPolicyNotFoundException"
        | "LifecyclePolicyNotFoundException"
        | "ImageNotFoundException" => Kind::NotFound,
        "InvalidParameterException"
        | "InvalidTagParameterException"
        | "TooManyTagsException"
        | "ValidationException"
        | "ValidationError"
        | "SerializationException"
        | "MalformedPolicyDocument"
        | "PackedPolicyTooLarge"
        | "UnsupportedCommandException" => Kind::Invalid,
        "LimitExceededException" => Kind::Quota,
        "AccessDeniedException"
        | "AccessDenied"
        | "UnauthorizedOperation"
        | "KmsException"
        | "BlockedByOrganizationPolicyException"
        | "OptInRequired"
        | "RegionDisabledException"
        | "InvalidIdentityToken"
        | "IDPRejectedClaim"
        | "InvalidClientTokenId"
        | "UnrecognizedClientException"
        | "SignatureDoesNotMatch"
        | "InvalidSignatureException"
        | "IncompleteSignature"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException" => Kind::Denied,
        "ThrottlingException"
        | "Throttling"
        | "ThrottledException"
        | "RequestThrottled"
        | "RequestThrottledException"
        | "TooManyRequestsException"
        | "RequestLimitExceeded"
        | "SlowDown"
        | "BandwidthLimitExceeded"
        | "PriorRequestNotComplete"
        | "EC2ThrottledException"
        | "TransactionInProgressException" => Kind::Throttled,
        // Whoever is overloaded says so in the status, if nothing else: a load balancer in front of it as well.
        _ if matches!(status, 429 | 503) => Kind::Throttled,
        _ if status >= 500 => Kind::Lost,
        // Unknown refusals are tried again: a newer API may say passing things in words not known here.
        _ => Kind::Transient,
    }
}

fn causes<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(error.source(), |cause| cause.source())
}

/// An error and what caused it, each said once.
pub(super) fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut words: Vec<_> = std::iter::once(error).chain(causes(error)).map(ToString::to_string).collect();
    words.dedup();
    words.join(": ")
}

/// What became of a call that AWS itself said nothing of.
fn on_the_way<E>(error: &SdkError<E, HttpResponse>, status: u16) -> (Kind, String) {
    let (kind, what) = match error {
        SdkError::TimeoutError(_) => (Kind::Transient, "no answer in time"),
        SdkError::DispatchFailure(failure) if failure.is_timeout() => (Kind::Lost, "no connection in time"),
        SdkError::DispatchFailure(failure) if failure.is_io() => (Kind::Lost, "no connection"),
        SdkError::DispatchFailure(_) | SdkError::ConstructionFailure(_) => (Kind::Transient, "not sent"),
        // A success whose rest didn't come.
        _ if (200..300).contains(&status) => return (Kind::Lost, format!("HTTP {status}")),
        _ => return (kind("", status), format!("HTTP {status}")),
    };
    (kind, what.to_owned())
}

/// The chain of causes, shortened: a response body in it would help nobody.
fn chain<E: std::error::Error + 'static>(error: &SdkError<E, HttpResponse>) -> String {
    let mut causes: Vec<_> = causes(error).map(ToString::to_string).collect();
    causes.dedup();
    if causes.is_empty() {
        DisplayErrorContext(error).to_string().chars().take(300).collect()
    } else {
        causes.join(": ")
    }
}

/// An answer that lacks what it always has.
pub(super) fn incomplete(call: &'static str, what: &str) -> AwsError {
    faulty(call, &format!("the answer has no {what}"))
}

/// An answer that can't be used.
pub(super) fn faulty(call: &'static str, why: &str) -> AwsError {
    AwsError { call, kind: Kind::Transient, code: "UnexpectedAnswer".to_owned(), message: why.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn throttling_is_known_by_every_spelling() {
        for code in
            ["ThrottlingException", "Throttling", "TooManyRequestsException", "RequestLimitExceeded", "SlowDown"]
        {
            for status in [400, 429, 503] {
                assert_eq!(kind(code, status), Kind::Throttled, "{code} {status}");
            }
        }
        for (code, status) in [("Whatever", 429), ("ServiceUnavailable", 503), ("", 503)] {
            assert_eq!(kind(code, status), Kind::Throttled, "{code} {status}");
        }
    }

    #[test]
    fn unmodelled_denials_are_denials_and_faults_pass() {
        for code in ["AccessDeniedException", "AccessDenied", "UnrecognizedClientException", "KmsException"] {
            assert_eq!(kind(code, 400), Kind::Denied, "{code}");
        }
        for code in
            ["ServerException", "InternalFailure", "ExpiredTokenException", "RequestTimeTooSkewed", "NewException", ""]
        {
            assert_eq!(kind(code, 500), Kind::Lost, "{code}");
            assert_eq!(kind(code, 400), Kind::Transient, "nothing was lost: {code}");
        }
    }

    #[test]
    fn a_clock_that_is_off_is_no_wrong_key() {
        for (code, message, is_it) in [
            ("SignatureDoesNotMatch", "Signature expired: 20261124T1Z is now earlier than 20261124T2Z", true),
            (
                "InvalidSignatureException",
                "Signature not yet current: 20261124T2Z is still later than 20261124T1Z",
                true,
            ),
            ("RequestTimeTooSkewed", "The difference is too large", true),
            ("SignatureDoesNotMatch", "The request signature we calculated does not match", false),
            ("AccessDenied", "Signature expired", false),
        ] {
            assert_eq!(is_of_another_time(code, message), is_it, "{code}: {message}");
        }
    }

    #[test]
    fn each_denial_has_a_remedy_of_its_own() {
        const DENIED: &str = "AccessDeniedException";
        let asked = "User: x is not authorized to perform: ecr:TagResource on resource: y";
        for (code, message, remedy) in [
            (DENIED, "User: x is not authorized".to_owned(), "the identity needs ecr:CreateRepository on arn"),
            (
                DENIED,
                format!("{asked} because no identity-based policy allows the ecr:TagResource action"),
                "the identity needs ecr:TagResource on arn",
            ),
            (
                DENIED,
                format!("{asked} with an explicit deny in a service control policy"),
                "a policy denies ecr:TagResource on arn explicitly",
            ),
            (
                DENIED,
                format!("{asked} because no service control policy allows the ecr:TagResource action"),
                "AWS organization have to allow ecr:TagResource on arn",
            ),
            (
                DENIED,
                format!("{asked} because no permissions boundary allows the ecr:TagResource action"),
                "permissions boundary has to allow ecr:TagResource on arn",
            ),
            ("KmsException", "no".to_owned(), "needs kms:CreateGrant and kms:DescribeKey on it"),
            ("BlockedByOrganizationPolicyException", "no".to_owned(), "whoever manages the organization"),
            ("OptInRequired", "no".to_owned(), "has to enable this Region"),
            ("RegionDisabledException", "no".to_owned(), "has to enable this Region"),
            ("UnrecognizedClientException", "no".to_owned(), "the access key is wrong"),
        ] {
            let call = "ecr:CreateRepository";
            let error = AwsError { call, kind: kind(code, 400), code: code.to_owned(), message };
            let problem = error.problem("arn");
            assert_eq!(problem.reason, Reason::Denied, "{code}");
            assert!(problem.message.contains(remedy), "{problem}");
        }
    }
}
