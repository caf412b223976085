//! The wall clock.

use std::time::{SystemTime, UNIX_EPOCH};

/// Wall-clock time in milliseconds since the epoch.
#[must_use]
pub fn wall_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Time of day of a moment in milliseconds since the epoch: `13:55:00`, in UTC.
#[must_use]
pub fn time_of_day(ms: i64) -> String {
    let second = ms.div_euclid(1000).rem_euclid(24 * 60 * 60);
    format!("{:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60)
}
