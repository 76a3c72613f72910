//! Logs: for people on a terminal, JSON for machines elsewhere.

use std::io::IsTerminal;

use clap::ValueEnum;
use tracing::{Level, Metadata};
use tracing_subscriber::filter::{EnvFilter, FilterExt as _, filter_fn};
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

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

/// The SDK, the HTTP stack and the Kubernetes client log requests and answers, which hold tokens and credentials: whatever
/// filter is given, they say no more than this.
const NEVER_MORE: [(&str, Level); 8] = [
    ("aws_", Level::WARN),
    ("hyper", Level::INFO),
    ("h2", Level::INFO),
    ("rustls", Level::INFO),
    ("tower", Level::INFO),
    ("kube_client", Level::ERROR),
    ("kube_core", Level::ERROR),
    ("kube_runtime", Level::WARN),
];

fn may_be_said(metadata: &Metadata<'_>) -> bool {
    let most = NEVER_MORE.iter().find(|(prefix, _)| metadata.target().starts_with(prefix)).map(|(_, most)| most);
    most.is_none_or(|most| metadata.level() <= most)
}

/// Starts logging, to standard error. A second call changes nothing.
///
/// # Errors
/// Where `filter` is none.
pub fn init(format: LogFormat, filter: &str) -> Result<(), FilterError> {
    // Two filters that must both agree: no directive of the one can outdo the other.
    let filter = EnvFilter::try_new(filter)?.and(filter_fn(may_be_said));
    let text = match format {
        LogFormat::Auto => std::io::stderr().is_terminal(),
        LogFormat::Text => true,
        LogFormat::Json => false,
    };
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let layer = if text { layer.boxed() } else { layer.json().flatten_event(true).boxed() };
    // Whoever embeds this crate may log already.
    let _ = tracing_subscriber::registry().with(layer.with_filter(filter)).try_init();
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn no_directive_makes_the_sdk_talk() {
        let said = Arc::new(Mutex::new(Vec::new()));
        let writer = said.clone();
        let filter = EnvFilter::try_new("trace,aws_smithy_runtime::client=trace").unwrap().and(filter_fn(may_be_said));
        let layer = tracing_subscriber::fmt::layer().with_writer(move || Writer(writer.clone())).with_filter(filter);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            tracing::trace!(target: "aws_smithy_runtime::client", "hush");
            tracing::debug!(target: "hyper_util::client", "hush");
            tracing::warn!(target: "kube_client::client", "hush");
            tracing::trace!(target: "ecr_operator", "hello");
        });
        let said = String::from_utf8(said.lock().unwrap().clone()).unwrap();
        assert!(said.contains("hello") && !said.contains("hush"), "{said}");
    }

    struct Writer(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Writer {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
}
