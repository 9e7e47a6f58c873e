//! Kubernetes' rules for names, labels and annotations, checked before a request is sent (pure).

use std::fmt;

use crate::api::{LABEL_MAX, NAME_MAX, StringMap, is_subdomain};

/// All annotations of an object together, keys and values, in bytes.
const ANNOTATIONS_LIMIT: usize = 256 * 1024;
/// Characters of a wrong name or key that a message quotes.
const QUOTED: usize = 80;

/// Checks the name of an object: a DNS subdomain.
pub fn check_name(name: &str) -> Result<(), String> {
    if is_subdomain(name) {
        return Ok(());
    }
    Err(format!(
        "{} is not a valid Secret name: at most {NAME_MAX} lowercase letters, digits, '-' and '.', starting and ending with a letter or digit",
        Quoted(name)
    ))
}

/// Checks labels: keys and values.
pub fn check_labels(labels: &StringMap) -> Result<(), String> {
    for (key, value) in labels {
        if !is_qualified(key) {
            return Err(format!("label {}: not a valid label key", Quoted(key)));
        }
        if !(value.is_empty() || is_label_text(value)) {
            return Err(format!(
                "label {}: not a valid value: at most {LABEL_MAX} letters, digits, '-', '_' and '.', starting and ending with a letter or digit",
                Quoted(key)
            ));
        }
    }
    Ok(())
}

/// Checks annotations: keys and the size of all.
pub fn check_annotations(annotations: &StringMap) -> Result<(), String> {
    if let Some(key) = annotations.keys().find(|key| !is_qualified(&key.to_ascii_lowercase())) {
        return Err(format!("annotation {}: not a valid annotation key", Quoted(key)));
    }
    let size: usize = annotations.iter().map(|(key, value)| key.len() + value.len()).sum();
    if size > ANNOTATIONS_LIMIT { Err("annotations must be at most 256 KiB in total".to_owned()) } else { Ok(()) }
}

fn is_qualified(key: &str) -> bool {
    match key.split_once('/') {
        Some((prefix, name)) => is_subdomain(prefix) && is_label_text(name),
        None => is_label_text(key),
    }
}

fn is_label_text(text: &str) -> bool {
    let bytes = text.as_bytes();
    (1..=LABEL_MAX).contains(&bytes.len())
        && bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

/// A foreign text, as a message shows it: quoted and not too long.
pub struct Quoted<'a>(pub &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.char_indices().nth(QUOTED) {
            Some((end, _)) => write!(f, "{:?}...", &self.0[..end]),
            None => write!(f, "{:?}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(key: &str, value: &str) -> StringMap {
        [(key.to_owned(), value.to_owned())].into()
    }

    #[test]
    fn names() {
        let longest = "a".repeat(253);
        for name in ["a", "a-b.c9", "0", &longest] {
            assert_eq!(check_name(name), Ok(()), "{name}");
        }
        let too_long = "a".repeat(254);
        for name in ["", "-a", "a-", "a..b", ".a", "a.", "A", "a_b", "a/b", "é", "a.-b", &too_long] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }

    #[test]
    fn labels() {
        let (name, value) = ("n".repeat(63), "v".repeat(63));
        for (key, value) in [("a", ""), ("a.b/C_d-e", "v.-_9"), (name.as_str(), value.as_str())] {
            assert_eq!(check_labels(&map(key, value)), Ok(()), "{key}");
        }
        let (long_name, long_value) = ("n".repeat(64), "v".repeat(64));
        for (key, value) in [
            ("", "v"),
            ("/a", "v"),
            ("a/", "v"),
            ("a/b/c", "v"),
            ("A/b", "v"),
            ("-a", "v"),
            (long_name.as_str(), "v"),
            ("a", "-v"),
            ("a", "v v"),
            ("a", long_value.as_str()),
        ] {
            assert!(check_labels(&map(key, value)).is_err(), "{key}={value}");
        }
    }

    #[test]
    fn annotations() {
        assert_eq!(check_annotations(&map("a/B", &"any\n".repeat(1000))), Ok(()));
        assert_eq!(check_annotations(&map("A.b/C", "x")), Ok(()));
        assert_eq!(check_annotations(&map("k", &"x".repeat(ANNOTATIONS_LIMIT - 1))), Ok(()));
        assert!(check_annotations(&map("k", &"x".repeat(ANNOTATIONS_LIMIT))).is_err());
        assert!(check_annotations(&map("k ", "x")).is_err());
    }
}
