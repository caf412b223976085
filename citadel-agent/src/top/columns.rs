//! The table's columns, the most important first: what does not fit on a screen is cut off on the right.

use std::cmp::Ordering;

use super::units::{bytes, percent, seconds, short, whole};
use super::view::Model;

/// Shown for an unknown value.
const NOTHING: &str = "-";

/// How urgent a value is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Level {
    /// None.
    #[default]
    Normal,
    /// Some.
    Warning,
    /// At once.
    Bad,
}

/// A column.
#[derive(Debug)]
pub(super) struct Column {
    /// Its title.
    pub(super) title: &'static str,
    /// Width in cells; names take more if there is room.
    pub(super) width: u16,
    figure: Figure,
}

#[derive(Debug)]
enum Figure {
    Name,
    Verdict,
    Number { value: fn(&Model) -> Option<f64>, text: fn(f64) -> String, level: fn(f64) -> Level },
}

const fn number(title: &'static str, width: u16, value: fn(&Model) -> Option<f64>, text: fn(f64) -> String) -> Column {
    Column { title, width, figure: Figure::Number { value, text, level: |_| Level::Normal } }
}

/// A column of ratios that should be 0.
const fn failures(title: &'static str, value: fn(&Model) -> Option<f64>) -> Column {
    let level = |ratio: f64| match ratio {
        0.0 => Level::Normal,
        _ if ratio < 0.05 => Level::Warning,
        _ => Level::Bad,
    };
    Column { title, width: 5, figure: Figure::Number { value, text: percent, level } }
}

/// All columns. The first is always shown.
pub(super) const COLUMNS: &[Column] = &[
    Column { title: "MODEL", width: 12, figure: Figure::Name },
    number("PORT", 5, |model| Some(model.port.into()), whole),
    Column { title: "VERDICT", width: 7, figure: Figure::Verdict },
    number("REQ/S", 5, |model| model.requests_per_second, short),
    number("RUN", 4, |model| model.in_flight, whole),
    number("TTFT50", 6, |model| model.first_token_p50, seconds),
    number("TTFT99", 6, |model| model.first_token_p99, seconds),
    number("ITL50", 6, |model| model.inter_token_p50, seconds),
    number("ITL99", 6, |model| model.inter_token_p99, seconds),
    failures("ERR%", |model| model.error_ratio),
    failures("ABRT%", |model| model.aborted_ratio),
    number("WAIT", 5, |model| model.longest_wait_seconds.filter(|wait| *wait > 0.0), seconds),
    number("CPU%", 5, |model| model.cpus, percent),
    number("MEM", 6, |model| model.memory_bytes, bytes),
    number("GPUMEM", 6, |model| model.gpu_memory_bytes, bytes),
    number("SM%", 5, |model| model.gpu_sm_ratio, percent),
    number("WATT", 5, |model| model.gpu_watts, whole),
    number("TOK/S", 6, |model| model.tokens_per_second, short),
    number("J/TOK", 6, |model| model.joules_per_token, short),
    number("RTT", 6, |model| model.rtt_p50, seconds),
    number("RETR/S", 6, |model| model.retransmits_per_second, short),
];

/// The worst first.
const VERDICTS: [&str; 9] = ["down", "failing", "stalled", "gone", "slow", "starved", "-", "up", "well"];

fn rank(model: &Model) -> usize {
    VERDICTS.iter().position(|verdict| *verdict == model.verdict()).unwrap_or(VERDICTS.len())
}

impl Column {
    /// The value of a model.
    #[must_use]
    pub(super) fn text(&self, model: &Model) -> String {
        match self.figure {
            Figure::Name => model.name.clone(),
            Figure::Verdict => model.verdict().to_owned(),
            Figure::Number { value, text, .. } => value(model).map_or_else(|| NOTHING.to_owned(), text),
        }
    }

    /// Whether it has numbers, which are right-aligned.
    #[must_use]
    pub(super) const fn is_number(&self) -> bool {
        matches!(self.figure, Figure::Number { .. })
    }

    /// How urgent a model's value is.
    #[must_use]
    pub(super) fn level(&self, model: &Model) -> Level {
        match self.figure {
            Figure::Name => Level::Normal,
            Figure::Verdict => match model.verdict() {
                "down" | "failing" | "stalled" => Level::Bad,
                "gone" | "slow" | "starved" => Level::Warning,
                _ => Level::Normal,
            },
            Figure::Number { value, level, .. } => value(model).map_or(Level::Normal, level),
        }
    }

    /// In which order two models come: the most first, except for names, ports and verdicts (the worst first); what is not known last. Those that
    /// are equal come by port.
    #[must_use]
    pub(super) fn order(&self, a: &Model, b: &Model) -> Ordering {
        let order = match self.figure {
            Figure::Name => a.name.cmp(&b.name),
            Figure::Verdict => rank(a).cmp(&rank(b)),
            Figure::Number { .. } if self.title == "PORT" => Ordering::Equal,
            Figure::Number { value, .. } => match (value(a), value(b)) {
                (Some(a), Some(b)) => b.total_cmp(&a),
                (a, b) => b.is_some().cmp(&a.is_some()),
            },
        };
        order.then(a.port.cmp(&b.port))
    }
}

/// Which columns fit into `width` places, one apart, of those from `from` on: the first always, and at least one other. The
/// name gets up to `name` places where there is room; its width is given too.
#[must_use]
pub(super) fn that_fit(width: u16, from: usize, name: u16) -> (u16, Vec<usize>) {
    let least = COLUMNS[0].width;
    let mut left = width.saturating_sub(least);
    let mut fit = vec![0];
    for (number, column) in COLUMNS.iter().enumerate().skip(from.max(1)) {
        match left.checked_sub(column.width + 1) {
            Some(rest) => left = rest,
            None if fit.len() > 1 => break,
            None => left = 0,
        }
        fit.push(number);
    }
    (least + left.min(name.saturating_sub(least)), fit)
}
