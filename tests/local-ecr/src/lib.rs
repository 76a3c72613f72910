//! A strict, stateful model of Amazon ECR, of the STS and ECR Public calls around it, and of the guard in front of
//! its image registry. For tests and demonstrations only: it keeps everything in memory and trusts its callers.
//!
//! ```no_run
//! # async fn example() -> Result<(), local_ecr::StartError> {
//! let ecr = local_ecr::LocalEcr::start(local_ecr::Config::default()).await?;
//! println!("point the SDK's endpoint at {}", ecr.url());
//! # Ok(()) }
//! ```

mod admin;
mod api;
mod calls;
mod clock;
mod config;
mod connector;
mod control;
mod digest;
mod error;
mod faults;
mod model;
mod ops;
mod registry;
mod seed;
mod server;
mod shared;
mod snapshot;
mod wire;

use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::task::AbortHandle;

pub use calls::{Call, Outcome};
pub use clock::Time;
pub use config::{Config, Layers};
pub use connector::Connector;
pub use control::Refused;
pub use faults::{Action, Fault, Matcher, RateLimit};
pub use model::PageQuirks;
pub use model::policy::ReadBack;
pub use registry::backend::BackendError;
pub use seed::{Seed, SeedAccount, SeedError, SeedPodIdentity, SeedRepository, SeedRole, SeedUser};
pub use snapshot::RepositorySnapshot;

use registry::backend::Backend;
use shared::Shared;

/// Where the test interface is.
const ADMIN_PREFIX: &str = "/_local/";

/// A running local ECR. It ends when this is dropped.
#[derive(Debug)]
pub struct LocalEcr {
    shared: Arc<Shared>,
    addresses: Vec<SocketAddr>,
    listeners: Vec<AbortHandle>,
}

/// Why it didn't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address can't be listened on.
    #[error("can't listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The registry for the layers didn't start.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The seed isn't acceptable.
    #[error(transparent)]
    Seed(#[from] SeedError),
}

impl LocalEcr {
    /// Starts a local ECR.
    ///
    /// # Errors
    /// An address is taken, the registry for the layers doesn't start, or the seed isn't acceptable.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let backend = match config.layers {
            Layers::None => None,
            Layers::DockerRegistry { directory } => Some(Backend::start(directory).await?),
        };
        let clock = clock::Clock::new(config.time);
        let mut model = model::Model::new(&config.region, config.token_lifetime);
        let admin = model.identities.account_mut(&config.account);
        let policies = vec![model::iam::Document::everything()];
        admin.users.insert("admin".to_owned(), model::identity::User { id: digest::random_id("AIDA", 17), policies });
        model.identities.add_user_key(&config.account, "admin", &config.access_key, &config.secret_key);
        seed::apply(&mut model, &config.seed, clock.now())?;
        let shared = Arc::new(Shared {
            model: Mutex::new(model),
            faults: Mutex::default(),
            calls: calls::CallLog::new(),
            clock,
            down: AtomicBool::new(false),
            backend,
            account: config.account,
            region: config.region,
        });
        let mut this = Self { shared, addresses: Vec::new(), listeners: Vec::new() };
        for address in config.listen {
            let (address, listener) = server::listen(Arc::clone(&this.shared), address)
                .await
                .map_err(|source| StartError::Listen { address, source })?;
            this.addresses.push(address);
            this.listeners.push(listener);
        }
        Ok(this)
    }

    /// Base URL of the API: the endpoint for SDK clients of ECR, ECR Public, STS and tagging alike. Empty when
    /// nothing is served.
    #[must_use]
    pub fn url(&self) -> String {
        self.addresses.first().map(|address| format!("http://{address}")).unwrap_or_default()
    }

    /// Host and port of the image registry (plain HTTP).
    #[must_use]
    pub fn registry(&self) -> String {
        self.addresses.first().map(ToString::to_string).unwrap_or_default()
    }

    /// Base URL of the image registry.
    #[must_use]
    pub fn registry_url(&self) -> String {
        self.url()
    }

    /// The addresses that are served, in the order of the configuration.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The API as the SDK's HTTP client, without a socket.
    #[must_use]
    pub fn connector(&self) -> Connector {
        Connector::new(Arc::clone(&self.shared))
    }
}

impl Drop for LocalEcr {
    fn drop(&mut self) {
        self.listeners.iter().for_each(AbortHandle::abort);
    }
}

/// Locks, and goes on after a panic elsewhere: the model is consistent after each operation.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
