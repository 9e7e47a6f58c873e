//! Response headers that carry meaning: `Retry-After` and `Warning`. Pure.

use std::time::{Duration, SystemTime};

/// Larger values are capped: the next try would be too late to notice a recovery.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(600);

/// Smaller values are raised: a zero, or a date in the past, would mean an immediate retry, forever.
pub(crate) const RETRY_AFTER_MIN: Duration = Duration::from_secs(1);

/// `Retry-After`: seconds, or an HTTP date seen from `now`.
pub(crate) fn parse_retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    let asked = if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // A number too large for u64 is as good as the limit.
        Duration::from_secs(value.parse().unwrap_or(u64::MAX))
    } else {
        httpdate::parse_http_date(value).ok()?.duration_since(now).unwrap_or_default()
    };
    Some(asked.clamp(RETRY_AFTER_MIN, RETRY_AFTER_MAX))
}

/// Bounds a delay that came from elsewhere (`details.retryAfterSeconds`).
pub(crate) fn bounded_seconds(seconds: u64) -> Option<Duration> {
    (seconds > 0).then(|| Duration::from_secs(seconds).min(RETRY_AFTER_MAX))
}

/// Texts of `Warning: 299 - "text"`; one header may hold several, separated by commas.
pub(crate) fn parse_warnings(value: &str) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut rest = value;
    while let Some(open) = rest.find('"') {
        let is_299 = rest[..open].trim_start_matches([',', ' ']).starts_with("299 ");
        let mut text = String::new();
        let mut escaped = false;
        let mut end = None;
        for (offset, character) in rest[open + 1..].char_indices() {
            match character {
                _ if escaped => {
                    escaped = false;
                    text.push(character);
                }
                '\\' => escaped = true,
                '"' => {
                    end = Some(open + 1 + offset + 1);
                    break;
                }
                _ => text.push(character),
            }
        }
        let Some(end) = end else { break };
        if is_299 {
            warnings.push(text);
        }
        // An optional quoted date may follow; it has no code before it and is skipped.
        rest = &rest[end..];
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date_and_bounded() {
        let now = humantime::parse_rfc3339("2015-10-21T07:28:00Z").expect("a time");
        let cases = [
            ("5", Some(5)),
            (" 0 ", Some(1)),
            ("1", Some(1)),
            ("86400", Some(600)),
            ("99999999999999999999999", Some(600)),
            ("Wed, 21 Oct 2015 07:28:30 GMT", Some(30)),
            ("Wed, 21 Oct 2015 07:28:00 GMT", Some(1)),
            ("Wed, 21 Oct 2015 07:00:00 GMT", Some(1)),
            ("Thu, 22 Oct 2015 07:28:30 GMT", Some(600)),
            ("soon", None),
            ("-1", None),
            ("", None),
        ];
        for (value, seconds) in cases {
            assert_eq!(parse_retry_after(value, now), seconds.map(Duration::from_secs), "{value:?}");
        }
    }

    #[test]
    fn warnings_are_unquoted() {
        let cases: &[(&str, &[&str])] = &[
            (r#"299 - "unknown field \"spec.a\"""#, &[r#"unknown field "spec.a""#]),
            (r#"299 - "a, b", 299 - "c""#, &["a, b", "c"]),
            (r#"299 - "a" "Wed, 21 Oct 2015 07:28:30 GMT", 299 - "b""#, &["a", "b"]),
            (r#"199 - "not for us""#, &[]),
            (r#"299 - "cut"#, &[]),
            ("", &[]),
        ];
        for (value, expected) in cases {
            assert_eq!(parse_warnings(value), *expected, "{value:?}");
        }
    }
}
