//! The Kubernetes side: what is watched, what is written, and how.

mod access_key;
mod client;
mod config_maps;
mod events;
mod lease;
mod merged_secrets;
mod patience;
mod pods;
mod refusals;
mod secrets;
mod service_account_token;
mod service_accounts;
mod stores;
mod writes;

pub use access_key::AccessKeys;
pub use client::client;
pub use config_maps::{Exported, Exports};
pub use events::{Events, What};
pub use lease::{Election, Lost};
pub use merged_secrets::MergedSecrets;
pub use pods::{Evicted, PodNews, Pods};
pub use secrets::{Applied, Data, SecretWriter, foreign};
pub use service_account_token::ServiceAccountToken;
pub use service_accounts::{ServiceAccounts, Wish, is_marked};
pub use stores::{Change, Gone, Relevant, watch, watch_metadata};
pub use writes::{CONCURRENT_WRITES, Statuses, in_time, set_finalizer};

/// Whether the API server says that the object isn't there.
#[must_use]
pub fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_not_found())
}

/// Whether somebody else changed the object meanwhile, or holds the field.
#[must_use]
pub fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_conflict())
}

/// The API server's own words, without the rest of the answer.
#[must_use]
pub fn words(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}
