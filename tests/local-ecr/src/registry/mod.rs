//! The guard in front of the image registry (`/v2/`).

pub(crate) mod backend;
pub(crate) mod guard;
pub(crate) mod manifests;
pub(crate) mod route;
pub(crate) mod token;
