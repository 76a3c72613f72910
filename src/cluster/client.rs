//! The client of the API server that everything uses but the election.

use std::time::Duration;

use http::{Method, Request};
use kube::Client;
use kube::client::retry::RetryPolicy;
use kube::client::{Body, ClientBuilder};
use tower::buffer::BufferLayer;
use tower::filter::FilterLayer;
use tower::retry::RetryLayer;
use tower::timeout::TimeoutLayer;

use crate::tenure::{NotLeading, Tenure};

/// To begin with an answer, all tries together; a watch goes on as long as it likes.
const ANSWER: Duration = Duration::from_secs(30);

/// Requests that wait for their turn to be sent, which each gets at once.
const AT_ONCE: usize = 1024;

/// Reads at any time, and writes while `tenure` lasts: asked as each request is about to leave, and again where an API
/// server that is overloaded said to send it later. A connection on which nothing comes for `silence`, though an answer is
/// due or a watch open, is taken for broken.
///
/// # Errors
/// Where the configuration is of no use.
pub fn client(mut config: kube::Config, silence: Duration, tenure: Tenure) -> Result<Client, kube::Error> {
    config.connect_timeout = Some(tenure.connect());
    (config.read_timeout, config.reset_reader_on_write) = (Some(silence), true);
    // The client's own retries would be within the fence.
    config.default_retry = false;
    let fence = FilterLayer::new(move |request: Request<Body>| admit(request, &tenure));
    Ok(ClientBuilder::try_from(config)?
        .with_layer(&fence)
        .with_layer(&BufferLayer::new(AT_ONCE))
        .with_layer(&RetryLayer::new(RetryPolicy::server_retry()))
        .with_layer(&TimeoutLayer::new(ANSWER))
        .build())
}

fn admit<T>(request: Request<T>, tenure: &Tenure) -> Result<Request<T>, NotLeading> {
    if *request.method() != Method::GET {
        tenure.check()?;
    }
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_standby_reads_and_does_not_write() {
        let request = |method: &str| Request::builder().method(method).body(()).unwrap();
        for method in ["POST", "PUT", "PATCH", "DELETE"] {
            assert!(admit(request(method), &Tenure::none(Duration::ZERO)).is_err(), "{method}");
            assert!(admit(request(method), &Tenure::unlimited()).is_ok(), "{method}");
        }
        assert!(admit(request("GET"), &Tenure::none(Duration::ZERO)).is_ok());
    }
}
