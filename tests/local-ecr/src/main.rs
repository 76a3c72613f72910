//! `local-ecr serve`: the local ECR as a process of its own.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use local_ecr::{Config, Layers, LocalEcr, Seed};
use tokio::io::AsyncReadExt as _;
use tokio::signal::unix::{SignalKind, signal};

#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the APIs and the registry until SIGTERM or SIGINT.
    Serve(Serve),
}

#[derive(Args)]
struct Serve {
    /// Address to serve on; may be given more than once. Port 0 is any free port.
    #[arg(long, default_value = "127.0.0.1:5100")]
    listen: Vec<SocketAddr>,
    /// Account of the user `admin`, and of registry requests whose host name doesn't tell.
    #[arg(long, default_value = "123456789012")]
    account: String,
    /// Region of registry requests whose host name doesn't tell.
    #[arg(long, default_value = "eu-west-1")]
    region: String,
    /// Access key of `admin`, who may do everything.
    #[arg(long, env = "LOCAL_ECR_ACCESS_KEY", default_value = "AKIALOCALECRADMIN000")]
    access_key: String,
    /// Secret key of `admin`.
    #[arg(long, env = "LOCAL_ECR_SECRET_KEY", default_value = "local-ecr-admin-secret", hide_env_values = true)]
    secret_key: String,
    /// How long registry tokens live, such as 20s or 12h.
    #[arg(long, default_value = "12h", value_parser = parse_duration)]
    token_lifetime: Duration,
    /// JSON file with accounts, users, roles and repositories to begin with.
    #[arg(long)]
    seed: Option<PathBuf>,
    /// Where the layers are kept; a temporary directory by default.
    #[arg(long)]
    registry_dir: Option<PathBuf>,
    /// Start without docker-registry: manifests are kept, layers are refused.
    #[arg(long, conflicts_with = "registry_dir")]
    no_layers: bool,
    /// End when standard input closes, so as not to outlive whoever started us.
    #[arg(long)]
    exit_on_stdin_close: bool,
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    let span: jiff::SignedDuration = text.parse().map_err(|error: jiff::Error| error.to_string())?;
    Duration::try_from(span).map_err(|error| error.to_string())
}

fn main() -> ExitCode {
    let Command::Serve(options) = Cli::parse().command;
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    match runtime.block_on(serve(options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(error.as_ref()),
    }
}

fn fail(error: &dyn std::error::Error) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "local-ecr: {error}");
    ExitCode::FAILURE
}

async fn serve(options: Serve) -> Result<(), Box<dyn std::error::Error>> {
    let seed = match &options.seed {
        None => Seed::default(),
        Some(path) => {
            let text =
                std::fs::read_to_string(path).map_err(|error| format!("can't read {}: {error}", path.display()))?;
            serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?
        }
    };
    let layers =
        if options.no_layers { Layers::None } else { Layers::DockerRegistry { directory: options.registry_dir } };
    let mut config = Config::default();
    config.listen = options.listen;
    config.account = options.account;
    config.region = options.region;
    config.access_key = options.access_key;
    config.secret_key = options.secret_key;
    config.token_lifetime = options.token_lifetime;
    config.layers = layers;
    config.seed = seed;
    // Before READY, so that whoever has read it may signal at once.
    let (mut terminated, mut interrupted) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let ecr = LocalEcr::start(config).await?;
    writeln!(std::io::stdout(), "READY url={} registry={}", ecr.url(), ecr.registry())?;
    std::io::stdout().flush()?;
    tokio::select! {
        _ = terminated.recv() => {}
        _ = interrupted.recv() => {}
        () = stdin_closed(), if options.exit_on_stdin_close => {}
    }
    Ok(())
}

async fn stdin_closed() {
    let mut stdin = tokio::io::stdin();
    let mut buffer = [0; 64];
    while stdin.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
}
