//! Errors as AWS answers them.

use std::borrow::Cow;
use std::fmt;

/// An error answer: the code that clients switch on, the HTTP status and the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ApiError {
    pub code: Cow<'static, str>,
    pub status: u16,
    pub message: String,
    /// One more member of the error's shape (`kmsError` of `KmsException`).
    pub detail: Option<(&'static str, String)>,
}

impl ApiError {
    pub fn new(code: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self { code: code.into(), status: 400, message: message.into(), detail: None }
    }

    pub fn status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    pub fn detail(mut self, key: &'static str, value: impl Into<String>) -> Self {
        self.detail = Some((key, value.into()));
        self
    }

    /// ECR's one shape for a parameter that breaks a rule.
    pub fn parameter(at: &str, constraint: impl fmt::Display) -> Self {
        let message = format!("Invalid parameter at '{at}' failed to satisfy constraint: '{constraint}'");
        Self::new("InvalidParameterException", message)
    }

    /// A number, length or list outside of its bounds, in ECR's words.
    pub fn bounds(at: &str, what: &str, value: usize, min: usize, max: usize) -> Self {
        if value < min {
            Self::parameter(at, format_args!("Member must have {what} greater than or equal to {min}"))
        } else {
            Self::parameter(at, format_args!("Member must have {what} less than or equal to {max}"))
        }
    }

    pub fn missing(at: &str) -> Self {
        Self::parameter(at, "Member must not be null")
    }

    /// The query protocol's validation error (STS).
    pub fn validation(message: impl fmt::Display) -> Self {
        Self::new("ValidationError", message.to_string())
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

/// Checks a length (or count) against inclusive bounds.
pub(crate) fn within(at: &str, what: &str, value: usize, min: usize, max: usize) -> Result<(), ApiError> {
    if (min..=max).contains(&value) { Ok(()) } else { Err(ApiError::bounds(at, what, value, min, max)) }
}
