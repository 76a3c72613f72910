//! The AWS side: identities and clients, ECR's calls in this project's terms, errors classed once, tokens shared.

mod ecr;
mod error;
mod identity;
mod registry;
mod session_end;
mod snapshot;
mod tagging;
mod tokens;

pub use ecr::{Ecr, Images, Named};
pub use error::{AwsError, Kind};
pub use identity::{Caller, Credentials, Endpoint, Session, SessionOptions, StaticKey};
pub use registry::{Answer, Place, Refusal, RegistryClient, RegistryError};
pub use snapshot::Snapshots;
pub use tagging::Tagging;
pub use tokens::{Clocks, Lookup, Minter, Tokens};
