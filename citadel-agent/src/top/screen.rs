//! Draws a view. Pure: the same input is always drawn the same.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{Cell, Paragraph, Row, Table, TableState};

use super::columns::{COLUMNS, Level, that_fit};
use super::detail;
use super::look::Look;
use super::requests::Answered;
use super::state::State;
use super::trend::Trend;
use super::units::{bytes, percent, whole};
use super::view::{Gpu, Model, View};
use crate::clock::time_of_day;

/// Maximum width of a name in cells.
const NAME: u16 = 28;

/// Minimum number of free lines below the table for the details of the selected model.
const ROOM_FOR_DETAIL: u16 = 14;

/// Keys, in the last line.
const KEYS: &str = "q quit  Enter one model  s sort  r reverse  / filter  p pause  +/- time  ? help";

const HELP: &[&str] = &[
    "q, Ctrl-C      quit",
    "Up, Down, j, k select a model",
    "Enter          show the selected model, or the table",
    "Left, Right    scroll the columns",
    "s, S           sort by the next or previous column",
    "r              reverse the order",
    "/              filter by name; Esc clears the filter",
    "+, -           longer or shorter window: 10s, 1m, 5m, 15m, 1h, 6h, 1day",
    "p, Space       pause",
    "",
    "REQ/S   completed requests           RUN    requests in flight",
    "TTFT    time to first token          ITL    time between chunks",
    "50, 99  median, 99th percentile      ERR%   requests that ended with 5xx",
    "ABRT%   aborted requests             CPU%   100 is one CPU",
    "SM%     100 is one GPU               WATT   share of the GPUs' power",
    "RTT     median TCP round-trip time   RETR/S TCP retransmits",
    "-       not measured, or no events in the window",
    "",
    "Press any key to go back.",
];

/// What to draw.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shown<'a> {
    /// The figures.
    pub(super) view: &'a View,
    /// The selected model's trend, with its port.
    pub(super) trend: Option<&'a (u16, Trend)>,
    /// The selected model's requests, with its port.
    pub(super) requests: Option<&'a (u16, Answered)>,
    /// What is shown of them.
    pub(super) state: &'a State,
    /// Error of the last request to the agent.
    pub(super) failed: Option<&'a str>,
    /// How.
    pub(super) look: Look,
}

/// Draws it.
pub(super) fn draw(frame: &mut Frame<'_>, shown: &Shown<'_>) {
    let area = frame.area();
    let mut head = vec![title(shown), host(shown.view)];
    head.extend(gpus(shown, area.width, usize::from(area.height / 6)));
    let head_height = u16::try_from(head.len()).unwrap_or(u16::MAX);
    let layout = Layout::vertical([Constraint::Length(head_height), Constraint::Min(0), Constraint::Length(1)]);
    let [top, body, foot] = layout.areas(area);
    frame.render_widget(Paragraph::new(head), top);
    frame.render_widget(footer(shown), foot);
    let rows = shown.state.rows(shown.view);
    let selected = shown.state.selected(&rows);
    let model = selected.and_then(|at| rows.get(at)).copied();
    if shown.state.help {
        return frame.render_widget(Paragraph::new(HELP.join("\n")), body);
    }
    match model {
        None => {
            let text = if shown.view.models.is_empty() {
                "No models found. Run `citadel-agent check` to see what the agent looks for."
            } else {
                "No model matches the filter. Press Esc to clear it."
            };
            frame.render_widget(text, body);
        }
        Some(model) if shown.state.detail => draw_model(frame, body, model, shown),
        Some(model) => {
            let lines = u16::try_from(rows.len() + 1).unwrap_or(u16::MAX);
            let room = body.height.saturating_sub(lines) >= ROOM_FOR_DETAIL;
            let table_height = if room { lines + 1 } else { body.height };
            let [table, below] = Layout::vertical([Constraint::Length(table_height), Constraint::Min(0)]).areas(body);
            draw_table(frame, table, &rows, selected, shown);
            if room {
                draw_model(frame, below, model, shown);
            }
        }
    }
}

fn draw_table(frame: &mut Frame<'_>, area: Rect, rows: &[&Model], selected: Option<usize>, shown: &Shown<'_>) {
    let longest = rows.iter().map(|model| Span::raw(&model.name).width()).max().unwrap_or(0);
    let name = u16::try_from(longest).unwrap_or(NAME).min(NAME);
    let (name, columns) = that_fit(area.width, shown.state.from_column, name);
    let widths = columns.iter().map(|&at| if at == 0 { name } else { COLUMNS[at].width });
    let aligned = |at: usize, text: String| {
        let text = Text::from(text);
        Cell::from(if COLUMNS[at].is_number() { text.right_aligned() } else { text })
    };
    let header = columns.iter().map(|&at| {
        let style = if at == shown.state.sort { Style::new().add_modifier(Modifier::UNDERLINED) } else { Style::new() };
        aligned(at, COLUMNS[at].title.to_owned()).style(style)
    });
    let row = |model: &&Model| {
        let cells = columns
            .iter()
            .map(|&at| aligned(at, COLUMNS[at].text(model)).style(shown.look.style(COLUMNS[at].level(model))));
        Row::new(cells.collect::<Vec<_>>())
    };
    let table = Table::new(rows.iter().map(row), widths)
        .header(Row::new(header.collect::<Vec<_>>()).style(Style::new().add_modifier(Modifier::BOLD)))
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED))
        .column_spacing(1);
    frame.render_stateful_widget(table, area, &mut TableState::new().with_selected(selected));
}

fn draw_model(frame: &mut Frame<'_>, area: Rect, model: &Model, shown: &Shown<'_>) {
    let trend = shown.trend.filter(|(port, _)| *port == model.port).map(|(_, trend)| trend);
    let requests = shown.requests.filter(|(port, _)| *port == model.port).map(|(_, requests)| requests);
    detail::draw(frame, area, model, requests, trend, shown.look);
}

fn title(shown: &Shown<'_>) -> Line<'static> {
    let View { at_ms, host, .. } = shown.view;
    let State { sort, reversed, filter, paused, span, .. } = shown.state;
    let mut line = format!(
        "citadel-agent top  {}  {} UTC  last {}  by {}",
        host.name,
        time_of_day(*at_ms),
        span.words(),
        COLUMNS.get(*sort).map_or("", |column| column.title),
    );
    if *reversed {
        line.push_str(" reversed");
    }
    if !filter.is_empty() {
        line.push_str(&format!("  filter: {filter}"));
    }
    if *paused {
        line.push_str("  PAUSED");
    }
    Line::styled(line, Style::new().add_modifier(Modifier::BOLD))
}

fn host(view: &View) -> Line<'static> {
    let mut parts = vec!["host".to_owned()];
    parts.extend(view.host.cpu_ratio.map(|ratio| format!("CPU {}%", percent(ratio))));
    if let Some((used, total)) = view.host.memory_used_bytes.zip(view.host.memory_total_bytes) {
        parts.push(format!("memory {} of {}", bytes(used), bytes(total)));
    }
    for (what, ratio) in &view.host.waiting_ratio {
        parts.push(format!("{what} pressure {}%", percent(*ratio)));
    }
    Line::from(parts.join("  "))
}

/// One line per GPU, at most `most`; if there are more, the last line shows how many.
fn gpus(shown: &Shown<'_>, width: u16, most: usize) -> Vec<Line<'static>> {
    let gpus = &shown.view.gpus;
    let fit = if gpus.len() > most { most.saturating_sub(1) } else { gpus.len() };
    let mut lines: Vec<_> = gpus.iter().take(fit).map(|gpu| line_of(gpu, shown.look)).collect();
    if fit < gpus.len() && most > 0 && width > 0 {
        lines.push(Line::from(format!("{} more GPUs", gpus.len() - fit)));
    }
    lines
}

fn line_of(gpu: &Gpu, look: Look) -> Line<'static> {
    let mut parts = vec![format!("GPU {}", gpu.index)];
    parts.extend(gpu.utilization_ratio.map(|ratio| format!("busy {}%", percent(ratio))));
    if let Some((used, total)) = gpu.memory_used_bytes.zip(gpu.memory_total_bytes) {
        parts.push(format!("{} of {}", bytes(used), bytes(total)));
    }
    if let Some(watts) = gpu.watts {
        let limit = gpu.watts_limit.map(|limit| format!(" of {}", whole(limit))).unwrap_or_default();
        parts.push(format!("{}{limit} W", whole(watts)));
    }
    parts.extend(gpu.celsius.map(|celsius| format!("{} C", whole(celsius))));
    let mut line = Line::from(parts.join("  "));
    if !gpu.throttled.is_empty() {
        line.push_span(Span::styled(format!("  throttled: {}", gpu.throttled.join(", ")), look.style(Level::Warning)));
    }
    line
}

fn footer(shown: &Shown<'_>) -> Line<'static> {
    if shown.state.typing {
        return Line::from(format!("filter: {}_  (Enter to apply, Esc to clear)", shown.state.filter));
    }
    match shown.failed {
        Some(failed) => Line::styled(failed.replace('\n', " "), shown.look.style(Level::Bad)),
        None => Line::styled(KEYS, Style::new().add_modifier(Modifier::DIM)),
    }
}
