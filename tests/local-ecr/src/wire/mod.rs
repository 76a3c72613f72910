//! What goes over the wire: signatures, protocols, identity tokens.

pub(crate) mod answer;
pub(crate) mod jwt;
pub(crate) mod query;
pub(crate) mod sigv4;
