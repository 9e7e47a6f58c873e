//! Wall-clock time as Kubernetes writes it. Code that measures a duration uses `std::time::Instant` instead, or `moment::Moment`
//! where the clock must keep running while the machine sleeps.

use std::time::SystemTime;

/// Now, RFC 3339 with seconds (`meta/v1` Time).
pub fn now_seconds() -> String {
    humantime::format_rfc3339_seconds(SystemTime::now()).to_string()
}

/// Now, RFC 3339 with microseconds (`meta/v1` MicroTime).
pub fn now_micros() -> String {
    humantime::format_rfc3339_micros(SystemTime::now()).to_string()
}

/// Seconds from now until an RFC 3339 time; negative if it is past, `None` if the text is not such a time.
/// The API server writes all times in UTC, credential plugins write offsets too.
pub fn seconds_until(text: &str) -> Option<i64> {
    let (text, offset) = match text.len().checked_sub("+00:00".len()).map(|at| (text.get(..at), text.get(at..))) {
        Some((Some(time), Some(zone))) if zone.starts_with(['+', '-']) => (format!("{time}Z"), zone_seconds(zone)?),
        _ => (text.to_owned(), 0),
    };
    Some(seconds_between(SystemTime::now(), humantime::parse_rfc3339(&text).ok()?) - offset)
}

/// Whole seconds from one RFC 3339 time in UTC to another.
pub fn seconds_from(start: &str, end: &str) -> Option<i64> {
    Some(seconds_between(humantime::parse_rfc3339(start).ok()?, humantime::parse_rfc3339(end).ok()?))
}

fn seconds_between(start: SystemTime, end: SystemTime) -> i64 {
    let seconds = |duration: std::time::Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    match end.duration_since(start) {
        Ok(left) => seconds(left),
        Err(past) => -seconds(past.duration()),
    }
}

/// `+01:30` in seconds.
fn zone_seconds(zone: &str) -> Option<i64> {
    let (hours, minutes) = zone.get(1..)?.split_once(':')?;
    let seconds = i64::from(hours.parse::<u8>().ok()?) * 3_600 + i64::from(minutes.parse::<u8>().ok()?) * 60;
    Some(if zone.starts_with('-') { -seconds } else { seconds })
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
        assert_eq!(seconds_until("2999-01-01T00:00:00+ab:cd"), None);
        let offset = |text: &str| seconds_until(text).expect("a time") - seconds_until("2999-01-01T12:00:00Z").expect("a time");
        for (text, expected) in [("2999-01-01T12:00:00+00:00", 0), ("2999-01-01T13:30:00+01:30", 0), ("2999-01-01T12:00:00-02:00", 7_200)] {
            assert!((offset(text) - expected).abs() <= 1, "{text}");
        }
        assert_eq!(seconds_from("2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z"), Some(60));
    }
}
