//! The names AWS gives things, parsed once: whoever holds one of these types need not check it again.

use std::fmt;

/// Why a string is not the name it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not a repository name.
    #[error(
        "`{0}` is not an ECR repository name: 2 to 256 characters, lower-case letters and digits joined by single `.`, `_`, `__` or hyphens, in parts separated by `/`"
    )]
    Repository(String),
    /// Not an account.
    #[error("`{0}` is not an AWS account id: it has 12 digits (quote it in YAML, or a leading zero is lost)")]
    Account(String),
    /// Not a Region.
    #[error("`{0}` is not an AWS Region: expected something like eu-west-1")]
    Region(String),
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// The name as AWS spells it.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// The name of an ECR repository, such as `team-a/app`
    /// (the service model's pattern for `RepositoryName`, 2 to 256 characters).
    RepositoryName
);
name!(
    /// A 12-digit AWS account id.
    AccountId
);
name!(
    /// An AWS Region, such as `eu-west-1`.
    Region
);

impl RepositoryName {
    /// Parses a name.
    ///
    /// # Errors
    /// [`NameError::Repository`] where ECR would refuse it.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let fits = (2..=256).contains(&text.len()) && text.split('/').all(is_component);
        fits.then(|| Self(text.to_owned())).ok_or_else(|| NameError::Repository(text.to_owned()))
    }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_component(text: &str) -> bool {
    let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let ends_are_words = text.starts_with(word) && text.ends_with(word);
    ends_are_words
        && text
            .split(word)
            .filter(|gap| !gap.is_empty())
            .all(|gap| matches!(gap, "." | "_" | "__") || gap.bytes().all(|b| b == b'-'))
}

impl AccountId {
    /// Parses an account id.
    ///
    /// # Errors
    /// [`NameError::Account`] unless it has 12 digits.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let fits = text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit());
        fits.then(|| Self(text.to_owned())).ok_or_else(|| NameError::Account(text.to_owned()))
    }
}

impl Region {
    /// Parses a Region: letters in two or more parts, then a number.
    ///
    /// # Errors
    /// [`NameError::Region`] for anything of another shape.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let refuse = || NameError::Region(text.to_owned());
        let (place, number) = text.rsplit_once('-').ok_or_else(refuse)?;
        let letters = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase());
        let fits = !number.is_empty()
            && number.len() <= 2
            && number.bytes().all(|b| b.is_ascii_digit())
            && place.contains('-')
            && place.split('-').all(letters);
        fits.then(|| Self(text.to_owned())).ok_or_else(refuse)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repository_names_are_those_of_the_service_model() {
        let longest = "a".repeat(256);
        for good in ["ab", "team-a/app", "a.b--c", "a__b", "0a/1b", "a---b/c_d", longest.as_str()] {
            assert!(RepositoryName::parse(good).is_ok(), "{good}");
        }
        let too_long = "a".repeat(257);
        for bad in
            ["", "a", "A/b", "a/", "/a", "a//b", "a___b", "a..b", "a.-b", "-a", "a-", "a b", "ä/b", too_long.as_str()]
        {
            assert!(RepositoryName::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn regions_of_every_partition_parse() {
        for good in [
            "eu-west-1",
            "us-gov-west-1",
            "cn-north-1",
            "us-iso-east-1",
            "us-isob-east-1",
            "eusc-de-east-1",
            "ap-southeast-7",
        ] {
            assert!(Region::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "eu", "eu-west", "eu-1", "EU-west-1", "eu-west-1.evil.com", "eu--west-1", "eu-west-123"] {
            assert!(Region::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn accounts_have_twelve_digits() {
        assert!(AccountId::parse("012345678901").is_ok());
        for bad in ["", "12345678901", "1234567890123", "12345678901a"] {
            assert!(AccountId::parse(bad).is_err(), "{bad}");
        }
    }
}
