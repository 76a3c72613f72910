//! The life of a registry token: when to renew it, and when to say that it is overdue or dead.

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use jiff::{SignedDuration, Timestamp};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::core::names::Region;
use crate::core::scope::Scope;

/// Text that must never be shown. It has no `Display`, its `Debug` tells nothing, and its memory is wiped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes the text over.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The text itself: for the request that carries it, nothing else.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Which registry a token opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Service {
    /// The private registries of a Region.
    Private,
    /// ECR Public.
    Public,
}

/// Whoever agrees in all of this shares a token.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenKey {
    /// A fingerprint of who mints it, with which credentials.
    pub identity: String,
    /// Where it is minted.
    pub region: Region,
    /// For which registry.
    pub service: Service,
    /// What it may do at most.
    pub scope: Scope,
}

/// A token as registries take it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Base64 of `AWS:password`: `auth` in a docker config.
    pub auth: Secret,
    /// The password alone.
    pub password: Secret,
    /// From when to when.
    pub life: Life,
    /// When to fetch the next.
    pub refresh_at: Timestamp,
}

/// The user name that goes with every token of ECR.
pub const USERNAME: &str = "AWS";

impl Token {
    /// Reads what ECR calls `authorizationToken`. `seed` says which renewals shouldn't fall on one moment.
    ///
    /// # Errors
    /// [`TokenFault::Malformed`] where it is not base64 of `AWS:password`.
    pub fn parse(auth: Secret, life: Life, seed: &str) -> Result<Self, TokenFault> {
        let decoded = BASE64_STANDARD.decode(auth.expose()).map(Zeroizing::new).map_err(|_| TokenFault::Malformed)?;
        let text = std::str::from_utf8(&decoded).map_err(|_| TokenFault::Malformed)?;
        let password = text.split_once(':').filter(|(user, password)| *user == USERNAME && !password.is_empty());
        let password = password.map(|(_, password)| Secret::new(password.to_owned())).ok_or(TokenFault::Malformed)?;
        Ok(Self { auth, password, life, refresh_at: life.refresh_at(seed) })
    }
}

/// Why a token that AWS gave can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenFault {
    /// No expiry: nobody could say when to renew it.
    #[error("AWS returned a token without expiresAt")]
    NoExpiry,
    /// Dead on arrival; usually a clock that is wrong.
    #[error("AWS returned a token that expired at {0}; check this node's clock")]
    Dead(Timestamp),
    /// Not base64 of `AWS:password`.
    #[error("AWS returned an authorization token of an unknown form")]
    Malformed,
}

/// When a token was issued and when it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Life {
    /// By our clock.
    pub issued_at: Timestamp,
    /// By AWS's.
    pub expires_at: Timestamp,
}

/// How a token stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Freshness {
    /// As it should be.
    Fresh,
    /// Three quarters of its life are over: renewal is overdue.
    Stale,
    /// Dead.
    Expired,
}

/// Tokens are never kept longer than this before renewal, however long they claim to live.
const LATEST_RENEWAL: SignedDuration = SignedDuration::from_hours(6);
/// Nor renewed sooner than this after they were issued, however short they live.
const EARLIEST_RENEWAL: SignedDuration = SignedDuration::from_secs(1);

/// Nor at anybody's wish sooner than at a hundredth of their life, this at most.
const LEAST_AGE: SignedDuration = SignedDuration::from_secs(5);

impl Life {
    /// Of a token issued `now`.
    ///
    /// # Errors
    /// Where it is dead or has no expiry.
    pub fn of(now: Timestamp, expires_at: Option<Timestamp>) -> Result<Self, TokenFault> {
        let expires_at = expires_at.ok_or(TokenFault::NoExpiry)?;
        if expires_at <= now {
            return Err(TokenFault::Dead(expires_at));
        }
        Ok(Self { issued_at: now, expires_at })
    }

    fn length(self) -> SignedDuration {
        self.expires_at.duration_since(self.issued_at)
    }

    /// Half of its life, less up to a tenth of it: by how much belongs to `seed`, so that all who hold the token agree
    /// and those who hold others don't ask AWS at the same moment.
    #[must_use]
    pub fn refresh_at(self, seed: &str) -> Timestamp {
        let share = 0.5 - 0.1 * fraction(&[seed, &self.expires_at.to_string()]);
        let wait = self.length().mul_f64(share).clamp(EARLIEST_RENEWAL, LATEST_RENEWAL);
        self.issued_at.saturating_add(wait).unwrap_or(self.issued_at)
    }

    /// The moment from which it may be replaced before its time: whoever wishes for it may do so over and over.
    #[must_use]
    pub fn replaceable_at(self) -> Timestamp {
        let age = self.length().mul_f64(0.01).min(LEAST_AGE);
        self.issued_at.saturating_add(age).unwrap_or(self.issued_at)
    }

    /// A while after `end`, in proportion to what is left until then: clocks differ, and so would the answers.
    #[must_use]
    pub fn shortly_after(self, end: Timestamp) -> Timestamp {
        let left = end.duration_since(self.issued_at).mul_f64(0.1);
        let margin = left.clamp(SignedDuration::from_secs(1), SignedDuration::from_mins(1));
        end.saturating_add(margin).unwrap_or(end)
    }

    /// The moment from which renewal counts as overdue.
    #[must_use]
    pub fn stale_at(self) -> Timestamp {
        self.issued_at.saturating_add(self.length().mul_f64(0.75)).unwrap_or(self.expires_at)
    }

    /// The moment, at nine tenths of the life, from which a token isn't worth waiting for another one's sake.
    #[must_use]
    pub fn dies_soon_at(self) -> Timestamp {
        self.issued_at.saturating_add(self.length().mul_f64(0.9)).unwrap_or(self.expires_at)
    }

    /// How it stands.
    #[must_use]
    pub fn freshness(self, now: Timestamp) -> Freshness {
        if now >= self.expires_at {
            Freshness::Expired
        } else if now >= self.stale_at() {
            Freshness::Stale
        } else {
            Freshness::Fresh
        }
    }
}

/// From `from` until `until`; zero where that has passed.
#[must_use]
pub fn wait(from: Timestamp, until: Timestamp) -> Duration {
    until.duration_since(from).try_into().unwrap_or(Duration::ZERO)
}

/// A number from 0 (included) to 1 (excluded) that belongs to these words.
#[must_use]
pub fn fraction(words: &[&str]) -> f64 {
    let mut hash = Sha256::new();
    for word in words {
        hash.update(word.as_bytes());
        hash.update([0]);
    }
    let first = hash.finalize().iter().take(4).fold(0u32, |number, byte| (number << 8) | u32::from(*byte));
    f64::from(first) / (f64::from(u32::MAX) + 1.0)
}

/// A short name for these words: 16 hexadecimal digits.
#[must_use]
pub fn fingerprint(words: &[&str]) -> String {
    use std::fmt::Write as _;
    let mut hash = Sha256::new();
    for word in words {
        hash.update(word.as_bytes());
        hash.update([0]);
    }
    hash.finalize().iter().take(8).fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_token_that_arrives_dead_or_without_expiry_is_an_error() {
        assert_eq!(Life::of(at(100), None), Err(TokenFault::NoExpiry));
        assert_eq!(Life::of(at(100), Some(at(100))), Err(TokenFault::Dead(at(100))));
        assert!(Life::of(at(100), Some(at(101))).is_ok());
    }

    #[test]
    fn only_a_token_of_the_known_form_is_taken() {
        let life = Life::of(at(0), Some(at(100))).unwrap();
        let parse = |text: &str| Token::parse(Secret::new(text.to_owned()), life, "");
        assert_eq!(parse(&BASE64_STANDARD.encode("AWS:pass:word")).unwrap().password.expose(), "pass:word");
        for bad in
            ["", "!", &BASE64_STANDARD.encode("AWS"), &BASE64_STANDARD.encode("AWS:"), &BASE64_STANDARD.encode("me:x")]
        {
            assert_eq!(parse(bad).err(), Some(TokenFault::Malformed), "{bad}");
        }
    }

    #[test]
    fn overdue_from_three_quarters_of_the_life() {
        let life = Life::of(at(0), Some(at(100))).unwrap();
        assert_eq!(life.freshness(at(74)), Freshness::Fresh);
        assert_eq!(life.freshness(at(75)), Freshness::Stale);
        assert_eq!(life.freshness(at(100)), Freshness::Expired);
    }

    #[test]
    fn a_secret_never_shows() {
        assert!(!format!("{:?}", Secret::new("hunter2".into())).contains("hunter2"));
    }

    proptest! {
        #[test]
        fn renewal_is_between_four_tenths_and_half_of_the_life(seconds in 3i64..=43_200, seed in ".{0,20}") {
            let life = Life::of(at(1_000), Some(at(1_000 + seconds))).unwrap();
            let wait = life.refresh_at(&seed).duration_since(life.issued_at).as_secs_f64();
            #[expect(clippy::cast_precision_loss, reason = "a few hours in seconds are exact")]
            let seconds = seconds as f64;
            prop_assert!(wait <= (seconds * 0.5).max(1.0));
            prop_assert!(wait >= (seconds * 0.4).min(1.0));
            prop_assert_eq!(life.refresh_at(&seed), life.refresh_at(&seed));
        }

        #[test]
        fn an_absurd_expiry_still_renews_within_six_hours(days in 1i64..3650) {
            let life = Life::of(at(0), Some(at(days * 86_400))).unwrap();
            prop_assert!(life.refresh_at("x") <= at(6 * 3600));
        }
    }
}
