//! Logs: for people on a terminal, JSON for machines elsewhere.

use std::any::Any;
use std::backtrace::Backtrace;
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

/// The text of a panic that may be told: one that stands in a source, and no other. Those that are put together quote what
/// they are about, as that of a string which is cut within a character does: it could be a token.
fn told_of(panic: &(dyn Any + Send)) -> &'static str {
    panic.downcast_ref::<&'static str>().copied().unwrap_or("(its text isn't told: it may quote a secret)")
}

/// Starts logging, to standard error, panics included. A second call changes nothing.
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
    std::panic::set_hook(Box::new(|panic| {
        let location = panic.location().map(ToString::to_string);
        tracing::error!(location, text = told_of(panic.payload()), backtrace = %Backtrace::capture(), "panic");
    }));
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::sync::{Arc, Mutex};

    use super::*;

    /// The other half of the next test: its hook is for a process of its own.
    #[test]
    #[ignore = "run by the test below"]
    fn panics() {
        init(LogFormat::Json, "trace").unwrap();
        let token = format!("hush-ü-{}", std::process::id());
        let put_together = std::panic::catch_unwind(|| panic!("{token}"));
        let cut_within_a_character = std::panic::catch_unwind(|| token[..6].len());
        let written = std::panic::catch_unwind(|| panic!("planted"));
        assert!(put_together.is_err() && cut_within_a_character.is_err() && written.is_err());
    }

    #[test]
    fn a_panic_is_told_with_its_place_and_never_quotes_what_it_is_about() {
        let this = std::env::current_exe().unwrap();
        let arguments = ["--exact", "telemetry::tests::panics", "--ignored", "--nocapture"];
        let ran = Command::new(this).args(arguments).env("RUST_BACKTRACE", "full").output().unwrap();
        let said = String::from_utf8([ran.stdout, ran.stderr].concat()).unwrap();
        assert!(ran.status.success(), "{said}");
        assert_eq!(said.matches("src/telemetry.rs:").count().min(3), 3, "{said}");
        assert!(said.contains("planted") && said.contains("its text isn't told"), "{said}");
        assert!(!said.contains("hush"), "{said}");
    }

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
