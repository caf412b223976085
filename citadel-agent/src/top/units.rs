//! Numbers in human-readable form, in at most six characters.

/// A number with three significant digits.
#[must_use]
pub(super) fn short(value: f64) -> String {
    scaled(value, 1000.0, &["", "k", "M", "G", "T"])
}

/// Bytes, in powers of 1024.
#[must_use]
pub(super) fn bytes(value: f64) -> String {
    scaled(value, 1024.0, &["", "K", "M", "G", "T", "P"])
}

/// Seconds.
#[must_use]
pub(super) fn seconds(value: f64) -> String {
    match value {
        // What rounds to 1000 ms is a second.
        _ if value < 0.000_999_5 => format!("{}us", digits(value * 1e6)),
        _ if value < 0.9995 => format!("{}ms", digits(value * 1e3)),
        _ if value < 600.0 => format!("{}s", digits(value)),
        _ => format!("{}m", digits(value / 60.0)),
    }
}

/// A ratio in percent.
#[must_use]
pub(super) fn percent(value: f64) -> String {
    digits(value * 100.0)
}

/// A whole number.
#[must_use]
pub(super) fn whole(value: f64) -> String {
    format!("{value:.0}")
}

fn scaled(mut value: f64, base: f64, units: &[&str]) -> String {
    let mut units = units.iter();
    let mut unit = units.next().unwrap_or(&"");
    while value >= 999.5 {
        let Some(next) = units.next() else { break };
        (value, unit) = (value / base, next);
    }
    format!("{}{unit}", digits(value))
}

/// Three significant digits; trailing zeros are omitted only if the number is 0.
fn digits(value: f64) -> String {
    match value {
        0.0 => "0".to_owned(),
        _ if value < 9.995 => format!("{value:.2}"),
        _ if value < 99.95 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_round_to_the_next_unit() {
        for (value, text) in [
            (0.0, "0"),
            (0.004, "0.00"),
            (1.5, "1.50"),
            (42.04, "42.0"),
            (999.4, "999"),
            (999.6, "1.00k"),
            (1.25e6, "1.25M"),
        ] {
            assert_eq!(short(value), text, "{value}");
        }
        for (value, text) in
            [(0.0, "0"), (512.0, "512"), (1024.0, "1.00K"), (68_719_476_736.0, "64.0G"), (1e18, "888P")]
        {
            assert_eq!(bytes(value), text, "{value}");
        }
        for (value, text) in [
            (0.000_87, "870us"),
            (0.000_999_9, "1.00ms"),
            (0.012, "12.0ms"),
            (0.999_6, "1.00s"),
            (12.34, "12.3s"),
            (600.0, "10.0m"),
        ] {
            assert_eq!(seconds(value), text, "{value}");
        }
        assert_eq!((percent(0.1234), percent(1.0), whole(3.0)), ("12.3".to_owned(), "100".to_owned(), "3".to_owned()));
    }
}
