//! Wall-clock time as Kubernetes writes it. Everything that measures a duration uses `std::time::Instant` instead.

use std::time::SystemTime;

/// Now, RFC 3339 with seconds (`meta/v1` Time).
pub fn now_seconds() -> String {
    humantime::format_rfc3339_seconds(SystemTime::now()).to_string()
}

/// Now, RFC 3339 with microseconds (`meta/v1` MicroTime).
pub fn now_micros() -> String {
    humantime::format_rfc3339_micros(SystemTime::now()).to_string()
}

/// Seconds from now until an RFC 3339 time in UTC, which is how the API server writes all times;
/// negative if it is past, `None` if the text is no such time.
pub fn seconds_until(text: &str) -> Option<i64> {
    let at = humantime::parse_rfc3339(text).ok()?;
    let seconds = |duration: std::time::Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    Some(match at.duration_since(SystemTime::now()) {
        Ok(left) => seconds(left),
        Err(past) => -seconds(past.duration()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_the_form_that_the_api_server_takes() {
        assert_eq!(now_seconds().len(), "2026-01-01T00:00:00Z".len());
        assert_eq!(now_micros().len(), "2026-01-01T00:00:00.000000Z".len());
        assert!(seconds_until(&now_seconds()).is_some_and(|seconds| (-60..=0).contains(&seconds)));
        assert!(seconds_until("2999-01-01T00:00:00Z").is_some_and(|seconds| seconds > 0));
        assert_eq!(seconds_until("soon"), None);
    }
}
