//! How a local ECR is started.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::clock::Time;
use crate::seed::Seed;

/// How a local ECR is started. The default serves one account on a free port of the loopback interface, keeps
/// manifests but no layers, and knows one user, `admin`, who may do everything.
#[derive(Clone)]
#[non_exhaustive]
pub struct Config {
    /// Addresses to serve on; port 0 is any free one. None: nothing is served, and calls come through the connector.
    pub listen: Vec<SocketAddr>,
    /// The account of `admin`, and of registry requests whose host name doesn't tell.
    pub account: String,
    /// The Region of registry requests whose host name doesn't tell. The API takes each call's from its signature.
    pub region: String,
    /// Access key of `admin`.
    pub access_key: String,
    /// Secret key of `admin`.
    pub secret_key: String,
    /// How long registry tokens live: 12 hours at AWS.
    pub token_lifetime: Duration,
    /// What keeps the layers.
    pub layers: Layers,
    /// What is there from the start.
    pub seed: Seed,
    /// What the model's clock follows.
    pub time: Time,
}

/// What keeps the layers of images.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Layers {
    /// Nothing: who may do what is answered, and manifests are kept, but no layer goes in or out.
    #[default]
    None,
    /// Debian's `docker-registry`, started as a child process.
    DockerRegistry {
        /// Where its files are; a temporary directory if not given.
        directory: Option<PathBuf>,
    },
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 0))],
            account: "123456789012".to_owned(),
            region: "eu-west-1".to_owned(),
            access_key: "AKIALOCALECRADMIN000".to_owned(),
            secret_key: "local-ecr-admin-secret".to_owned(),
            token_lifetime: Duration::from_hours(12),
            layers: Layers::None,
            seed: Seed::default(),
            time: Time::Wall,
        }
    }
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config")
            .field("listen", &self.listen)
            .field("account", &self.account)
            .field("region", &self.region)
            .field("token_lifetime", &self.token_lifetime)
            .field("layers", &self.layers)
            .finish_non_exhaustive()
    }
}
