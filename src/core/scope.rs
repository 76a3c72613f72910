//! What a token may do at most. Whoever agrees in it can share the token.
//!
//! The ceiling is put in a session policy (IAM user guide, "Session policies"): whoever signs the token then has the rights
//! that both the policy and the identity give.

use std::fmt;

use serde_json::{Value, json};

use crate::api::TokenAccess;
use crate::core::glob;
use crate::core::hosts::repository_arn;
use crate::core::names::{AccountId, Region};

/// Characters of a session policy at most (STS API reference, `AssumeRole`, `Policy`).
pub const MOST_CHARACTERS: usize = 2048;

/// What clients call to pull: registries' clients, those that list tags to find the newest (Flux, Argo CD Image Updater),
/// and the first pull through a cache.
const PULL: [&str; 7] = [
    "ecr:BatchCheckLayerAvailability",
    "ecr:BatchGetImage",
    "ecr:BatchImportUpstreamImage",
    "ecr:DescribeImages",
    "ecr:GetDownloadUrlForLayer",
    "ecr:ListImageReferrers",
    "ecr:ListImages",
];

/// What they call besides to push.
const PUSH: [&str; 4] = ["ecr:CompleteLayerUpload", "ecr:InitiateLayerUpload", "ecr:PutImage", "ecr:UploadLayerPart"];

/// The ceiling of a token.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// All that the identity may: there is no session policy.
    Identity,
    /// Some repositories.
    Repositories(Repositories),
    /// ECR Public.
    Public,
}

/// The repositories of a scope.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Repositories {
    /// To pull, or to push.
    pub access: TokenAccess,
    /// In these accounts, sorted.
    pub accounts: Vec<AccountId>,
    /// Whose names fit one of these globs, sorted, none of which another one covers.
    pub globs: Vec<String>,
}

/// Why there is no such ceiling.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScopeError {
    /// More than STS takes.
    #[error(
        "the session policy for these repositories has {0} characters and STS takes {MOST_CHARACTERS}: ask for fewer, with shorter or wider globs, or for fewer accounts"
    )]
    TooLong(usize),
    /// What is asked for and what is allowed overlap in too many ways.
    #[error("`{0}` and `{1}` overlap in too many ways: use fewer stars, or fewer globs")]
    TooManyStars(String, String),
}

impl Scope {
    /// Of repositories in `accounts` whose names fit one of `globs`, in whatever order these are.
    #[must_use]
    pub fn repositories(access: TokenAccess, mut accounts: Vec<AccountId>, globs: Vec<String>) -> Self {
        accounts.sort();
        accounts.dedup();
        Self::Repositories(Repositories { access, accounts, globs: glob::minimal(globs) })
    }

    /// The session policy for tokens of `region`; none where there is no ceiling. Nothing is ever left out of it.
    ///
    /// # Errors
    /// [`ScopeError::TooLong`] beyond what STS takes.
    pub fn session_policy(&self, region: &Region) -> Result<Option<String>, ScopeError> {
        let statements = match self {
            Self::Identity => return Ok(None),
            Self::Public => {
                vec![allow(&["ecr-public:GetAuthorizationToken", "sts:GetServiceBearerToken"], &json!("*"))]
            }
            Self::Repositories(Repositories { access, accounts, globs }) => {
                let arns = accounts.iter().flat_map(|account| globs.iter().map(move |glob| (account, glob)));
                let arns: Vec<_> = arns.map(|(account, glob)| repository_arn(region, account, glob)).collect();
                let mut actions = PULL.to_vec();
                actions.extend(if *access == TokenAccess::Push { &PUSH[..] } else { &[] });
                actions.sort_unstable();
                vec![allow(&["ecr:GetAuthorizationToken"], &json!("*")), allow(&actions, &one_or_many(&arns))]
            }
        };
        let policy = json!({"Version": "2012-10-17", "Statement": statements}).to_string();
        match policy.chars().count() {
            length if length > MOST_CHARACTERS => Err(ScopeError::TooLong(length)),
            _ => Ok(Some(policy)),
        }
    }
}

fn allow(actions: &[&str], resource: &Value) -> Value {
    json!({"Effect": "Allow", "Action": one_or_many(actions), "Resource": resource})
}

/// A list of one is written as its only item: characters are scarce.
fn one_or_many<T: serde::Serialize>(items: &[T]) -> Value {
    match items {
        [one] => json!(one),
        many => json!(many),
    }
}

/// The same text for the same scope, in every version: it is part of what is noted on Secrets.
impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Identity => f.write_str("identity"),
            Self::Public => f.write_str("public"),
            Self::Repositories(Repositories { access, accounts, globs }) => {
                let accounts: Vec<_> = accounts.iter().map(AccountId::as_str).collect();
                write!(f, "{} {} {}", access.as_str(), accounts.join(","), globs.join(","))
            }
        }
    }
}

/// What of `allowed` is `asked` for: globs, sorted, none of which another one covers. Nothing asked is everything asked.
///
/// # Errors
/// [`ScopeError::TooManyStars`] where that can't be told in few globs.
pub fn ceiling(allowed: &[String], asked: Option<&[String]>) -> Result<Vec<String>, ScopeError> {
    let Some(asked) = asked else {
        return Ok(glob::minimal(allowed.to_vec()));
    };
    let (mut common, mut effort) = (Vec::new(), glob::Effort::default());
    for (may, wish) in allowed.iter().flat_map(|may| asked.iter().map(move |wish| (may, wish))) {
        let both = glob::intersect(may, wish, &mut effort);
        common.extend(both.ok_or_else(|| ScopeError::TooManyStars(may.clone(), wish.clone()))?);
    }
    Ok(glob::minimal(common))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn list(items: &[&str]) -> Vec<String> {
        items.iter().map(|item| (*item).to_owned()).collect()
    }

    fn scope(access: TokenAccess, accounts: &[&str], globs: &[&str]) -> Scope {
        let accounts = accounts.iter().map(|text| AccountId::parse(text).unwrap()).collect();
        Scope::repositories(access, accounts, list(globs))
    }

    fn policy(scope: &Scope, region: &str) -> Value {
        let text = scope.session_policy(&Region::parse(region).unwrap()).unwrap().unwrap();
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn a_pull_policy_allows_what_pulling_takes_on_those_repositories_and_nothing_else() {
        let found = policy(&scope(TokenAccess::Pull, &["123456789012"], &["team-a/*"]), "eu-west-1");
        let expected = json!({"Version": "2012-10-17", "Statement": [
            {"Effect": "Allow", "Action": "ecr:GetAuthorizationToken", "Resource": "*"},
            {"Effect": "Allow", "Action": PULL, "Resource": "arn:aws:ecr:eu-west-1:123456789012:repository/team-a/*"},
        ]});
        assert_eq!(found, expected);
    }

    #[test]
    fn a_push_policy_adds_the_four_calls_of_a_push() {
        let found = policy(&scope(TokenAccess::Push, &["123456789012"], &["a", "b"]), "cn-north-1");
        let actions = found.pointer("/Statement/1/Action").and_then(Value::as_array).unwrap();
        assert_eq!(actions.len(), PULL.len() + PUSH.len());
        assert!(PUSH.iter().all(|call| actions.contains(&json!(call))));
        assert_eq!(
            found.pointer("/Statement/1/Resource"),
            Some(&json!([
                "arn:aws-cn:ecr:cn-north-1:123456789012:repository/a",
                "arn:aws-cn:ecr:cn-north-1:123456789012:repository/b"
            ]))
        );
    }

    /// Whether the policy allows this call, as IAM reads it.
    fn allows(policy: &Value, action: &str, resource: &str) -> bool {
        let texts = |value: &Value| match value {
            Value::Array(items) => items.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            other => list(&[other.as_str().unwrap()]),
        };
        policy["Statement"].as_array().unwrap().iter().any(|statement| {
            texts(&statement["Action"]).iter().any(|allowed| allowed == action)
                && texts(&statement["Resource"]).iter().any(|arn| glob::matches(arn, resource))
        })
    }

    #[test]
    fn what_clients_call_is_allowed_inside_the_scope_and_nothing_outside_it() {
        let inside = "arn:aws:ecr:eu-west-1:123456789012:repository/team-a/app";
        let outside = [
            "arn:aws:ecr:eu-west-1:123456789012:repository/team-b/app",
            "arn:aws:ecr:eu-west-1:123456789012:repository/team-ab/app",
            "arn:aws:ecr:us-east-1:123456789012:repository/team-a/app",
            "arn:aws:ecr:eu-west-1:210987654321:repository/team-a/app",
        ];
        let pull = policy(&scope(TokenAccess::Pull, &["123456789012"], &["team-a/*"]), "eu-west-1");
        let push = policy(&scope(TokenAccess::Push, &["123456789012"], &["team-a/*"]), "eu-west-1");
        // Manifests and layers; tags as Flux and Argo CD's image updater list them; referrers; a cache's first pull.
        let pulls = [
            "ecr:BatchGetImage",
            "ecr:GetDownloadUrlForLayer",
            "ecr:BatchCheckLayerAvailability",
            "ecr:ListImages",
            "ecr:DescribeImages",
            "ecr:ListImageReferrers",
            "ecr:BatchImportUpstreamImage",
        ];
        let pushes = ["ecr:InitiateLayerUpload", "ecr:UploadLayerPart", "ecr:CompleteLayerUpload", "ecr:PutImage"];
        let never = ["ecr:DeleteRepository", "ecr:BatchDeleteImage", "ecr:CreateRepository", "ecr:SetRepositoryPolicy"];
        for policy in [&pull, &push] {
            assert!(allows(policy, "ecr:GetAuthorizationToken", "*"));
            assert!(pulls.iter().all(|call| allows(policy, call, inside)));
            assert!(never.iter().all(|call| !allows(policy, call, inside)));
        }
        assert!(pushes.iter().all(|call| allows(&push, call, inside) && !allows(&pull, call, inside)));
        for other in outside {
            assert!(pulls.iter().chain(&pushes).all(|call| !allows(&push, call, other)), "{other}");
        }
    }

    #[test]
    fn ecr_public_has_a_policy_of_its_own_and_no_ceiling_has_none() {
        let found = policy(&Scope::Public, "us-east-1");
        let actions = json!(["ecr-public:GetAuthorizationToken", "sts:GetServiceBearerToken"]);
        assert_eq!(found.pointer("/Statement/0/Action"), Some(&actions));
        assert_eq!(Scope::Identity.session_policy(&Region::parse("eu-west-1").unwrap()), Ok(None));
    }

    #[test]
    fn beyond_what_sts_takes_the_number_is_told_and_nothing_is_dropped() {
        let globs: Vec<_> = (0..40).map(|n| format!("a-rather-long-team-name-{n}/*")).collect();
        let globs: Vec<_> = globs.iter().map(String::as_str).collect();
        let refused = scope(TokenAccess::Pull, &["123456789012"], &globs);
        let error = refused.session_policy(&Region::parse("eu-west-1").unwrap()).unwrap_err();
        let ScopeError::TooLong(length) = error.clone() else { unreachable!() };
        assert!(length > MOST_CHARACTERS && error.to_string().contains(&length.to_string()));
    }

    #[test]
    fn what_is_covered_is_said_once() {
        let all = scope(TokenAccess::Pull, &["210987654321", "123456789012"], &["team-a/*", "*", "shared/*"]);
        assert_eq!(all.to_string(), "Pull 123456789012,210987654321 *");
    }

    #[test]
    fn the_worst_that_the_schemas_let_in_comes_to_an_end() {
        // A hundred globs of 256 letters on each side: hours, if nobody counted.
        let lists = |unit: &str| (10..110).map(|n| unit.repeat(256)[..n + 146].to_owned()).collect::<Vec<_>>();
        for (may, wish) in [("*a", "a*"), ("*aaaa", "*aaa"), ("aaaaaaaa*", "*aaaaaaaaaaaa"), ("a*b", "b*a")] {
            let _ = ceiling(&lists(may), Some(&lists(wish)));
        }
        let all: Vec<_> = (0..10_000).map(|n| format!("*team-{n}/*")).collect();
        assert_eq!(ceiling(&all, None).unwrap().len(), all.len());
    }

    proptest! {
        #[test]
        fn a_ceiling_is_what_is_allowed_and_asked_for(
            allowed in proptest::collection::vec("[ab*]{0,4}", 0..4),
            asked in proptest::option::of(proptest::collection::vec("[ab*]{0,4}", 0..4)),
            name in "[ab]{0,6}",
        ) {
            let fits = |globs: &[String]| globs.iter().any(|glob| glob::matches(glob, &name));
            let ceiling = ceiling(&allowed, asked.as_deref()).unwrap();
            prop_assert_eq!(fits(&ceiling), fits(&allowed) && asked.as_deref().is_none_or(fits));
        }
    }
}
