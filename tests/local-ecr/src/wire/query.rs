//! The query protocol of STS: form in, XML out.

use serde_json::Value;

use crate::error::ApiError;
use crate::ops::sts::Form;

const NAMESPACE: &str = "https://sts.amazonaws.com/doc/2011-06-15/";

/// Reads a form body.
pub(crate) fn parse(body: &[u8]) -> Form {
    form_urlencoded::parse(body).map(|(key, value)| (key.into_owned(), value.into_owned())).collect()
}

pub(crate) fn render(operation: &str, result: &Value, request_id: &str) -> String {
    format!(
        "<{operation}Response xmlns=\"{NAMESPACE}\"><{operation}Result>{}</{operation}Result>\
         <ResponseMetadata><RequestId>{request_id}</RequestId></ResponseMetadata></{operation}Response>",
        element(result)
    )
}

pub(crate) fn render_error(error: &ApiError, request_id: &str) -> String {
    let kind = if error.status >= 500 { "Receiver" } else { "Sender" };
    format!(
        "<ErrorResponse xmlns=\"{NAMESPACE}\"><Error><Type>{kind}</Type><Code>{}</Code><Message>{}</Message></Error>\
         <RequestId>{request_id}</RequestId></ErrorResponse>",
        escape(&error.code),
        escape(&error.message)
    )
}

/// The content of an element: members of an object become elements of their own, nulls vanish.
fn element(value: &Value) -> String {
    match value {
        Value::Object(members) => {
            let present = members.iter().filter(|(_, value)| !value.is_null());
            present.fold(String::new(), |xml, (name, value)| xml + &format!("<{name}>{}</{name}>", element(value)))
        }
        Value::String(text) => escape(text),
        other => other.to_string(),
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
