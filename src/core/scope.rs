//! What a token may do at most. Whoever agrees in it can share the token.

use std::fmt;

use crate::api::TokenAccess;
use crate::core::glob;
use crate::core::names::AccountId;

/// The ceiling of a token, as the session policy of whoever signs it puts it.
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
    /// Whose names fit one of these globs, sorted, none of which is covered by another.
    pub globs: Vec<String>,
}

impl Scope {
    /// Of repositories in `accounts` whose names fit one of `globs`, in whatever order these are.
    #[must_use]
    pub fn repositories(access: TokenAccess, mut accounts: Vec<AccountId>, mut globs: Vec<String>) -> Self {
        accounts.sort();
        accounts.dedup();
        globs.sort();
        globs.dedup();
        Self::Repositories(Repositories { access, accounts, globs })
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
#[must_use]
pub fn ceiling(allowed: &[String], asked: Option<&[String]>) -> Vec<String> {
    let common = |asked: &[String]| {
        let pairs = allowed.iter().flat_map(|may| asked.iter().map(move |wish| (may, wish)));
        let narrower = pairs.filter_map(|(may, wish)| match (glob::matches(may, wish), glob::matches(wish, may)) {
            (true, _) => Some(wish.clone()),
            (_, true) => Some(may.clone()),
            _ => None,
        });
        narrower.collect::<Vec<_>>()
    };
    let mut globs = asked.map_or_else(|| allowed.to_vec(), common);
    globs.sort();
    globs.dedup();
    let covered = |glob: &String| globs.iter().any(|other| other != glob && glob::matches(other, glob));
    globs.iter().filter(|glob| !covered(glob)).cloned().collect()
}
