//! Numbers in sentences.

/// A duration in seconds with two or three significant digits: `1.9 s`, `20 ms`, `3 min`.
pub(super) fn time(seconds: f64) -> String {
    let (value, unit) = match seconds {
        s if !s.is_finite() => return "an unknown time".to_owned(),
        s if s >= 180.0 => (s / 60.0, "min"),
        s if s >= 1.0 => (s, "s"),
        s if s >= 1e-3 => (s * 1e3, "ms"),
        s if s > 0.0 => (s * 1e6, "us"),
        _ => return "0 ms".to_owned(),
    };
    format!("{} {unit}", number(value))
}

/// A number with two or three significant digits.
pub(super) fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 1e9 => format!("{:.1} G", value / 1e9),
        v if v >= 1e6 => format!("{:.1} M", value / 1e6),
        v if v >= 1e4 => format!("{:.0} k", value / 1e3),
        v if v >= 10.0 => format!("{value:.0}"),
        v if v >= 1.0 => format!("{value:.1}").trim_end_matches(".0").to_owned(),
        v if v >= 0.005 => format!("{value:.2}").trim_end_matches('0').to_owned(),
        0.0 => "0".to_owned(),
        _ => format!("{value:.1e}"),
    }
}

/// A ratio in percent.
pub(super) fn percent(part: f64) -> String {
    format!("{} %", number(part * 100.0))
}

pub(super) trait Words {
    /// Truncates to this many bytes.
    fn cut(self, bytes: usize) -> String;
}

impl Words for String {
    fn cut(mut self, bytes: usize) -> String {
        self.truncate(self.floor_char_boundary(bytes));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_two_digits_that_say_something() {
        for (seconds, text) in [
            (1.94, "1.9 s"),
            (2.0, "2 s"),
            (0.02, "20 ms"),
            (0.000_4, "400 us"),
            (12.3, "12 s"),
            (600.0, "10 min"),
            (0.0, "0 ms"),
            (f64::NAN, "an unknown time"),
        ] {
            assert_eq!(time(seconds), text);
        }
        assert_eq!(
            (number(0.05), number(43.2), number(0.5), number(25_000.0)),
            ("0.05".into(), "43".into(), "0.5".into(), "25 k".into())
        );
        assert_eq!(percent(0.123), "12 %");
    }
}
