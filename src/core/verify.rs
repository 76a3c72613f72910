//! Which side has to change where a registry refuses a token: whoever pulls, whoever owns the repository, or this operator's
//! own limits.

use crate::core::hosts::RegistryHost;
use crate::core::names::AccountId;
use crate::core::reason::{Problem, Reason};

/// A refused look at a repository.
#[derive(Debug, Clone, Copy)]
pub struct Refused<'a> {
    /// The registry.
    pub host: &'a str,
    /// The repository there.
    pub repository: &'a str,
    /// Who asked for the token.
    pub caller: &'a str,
    /// Of the caller.
    pub account: &'a AccountId,
    /// The HTTP status.
    pub status: u16,
    /// The registry's own words; may be empty.
    pub message: &'a str,
}

/// What a puller needs on a repository.
const ACTIONS: &str = "ecr:BatchGetImage, ecr:GetDownloadUrlForLayer and ecr:BatchCheckLayerAvailability";

impl Refused<'_> {
    /// Told to a person, with what to do. AWS names the policy that lacks a permission as documented in IAM's "Troubleshoot
    /// access denied error messages"; where it doesn't, the accounts tell who can be the one.
    #[must_use]
    pub fn problem(&self) -> Problem {
        let Self { host, repository, caller, message, status, .. } = self;
        let owner = RegistryHost::parse(host).map(|host| host.account);
        let owner = owner.as_ref().filter(|owner| *owner != self.account);
        let says = |text: &str| message.contains(text);
        let identity = || format!("the IAM policy of {caller} has to allow {ACTIONS} on repository {repository}");
        let theirs = |owner: &AccountId| {
            format!("the policy of repository {repository} in account {owner} has to allow {ACTIONS} to {caller}")
        };
        let remedy = if says("session policy") {
            format!(
                "the token is limited to what the EcrRegistry's `allow` rules (and registries[].repositories) give the namespace; add {repository} there, or verify another repository"
            )
        } else if says("service control policy") || says("resource control policy") {
            "a policy of the AWS organisation forbids it".to_owned()
        } else if says("expired") || says("Authorization Token is invalid") || *status == 401 {
            "the registry doesn't take the token at all; if a new one (annotation ecr-operator.dev/reconcile-at) is refused too, it belongs to another Region or partition than the host".to_owned()
        } else if says("resource-based policy") {
            owner.map_or_else(|| format!("the policy of repository {repository} keeps {caller} out"), theirs)
        } else if let Some(owner) = owner.filter(|_| !says("identity-based policy")) {
            format!("both sides have to agree: {}, and {}", identity(), theirs(owner))
        } else {
            identity()
        };
        let told = if message.is_empty() { String::new() } else { format!(" ({message})") };
        Problem::new(Reason::Denied, format!("{host} refuses to show {repository}, HTTP {status}{told}: {remedy}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";
    const THEIRS: &str = "210987654321.dkr.ecr.eu-west-1.amazonaws.com";

    fn told(host: &str, status: u16, message: &str) -> String {
        let account = AccountId::parse("123456789012").unwrap();
        let caller = "arn:aws:iam::123456789012:role/puller";
        let problem = Refused { host, repository: "app", caller, account: &account, status, message }.problem();
        assert_eq!(problem.reason, Reason::Denied);
        assert!(problem.message.contains(host) && problem.message.contains(message), "{}", problem.message);
        problem.message
    }

    #[test]
    fn the_side_that_has_to_change_is_named() {
        let because = |kind: &str| format!("… because no {kind} policy allows the ecr:BatchGetImage action");
        for (host, status, message, remedy) in [
            (
                OWN,
                403,
                because("identity-based"),
                "the IAM policy of arn:aws:iam::123456789012:role/puller has to allow",
            ),
            (THEIRS, 403, because("identity-based"), "the IAM policy of arn:aws:iam::123456789012:role/puller"),
            (
                THEIRS,
                403,
                because("resource-based"),
                "the policy of repository app in account 210987654321 has to allow",
            ),
            (OWN, 403, "with an explicit deny in a resource-based policy".into(), "policy of repository app keeps"),
            (THEIRS, 403, because("session"), "`allow` rules"),
            (OWN, 403, "with an explicit deny in a service control policy".into(), "organisation"),
            (OWN, 403, "Your authorization token has expired. Reauthenticate and try again.".into(), "another Region"),
            (OWN, 401, String::new(), "another Region"),
            (OWN, 403, String::new(), "the IAM policy of"),
            (THEIRS, 403, String::new(), "both sides have to agree"),
        ] {
            let told = told(host, status, &message);
            assert!(told.contains(remedy), "{told}");
        }
    }
}
