//! One agent writes to a Prometheus 3 and to a VictoriaMetrics for some time, and each of the three is restarted in the middle:
//! afterwards both have every sample, and both give the right quantiles.
//!
//! `CITADEL_RECEIVERS_SECONDS=300` makes it five minutes.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use citadel_agent::metrics::catalogue::models::{CONNECTIONS_OPEN, REQUESTS, TIME_TO_FIRST_TOKEN};
use citadel_agent::metrics::family::{Page, Value};
use citadel_agent::metrics::{self, format::Format};
use citadel_agent_common::hist::Histogram;
use support::prometheus::{Prometheus, Version};
use support::sending::Sending;
use support::text;

/// How long it takes by itself: the restarts and some collections.
const SECONDS: u64 = 12;

const MODELS: [&str; 4] = ["mixtral", "phi3", "quote\" } 1", "模型"];

/// What happens on the host that is measured.
#[derive(Default)]
struct World {
    /// Collections.
    ticks: u64,
    /// Durations that a model's requests took, in nanoseconds.
    durations: Vec<Vec<u64>>,
    /// The page of the last collection.
    page: Page,
}

impl World {
    fn collect(&mut self) -> Page {
        self.ticks += 1;
        self.durations.resize(MODELS.len(), Vec::new());
        let mut page = Page::default();
        for (i, (model, durations)) in MODELS.iter().zip(&mut self.durations).enumerate() {
            let port = (11_400 + i).to_string();
            for request in 0..=i as u64 {
                // Spread over four decades, and another middle for each model.
                let phase = (self.ticks * 7919 + request * 104_729) % 1000;
                durations.push((1e5 * 10f64.powf(i as f64 / 2.0 + 4.0 * phase as f64 / 1000.0)) as u64);
            }
            let mut histogram = Histogram::EMPTY;
            durations.iter().for_each(|&ns| histogram.observe(ns));
            page.add(&CONNECTIONS_OPEN, [model, &port], Value::Integer(self.ticks));
            page.add(&REQUESTS, [model, &port, "other", "200"], Value::Integer(durations.len() as u64));
            page.add(&TIME_TO_FIRST_TOKEN, [model, &port, "other"], Value::Histogram(Box::new(histogram)));
        }
        self.page = page.clone();
        page
    }
}

fn collecting(world: &Arc<Mutex<World>>) -> impl FnMut() -> Option<Page> + Send + 'static {
    let world = Arc::clone(world);
    move || Some(world.lock().unwrap().collect())
}

/// Waits until both receivers have all that was collected.
fn settle(sending: &Sending) {
    let begin = Instant::now();
    loop {
        let all = sending.numbers.newest().map(|newest| newest.value.clone()).unwrap_or_default();
        for numbers in all.iter() {
            assert_eq!((numbers.rejected, numbers.dropped.len()), (0, 0), "{numbers:?}");
        }
        if all.len() == 2 && all.iter().all(|numbers| numbers.acknowledged > 0 && numbers.pending == 0) {
            return;
        }
        assert!(begin.elapsed() < Duration::from_secs(90), "it still waits: {all:?}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// All values of each series that `selector` names, in the order of their times.
fn history(receiver: &Prometheus, selector: &str) -> BTreeMap<text::Labels, Vec<f64>> {
    let escaped: String = format!("{selector}[1h]").bytes().map(|byte| format!("%{byte:02x}")).collect();
    let answer = receiver.get(&format!("/api/v1/query?query={escaped}")).expect("an answer");
    let result = answer["data"]["result"].as_array().unwrap_or_else(|| panic!("{answer}"));
    let number = |pair: &serde_json::Value| pair[1].as_str().unwrap().parse().unwrap();
    let series = result.iter().map(|series| {
        let labels = series["metric"].as_object().unwrap().iter();
        let labels = labels.map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned())).collect();
        // A native histogram has no numbers.
        (labels, series["values"].as_array().map(|values| values.iter().map(number).collect()).unwrap_or_default())
    });
    series.collect()
}

/// Waits until the receiver shows what it has acknowledged: VictoriaMetrics takes some seconds.
fn wait_for(receiver: &Prometheus, name: &str, ticks: u64) {
    let begin = Instant::now();
    loop {
        let shown = history(receiver, CONNECTIONS_OPEN.name);
        // The last page may have been collected and not kept when the sender was stopped.
        if shown.len() == MODELS.len() && shown.values().all(|values| values.len() as u64 + 2 >= ticks) {
            return;
        }
        let shown: Vec<_> = shown.values().map(Vec::len).collect();
        assert!(begin.elapsed() < Duration::from_secs(30), "{name} shows {shown:?} of {ticks} collections");
        thread::sleep(Duration::from_millis(500));
    }
}

fn assert_within(got: f64, want: f64, ratio: f64, what: &str) {
    assert!(got / want < ratio && want / got < ratio, "{what}: {got} is not within a factor of {ratio} of {want}");
}

#[test]
fn restarts_lose_nothing_and_quantiles_are_right_in_both() {
    let seconds =
        env::var("CITADEL_RECEIVERS_SECONDS").map_or(SECONDS, |text| text.parse().expect("a number of seconds"));
    let part = Duration::from_secs(seconds) / 4;
    let world = Arc::<Mutex<World>>::default();
    let mut prometheus = Prometheus::receiving(Version::New, &["--enable-feature=native-histograms"]);
    let mut victoria = Prometheus::victoria_metrics();
    let more = format!("    victoria:\n      url: '{}'", victoria.url());
    let mut sending = Sending::to(&prometheus.url(), &more, collecting(&world));
    thread::sleep(part);
    settle(&sending);
    prometheus.kill();
    // What it has acknowledged it writes to its disk within 5 s, or when it ends.
    victoria.end();
    thread::sleep(part);
    sending.stop();
    sending.start(collecting(&world));
    thread::sleep(part);
    prometheus.start_again();
    victoria.start_again();
    thread::sleep(part);
    settle(&sending);
    sending.stop();

    let world = world.lock().unwrap();
    let exposed = String::from_utf8(metrics::encode(world.page.clone(), Format::Text).unwrap()).unwrap();
    let exposed: BTreeSet<_> = text::parse(&exposed).samples.into_keys().collect();
    for (receiver, name) in [(&prometheus, "Prometheus"), (&victoria, "VictoriaMetrics")] {
        wait_for(receiver, name, world.ticks);
        let all = history(receiver, "{job=\"citadel-agent\"}");
        let mut series = BTreeSet::new();
        for labels in all.keys() {
            let mut labels = labels.clone();
            labels.retain(|name, _| !matches!(name.as_str(), "job" | "instance"));
            let name = labels.remove("__name__").unwrap();
            // The native histogram beside the classic one, whose values are not numbers.
            assert!(series.insert((name, labels)));
        }
        let missing: Vec<_> = exposed.difference(&series).collect();
        assert!(missing.is_empty(), "{name} lacks {missing:#?}");
        let made_up: Vec<_> =
            series.difference(&exposed).filter(|(name, _)| *name != TIME_TO_FIRST_TOKEN.name).collect();
        assert!(made_up.is_empty(), "{name} has made up {made_up:#?}");
        for (i, model) in MODELS.iter().enumerate() {
            let selector = |metric: &str| format!("{metric}{{port=\"{}\"}}", 11_400 + i);
            let ticks = history(receiver, &selector(CONNECTIONS_OPEN.name));
            let ticks = ticks.values().next().unwrap_or_else(|| panic!("{name} has nothing of {model}"));
            assert!(ticks.iter().zip(1..).all(|(&got, tick)| got == f64::from(tick)), "{name}: {model}: {ticks:?}");

            let mut durations = world.durations[i].clone();
            durations.sort_unstable();
            for quantile in [0.5, 0.9, 0.99] {
                let want = durations[((durations.len() - 1) as f64 * quantile) as usize] as f64 / 1e9;
                let buckets = selector(&format!("{}_bucket", TIME_TO_FIRST_TOKEN.name));
                let got = receiver.value(&format!("histogram_quantile({quantile}, {buckets})"));
                // A classic bucket is half an octave wide.
                assert_within(got, want, 1.42, &format!("{name}: {model}: quantile {quantile}"));
            }
        }
    }
    let native = format!("histogram_quantile(0.9, {}{{port=\"11403\"}})", TIME_TO_FIRST_TOKEN.name);
    let mut durations = world.durations[3].clone();
    durations.sort_unstable();
    let want = durations[((durations.len() - 1) as f64 * 0.9) as usize] as f64 / 1e9;
    assert_within(prometheus.value(&native), want, 1.1, "Prometheus: native: quantile 0.9");
    assert_eq!(victoria.query("count({vmrange!=\"\"})"), Some(vec![]), "VictoriaMetrics has made its own buckets");
    println!("{} collections in {seconds} s, {} series", world.ticks, exposed.len());
}
