//! The AWS side: identities and clients, ECR's calls in this project's terms, errors classed once, tokens shared.

mod credentials;
mod ecr;
mod error;
mod fence;
mod identity;
mod keyring;
mod limiter;
mod registry;
mod snapshot;
mod sts;
mod tagging;
mod tokens;

pub use credentials::{Credentials, IdentityTokens, PodIdentity, Role, StaticKey};
pub use ecr::{Ecr, Images, Named};
pub use error::{AwsError, Kind};
pub use identity::{Caller, Endpoint, Session, SessionOptions};
pub use limiter::{Calls, Line, Priority};
pub use registry::{Answer, Place, Refusal, RegistryClient, RegistryError};
pub use snapshot::Snapshots;
pub use tagging::Tagging;
pub use tokens::{Clocks, Lookup, Minter, Tokens};
