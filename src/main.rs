//! ecr-operator: see the README.

use std::process::ExitCode;

use clap::Parser as _;
use ecr_operator::cli::{Cli, Command, crds};

#[tokio::main]
#[expect(clippy::print_stderr, reason = "the last word to whoever started it")]
async fn main() -> ExitCode {
    // The one TLS stack; a second call can't happen, and would change nothing.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let outcome: Result<(), Box<dyn std::error::Error>> = match Cli::parse().command {
        Command::Run(args) => args.run().await.map_err(Into::into),
        Command::Crds => crds::print().map_err(Into::into),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ecr-operator: {error}");
            ExitCode::FAILURE
        }
    }
}
