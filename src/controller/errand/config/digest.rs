//! Keyed digests of the ConfigMap and Secret content that containers see. Pure.
//!
//! A plain hash would let a reader of the annotation test guesses. A stored digest also names its key and its template: with
//! another key or template it cannot be compared, and a new baseline is taken instead of a run.

use std::fmt::Write as _;

use ring::hmac::{Context, HMAC_SHA256, Key, Tag};

use crate::api::StringMap;
use crate::digest::{Digest, short_hex};
use crate::rules::references::{Reference, ReferenceKind};

/// Name of the algorithm, in front of each stored digest.
const ALGORITHM: &str = "hmac-sha256";

/// Digest of the content of one object.
pub type ContentDigest = [u8; 16];

/// The key of a namespace.
#[derive(Clone, Debug)]
pub struct ConfigKey {
    /// Tells it from other keys, and nothing more.
    id: String,
    key: Key,
}

/// What a digest says beside an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compared {
    /// The content is the same.
    Same,
    /// The content is another.
    Changed,
    /// No earlier one exists, or it was taken for another template or with another key.
    Unrelated,
}

impl ConfigKey {
    /// A key of these random bytes.
    pub fn new(bytes: &[u8]) -> Self {
        Self { id: short_hex(bytes, 8), key: Key::new(HMAC_SHA256, bytes) }
    }

    /// True if both are the same key.
    pub fn is(&self, other: &Self) -> bool {
        self.id == other.id
    }

    /// Of `data` and `binaryData`; other fields do not matter to containers.
    pub fn content(&self, data: &StringMap, binary_data: &StringMap) -> ContentDigest {
        let mut context = Context::with_key(&self.key);
        for map in [data, binary_data] {
            context.update(&(map.len() as u64).to_be_bytes());
            for text in map.iter().flat_map(|(key, value)| [key, value]) {
                feed(&mut context, text);
            }
        }
        half(&context.sign())
    }

    /// Of all existing references that are not the QuarksJob's own output, in their order; as it is stored.
    pub fn combine<'a>(&self, template: &Digest, present: impl Iterator<Item = (&'a Reference, ContentDigest)>) -> String {
        let mut context = Context::with_key(&self.key);
        for (Reference { kind, name, .. }, content) in present {
            context.update(match kind {
                ReferenceKind::ConfigMap => b"c",
                ReferenceKind::Secret => b"s",
            });
            feed(&mut context, name);
            context.update(&content);
        }
        let mut text = format!("{ALGORITHM}:{}:{}:", self.id, template.hex());
        half(&context.sign()).iter().for_each(|byte| write!(text, "{byte:02x}").expect("a String takes all"));
        text
    }
}

/// Lengths in front keep `a`, `bc` apart from `ab`, `c`.
fn feed(context: &mut Context, text: &str) {
    context.update(&(text.len() as u64).to_be_bytes());
    context.update(text.as_bytes());
}

fn half(tag: &Tag) -> ContentDigest {
    let mut half = [0; 16];
    half.copy_from_slice(&tag.as_ref()[..16]);
    half
}

/// True if the stored digest was made with today's algorithm for this template.
pub fn is_of_template(stored: &str, template: &Digest) -> bool {
    let mut parts = stored.split(':');
    parts.next() == Some(ALGORITHM) && parts.nth(1) == Some(&*template.hex())
}

/// Compares the digest of now with the stored one.
pub fn compare(stored: Option<&str>, observed: &str) -> Compared {
    let origin = |text: &str| text.rfind(':').map(|at| text[..at].to_owned());
    match stored {
        Some(stored) if stored == observed => Compared::Same,
        Some(stored) if origin(stored) == origin(observed) => Compared::Changed,
        _ => Compared::Unrelated,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn map(pairs: &[(&str, &str)]) -> StringMap {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn reference(kind: ReferenceKind, name: &str) -> Reference {
        Reference { kind, name: name.into(), is_optional: false, is_own: false }
    }

    #[test]
    fn content_is_data_and_binary_data_and_nothing_runs_together() {
        let key = ConfigKey::new(b"key one");
        let none = map(&[]);
        let contents = [
            (map(&[]), none.clone()),
            (map(&[("a", "b")]), none.clone()),
            (none.clone(), map(&[("a", "b")])),
            (map(&[("ab", "")]), none.clone()),
            (map(&[("", "ab")]), none.clone()),
            (map(&[("a", "b"), ("c", "d")]), none.clone()),
            (map(&[("a", "b")]), map(&[("c", "d")])),
        ];
        let digests: Vec<_> = contents.iter().map(|(data, binary)| key.content(data, binary)).collect();
        for (at, digest) in digests.iter().enumerate() {
            assert_eq!(digests.iter().position(|other| other == digest), Some(at), "{:?}", contents[at]);
        }
        assert_eq!(key.content(&contents[1].0, &none), digests[1]);
        assert_ne!(ConfigKey::new(b"key two").content(&contents[1].0, &none), digests[1]);
    }

    #[test]
    fn a_digest_is_compared_with_one_of_the_same_key_and_template_only() {
        let (one, two) = (ConfigKey::new(b"1"), ConfigKey::new(b"2"));
        let (first, second) = (Digest::of_template(&json!(1)), Digest::of_template(&json!(2)));
        let (secret, config_map) = (reference(ReferenceKind::Secret, "a"), reference(ReferenceKind::ConfigMap, "a"));
        let other_name = reference(ReferenceKind::Secret, "b");
        let stored = one.combine(&first, [(&secret, [1; 16])].into_iter());
        let compared = |observed: String| compare(Some(&stored), &observed);
        assert_eq!(compared(one.combine(&first, [(&secret, [1; 16])].into_iter())), Compared::Same);
        for references in [vec![(&secret, [2; 16])], vec![(&config_map, [1; 16])], vec![(&other_name, [1; 16])], vec![]] {
            assert_eq!(compared(one.combine(&first, references.into_iter())), Compared::Changed);
        }
        assert_eq!(compared(two.combine(&first, [(&secret, [1; 16])].into_iter())), Compared::Unrelated);
        assert_eq!(compared(one.combine(&second, [(&secret, [1; 16])].into_iter())), Compared::Unrelated);
        assert_eq!(compare(None, &stored), Compared::Unrelated);
        assert_eq!(compare(Some("md5:1"), &stored), Compared::Unrelated);
        assert!(is_of_template(&stored, &first) && !is_of_template(&stored, &second));
        for bad in ["", "hmac-sha256", "hmac-sha256:x", "sha256:x:y:z"] {
            assert!(!is_of_template(bad, &first), "{bad}");
        }
    }
}
