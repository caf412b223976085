//! `citadel-agent explain`.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Args, ValueEnum};

use super::{Against, Explanation, text};
use crate::clock::{duration, wall_ms};
use crate::control::{Connection, ControlError, Order};
use crate::history::Millis;

/// A day.
const DAY_MS: Millis = 24 * 60 * 60 * 1000;

/// What to explain.
#[derive(Args, Debug)]
pub struct What {
    /// Only this model: its name, or its port.
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// Middle of the window: 14:05 or 14:05:30 (UTC, the most recent one), or 2026-11-30T14:05:00Z. By default the window ends now.
    #[arg(long, value_name = "TIME", value_parser = time)]
    at: Option<At>,
    /// Length of the window, such as 30s, 15m or 2h; a plain number is in seconds.
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = duration)]
    last: Duration,
    /// What to compare with: the hour before, or the same time yesterday.
    #[arg(long, value_enum, default_value = "before")]
    against: Against,
    /// Output format.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

/// Output format.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Format {
    /// Text.
    Text,
    /// A list of objects, one per model.
    Json,
}

/// A time, with or without a day.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum At {
    /// Milliseconds since the epoch.
    Time(Millis),
    /// Milliseconds since midnight.
    OfDay(Millis),
}

impl At {
    fn ms(self, now: Millis) -> Millis {
        match self {
            Self::Time(ms) => ms,
            Self::OfDay(ms) => {
                let today = now.div_euclid(DAY_MS) * DAY_MS + ms;
                if today > now { today - DAY_MS } else { today }
            }
        }
    }
}

fn time(text: &str) -> Result<At, String> {
    if let Ok(time) = humantime::parse_rfc3339_weak(text) {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        return Ok(At::Time(i64::try_from(since.as_millis()).unwrap_or(i64::MAX)));
    }
    let digits = if text.len() == 5 { format!("{text}:00") } else { text.to_owned() };
    let time = humantime::parse_rfc3339_weak(&format!("1970-01-01 {digits}"));
    let since = |time: SystemTime| time.duration_since(UNIX_EPOCH).map_err(|error| error.to_string());
    match time {
        Ok(time) => Ok(At::OfDay(i64::try_from(since(time)?.as_millis()).unwrap_or(0))),
        Err(_) => Err("write 14:05, 14:05:30 or 2026-11-30T14:05:00Z (UTC)".to_owned()),
    }
}

/// Queries the agent that listens at `socket`, and returns the report to print.
///
/// # Errors
/// It cannot be reached, or knows no such model.
pub fn run(what: &What, socket: &Path) -> Result<String, ControlError> {
    let (now, last) = (wall_ms(), i64::try_from(what.last.as_millis()).unwrap_or(i64::MAX));
    let to_ms = what.at.map_or(now, |at| at.ms(now).saturating_add(last / 2).min(now));
    let from_ms = to_ms.saturating_sub(last);
    let order = Order::Explain { model: what.model.clone(), from_ms, to_ms, against: what.against };
    let explanations: Vec<Explanation> = Connection::open(socket)?.data(&order)?;
    Ok(match what.format {
        Format::Text => text::render(&explanations),
        Format::Json => format!("{}\n", serde_json::to_string_pretty(&explanations).unwrap_or_default()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_of_day_is_the_last_one_that_was() {
        let noon = DAY_MS * 100 + DAY_MS / 2;
        let minute = 60_000;
        assert_eq!(time("11:59").unwrap().ms(noon), noon - minute);
        assert_eq!(time("12:00:30").unwrap().ms(noon), noon - DAY_MS + 30_000);
        assert_eq!(time("1970-04-11T00:00:00Z").unwrap(), At::Time(100 * DAY_MS));
        assert!(time("noon").is_err() && time("25:00").is_err());
    }
}
