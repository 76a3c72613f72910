//! The policies of `deploy/iam`.

use serde_json::Value;

use super::world::{ACCOUNT, REGION};

/// A document with its placeholders filled in: account and Region of every world, and these.
pub fn document(name: &str, fill: &[(&str, &str)]) -> Value {
    let path = format!("{}/deploy/iam/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).unwrap();
    let fill = fill.iter().chain(&[("ACCOUNT", ACCOUNT), ("REGION", REGION)]);
    let filled = fill.fold(text, |text, (placeholder, value)| text.replace(placeholder, value));
    serde_json::from_str(&filled).unwrap()
}
