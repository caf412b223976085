//! Durations on the command line.

use std::time::Duration;

use crate::clock::duration;
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
    }
}
