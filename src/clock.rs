//! Wall-clock time as Kubernetes writes it. Everything that measures a duration uses `std::time::Instant` instead.

use jiff::Timestamp;

/// Now, RFC 3339 with seconds (`meta/v1` Time).
pub fn now_seconds() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Now, RFC 3339 with microseconds (`meta/v1` MicroTime).
pub fn now_micros() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

/// Seconds from now until an RFC 3339 time; negative if it is past, `None` if the text is no time.
pub fn seconds_until(text: &str) -> Option<i64> {
    let at: Timestamp = text.parse().ok()?;
    Some(at.as_second() - Timestamp::now().as_second())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_the_form_that_the_api_server_takes() {
        assert_eq!(now_seconds().len(), "2026-01-01T00:00:00Z".len());
        assert_eq!(now_micros().len(), "2026-01-01T00:00:00.000000Z".len());
        assert!(seconds_until(&now_seconds()).is_some_and(|seconds| (-5..=0).contains(&seconds)));
        assert!(seconds_until("2999-01-01T00:00:00Z").is_some_and(|seconds| seconds > 0));
        assert_eq!(seconds_until("soon"), None);
    }
}
