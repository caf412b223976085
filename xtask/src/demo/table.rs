//! The agent's numbers next to the models' own.

use anyhow::{Context as _, Result};

use crate::scrape::Page;

/// What a stand-in model knows about itself since it started; times in seconds.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub(super) struct Truth {
    requests: f64,
    in_flight: f64,
    aborted: f64,
    first_token_sum: f64,
    first_token_count: f64,
    between_sum: f64,
    between_count: f64,
}

impl Truth {
    /// Parses `key=value` words.
    pub(super) fn parse(line: &str) -> Result<Self> {
        let mut truth = Self::default();
        for word in line.split_whitespace() {
            let (key, value) = word.split_once('=').context("a word without `=`")?;
            let field = match key {
                "requests" => &mut truth.requests,
                "in_flight" => &mut truth.in_flight,
                "aborted" => &mut truth.aborted,
                "first_token_sum" => &mut truth.first_token_sum,
                "first_token_count" => &mut truth.first_token_count,
                "between_sum" => &mut truth.between_sum,
                "between_count" => &mut truth.between_count,
                _ => continue,
            };
            *field = value.parse().with_context(|| format!("{key} is not a number"))?;
        }
        Ok(truth)
    }
}

/// One model, as the agent and as the model itself see it. `None`: not known yet.
pub(super) struct Row {
    pub(super) name: &'static str,
    requests: Pair,
    in_flight: Pair,
    aborted: Pair,
    first_token: Pair,
    first_token_median: Option<f64>,
    between_tokens: Pair,
}

/// The agent's number and the true one.
#[derive(Clone, Copy)]
struct Pair(Option<f64>, Option<f64>);

impl Row {
    pub(super) fn new(name: &'static str, page: &Page, truth: Truth) -> Self {
        let chat = [("model", name), ("endpoint", "chat_completions")];
        let (first_token, between) =
            ("citadel_model_time_to_first_token_seconds", "citadel_model_inter_token_latency_seconds");
        let mean = |sum: f64, count: f64| (count > 0.0).then(|| sum / count);
        Self {
            name,
            // A counter that has counted nothing yet may have no series.
            requests: Pair(page.sum("citadel_model_requests_total", &chat).or(Some(0.0)), Some(truth.requests)),
            in_flight: Pair(page.sum("citadel_model_requests_in_flight", &chat[..1]), Some(truth.in_flight)),
            aborted: Pair(page.sum("citadel_model_requests_aborted_total", &chat).or(Some(0.0)), Some(truth.aborted)),
            first_token: Pair(page.mean(first_token, &chat), mean(truth.first_token_sum, truth.first_token_count)),
            first_token_median: page.median(first_token, &chat),
            between_tokens: Pair(page.mean(between, &chat), mean(truth.between_sum, truth.between_count)),
        }
    }

    /// Whether both counted the same. Only meaningful at rest: while requests run, one side is always read a little
    /// later.
    pub(super) fn agrees(&self) -> bool {
        self.requests.0 == self.requests.1 && self.aborted.0 == self.aborted.1
    }
}

/// Prints the table; each pair is the agent's number and the model's own.
pub(super) fn show(rows: &[Row]) {
    let line = |cells: [&str; 7]| {
        let [name, requests, flying, aborted, first, median, between] = cells;
        println!("{name:<12} {requests:>15} {flying:>9} {aborted:>11} {first:>15} {median:>8} {between:>15}");
    };
    println!();
    line(["agent | true", "requests", "in flight", "aborted", "first token", "p50", "between"]);
    line(["", "", "", "", "mean, ms", "ms", "mean, ms"]);
    for row in rows {
        line([
            row.name,
            &counts(row.requests),
            &counts(row.in_flight),
            &counts(row.aborted),
            &millis(row.first_token),
            &milli(row.first_token_median),
            &millis(row.between_tokens),
        ]);
    }
}

fn counts(Pair(agent, truth): Pair) -> String {
    let count = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| value.to_string());
    format!("{} | {}", count(agent), count(truth))
}

fn millis(Pair(agent, truth): Pair) -> String {
    format!("{} | {}", milli(agent), milli(truth))
}

fn milli(seconds: Option<f64>) -> String {
    seconds.map_or_else(|| "-".to_owned(), |seconds| format!("{:.2}", seconds * 1e3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agent_and_model_agree_when_counts_are_equal() {
        let page = Page::parse(
            "citadel_model_requests_total{model=\"m\",endpoint=\"chat_completions\",code=\"200\"} 5\n\
             citadel_model_requests_total{model=\"m\",endpoint=\"health\",code=\"200\"} 1\n\
             citadel_model_requests_aborted_total{model=\"m\",endpoint=\"chat_completions\",side=\"client\"} 1\n",
        );
        let truth = |line| Truth::parse(line).unwrap();
        assert!(Row::new("m", &page, truth("requests=5 in_flight=0 aborted=1")).agrees());
        assert!(!Row::new("m", &page, truth("requests=6 in_flight=0 aborted=1")).agrees());
        assert!(!Row::new("m", &page, truth("requests=5 in_flight=0 aborted=0")).agrees());
    }

    #[test]
    fn a_broken_answer_is_an_error() {
        assert!(Truth::parse("requests=five").is_err());
        assert!(Truth::parse("requests").is_err());
    }
}
