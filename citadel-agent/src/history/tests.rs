use std::fs;

use citadel_agent_common::hist::Histogram;
use proptest::prelude::*;

use super::interval::{Cell, Interval, Keys, Kind, Level, Sparse};
use super::*;
use crate::metrics::catalogue::agent::PROCESS_START;
use crate::metrics::catalogue::models;
use crate::metrics::family::Value;

const START: Millis = 1_700_000_000_000 / COARSE_MS * COARSE_MS;

/// A page of one model: requests answered with 200 so far, those in flight, and how long each took.
fn page(requests: u64, in_flight: u64, durations_ms: &[u64]) -> Page {
    let mut page = Page::default();
    let labels = ["phi3", "11403"];
    page.add(&models::REQUESTS, ["phi3", "11403", "chat_completions", "200"], Value::Integer(requests));
    page.add(&models::REQUESTS_IN_FLIGHT, labels, Value::Integer(in_flight));
    let mut histogram = Histogram::EMPTY;
    durations_ms.iter().for_each(|ms| histogram.observe(ms * 1_000_000));
    for endpoint in ["chat_completions", "completions"] {
        let labels = ["phi3", "11403", endpoint, "success"];
        page.add(&models::REQUEST_DURATION, labels, Value::Histogram(Box::new(histogram)));
    }
    page.add(&models::SYSCALL_DURATION, ["phi3", "11403", "fsync"], Value::Histogram(Box::new(histogram)));
    page.add(&models::INFO, ["phi3", "11403", "", "4711", "", "", ""], Value::Integer(1));
    page.add(&models::CPU, ["phi3", "11403", "user"], Value::Float(requests as f64 * 0.25));
    page
}

const MODEL: Subject = Subject::Model(11403);

#[test]
fn a_window_has_what_grew_between_two_pages() {
    let history = History::default();
    history.take(&page(10, 2, &[100]), START);
    // One page is no interval.
    assert_eq!(history.window(&MODEL, 0, START * 2), Window::default());
    history.take(&page(14, 4, &[100, 100, 800]), START + 5000);
    history.take(&page(14, 0, &[100, 100, 800]), START + 10_000);
    let window = history.window(&MODEL, START, START + 10_000);
    assert_eq!((window.from_ms, window.to_ms, window.covered_seconds), (START, START + 10_000, 10.0));
    assert_eq!(window.sum("requests.chat_completions.200"), 4.0);
    assert_eq!(window.total_of("requests"), 4.0);
    // CPU time began before the agent, and grew by a quarter of a second a request.
    assert_eq!(window.sum("cpu_seconds.user"), 1.0);
    let in_flight = window.gauge("in_flight").unwrap();
    assert_eq!((in_flight.mean, in_flight.min, in_flight.max, in_flight.last), (2.0, 0.0, 4.0, 0.0));
    // Both endpoints together, two observations each.
    let duration = window.histogram("duration.success").unwrap();
    assert_eq!((duration.count, (duration.sum * 1000.0).round()), (4, 1800.0));
    assert!((duration.quantile(0.99).unwrap() - 0.8).abs() < 0.05);
    assert!((duration.quantile(0.25).unwrap() - 0.1).abs() < 0.01);
    assert_eq!(window.sum("syscall_calls.fsync"), 2.0);
    assert!((window.sum("syscall_seconds.fsync") - 0.9).abs() < 1e-9);
    assert!((window.gauge("syscall_longest.fsync").unwrap().max - 0.84).abs() < 0.01);
    // The second interval alone.
    let window = history.window(&MODEL, START + 5000, START + 10_000);
    assert_eq!((window.total_of("requests"), window.histogram("duration.success")), (0.0, None));
    assert_eq!(history.window(&Subject::Model(11404), START, START + 10_000), Window::default());
}

#[test]
fn a_counter_that_begins_anew_has_grown_from_nothing_and_levels_of_gpus_without_a_model_are_theirs() {
    let history = History::default();
    history.take(&page(10, 0, &[100, 100]), START);
    history.take(&page(3, 0, &[100]), START + 5000);
    let window = history.window(&MODEL, START, START + 5000);
    assert_eq!((window.total_of("requests"), window.histogram("duration.success").unwrap().count), (3.0, 2));
    let mut page = Page::default();
    page.add(&models::GPU_SM, ["phi3", "11403", "GPU-1"], Value::Float(0.25));
    page.add(&models::GPU_SM, ["", "", "GPU-1"], Value::Float(0.5));
    history.take(&page, START + 10_000);
    let at = |subject: Subject| history.window(&subject, START + 5000, START + 10_000);
    assert_eq!(at(MODEL).gauge("gpu_sm_ratio.GPU-1").unwrap().mean, 0.25);
    assert_eq!(at(Subject::Gpu("GPU-1".into())).gauge("other_gpu_sm_ratio").unwrap().mean, 0.5);
}

/// Kernel programs that another process attached an hour before this one started.
#[test]
fn what_was_counted_before_this_run_is_no_increase_of_a_model_that_appears() {
    let taken_over = |began: f64, page: Option<Page>| {
        let mut page = page.unwrap_or_default();
        page.families.iter_mut().for_each(|family| family.began = Some(began));
        page.add(&PROCESS_START, [], Value::Float(5000.0));
        if page.families.len() == 1 {
            // Another model, so that the page has something of theirs.
            page.began = Some(began);
            page.add(&models::REQUESTS_IN_FLIGHT, ["yi", "11450"], Value::Integer(0));
        }
        page
    };
    for (began, before) in [(1400.0, 0.0), (5001.0, 10.0)] {
        let history = History::default();
        history.take(&taken_over(began, None), START);
        history.take(&taken_over(began, Some(page(10, 0, &[100; 5]))), START + 5000);
        let appeared = history.window(&MODEL, START, START + 5000);
        assert_eq!(appeared.total_of("requests"), before, "since {began}");
        assert_eq!(appeared.histogram("duration.success").map_or(0, |duration| duration.count), before as u64);
        assert_eq!(appeared.sum("syscall_calls.fsync"), before / 2.0);
        // From then on everything is, also what is new.
        let mut more = page(12, 0, &[100; 6]);
        more.add(&models::REQUESTS, ["phi3", "11403", "chat_completions", "500"], Value::Integer(3));
        history.take(&taken_over(began, Some(more)), START + 10_000);
        let later = history.window(&MODEL, START + 5000, START + 10_000);
        assert_eq!((later.total_of("requests"), later.histogram("duration.success").unwrap().count), (5.0, 2));
    }
}

#[test]
fn minutes_take_over_where_short_intervals_end_and_nothing_counts_twice() {
    let history = History::default();
    let at = |n: i64| START + n * FINE_MS;
    for n in 0..=360 {
        history.take(&page(n as u64, 1, &vec![100; n as usize]), at(n));
    }
    // Half an hour, of which the second half is there in short intervals.
    let all = history.window(&MODEL, at(0), at(360));
    assert_eq!((all.total_of("requests"), all.covered_seconds), (360.0, 1800.0));
    assert_eq!(all.gauge("in_flight").unwrap().mean, 1.0);
    // Minutes have fewer buckets, and lose no observation.
    let durations = all.histogram("duration.success").unwrap();
    assert_eq!((durations.count, durations.width), (720, 4));
    assert!((durations.quantile(0.5).unwrap() - 0.1).abs() < 0.03);
    assert_eq!(history.window(&MODEL, at(300), at(360)).histogram("duration.success").unwrap().width, 1);
    let series = history.series(None, at(0), at(360), COARSE_MS);
    assert_eq!((series.len(), series[0].subject.as_str(), series[0].name.as_str()), (1, "11403", "phi3"));
    assert_eq!(series[0].windows.iter().map(|window| window.total_of("requests")).sum::<f64>(), 360.0);
    assert!(series[0].windows.len() >= 29, "{}", series[0].windows.len());
    let last = history.series(Some(&MODEL), at(348), at(360), 1);
    assert_eq!(last[0].windows.len(), 12);
    assert!(last[0].windows.iter().all(|window| window.covered_seconds == 5.0));
}

#[test]
fn a_clock_that_is_set_back_leaves_nothing_in_the_future() {
    let history = History::default();
    for n in 0..100 {
        history.take(&page(n, 0, &[]), START + n as i64 * FINE_MS);
    }
    let back = START - 3_600_000;
    history.take(&page(101, 0, &[]), back);
    history.take(&page(103, 0, &[]), back + 5000);
    assert_eq!(history.newest_ms(), Some(back + 5000));
    assert_eq!(history.window(&MODEL, 0, START * 2).total_of("requests"), 2.0);
}

/// An interval as a busy model has it: spread-out distributions, twelve system calls, an engine.
fn busy(keys: &mut Keys, seconds: u64, random: &mut impl FnMut(u64) -> u64) -> Interval {
    let mut interval = Interval::default();
    for (name, width, count) in [
        ("duration.success", 24, 2),
        ("first_byte", 20, 2),
        ("first_token", 20, 2),
        ("inter_token", 28, 200),
        ("receive_queue", 20, 2),
        ("rtt", 12, 2),
        ("run_queue", 70, 2000),
    ] {
        let mut histogram = Sparse { sum_ns: random(1 << 40), ..Sparse::default() };
        for cell in 0..width {
            // A bell: most in the middle.
            let most = count * seconds * 4 / (width * (1 + u64::abs_diff(2 * cell, width)));
            let count = random(most + 2);
            if count > 0 {
                histogram.cells.push((90 + cell as u8, count));
            }
        }
        interval.0.insert(keys.number(name, Kind::Histogram).unwrap(), Cell::Histogram(histogram));
    }
    for call in 0..12 {
        for (name, kind, cell) in [
            ("seconds", Kind::Micro, Cell::Sum(random(seconds * 1_000_000))),
            ("calls", Kind::Count, Cell::Sum(random(seconds * 3000))),
            ("longest", Kind::Gauge, Cell::Level(Level::of(upper(random(8))))),
        ] {
            interval.0.insert(keys.number(&format!("syscall_{name}.{call}"), kind).unwrap(), cell);
        }
    }
    for counter in 0..16 {
        let cell = Cell::Sum(random(seconds * 1000));
        interval.0.insert(keys.number(&format!("counter.{counter}"), Kind::Count).unwrap(), cell);
    }
    for gauge in 0..12 {
        // Half of them stay as they are.
        let value = if gauge % 2 == 0 { 7.0 } else { random(1000) as f64 };
        interval.0.insert(keys.number(&format!("gauge.{gauge}"), Kind::Gauge).unwrap(), Cell::Level(Level::of(value)));
    }
    interval
}

fn upper(exponent: u64) -> f64 {
    2f64.powi(exponent as i32 - 12)
}

/// The documented size. Seven busy models for a day, and the most that there can be.
#[test]
fn a_day_of_seven_busy_models_is_below_four_megabytes() {
    let mut seed = 1u64;
    let mut random = move |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below.max(1)
    };
    let mut store = Store::default();
    let end = START + SPAN_MS;
    let mut at = START;
    while at < end {
        // In minutes first, which saves the test time; then as the agent does it.
        let step = if at < end - FINE_SPAN_MS { COARSE_MS } else { FINE_MS };
        for port in 11400..11407 {
            let interval = busy(&mut store.keys, step as u64 / 1000, &mut random);
            store.add(Subject::Model(port), &"model".into(), at, at + step, interval);
        }
        at += step;
        store.forget_before(at);
    }
    let bytes = store.bytes();
    eprintln!("{bytes} bytes for a day of seven busy models");
    assert!(bytes < 4_000_000, "{bytes}");
    let hours = |store: &Store| {
        let windows = store.windows(&Subject::Model(11400), START, end, SPAN_MS);
        windows[0].covered_seconds / 3600.0
    };
    eprintln!("{} hours", hours(&store));
    assert!(hours(&store) > 23.0, "{}", hours(&store));
}

#[test]
fn what_is_too_much_goes_the_oldest_first() {
    let mut store = Store::default();
    let mut keys = Keys::default();
    let mut seed = 7u64;
    for minute in 0..40 {
        for port in 0..400u16 {
            let mut interval = Interval::default();
            for key in 0..40 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                interval.0.insert(keys.number(&key.to_string(), Kind::Count).unwrap(), Cell::Sum(seed >> 20));
            }
            let at = START + minute * COARSE_MS;
            store.add(Subject::Model(port), &"m".into(), at, at + COARSE_MS, interval);
        }
        store.forget_before(START + (minute + 1) * COARSE_MS);
        assert!(store.bytes() <= MAX_BYTES);
        assert!(store.subjects.len() <= 256);
    }
    store.keys = keys;
    assert_eq!(store.newest_ms(), Some(START + 40 * COARSE_MS));
}

#[test]
fn a_restart_goes_on_with_what_was_saved() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state/history");
    let before = History::default();
    assert!(before.load(&path, START).is_ok(), "no file is no error");
    for n in 0..400 {
        before.take(&page(n, 1, &vec![100; n as usize]), START + n as i64 * FINE_MS);
    }
    let end = START + 399 * FINE_MS;
    before.save(&path).unwrap();
    let after = History::default();
    after.load(&path, end + 1000).unwrap();
    assert_eq!(after.window(&MODEL, START, end), before.window(&MODEL, START, end));
    assert_eq!(after.subjects(), before.subjects());
    assert_eq!(after.listened(), BTreeMap::from([(11403, "phi3".into())]));
    // Counts of the new agent begin at 0, and the pause is none of its intervals.
    for n in 0..3 {
        after.take(&page(n, 1, &[]), end + 60_000 + n as i64 * FINE_MS);
    }
    assert_eq!(after.window(&MODEL, end, end + 70_000).total_of("requests"), 2.0);
    // A day later nothing of it is left.
    let late = History::default();
    late.load(&path, end + SPAN_MS + COARSE_MS).unwrap();
    assert_eq!((late.newest_ms(), late.listened().len()), (None, 0));

    let content = fs::read(&path).unwrap();
    for (what, bytes) in [
        ("cut", content[..content.len() - 1].to_vec()),
        ("empty", vec![]),
        ("another", b"{\"version\":9}\n".to_vec()),
        ("a bit", {
            let mut bytes = content.clone();
            *bytes.last_mut().unwrap() ^= 1;
            bytes
        }),
    ] {
        fs::write(&path, bytes).unwrap();
        assert!(History::default().load(&path, end).is_err(), "{what}");
    }
}

#[test]
fn the_documentation_lists_every_key() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/history.md");
    let text = fs::read_to_string(&path).unwrap();
    let begin = "UPDATE_DOCS=1 cargo test -p citadel-agent history -->\n";
    let (head, rest) = text.split_once(begin).unwrap();
    let (listed, tail) = rest.split_once("<!-- end -->").unwrap();
    let mut table = "| subject | key | labels | metric |\n|---|---|---|---|\n".to_owned();
    for (of, key, labels, metric) in measures::documented() {
        table.push_str(&format!("| {of} | `{key}` | {labels} | `{metric}` |\n"));
    }
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, format!("{head}{begin}{table}<!-- end -->{tail}")).unwrap();
    } else {
        assert_eq!(listed, table, "run UPDATE_DOCS=1 cargo test -p citadel-agent history");
    }
}

#[test]
fn subjects_are_written_and_read() {
    for subject in [Subject::Host, Subject::Model(11400), Subject::Gpu("GPU-1".into())] {
        assert_eq!(Subject::parse(&subject.id()), Some(subject));
    }
    assert_eq!(Subject::parse("70000"), None);
}

proptest! {
    #[test]
    fn bytes_of_any_kind_are_refused_or_read(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let mut keys = Keys::default();
        for (number, kind) in [Kind::Count, Kind::Micro, Kind::Gauge, Kind::Histogram].iter().cycle().take(100).enumerate() {
            keys.number(&number.to_string(), *kind);
        }
        let mut rest = bytes.as_slice();
        if let Some(interval) = Interval::decode(&mut rest, &keys) {
            let mut encoded = Vec::new();
            interval.encode(&mut encoded);
            prop_assert_eq!(Interval::decode(&mut encoded.as_slice(), &keys).map(|again| format!("{again:?}")), Some(format!("{interval:?}")));
        }
    }
}
