//! Pages and their opaque tokens.

use serde::{Deserialize, Serialize};

use crate::digest;
use crate::error::{ApiError, within};
use crate::model::PageQuirks;

#[derive(Debug, Serialize, Deserialize)]
struct Cursor {
    scope: String,
    after: String,
    /// The empty page before this one was shown already.
    shown: bool,
}

/// One page of `items`, which come sorted by key, and the token of the next one.
///
/// `scope` names the list: a token of another list is refused.
pub(crate) fn page<'a, T>(
    quirks: PageQuirks,
    scope: &str,
    token: Option<&str>,
    length: usize,
    items: impl Iterator<Item = (&'a str, T)>,
) -> Result<(Vec<T>, Option<String>), ApiError> {
    let cursor = match token {
        Some(token) => Some(read(token).filter(|cursor| cursor.scope == scope).ok_or_else(invalid)?),
        None => None,
    };
    let after = cursor.as_ref().map(|cursor| cursor.after.clone());
    if quirks.empty_pages && !cursor.is_some_and(|cursor| cursor.shown) {
        let next = write(&Cursor { scope: scope.to_owned(), after: after.unwrap_or_default(), shown: true });
        return Ok((Vec::new(), Some(next)));
    }
    let length = quirks.longest.map_or(length, |longest| length.min(longest.max(1)));
    let mut rest = items.skip_while(|(key, _)| after.as_deref().is_some_and(|after| *key <= after));
    let mut found = Vec::new();
    let mut last = String::new();
    for (key, item) in rest.by_ref().take(length) {
        key.clone_into(&mut last);
        found.push(item);
    }
    let next = rest.next().map(|_| write(&Cursor { scope: scope.to_owned(), after: last, shown: false }));
    Ok((found, next))
}

/// Checks `maxResults`: 100 by default, 1 to 1,000.
pub(crate) fn length(max_results: Option<i64>) -> Result<usize, ApiError> {
    let length = usize::try_from(max_results.unwrap_or(100)).unwrap_or(0);
    within("maxResults", "value", length, 1, 1000)?;
    Ok(length)
}

fn write(cursor: &Cursor) -> String {
    let text = serde_json::to_string(cursor).unwrap_or_default();
    digest::base64_encode(format!("{}{text}", checksum(&text)))
}

fn read(token: &str) -> Option<Cursor> {
    let text = String::from_utf8(digest::base64_decode(token)?).ok()?;
    let (sum, text) = text.split_at_checked(16)?;
    (sum == checksum(text)).then(|| serde_json::from_str(text).ok()).flatten()
}

fn checksum(text: &str) -> String {
    digest::hex(&digest::hmac_sha256(b"local-ecr page", text.as_bytes())[..8])
}

fn invalid() -> ApiError {
    ApiError::parameter("nextToken", "Invalid nextToken provided")
}
