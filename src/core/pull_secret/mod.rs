//! Pull secrets: whose logins they hold, what is in them, and whether one that is there is as it should be.

mod contents;
mod document;
mod integrity;
mod logins;
mod merge;
mod seen;
mod template;
mod token_lives;

pub use contents::{ContentError, docker_config, docker_entry};
pub use integrity::{FIELDS, Fields, Integrity, writes_data};
pub use logins::{Login, Logins, Offer, Request, logins};
pub use merge::{CREATED, Change, Entries, MERGED, Merged, Note, merge, note_key, noted, owners, unmerge};
pub use seen::{Marks, SecretOwner, Seen, prune};
pub use template::{only_one_host, template_data};
pub use token_lives::TokenLives;

/// The field manager of everything this operator applies.
pub const MANAGER: &str = "ecr-operator";
/// The key of a docker config in a Secret of type `kubernetes.io/dockerconfigjson`.
pub const DOCKER_CONFIG_KEY: &str = ".dockerconfigjson";
/// The Secret type that the kubelet takes as an image pull secret.
pub const DOCKER_CONFIG_TYPE: &str = "kubernetes.io/dockerconfigjson";

/// The Secret type of whatever no other type is for.
pub const OPAQUE_TYPE: &str = "Opaque";
/// What Kubernetes takes as the values of a Secret, all together: 1 MiB.
const MOST_BYTES: usize = 1 << 20;

/// The field manager of one pull secret's Secrets: an apply without force then conflicts with another's.
#[must_use]
pub fn secret_manager(owner_uid: &str) -> String {
    format!("{MANAGER}/{owner_uid}")
}
