//! What all parts of a running local ECR share.

use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use crate::calls::CallLog;
use crate::clock::Clock;
use crate::faults::Faults;
use crate::model::Model;
use crate::registry::backend::Backend;

pub(crate) struct Shared {
    pub model: Mutex<Model>,
    pub faults: Mutex<Faults>,
    pub calls: CallLog,
    pub clock: Clock,
    pub down: AtomicBool,
    pub backend: Option<Backend>,
    /// Account and Region of registry requests whose host name doesn't tell.
    pub account: String,
    pub region: String,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalEcr").field("account", &self.account).field("region", &self.region).finish_non_exhaustive()
    }
}
