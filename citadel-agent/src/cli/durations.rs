//! Durations on the command line.

use std::time::Duration;

use crate::control::LONGEST_RELEASE;

/// 1s to 24h: how long a model may be measured, and GPUs may go unmeasured ([`LONGEST_RELEASE`]).
pub(super) fn within_a_day(text: &str) -> Result<Duration, String> {
    let time = duration(text)?;
    if time < Duration::from_secs(1) || time > LONGEST_RELEASE {
        Err("must be between 1s and 24h".to_owned())
    } else {
        Ok(time)
    }
}

/// Parses a duration as the configuration does: a plain number is in seconds.
fn duration(text: &str) -> Result<Duration, String> {
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
    fn a_number_is_seconds() {
        assert_eq!(within_a_day("10"), Ok(Duration::from_secs(10)));
        assert_eq!(within_a_day("60"), within_a_day("60s"));
        assert_eq!(within_a_day("1m"), within_a_day("60"));
        assert_eq!(within_a_day("0").unwrap_err(), "must be between 1s and 24h");
        assert_eq!(within_a_day("86401").unwrap_err(), "must be between 1s and 24h");
        assert!(
            within_a_day("soon")
                .unwrap_err()
                .ends_with("use a number of seconds, or a number with a unit such as 90s or 10m")
        );
    }
}
