//! What a Secret notes of the tokens that it holds.

use std::collections::BTreeSet;

use jiff::Timestamp;

use crate::core::token::Life;

/// The lives of a Secret's tokens by host, as text: a status tells them after a restart too. Exact, since two tokens may
/// be had within one second.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TokenLives(pub(super) String);

impl TokenLives {
    /// Of these hosts, each with a short name for what its token may do.
    pub fn of<'a>(lives: impl IntoIterator<Item = (&'a str, Life, &'a str)>) -> Self {
        let told = |(host, life, rights): (&str, Life, &str)| {
            format!("{host} {} {} {rights}", life.issued_at, life.expires_at)
        };
        Self(lives.into_iter().map(told).collect::<Vec<_>>().join(","))
    }

    /// Of some of the hosts.
    #[must_use]
    pub fn only(&self, of: impl Fn(&str) -> bool) -> Self {
        let host = |entry: &&str| entry.split(' ').next().is_some_and(&of);
        Self(self.0.split(',').filter(host).collect::<Vec<_>>().join(","))
    }

    /// When the token for `host` ends; `None` where there is none.
    #[must_use]
    pub fn end(&self, host: &str) -> Option<Timestamp> {
        self.token(host).map(|token| token.life.expires_at)
    }

    /// When the token for `host` was issued; `None` where there is none.
    #[must_use]
    pub fn issued(&self, host: &str) -> Option<Timestamp> {
        self.token(host).map(|token| token.life.issued_at)
    }

    /// Those of `hosts` for which there is none.
    pub fn lacking<'a>(&self, hosts: impl IntoIterator<Item = &'a str>) -> impl Iterator<Item = &'a str> {
        let held: BTreeSet<_> = self.0.split(',').filter_map(|entry| entry.split(' ').next()).collect();
        hosts.into_iter().filter(move |host| !held.contains(host))
    }

    pub(super) fn token(&self, host: &str) -> Option<NotedToken<'_>> {
        self.all().find(|token| token.host == host)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = NotedToken<'_>> {
        let time = |text: &str| text.parse::<Timestamp>().ok();
        self.0.split(',').filter_map(move |entry| {
            let mut parts = entry.split(' ');
            let host = parts.next()?;
            let life = Life { issued_at: time(parts.next()?)?, expires_at: time(parts.next()?)? };
            Some(NotedToken { host, life, rights: parts.next()? })
        })
    }

    /// As it is noted.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A token, as it is noted on the Secret that holds it.
pub(super) struct NotedToken<'a> {
    pub(super) host: &'a str,
    pub(super) life: Life,
    pub(super) rights: &'a str,
}
