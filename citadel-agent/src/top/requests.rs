//! Draws single requests of a model: those in flight, and the slowest of the last hour.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::Paragraph;

use super::columns::Level;
use super::look::Look;
use super::units::{seconds, short};
use crate::clock::time_of_day;
use crate::trace::{ModelRequests, Request, RunningRequest};

/// What the agent answered about a model's requests, or why it did not.
pub(super) type Answered = Result<ModelRequests, String>;

/// Minimum width for two lists side by side.
const TWO_LISTS: u16 = 150;

/// Minimum number of lines of a list: its heading, titles, two requests.
const LEAST: u16 = 4;

/// From how many seconds without a byte on a request is marked.
const QUIET: f64 = 30.0;

/// How many lines it takes, of at most `room` lines and this width.
pub(super) fn height(answered: &Answered, width: u16, room: u16) -> u16 {
    let [running, slowest] = [0, 1].map(|list| lines(answered, list, Look { colour: false, unicode: false }).len());
    let wanted = if width >= TWO_LISTS { running.max(slowest) } else { running + slowest };
    u16::try_from(wanted).unwrap_or(u16::MAX).min(room)
}

/// Draws both lists. What does not fit is omitted: the younger and the faster requests, then the slowest ones altogether.
pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, answered: &Answered, look: Look) {
    let [running, slowest] = [0, 1].map(|list| lines(answered, list, look));
    let areas = if area.width >= TWO_LISTS {
        Layout::horizontal([Constraint::Fill(1); 2]).spacing(2).areas(area)
    } else {
        // Half of the lines for each, or what the other does not need.
        let len = |lines: &[Line<'_>]| u16::try_from(lines.len()).unwrap_or(u16::MAX);
        let half = area.height / 2;
        let first = match area.height {
            height if height < 2 * LEAST => height,
            height => half.max(height.saturating_sub(len(&slowest))),
        };
        Layout::vertical([Constraint::Length(first.min(len(&running))), Constraint::Min(0)]).areas::<2>(area)
    };
    for (lines, area) in [running, slowest].into_iter().zip(areas) {
        if area.height > 1 || lines.len() == 1 {
            frame.render_widget(Paragraph::new(lines), area);
        }
    }
}

/// The lines of the first or the second list.
fn lines(answered: &Answered, list: usize, look: Look) -> Vec<Line<'static>> {
    match (answered, list) {
        (Ok(requests), 0) => running(requests, look),
        (Ok(requests), _) => slowest(requests),
        (Err(why), 0) => vec![Line::from(format!("Requests: {}", why.replace('\n', " ")))],
        (Err(_), _) => Vec::new(),
    }
}

/// All digits where they fit into the column.
fn count_of(events: u32) -> String {
    if events < 1_000_000 { events.to_string() } else { short(events.into()) }
}

fn heading(text: String) -> Line<'static> {
    Line::styled(text, Style::new().add_modifier(Modifier::BOLD))
}

fn running(requests: &ModelRequests, look: Look) -> Vec<Line<'static>> {
    let Some(count) = requests.in_flight else {
        return vec![heading("Running requests: not measured on this host, see `citadel-agent check`".to_owned())];
    };
    if count == 0 {
        return vec![heading("Running requests: none".to_owned())];
    }
    let row = |request: &RunningRequest| {
        let text = format!(
            "{:>7} {:>7} {:>6} {:<9} {:<16} {}",
            seconds(request.elapsed),
            request.waiting.map_or_else(|| "-".to_owned(), seconds),
            request.events.map_or_else(|| "-".to_owned(), count_of),
            request.phase,
            request.endpoint,
            request.client.map_or_else(|| "-".to_owned(), |client| client.to_string()),
        );
        let quiet = request.waiting.is_some_and(|seconds| seconds >= QUIET);
        Line::styled(text, look.style(if quiet { Level::Warning } else { Level::Normal }))
    };
    let titles =
        format!("{:>7} {:>7} {:>6} {:<9} {:<16} {}", "ELAPSED", "QUIET", "EVENTS", "PHASE", "ENDPOINT", "CLIENT");
    let oldest = if count > requests.running.len() { format!("the oldest of {count}") } else { count.to_string() };
    let mut lines = vec![heading(format!("Running requests: {oldest}")), Line::from(titles)];
    lines.extend(requests.running.iter().map(row));
    lines
}

fn slowest(requests: &ModelRequests) -> Vec<Line<'static>> {
    if requests.slowest.is_empty() {
        return vec![heading("Slowest requests of the last hour: none".to_owned())];
    }
    let known = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), seconds);
    let row = |request: &Request| {
        Line::from(format!(
            "{:>7} {:>7} {:>4} {:<8}  {:<16} {}",
            seconds(request.duration),
            known(request.time_to_first_byte),
            request.code.map_or_else(|| "-".to_owned(), |code| code.to_string()),
            time_of_day(request.ended_ms),
            request.endpoint,
            request.client.map_or_else(|| "-".to_owned(), |client| client.to_string()),
        ))
    };
    let titles = format!("{:>7} {:>7} {:>4} {:<8}  {:<16} {}", "TOTAL", "TTFB", "CODE", "ENDED", "ENDPOINT", "CLIENT");
    let mut lines = vec![heading("Slowest requests of the last hour".to_owned()), Line::from(titles)];
    lines.extend(requests.slowest.iter().map(row));
    lines
}

#[cfg(test)]
pub(super) mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;

    /// 14 requests of a model that is slow at this time, of which 12 stream and one hangs; and those of its last hour.
    pub(in crate::top) fn requests(now_ms: i64) -> ModelRequests {
        let client = |n: usize| format!("10.20.0.{}:{}", 11 + n % 3, 41_000 + 37 * n).parse().ok();
        let running = (0..14).map(|n| {
            let streams = (1..13).contains(&n);
            RunningRequest {
                client: client(n),
                endpoint: "chat_completions".to_owned(),
                phase: if streams { "streaming" } else { "waiting" }.to_owned(),
                elapsed: if n == 0 { 184.2 } else { 9.4 - 0.7 * n as f64 },
                waiting: Some(if n == 0 { 184.2 } else { 0.011 + 0.003 * (n * 5 % 13) as f64 }),
                events: streams.then(|| 176 - 14 * n as u32),
            }
        });
        let slowest = (0..10).map(|n| Request {
            ended_ms: now_ms - 41_000 * (1 + n as i64 * 7 % 10),
            model: String::new(),
            port: 11400,
            client: client(n),
            endpoint: "chat_completions".to_owned(),
            code: Some(200),
            aborted: None,
            duration: 31.5 - 1.3 * n as f64,
            time_to_first_byte: Some(1.31 - 0.04 * n as f64),
            receive_queue: None,
            events: None,
            request_bytes: None,
            response_bytes: None,
            retransmits: None,
            trace_id: None,
            request_id: None,
        });
        ModelRequests {
            model: String::new(),
            port: 11400,
            in_flight: Some(14),
            running: running.collect(),
            slowest: slowest.collect(),
        }
    }

    fn drawn(answered: &Answered, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        let look = Look { colour: false, unicode: true };
        terminal.draw(|frame| draw(frame, frame.area(), answered, look)).unwrap();
        terminal.backend().to_string()
    }

    #[test]
    fn each_running_request_has_a_line_with_what_is_known_of_it() {
        let text = drawn(&Ok(requests(0)), 80, 40);
        for line in [
            "Running requests: 14",
            "ELAPSED   QUIET EVENTS PHASE     ENDPOINT         CLIENT",
            "   184s    184s      - waiting   chat_completions 10.20.0.11:41000",
            "  8.70s  26.0ms    162 streaming chat_completions 10.20.0.12:41037",
            "Slowest requests of the last hour",
            "  31.5s   1.31s  200 23:59:19  chat_completions 10.20.0.11:41000",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
        // Beside each other.
        let text = drawn(&Ok(requests(0)), 200, 16);
        assert!(text.lines().next().unwrap().contains("Slowest") && text.contains("41481") && text.contains("41333"));
    }

    #[test]
    fn in_few_lines_the_oldest_remain() {
        let text = drawn(&Ok(requests(0)), 80, 4);
        assert!(text.contains("184s") && text.contains("8.70s") && !text.contains("Slowest"), "{text}");
        let text = drawn(&Ok(requests(0)), 80, 10);
        assert!(text.contains("184s") && text.contains("31.5s"), "{text}");
        // Of a model without running ones, the rest is for the slowest.
        let text = drawn(&Ok(ModelRequests { in_flight: Some(0), running: vec![], ..requests(0) }), 80, 9);
        assert!(text.contains("Running requests: none") && text.contains("25.0s"), "{text}");
        for (width, height) in [(1, 1), (3, 2), (150, 1), (149, 7), (200, 3)] {
            drawn(&Ok(requests(0)), width, height);
        }
    }

    #[test]
    fn what_is_not_measured_is_not_none() {
        let unmeasured = ModelRequests { in_flight: None, running: vec![], ..requests(0) };
        assert!(drawn(&Ok(unmeasured.clone()), 80, 20).contains("Running requests: not measured on this host"));
        assert!(drawn(&Ok(unmeasured), 80, 20).contains("31.5s"), "the slowest are known all the same");
        assert!(drawn(&Err("requests are not measured".to_owned()), 80, 5).contains("Requests: requests are not"));
        assert_eq!(height(&Err(String::new()), 80, 9), 1);
        assert_eq!(height(&Ok(requests(0)), 80, 9), 9);
        assert_eq!(height(&Ok(requests(0)), 200, 99), 16);
    }
}
