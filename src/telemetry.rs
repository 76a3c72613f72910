//! Logs: for people on a terminal, JSON for machines elsewhere.

use std::io::IsTerminal;

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

/// How logs are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    /// For people.
    Text,
    /// One object a line.
    Json,
}

/// Not a filter.
#[derive(Debug, thiserror::Error)]
#[error("not a log filter: {0}")]
pub struct FilterError(#[from] tracing_subscriber::filter::ParseError);

/// The SDK and the HTTP stack log requests and answers, which hold tokens and credentials: whatever filter is given,
/// they say no more than this.
const NEVER_MORE: [&str; 8] = [
    "aws_config=info",
    "aws_runtime=warn",
    "aws_sdk_ecr=warn",
    "aws_sdk_ecrpublic=warn",
    "aws_sdk_sts=warn",
    "aws_smithy_runtime=warn",
    "aws_smithy_runtime_api=warn",
    "hyper=info",
];

/// Starts logging, to standard error. A second call changes nothing.
///
/// # Errors
/// Where `filter` is none.
pub fn init(format: LogFormat, filter: &str) -> Result<(), FilterError> {
    let mut filter = EnvFilter::try_new(filter)?;
    for directive in NEVER_MORE {
        filter = filter.add_directive(directive.parse()?);
    }
    let text = match format {
        LogFormat::Auto => std::io::stderr().is_terminal(),
        LogFormat::Text => true,
        LogFormat::Json => false,
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // Whoever embeds this crate may log already.
    let _ = if text { builder.try_init() } else { builder.json().flatten_event(true).try_init() };
    Ok(())
}
