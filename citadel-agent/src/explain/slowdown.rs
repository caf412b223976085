//! By how much the latencies of models are above what is usual for them, for alerts.

use super::BEFORE_MS;
use super::case::{ENOUGH, difference};
use super::usual::slices;
use crate::history::window::{Distribution, Window};
use crate::history::{History, Millis, Subject};

/// How much is compared with what is usual.
const WINDOW_MS: Millis = 5 * 60 * 1000;

/// For how long the longest gap is remembered.
const GAP_MS: Millis = 60 * 1000;

/// The latencies, by the histogram with them in the history, and the least difference in seconds that matters.
const LATENCIES: [(&str, f64); 3] = [("first_token", 0.02), ("inter_token", 0.005), ("receive_queue", 0.02)];

/// A model, and the ratio of each latency's mean to its usual one.
#[derive(Clone, PartialEq, Debug)]
pub struct Slowdown {
    /// The model's name.
    pub model: String,
    /// Its port.
    pub port: u16,
    /// Longest time in seconds between two events with output within the last minute.
    pub longest_gap: Option<f64>,
    /// Latency, and ratio: 1 if they differ by less than matters, or by chance.
    pub ratios: Vec<(&'static str, f64)>,
}

/// Those of all models whose last five minutes can be compared with the hour before.
#[must_use]
pub fn slowdowns(history: &History, now: Millis) -> Vec<Slowdown> {
    let from = now - WINDOW_MS;
    let subjects = history.subjects();
    let models = subjects.iter().filter_map(|(subject, name)| match subject {
        Subject::Model(port) => Some((subject, *port, name.to_string())),
        _ => None,
    });
    models
        .map(|(subject, port, model)| {
            let before = slices(history, subject, (from - BEFORE_MS, from));
            let window = history.window(subject, from, now);
            let ratio = |(key, least)| Some((key, ratio(window.histogram(key)?, key, &before, least)?));
            let minute = history.window(subject, now - GAP_MS, now);
            let longest_gap = minute.histogram("inter_token").and_then(Distribution::longest);
            Slowdown { model, port, longest_gap, ratios: LATENCIES.into_iter().filter_map(ratio).collect() }
        })
        .collect()
}

/// The ratio to what is usual in the time before: without the slices that were slow by those before them.
fn ratio(now: &Distribution, key: &str, before: &[Window], least: f64) -> Option<f64> {
    let mut usual = Distribution::default();
    for slice in before.iter().filter_map(|slice| slice.histogram(key)) {
        if difference(slice, &usual, least).is_none() {
            usual.merge(slice);
        }
    }
    let enough = |of: &Distribution| of.count as f64 >= ENOUGH;
    (enough(now) && enough(&usual)).then(|| difference(now, &usual, least).map_or(1.0, |(now, usual)| now / usual))
}

#[cfg(test)]
mod tests {
    use citadel_agent_common::hist::Histogram;

    use super::super::tests::spread;
    use super::*;
    use crate::metrics::catalogue::models::INTER_TOKEN_LATENCY;
    use crate::metrics::family::{Page, Value};

    fn slices(means: &[f64]) -> Vec<Window> {
        let slice = |mean: &f64| {
            let mut window = Window { covered_seconds: 120.0, ..Window::default() };
            window.histograms.insert("receive_queue".to_owned(), spread(100, *mean));
            window
        };
        means.iter().map(slice).collect()
    }

    fn of(now: f64, count: u64, before: &[f64]) -> Option<f64> {
        ratio(&spread(count, now), "receive_queue", &slices(before), 0.02)
    }

    #[test]
    fn the_longest_gap_is_that_of_the_last_minute() {
        let (history, now) = (History::default(), 1_800_000_000_000);
        let mut tokens = Histogram::EMPTY;
        // Five seconds each; in the third, one token comes late.
        for interval in 0..40 {
            (0..100).for_each(|_| tokens.observe(20_000_000));
            if interval == 3 {
                tokens.observe(3_000_000_000);
            }
            let mut page = Page::default();
            let labels = ["phi3", "11403", "chat_completions"];
            page.add(&INTER_TOKEN_LATENCY, labels, Value::Histogram(Box::new(tokens)));
            history.take(&page, now + interval * 5000);
        }
        let gap = |seconds: Millis| slowdowns(&history, now + seconds * 1000)[0].longest_gap.unwrap();
        assert!((3.0..3.3).contains(&gap(20)), "{}", gap(20));
        assert!((3.0..3.3).contains(&gap(70)), "{}", gap(70));
        assert!((0.02..0.022).contains(&gap(80)), "{}", gap(80));
    }

    #[test]
    fn a_latency_is_compared_with_what_was_usual_before_it_was_slow() {
        let mut before = vec![0.01; 30];
        assert_eq!(of(0.01, 100, &before), Some(1.0));
        assert_eq!(of(0.1, 100, &before).map(f64::round), Some(10.0));
        // It has been so for most of the hour.
        before[5..].fill(0.1);
        assert_eq!(of(0.1, 100, &before).map(f64::round), Some(10.0));
        // Twice of next to nothing.
        assert_eq!(of(0.002, 100, &[0.001; 30]), Some(1.0));
        for (count, before) in [(2, &[0.01; 30][..]), (100, &[])] {
            assert_eq!(of(0.1, count, before), None);
        }
    }
}
