//! Short, stable digests, for names and for detecting changes.
//!
//! Not for secrets: anyone who can guess the input can test the guess.

use std::fmt;

use ring::digest::{SHA256, digest};
use serde_json::Value;

use crate::canonical::canonical;

/// Tag of the algorithm, in front of each digest that is stored: with another tag a stored digest means nothing. `sha256:` was that of
/// templates as they were written.
const TAG: &str = "sha256-canonical:";

/// The first `length` hex digits of the SHA-256 of `bytes`; at most 64.
pub fn short_hex(bytes: &[u8], length: usize) -> String {
    // Names are made for every Job at every look: only what is needed is written out.
    let mut hex: String = digest(&SHA256, bytes).as_ref().iter().take(length.div_ceil(2)).map(|byte| format!("{byte:02x}")).collect();
    hex.truncate(length);
    hex
}

/// The first half of a SHA-256. `Display` is what is stored: tag and hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest([u8; 16]);

impl Digest {
    /// Of a template: of what it means, however it is spelled (see [`canonical`]).
    pub fn of_template(template: &Value) -> Self {
        // serde_json keeps objects in a BTreeMap (no `preserve_order`), so the text does not depend on the order of keys.
        let whole = digest(&SHA256, canonical(template).to_string().as_bytes());
        let mut half = [0; 16];
        half.copy_from_slice(&whole.as_ref()[..16]);
        Self(half)
    }

    /// Its hex digits, without the tag.
    pub fn hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// True if `stored` is this digest.
    pub fn is(&self, stored: &str) -> bool {
        self.to_string() == stored
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(TAG)?;
        f.write_str(&self.hex())
    }
}

/// True if the digest was made with today's algorithm.
pub fn is_current(stored: &str) -> bool {
    stored.starts_with(TAG)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn key_order_does_not_change_the_digest() {
        let one: Value = serde_json::from_str(r#"{"a":1,"b":{"c":2,"d":3}}"#).expect("valid JSON");
        let two: Value = serde_json::from_str(r#"{"b":{"d":3,"c":2},"a":1}"#).expect("valid JSON");
        assert_eq!(Digest::of_template(&one), Digest::of_template(&two));
        assert_ne!(Digest::of_template(&one), Digest::of_template(&json!({"a": 1})));
        let stored = Digest::of_template(&one).to_string();
        assert!(is_current(&stored) && Digest::of_template(&two).is(&stored) && stored.len() == TAG.len() + 32);
        assert!(!is_current("sha256:00"), "the digest of templates as they were written");
    }

    #[test]
    fn known_vector() {
        assert_eq!(short_hex(b"abc", 8), "ba7816bf");
    }
}
