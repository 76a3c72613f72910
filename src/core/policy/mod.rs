//! Repository policies: read, compared by what they mean, and written from grants and statements beside foreign ones.

mod document;
mod grants;
mod wanted;

pub use document::{PolicyDocument, PolicyError, Statement};
pub use wanted::{WantedPolicy, target};
