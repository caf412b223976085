//! Draws one model: its figures in words, sparklines, heat maps.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::columns::Level;
use super::look::Look;
use super::requests::{self, Answered};
use super::span::words;
use super::trend::{Point, Times, Trend, heat};
use super::units::{bytes, percent, seconds, short, whole};
use super::view::{Model, ModelState, Rate};
use crate::explain::{Explanation, Part, Verdict};

/// Width in cells of the label before a plot, and of the value after a sparkline.
const LABEL: u16 = 11;
const MAXIMUM: u16 = 12;

/// Minimum width for two heat maps side by side.
const TWO_MAPS: u16 = 160;

/// Minimum number of lines of a heat map, including its heading.
const LEAST_MAP: u16 = 4;

/// Up to how many lines below the figures may all be single requests.
const MOST_REQUESTS: u16 = 8;

/// Maximum number of causes shown.
const MOST_CAUSES: usize = 3;

/// Maximum number of rates listed per kind.
const MOST_RATES: usize = 4;

/// The heat maps.
const MAPS: [(&str, Times); 2] =
    [("Time to first token", |point| &point.first_token), ("Time between chunks", |point| &point.inter_token)];

/// Draws the model; what does not fit is omitted from the bottom up, the figures last.
pub(super) fn draw(
    frame: &mut Frame<'_>,
    area: Rect,
    model: &Model,
    requests: Option<&Answered>,
    trend: Option<&Trend>,
    look: Look,
) {
    let mut figures = figures(model, look);
    drop(figures.splice(1..1, explained(model, usize::from(area.width), look)));
    let figures_height = u16::try_from(figures.len()).unwrap_or(u16::MAX);
    let [top, rest] = Layout::vertical([Constraint::Length(figures_height), Constraint::Min(0)]).areas(area);
    frame.render_widget(Paragraph::new(figures), top);
    let mut rest = rest;
    if let Some(answered) = requests {
        // What happens now comes before what was; but of a large screen most is for the plots.
        let room = if rest.height > MOST_REQUESTS { rest.height * 2 / 5 } else { rest.height };
        let height = requests::height(answered, rest.width, room);
        let [list, plots] = Layout::vertical([Constraint::Length(height), Constraint::Min(0)]).areas(rest);
        requests::draw(frame, list, answered, look);
        rest = plots;
    }
    let Some(trend) = trend else { return };
    let columns = usize::from(rest.width.saturating_sub(LABEL + MAXIMUM)).min(trend.points.len());
    let points = trend.newest(columns);
    // One line shows the time span.
    let room = rest.height.saturating_sub(1 + LEAST_MAP).max(1);
    let lines: Vec<_> = sparklines(points, look).into_iter().take(room.into()).collect();
    let sparks_height = u16::try_from(lines.len()).unwrap_or(u16::MAX) + 1;
    let [sparks, maps] = Layout::vertical([Constraint::Length(sparks_height), Constraint::Min(0)]).areas(rest);
    let step = words((trend.step_seconds * 1000.0) as i64);
    let span = words((trend.step_seconds * 1000.0) as i64 * columns as i64);
    let mut all = vec![heading(format!("Last {span}, {step} per column"))];
    all.extend(lines);
    frame.render_widget(Paragraph::new(all), sparks);
    let areas = if maps.width >= TWO_MAPS {
        Layout::horizontal([Constraint::Fill(1); 2]).spacing(2).areas(maps)
    } else {
        Layout::vertical([Constraint::Fill(1); 2]).areas::<2>(maps)
    };
    if areas[1].height < LEAST_MAP {
        return draw_map(frame, maps, MAPS[0], points, look);
    }
    for (area, map) in areas.into_iter().zip(MAPS) {
        draw_map(frame, area, map, points, look);
    }
}

fn draw_map(frame: &mut Frame<'_>, area: Rect, (title, times): (&str, Times), points: &[Option<Point>], look: Look) {
    let columns = usize::from(area.width.saturating_sub(LABEL)).min(points.len());
    let bands = heat(&points[points.len() - columns..], times, area.height.saturating_sub(1).into());
    let most = bands.iter().flat_map(|band| &band.counts).copied().max().unwrap_or(0);
    let ramp = if look.unicode { [' ', '·', '░', '▒', '▓', '█'] } else { [' ', '.', ':', '+', '*', '#'] };
    let cell = |&count: &u64| match count {
        0 => ramp[0],
        // A small count next to a large one stays visible.
        _ => ramp[1 + ((count as f64 / most as f64).sqrt() * 4.0).round() as usize],
    };
    let mut lines = vec![match most {
        0 => heading(format!("{title}: none")),
        _ => heading(format!("{title} (darkest: {most})")),
    }];
    lines.extend(bands.iter().map(|band| {
        let cells: String = band.counts.iter().map(cell).collect();
        Line::from(vec![label(&format!("{:>9}", seconds(band.up_to))), Span::styled(cells, look.coloured(Color::Cyan))])
    }));
    frame.render_widget(Paragraph::new(lines), area);
}

fn heading(text: String) -> Line<'static> {
    Line::styled(text, Style::new().add_modifier(Modifier::BOLD))
}

fn label(text: &str) -> Span<'static> {
    Span::raw(format!("{text:<width$}", width = usize::from(LABEL)))
}

fn sparklines(points: &[Option<Point>], look: Look) -> Vec<Line<'static>> {
    type Value = fn(&Point) -> Option<f64>;
    type Unit = fn(f64) -> String;
    let all: [(&str, Value, Unit); 8] = [
        ("requests/s", |point| Some(point.requests), short),
        ("in flight", |point| point.in_flight, short),
        ("failed/s", |point| Some(point.failed), short),
        ("TTFT p50", |point| point.first_token.quantile(0.5), seconds),
        ("TTFT p99", |point| point.first_token.quantile(0.99), seconds),
        ("ITL p50", |point| point.inter_token.quantile(0.5), seconds),
        ("CPU%", |point| Some(point.cpus), percent),
        ("SM%", |point| point.gpu_sm, percent),
    ];
    let line = |(name, value, text): (&str, Value, Unit)| {
        let values: Vec<_> = points.iter().map(|point| point.as_ref().and_then(value)).collect();
        let most = values.iter().copied().flatten().reduce(f64::max)?;
        let bars = bars(&values, most, look);
        let style = if name == "failed/s" && most > 0.0 { look.style(Level::Bad) } else { look.coloured(Color::Cyan) };
        Some(Line::from(vec![label(name), Span::styled(bars, style), Span::raw(format!(" max {}", text(most)))]))
    };
    all.into_iter().filter_map(line).collect()
}

/// One character per value; a space if there is none.
fn bars(values: &[Option<f64>], most: f64, look: Look) -> String {
    let ramp = if look.unicode {
        ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█']
    } else {
        ['_', '.', ':', '-', '=', '+', '*', '#']
    };
    let bar = |value: &Option<f64>| match value {
        None => ' ',
        Some(value) if *value > 0.0 => ramp[((value / most * 7.0).ceil() as usize).min(7)],
        Some(_) => ramp[0],
    };
    values.iter().map(bar).collect()
}

/// The result of `explain`: verdict, reason, causes.
fn explained(model: &Model, width: usize, look: Look) -> Vec<Line<'static>> {
    let Some(said) = &model.explanation else { return Vec::new() };
    let style = match said.verdict {
        Verdict::Failing | Verdict::Stalled => look.style(Level::Bad),
        Verdict::Slow | Verdict::Starved => look.style(Level::Warning),
        Verdict::Unknown | Verdict::Well => Style::new(),
    };
    let summary = wrapped(&format!("{}: {}", said.verdict.word(), said.summary), width);
    let causes =
        said.causes.iter().take(MOST_CAUSES).flat_map(|cause| wrapped(&format!("- {}", cause.sentence), width));
    let shares = shares(said).into_iter().flat_map(|text| wrapped(&text, width));
    summary.into_iter().map(|line| Line::styled(line, style)).chain(causes.chain(shares).map(Line::from)).collect()
}

/// The parts of the mean time to first token, the largest first; parts that round to 0 are omitted.
fn shares(said: &Explanation) -> Option<String> {
    let total: f64 = said.parts.iter().map(|part| part.now).sum();
    let mut parts: Vec<_> = said.parts.iter().filter(|part| part.now >= 0.005 * total).collect();
    parts.sort_by(|a, b| b.now.total_cmp(&a.now));
    let share = |part: &&Part| format!("{} {}%", part.part, percent(part.now / total));
    let list = parts.iter().map(share).collect::<Vec<_>>().join(", ");
    (total > 0.0 && parts.len() > 1).then(|| format!("Mean TTFT {}: {list}", seconds(total)))
}

/// Wraps a text between words into lines of this width.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let last = lines.last_mut().map_or(0, |line| Span::raw(line.as_str()).width());
        if last > 0 && last + 1 + Span::raw(word).width() > width {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

/// The figures in words, one line per kind that has any.
fn figures(model: &Model, look: Look) -> Vec<Line<'static>> {
    let detail = &model.detail;
    let mut first = vec![format!("{}  port {}", model.name, model.port)];
    if model.state == ModelState::Gone {
        first.push("no measurements in this window".to_owned());
    } else {
        first.extend((model.state != ModelState::Unknown).then(|| model.state.word().to_owned()));
        first.extend(detail.pid.map(|pid| format!("PID {pid}")));
        first.extend(detail.connections.map(|count| format!("{count} connections")));
    }
    let with =
        |text: &str, value: Option<f64>, unit: fn(f64) -> String| value.map(|value| text.replace('#', &unit(value)));
    let in_flight = with("# in flight", model.in_flight, whole);
    let rate = |rate: Option<f64>| with("#/s", rate, short);
    let lines: [(&str, Vec<Option<String>>); 8] = [
        (
            "requests",
            [rate(model.requests_per_second), in_flight].into_iter().chain(listed(&detail.requests)).collect(),
        ),
        ("aborted", listed(&detail.aborted)),
        (
            "latency",
            vec![
                with("TTFT # p50", model.first_token_p50, seconds),
                with("# p99", model.first_token_p99, seconds),
                with("between chunks # p50", model.inter_token_p50, seconds),
                with("# p99", model.inter_token_p99, seconds),
            ],
        ),
        (
            "waits",
            vec![
                with("receive queue # p50", detail.receive_queue_p50, seconds),
                with("# p99", detail.receive_queue_p99, seconds),
                with("run queue # p99", detail.run_queue_p99, seconds),
            ],
        ),
        (
            "network",
            vec![
                with("RTT # p50", model.rtt_p50, seconds),
                with("# retransmits/s", model.retransmits_per_second, short),
            ],
        ),
        ("host", {
            let cpus = [with("CPU #%", model.cpus, percent), with("memory #", model.memory_bytes, bytes)];
            let calls = detail
                .syscalls
                .iter()
                .take(MOST_RATES)
                .map(|call| with(&format!("{} # s/s", call.what), Some(call.per_second), short));
            cpus.into_iter().chain(calls).collect()
        }),
        (
            "GPU",
            vec![
                with("memory #", model.gpu_memory_bytes, bytes),
                with("SM #%", model.gpu_sm_ratio, percent),
                with("# W", model.gpu_watts, whole),
                with("# J/token", model.joules_per_token, short),
            ],
        ),
        (
            "engine",
            vec![
                with("# running", detail.engine_running, whole),
                with("# waiting", detail.engine_waiting, whole),
                with("KV cache #%", detail.kv_cache_ratio, percent),
                with("prefix hits #%", detail.prefix_hit_ratio, percent),
                with("# tokens/s", model.tokens_per_second, short),
            ],
        ),
    ];
    let state = if model.state == ModelState::Down { Level::Bad } else { Level::Normal };
    let mut all = vec![Line::styled(first.join("  "), look.style(state).add_modifier(Modifier::BOLD))];
    all.extend(lines.into_iter().filter_map(|(name, parts)| {
        let parts: Vec<_> = parts.into_iter().flatten().collect();
        (!parts.is_empty()).then(|| Line::from(vec![label(name), Span::raw(parts.join(", "))]))
    }));
    all
}

fn listed(rates: &[Rate]) -> Vec<Option<String>> {
    let text = |rate: &Rate| Some(format!("{} {}/s", rate.what, short(rate.per_second)));
    rates.iter().take(MOST_RATES).map(text).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn said(parts: &[(&str, f64)]) -> Explanation {
        let parts: Vec<_> =
            parts.iter().map(|(part, now)| json!({ "part": part, "now": now, "before": null })).collect();
        serde_json::from_value(json!({
            "model": "phi3", "port": 11403, "from_ms": 0, "to_ms": 1, "against": "before", "verdict": "slow", "summary": "", "causes": [],
            "ruled_out": [], "not_measured": [], "parts": parts, "requests": 10, "requests_before": 10,
        }))
        .unwrap()
    }

    #[test]
    fn shares_of_the_time_to_first_token_come_the_largest_first() {
        let parts = [("run queue", 0.001), ("accept and receive queue", 1.5), ("rest: the model itself", 0.499)];
        assert_eq!(
            shares(&said(&parts)).unwrap(),
            "Mean TTFT 2.00s: accept and receive queue 75.0%, rest: the model itself 24.9%"
        );
        // Nothing to divide.
        assert_eq!(shares(&said(&parts[1..2])), None);
        assert_eq!(shares(&said(&[])), None);
    }
}
