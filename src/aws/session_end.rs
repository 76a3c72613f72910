//! When a session with AWS ends: nobody documents whether the tokens that it asked for end with it, so it has to be known.

use std::sync::{Arc, Mutex, PoisonError};

use aws_credential_types::provider::future::ProvideCredentials as Provided;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use jiff::Timestamp;

/// A provider of credentials that remembers until when the last that it gave are valid.
#[derive(Debug, Clone)]
pub struct Remembering {
    provider: SharedCredentialsProvider,
    until: SessionEnd,
}

/// The end of the session that is used just now; `None` for keys that don't end.
#[derive(Debug, Clone, Default)]
pub struct SessionEnd(Arc<Mutex<Option<Timestamp>>>);

impl SessionEnd {
    /// As last told.
    #[must_use]
    pub fn get(&self) -> Option<Timestamp> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Remembering {
    /// Around `provider`; the other half tells.
    #[must_use]
    pub fn new(provider: SharedCredentialsProvider) -> (Self, SessionEnd) {
        let until = SessionEnd::default();
        (Self { provider, until: until.clone() }, until)
    }
}

impl ProvideCredentials for Remembering {
    fn provide_credentials<'a>(&'a self) -> Provided<'a>
    where
        Self: 'a,
    {
        Provided::new(async {
            let credentials = self.provider.provide_credentials().await?;
            let until = credentials.expiry().and_then(|at| Timestamp::try_from(at).ok());
            *self.until.0.lock().unwrap_or_else(PoisonError::into_inner) = until;
            Ok(credentials)
        })
    }

    fn fallback_on_interrupt(&self) -> Option<aws_credential_types::Credentials> {
        self.provider.fallback_on_interrupt()
    }
}
