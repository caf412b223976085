//! Renders annotations; numbers are formatted like Prometheus' template functions do (template/template.go).

use super::state::Texts;
use crate::config::resolved::alerts::{Format, Part, Template};

/// Significant digits of a number.
const DIGITS: i32 = 4;

/// Prefixes for powers of 1000, of 1/1000 and of 1024.
const LARGE: [&str; 8] = ["k", "M", "G", "T", "P", "E", "Z", "Y"];
const SMALL: [&str; 8] = ["m", "u", "n", "p", "f", "a", "z", "y"];
const BINARY: [&str; 8] = ["ki", "Mi", "Gi", "Ti", "Pi", "Ei", "Zi", "Yi"];

/// Renders the text for an alert with these labels and this value. Missing labels are empty.
pub(super) fn render(Template(parts): &Template, labels: &Texts, value: f64, threshold: f64) -> String {
    let part = |part: &Part| match part {
        Part::Text(text) => text.clone(),
        Part::Label(name) => labels.get(name).cloned().unwrap_or_default(),
        Part::Value(format) => number(*format, value),
        Part::Threshold(format) => number(*format, threshold),
    };
    parts.iter().map(part).collect()
}

/// `value` in this format.
pub(super) fn number(format: Format, value: f64) -> String {
    match format {
        Format::Plain => general(value),
        Format::HumanizePercentage => format!("{}%", general(value * 100.0)),
        _ if !value.is_finite() => general(value),
        Format::Humanize if value.abs() >= 1.0 => divided(value, 1000.0, &LARGE),
        Format::Humanize => multiplied(value),
        Format::Humanize1024 if value.abs() <= 1.0 => general(value),
        Format::Humanize1024 => divided(value, 1024.0, &BINARY),
        Format::HumanizeDuration if value.abs() >= 1.0 => long_duration(value),
        Format::HumanizeDuration => format!("{}s", multiplied(value)),
    }
}

fn divided(mut value: f64, by: f64, prefixes: &[&str]) -> String {
    let mut prefix = "";
    for next in prefixes {
        if value.abs() < by {
            break;
        }
        (prefix, value) = (next, value / by);
    }
    format!("{}{prefix}", general(value))
}

fn multiplied(mut value: f64) -> String {
    let mut prefix = "";
    if value != 0.0 {
        for next in SMALL {
            if value.abs() >= 1.0 {
                break;
            }
            (prefix, value) = (next, value * 1000.0);
        }
    }
    format!("{}{prefix}", general(value))
}

fn long_duration(value: f64) -> String {
    let sign = if value < 0.0 { "-" } else { "" };
    let whole = value.abs() as u64;
    let (seconds, minutes, hours, days) = (whole % 60, whole / 60 % 60, whole / 3600 % 24, whole / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{sign}{}s", general(value.abs())),
        (0, 0, _) => format!("{sign}{minutes}m {seconds}s"),
        (0, ..) => format!("{sign}{hours}h {minutes}m {seconds}s"),
        _ => format!("{sign}{days}d {hours}h {minutes}m {seconds}s"),
    }
}

/// `%.4g` of C and Go.
fn general(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    // The exponent after rounding decides which notation is used.
    let scientific = format!("{value:.*e}", DIGITS as usize - 1);
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let trimmed = |text: &str| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text.to_owned(),
    };
    if (-4..DIGITS).contains(&exponent) {
        return trimmed(&format!("{value:.*}", usize::try_from(DIGITS - 1 - exponent).unwrap_or(0)));
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{}e{sign}{:02}", trimmed(digits), exponent.abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_printf_does() {
        for (value, text) in [
            (0.0, "0"),
            (-0.5, "-0.5"),
            (12.0, "12"),
            (1234.0, "1234"),
            (12345.0, "1.234e+04"),
            (99999.0, "1e+05"),
            (9999.5, "1e+04"),
            (0.1 + 0.2, "0.3"),
            (0.000_123_456, "0.0001235"),
            (0.000_012_345_6, "1.235e-05"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
        ] {
            assert_eq!(general(value), text);
        }
    }

    #[test]
    fn formats_are_those_of_prometheus() {
        for (format, value, text) in [
            (Format::Humanize, 0.0, "0"),
            (Format::Humanize, 1_234_567.0, "1.235M"),
            (Format::Humanize, 0.001_5, "1.5m"),
            (Format::Humanize, 1e30, "1e+06Y"),
            (Format::Humanize, f64::NAN, "NaN"),
            (Format::Humanize1024, 1.0, "1"),
            (Format::Humanize1024, 1536.0, "1.5ki"),
            (Format::Humanize1024, 85_899_345_920.0, "80Gi"),
            (Format::HumanizePercentage, 0.1234, "12.34%"),
            (Format::HumanizeDuration, 0.0, "0s"),
            (Format::HumanizeDuration, 0.0042, "4.2ms"),
            (Format::HumanizeDuration, 8.25, "8.25s"),
            (Format::HumanizeDuration, 59.999, "60s"),
            (Format::HumanizeDuration, 61.0, "1m 1s"),
            (Format::HumanizeDuration, -3661.0, "-1h 1m 1s"),
            (Format::HumanizeDuration, 90_061.9, "1d 1h 1m 1s"),
        ] {
            assert_eq!(number(format, value), text, "{format:?} {value}");
        }
    }
}
