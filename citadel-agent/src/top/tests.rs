//! A recorded host on screens of three sizes, and what keys, names and sizes can do to them.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;
use std::{env, fs};

use citadel_agent_common::hist::Histogram;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::style::Color;

use super::columns::COLUMNS;
use super::look::Look;
use super::requests::Answered;
use super::requests::tests::requests;
use super::screen::{Shown, draw};
use super::span::Span;
use super::state::{Effect, State};
use super::text::table;
use super::trend::{Point, Trend, heat};
use super::view::{ModelState, View};
use crate::explain::{Against, explain};
use crate::history::window::{Distribution, Gauge, SubjectHistory, Window};
use crate::history::{FINE_MS, History, Millis, Subject};
use crate::metrics::catalogue::{engine, gpu, models, system};
use crate::metrics::family::{Page, Value};

const PLAIN: Look = Look { colour: false, unicode: true };
const COLOURED: Look = Look { colour: true, unicode: true };
const SIZES: [(u16, u16); 3] = [(80, 24), (120, 40), (200, 60)];

/// 2025-11-30T13:40:00Z, and a quarter of an hour of pages from then on.
const START: Millis = 1_764_510_000_000;
const PAGES: i64 = 181;
const END: Millis = START + (PAGES - 1) * FINE_MS;

/// A name that would set colours, the window's title and the direction of writing.
const NASTY: &str = "evil\x1b[31m\x1b]0;owned\x07\u{202e}模型\n";

/// Requests of one model so far.
struct Counts {
    ok: u64,
    failed: u64,
    aborted: u64,
    first_token: Histogram,
    inter_token: Histogram,
}

impl Counts {
    const NONE: Self =
        Self { ok: 0, failed: 0, aborted: 0, first_token: Histogram::EMPTY, inter_token: Histogram::EMPTY };

    /// Adds an interval: so many requests, with times that vary around these milliseconds.
    fn serve(&mut self, requests: u64, first_token_ms: u64, inter_token_ms: u64) {
        for n in 0..requests {
            self.first_token.observe(first_token_ms * (70 + n * 37 % 90) * 10_000);
            for chunk in 0..20 {
                self.inter_token.observe(inter_token_ms * (80 + (n + chunk) * 29 % 60) * 10_000);
            }
        }
        self.ok += requests;
    }

    fn page(&self, page: &mut Page, model: &str, port: &str, in_flight: u64) {
        let labels = [model, port, "chat_completions"];
        page.add(&models::REQUESTS_IN_FLIGHT, [model, port], Value::Integer(in_flight));
        for (code, count) in [("200", self.ok), ("503", self.failed)] {
            if count > 0 {
                page.add(&models::REQUESTS, [model, port, "chat_completions", code], Value::Integer(count));
            }
        }
        if self.aborted > 0 {
            let labels = [model, port, "chat_completions", "client", "streaming"];
            page.add(&models::REQUESTS_ABORTED, labels, Value::Integer(self.aborted));
        }
        if self.ok > 0 {
            let times = |histogram: &Histogram| Value::Histogram(Box::new(*histogram));
            page.add(&models::TIME_TO_FIRST_TOKEN, labels, times(&self.first_token));
            page.add(&models::INTER_TOKEN_LATENCY, labels, times(&self.inter_token));
        }
    }
}

fn integer(value: u64) -> Value {
    Value::Integer(value)
}

/// Four models on a host with two GPUs: one slow in the last five minutes, one that fails and is given up, one idle with a nasty
/// name, one that went away.
fn host() -> History {
    let history = History::default();
    let (mut mixtral, mut phi3) = (Counts::NONE, Counts::NONE);
    for n in 0..PAGES {
        let at = n.unsigned_abs();
        let mut page = Page::default();
        let slow = n > 120;
        let many = 8 + at * 7 % 5;
        mixtral.serve(many, if slow { 900 } else { 120 }, if slow { 45 } else { 22 });
        mixtral.page(&mut page, "mixtral", "11400", if slow { 14 } else { 3 });
        phi3.serve(3 + at % 2, 60, 11);
        phi3.failed += u64::from(at % 3 == 0 && n > 90);
        phi3.aborted += u64::from(at % 11 == 0);
        phi3.page(&mut page, "phi3", "11403", 1);
        Counts::NONE.page(&mut page, NASTY, "11404", 0);
        if n < 60 {
            Counts::NONE.page(&mut page, "llama-3.3-70b-instruct-awq-int4", "11406", 0);
        }
        for (model, port, cpu, memory, up) in
            [("mixtral", "11400", 6.5, 12u64, 1), ("phi3", "11403", 0.7, 3, 1), (NASTY, "11404", 0.0, 1, 0)]
        {
            page.add(&models::CPU, [model, port, "user"], Value::Float(cpu * at as f64));
            page.add(&models::MEMORY, [model, port, "pss"], integer(memory << 30));
            page.add(&models::MODEL_UP, [model, port], integer(up));
        }
        for (model, port, gpu, memory, sm, joules) in
            [("mixtral", "11400", "GPU-a", 61u64, 0.83, 2100.0), ("phi3", "11403", "GPU-b", 9, 0.21, 640.0)]
        {
            page.add(&models::GPU_MEMORY, [model, port, gpu], integer(memory << 30));
            page.add(&models::GPU_SM, [model, port, gpu], Value::Float(sm));
            page.add(&models::GPU_ENERGY, [model, port, gpu], Value::Float(joules * at as f64));
        }
        for (uuid, index, busy, used, watts, held) in
            [("GPU-a", "0", 0.87, 62u64, 420.0, 1), ("GPU-b", "1", 0.24, 10, 128.0, 0)]
        {
            let labels = [uuid, index, "NVIDIA H100 80GB HBM3"];
            page.add(&gpu::UTILIZATION, labels, Value::Float(busy));
            page.add(&gpu::MEMORY_USED, labels, integer(used << 30));
            page.add(&gpu::MEMORY_TOTAL, labels, integer(80 << 30));
            page.add(&gpu::POWER, labels, Value::Float(watts));
            page.add(&gpu::POWER_LIMIT, labels, Value::Float(700.0));
            page.add(&gpu::TEMPERATURE, [uuid, index, labels[2], "gpu"], Value::Float(71.0));
            page.add(&gpu::THROTTLE_ACTIVE, [uuid, index, labels[2], "sw_power_cap"], integer(held));
            page.add(&gpu::THROTTLE_ACTIVE, [uuid, index, labels[2], "gpu_idle"], integer(1));
        }
        let of_engine = ["mixtral", "11400", "vllm"];
        page.add(&engine::REQUESTS_RUNNING, of_engine, integer(if slow { 12 } else { 3 }));
        page.add(&engine::REQUESTS_WAITING, ["mixtral", "11400", "vllm", ""], integer(if slow { 2 } else { 0 }));
        page.add(&engine::KV_CACHE_USAGE, of_engine, Value::Float(if slow { 0.97 } else { 0.41 }));
        page.add(&engine::TOKENS, ["mixtral", "11400", "vllm", "generated"], integer(4000 * at));
        // The engine counts aborted requests too, so it comes first. One of phi3's responses in each interval states nothing.
        for (model, port, missing) in [("mixtral", "11400", 0), ("phi3", "11403", at), (NASTY, "11404", 0)] {
            page.add(&models::TOKENS, [model, port, "completion"], integer(3900 * at));
            page.add(&models::REQUESTS_WITH_USAGE, [model, port], integer(9 * at));
            page.add(&models::REQUESTS_WITHOUT_USAGE, [model, port], integer(missing));
        }
        for (mode, seconds) in [("user", 9.0), ("system", 1.0), ("idle", 29.0), ("iowait", 1.0)] {
            page.add(&system::CPU_SECONDS, ["0", mode], Value::Float(seconds * at as f64));
        }
        page.add(&system::PRESSURE_CPU_WAITING, [], Value::Float(0.12 * at as f64));
        for (name, bytes) in [("MemTotal", 256u64 << 30), ("MemAvailable", 190 << 30)] {
            let field = system::MEMINFO.iter().find(|field| field.key == name).unwrap();
            page.add(&field.desc, [], integer(bytes));
        }
        history.take(&page, START + n * FINE_MS);
    }
    history
}

struct Recorded {
    view: View,
    trend: (u16, Trend),
    requests: (u16, Answered),
}

fn span() -> Span {
    Span::of(Duration::from_secs(60)).unwrap()
}

fn recorded() -> Recorded {
    let (history, span) = (host(), span());
    let view = View::of(&history.series(None, END - span.ms(), END, i64::MAX), "gpu-host-7", END - span.ms(), END);
    let view = view.explained(explain(&history, None, END - 5 * 60 * 1000, END, Against::Before));
    let (from, step) = (END - span.trend_ms(), span.step_ms());
    let series = history.series(Some(&Subject::Model(11400)), from, END, step);
    let trend = Trend::of(&series[0].windows, from, END, step);
    Recorded { view, trend: (11400, trend), requests: (11400, Ok(requests(END))) }
}

fn drawn(recorded: &Recorded, state: &State, look: Look, (width, height): (u16, u16)) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    let Recorded { view, trend, requests } = recorded;
    let shown = Shown { view, trend: Some(trend), requests: Some(requests), state, failed: None, look };
    terminal.draw(|frame| draw(frame, &shown)).unwrap();
    terminal.backend().buffer().clone()
}

/// As a terminal shows it.
fn lines(buffer: &Buffer) -> Vec<String> {
    let rows = buffer.content().chunks(buffer.area.width.max(1).into());
    rows.map(|row| {
        let mut line = String::new();
        let mut covered = 0;
        for cell in row {
            // What follows a wide character is under it.
            if covered > 0 {
                covered -= 1;
                continue;
            }
            covered = ratatui::text::Span::raw(cell.symbol()).width().saturating_sub(1);
            line.push_str(cell.symbol());
        }
        line.trim_end().to_owned()
    })
    .collect()
}

fn press(state: &mut State, view: &View, keys: &str) {
    for key in keys.chars() {
        let code = if key == '\n' { KeyCode::Enter } else { KeyCode::Char(key) };
        state.key(KeyEvent::new(code, KeyModifiers::NONE), view);
    }
}

#[test]
fn rows_have_what_happened_in_the_time_by_second_and_by_request() {
    let view = recorded().view;
    let model = |port: u16| view.models.iter().find(|model| model.port == port).unwrap();
    let mixtral = model(11400);
    // Twelve intervals of 8 to 12 requests, 10 in the mean over five.
    assert!((mixtral.requests_per_second.unwrap() - 2.0).abs() < 0.05, "{mixtral:?}");
    assert_eq!((mixtral.in_flight, mixtral.error_ratio, mixtral.aborted_ratio), (Some(14.0), Some(0.0), Some(0.0)));
    assert!((0.8..1.2).contains(&mixtral.first_token_p50.unwrap()), "{mixtral:?}");
    assert!(mixtral.first_token_p99 > mixtral.first_token_p50);
    assert!((0.035..0.065).contains(&mixtral.inter_token_p50.unwrap()), "{mixtral:?}");
    let near =
        |value: Option<f64>, expected: f64| assert!((value.unwrap() - expected).abs() < 1e-6, "{value:?} {expected}");
    near(mixtral.cpus, 1.3);
    near(mixtral.gpu_watts, 420.0);
    near(mixtral.tokens_per_second, 800.0);
    near(mixtral.joules_per_token, 0.525);
    near(mixtral.gpu_sm_ratio, f64::from(0.83f32));
    assert_eq!(
        (mixtral.memory_bytes, mixtral.gpu_memory_bytes),
        (Some(12e0 * f64::from(1u32 << 30)), Some(61e0 * f64::from(1u32 << 30)))
    );
    let phi3 = model(11403);
    // 4 of 42 + 4 + 1.
    assert_eq!((phi3.error_ratio, phi3.aborted_ratio), (Some(4.0 / 47.0), Some(1.0 / 47.0)), "{phi3:?}");
    assert_eq!(phi3.detail.requests[1].what, "chat_completions 503");
    assert_eq!(phi3.tokens_per_second, None, "neither its engine nor all of its responses say so");
    let idle = model(11404);
    assert_eq!((idle.state, idle.requests_per_second, idle.error_ratio), (ModelState::Down, Some(0.0), None));
    near(idle.tokens_per_second, 780.0);
    assert_eq!(idle.joules_per_token, None, "it has no GPU");
    let gone = model(11406);
    assert_eq!((gone.state, gone.requests_per_second, gone.in_flight, gone.cpus), (ModelState::Gone, None, None, None));
    near(view.host.cpu_ratio, 0.25);
    let gib = |bytes: Option<f64>| bytes.map(|bytes| bytes / f64::from(1u32 << 30));
    assert_eq!((gib(view.host.memory_used_bytes), gib(view.host.memory_total_bytes)), (Some(66.0), Some(256.0)));
    assert!((view.host.waiting_ratio["cpu"] - 0.024).abs() < 1e-6);
    assert_eq!(view.gpus.iter().map(|gpu| gpu.throttled.join(",")).collect::<Vec<_>>(), ["sw_power_cap", ""]);
}

#[test]
fn what_nobody_counts_is_unknown_and_not_zero() {
    // Without kernel programs: the process is known, its requests are not.
    let window = Window {
        to_ms: 5000,
        covered_seconds: 5.0,
        sums: [("cpu_seconds.user".to_owned(), 2.5)].into(),
        gauges: [("memory_bytes.rss".to_owned(), Gauge { mean: 1.0, min: 1.0, max: 1.0, last: 7.0 })].into(),
        ..Window::default()
    };
    let series = SubjectHistory { subject: "11403".to_owned(), name: "phi3".to_owned(), windows: vec![window] };
    let view = View::of(&[series], "h", 0, 5000);
    let model = &view.models[0];
    assert_eq!((model.cpus, model.memory_bytes, model.state), (Some(0.5), Some(7.0), ModelState::Unknown));
    assert_eq!((model.requests_per_second, model.in_flight, model.retransmits_per_second), (None, None, None));
    assert!(table(&view).lines().nth(1).unwrap().starts_with("phi3  11403 -           -   -"), "{}", table(&view));
}

#[test]
fn every_size_has_the_table_and_colours_only_colour_it() {
    let recorded = recorded();
    let mut state = State::new(span(), false);
    for detail in [false, true] {
        state.detail = detail;
        for size in SIZES {
            let (plain, coloured) = (drawn(&recorded, &state, PLAIN, size), drawn(&recorded, &state, COLOURED, size));
            assert!(plain.content().iter().all(|cell| cell.fg == Color::Reset && cell.bg == Color::Reset));
            assert!(coloured.content().iter().any(|cell| cell.fg != Color::Reset));
            assert_eq!(lines(&plain), lines(&coloured));
            let text = lines(&plain).join("\n");
            assert!(text.contains("gpu-host-7  13:55:00 UTC  last 1m"), "{text}");
            assert!(text.contains("GPU 0  busy 87.0%") && text.contains("throttled: sw_power_cap"), "{text}");
            assert!(!text.contains("gpu_idle"), "{text}");
            // Below a table there is room in the two larger ones.
            if detail || size.1 > 24 {
                for part in [
                    "mixtral  port 11400  up",
                    "slow: The time to first token is 979 ms, 131 ms before",
                    "- The KV cache is 97 % full",
                    "chat_completions 200 1.98/s",
                ] {
                    assert!(text.contains(part), "{size:?}: {part}: {text}");
                }
                // In the smallest the reasons take the place of the curves, or the requests of one model that of all plots.
                assert_eq!(text.contains("max 14"), size.1 > 24, "{text}");
                assert_eq!(text.contains("Time to first token (darkest"), size.1 > 24, "{text}");
                assert!(text.contains("Running requests: 14"), "{text}");
            }
            if !detail {
                let shown = COLUMNS.iter().filter(|column| text.contains(column.title)).count();
                assert_eq!(
                    shown,
                    match size.0 {
                        80 => 11,
                        120 => 17,
                        _ => COLUMNS.len(),
                    },
                    "{text}"
                );
                for part in ["mixtral", "phi3", "down", "gone", "PORT"] {
                    assert!(text.contains(part), "{size:?}: {part}: {text}");
                }
            }
        }
    }
}

#[test]
fn ascii_terminals_get_ascii() {
    let mut recorded = recorded();
    recorded.view.models.retain(|model| model.port != 11404);
    let state = State::new(span(), true);
    let text = lines(&drawn(&recorded, &state, Look { colour: false, unicode: false }, (120, 40))).join("\n");
    assert!(text.is_ascii() && text.contains('#'), "{text}");
}

#[test]
fn no_size_is_too_small() {
    let recorded = recorded();
    let mut states = vec![State::new(span(), false), State::new(span(), true)];
    for keys in ["?", "/ph", "/nobody\n", "p"] {
        let mut state = State::new(span(), false);
        press(&mut state, &recorded.view, keys);
        states.push(state);
    }
    for state in &states {
        for size in [(1, 1), (3, 2), (10, 5), (20, 60), (300, 6), (80, 12)] {
            drawn(&recorded, state, COLOURED, size);
        }
    }
    let empty = Recorded { view: View::default(), trend: (1, Trend::default()), requests: (1, Err(String::new())) };
    let text = lines(&drawn(&empty, &states[0], PLAIN, (80, 24))).join("\n");
    assert!(text.contains("No models found"), "{text}");
}

#[test]
fn names_cannot_steer_the_terminal() {
    let recorded = recorded();
    let mut state = State::new(span(), false);
    press(&mut state, &recorded.view, "jj");
    let mut all = table(&recorded.view);
    for detail in [false, true] {
        state.detail = detail;
        for size in SIZES {
            for line in lines(&drawn(&recorded, &state, COLOURED, size)) {
                writeln!(all, "{line}").unwrap();
            }
        }
    }
    all.push_str(&serde_json::to_string_pretty(&recorded.view).unwrap());
    assert!(all.contains("evil[31m]0;owned模型"), "{all}");
    assert!(!all.chars().any(|c| c != '\n' && c.is_control() || c == '\u{202e}'), "{all:?}");
    // A long one is cut, within a character too.
    let long = SubjectHistory { subject: "1".to_owned(), name: "模".repeat(1000), windows: vec![] };
    assert!(View::of(&[long], "h", 0, 1).models[0].name.len() <= 128);
}

#[test]
fn keys_sort_filter_select_pause_and_quit() {
    let view = recorded().view;
    let mut state = State::new(span(), false);
    let ports = |state: &State| state.rows(&view).iter().map(|model| model.port).collect::<Vec<_>>();
    assert_eq!(ports(&state), [11400, 11403, 11404, 11406]);
    press(&mut state, &view, "r");
    assert_eq!(ports(&state), [11406, 11404, 11403, 11400]);
    // By verdict: what is down, failing, gone, slow.
    press(&mut state, &view, "rs");
    assert_eq!(ports(&state), [11404, 11403, 11406, 11400]);
    // By errors: the most first, unknown last.
    let errors = COLUMNS.iter().position(|column| column.title == "ERR%").unwrap();
    press(&mut state, &view, &"s".repeat(errors - 2));
    assert_eq!(ports(&state), [11403, 11400, 11404, 11406]);
    press(&mut state, &view, &"S".repeat(errors - 1));
    assert_eq!(ports(&state), [11400, 11403, 11404, 11406]);
    // The selection stays with its model.
    press(&mut state, &view, "j");
    let selected = |state: &State| state.selected(&state.rows(&view)).map(|at| state.rows(&view)[at].port);
    assert_eq!(selected(&state), Some(11403));
    press(&mut state, &view, "r");
    assert_eq!(selected(&state), Some(11403));
    // While a filter is written, letters are letters.
    press(&mut state, &view, "/Qp");
    assert!(ports(&state).is_empty());
    state.key(KeyEvent::from(KeyCode::Esc), &view);
    press(&mut state, &view, "/MIX\n");
    assert_eq!((ports(&state), selected(&state), state.typing), (vec![11400], Some(11400), false));
    let key = |state: &mut State, code: KeyCode| state.key(KeyEvent::from(code), &view);
    key(&mut state, KeyCode::Esc);
    assert_eq!(ports(&state).len(), 4);
    assert_eq!((key(&mut state, KeyCode::Enter), state.detail), (Effect::Refresh, true));
    assert_eq!((key(&mut state, KeyCode::Esc), state.detail), (Effect::None, false));
    assert_eq!((key(&mut state, KeyCode::Char('p')), state.paused), (Effect::Refresh, true));
    assert_eq!((key(&mut state, KeyCode::Char('+')), state.span.words()), (Effect::Refresh, "5m".to_owned()));
    // Keys that show the help do nothing else on the way back.
    key(&mut state, KeyCode::Char('?'));
    assert_eq!((key(&mut state, KeyCode::Char('p')), state.paused, state.help), (Effect::None, true, false));
    assert_eq!(state.key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL), &view), Effect::Quit);
    assert_eq!(key(&mut state, KeyCode::Char('q')), Effect::Quit);
}

#[test]
fn columns_are_reached_by_arrows() {
    let recorded = recorded();
    let mut state = State::new(span(), false);
    for _ in 0..100 {
        state.key(KeyEvent::from(KeyCode::Right), &recorded.view);
    }
    let text = lines(&drawn(&recorded, &state, PLAIN, (80, 24))).join("\n");
    assert!(text.contains("RETR/S") && text.contains("mixtral") && !text.contains("REQ/S"), "{text}");
    state.key(KeyEvent::from(KeyCode::Left), &recorded.view);
    assert!(lines(&drawn(&recorded, &state, PLAIN, (80, 24))).join("\n").contains("RTT"));
}

#[test]
fn heat_maps_lose_nothing_and_put_octaves_together() {
    let point = |buckets: &[(i16, u64)]| {
        let first_token = Distribution { buckets: buckets.to_vec(), width: 1, ..Distribution::default() };
        Some(Point { first_token, ..Point::default() })
    };
    // 2^-1 to 2^0 s, then three octaves below, then one that lies ten below.
    let points = [point(&[(0, 5), (-7, 1)]), None, point(&[(-8, 2), (-80, 3)])];
    let bands = heat(&points, |point| &point.first_token, 11);
    assert_eq!(bands.len(), 11);
    assert_eq!((bands[0].up_to, &bands[0].counts), (1.0, &vec![6, 0, 0]));
    assert_eq!((bands[1].up_to, &bands[1].counts), (0.5, &vec![0, 0, 2]));
    assert_eq!((bands[10].up_to, &bands[10].counts), (2f64.powi(-10), &vec![0, 0, 3]));
    let bands = heat(&points, |point| &point.first_token, 3);
    assert_eq!(bands.iter().map(|band| band.counts.iter().sum::<u64>()).collect::<Vec<_>>(), [8, 0, 3]);
    assert!(heat(&points, |point| &point.inter_token, 3).is_empty());
}

#[test]
fn trends_put_windows_where_they_were() {
    let window = |from: i64| Window { from_ms: from, to_ms: from + 5000, covered_seconds: 5.0, ..Window::default() };
    let trend = Trend::of(&[window(-20_000), window(10_000), window(25_000), window(30_000)], 0, 30_000, 10_000);
    assert_eq!(trend.points.iter().map(Option::is_some).collect::<Vec<_>>(), [false, true, true]);
    assert_eq!(trend.newest(2).len(), 2);
}

/// The screens in the documentation are what is drawn.
#[test]
fn the_documentation_shows_the_screens() {
    let recorded = recorded();
    let screen = |detail, size| {
        let lines = lines(&drawn(&recorded, &State::new(span(), detail), PLAIN, size)).join("\n");
        format!("```text\n{lines}\n```\n")
    };
    let mut screens = String::new();
    for (detail, size) in [(false, SIZES[0]), (true, SIZES[1]), (false, SIZES[2])] {
        write!(screens, "\n{} x {}:\n\n{}", size.0, size.1, screen(detail, size)).unwrap();
    }
    screens.push('\n');
    hold("docs/top.md", &screens);
    hold("README.md", &screen(false, SIZES[0]));
}

/// Compares what a file has between two comments with `screens`, or writes it there.
fn hold(file: &str, screens: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
    let text = fs::read_to_string(&path).unwrap();
    let begin = "UPDATE_DOCS=1 cargo test -p citadel-agent top -->\n";
    let (head, rest) = text.split_once(begin).unwrap();
    let (listed, tail) = rest.split_once("<!-- end -->").unwrap();
    if env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, format!("{head}{begin}{screens}<!-- end -->{tail}")).unwrap();
    } else {
        assert_eq!(listed, screens, "{file}: run UPDATE_DOCS=1 cargo test -p citadel-agent top");
    }
}
