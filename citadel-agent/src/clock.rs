//! The clocks, and durations on the command line.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

/// Wall-clock time in milliseconds since the epoch.
#[must_use]
pub fn wall_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Nanoseconds of `CLOCK_MONOTONIC`, the clock of the kernel programs (`bpf_ktime_get_ns`).
pub(crate) fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
}

/// Time of day of a moment in milliseconds since the epoch: `13:55:00`, in UTC.
#[must_use]
pub fn time_of_day(ms: i64) -> String {
    let second = ms.div_euclid(1000).rem_euclid(24 * 60 * 60);
    format!("{:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60)
}

/// Parses a duration as the configuration does: a plain number is in seconds. All options of the command line use it.
///
/// # Errors
/// The text is neither a number nor a number with a unit; the message says what to write.
pub fn duration(text: &str) -> Result<Duration, String> {
    match text.trim().parse() {
        Ok(seconds) => Ok(Duration::from_secs(seconds)),
        Err(_) => humantime::parse_duration(text)
            .map_err(|error| format!("{error}; use a number of seconds, or a number with a unit such as 90s or 10m")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_number_is_in_seconds() {
        assert_eq!(duration("10"), Ok(Duration::from_secs(10)));
        assert_eq!(duration("1m"), duration("60"));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        let error = duration("soon").unwrap_err();
        assert!(error.ends_with("use a number of seconds, or a number with a unit such as 90s or 10m"), "{error}");
    }
}
