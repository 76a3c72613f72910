//! Answers in the shape of each protocol.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode};
use serde_json::{Value, json};

use super::query;
use crate::digest;
use crate::error::ApiError;

/// How a service speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Json,
    Query,
}

pub(crate) fn render(protocol: Protocol, operation: &str, answer: &Result<Value, ApiError>) -> Response<Bytes> {
    let request_id = digest::request_id();
    let status = answer.as_ref().err().map_or(200, |error| error.status);
    let (content_type, body) = match protocol {
        Protocol::Json => {
            let body = match answer {
                Ok(value) => value.to_string(),
                Err(error) => json_error(error).to_string(),
            };
            ("application/x-amz-json-1.1", body)
        }
        Protocol::Query => {
            let body = match answer {
                Ok(value) => query::render(operation, value, &request_id),
                Err(error) => query::render_error(error, &request_id),
            };
            ("text/xml", body)
        }
    };
    respond(status, content_type, body, &request_id)
}

/// Any other body, for scripted faults.
pub(crate) fn raw(protocol: Protocol, status: u16, body: &str) -> Response<Bytes> {
    let content_type = if protocol == Protocol::Json { "application/x-amz-json-1.1" } else { "text/xml" };
    respond(status, content_type, body.to_owned(), &digest::request_id())
}

fn respond(status: u16, content_type: &'static str, body: String, request_id: &str) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    if let Ok(id) = HeaderValue::from_str(request_id) {
        headers.insert("x-amzn-requestid", id);
    }
    response
}

fn json_error(error: &ApiError) -> Value {
    let mut body = json!({"__type": error.code, "message": error.message});
    if let Some((key, value)) = &error.detail {
        body[*key] = json!(value);
    }
    body
}
