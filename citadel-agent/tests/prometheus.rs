//! A real Prometheus scrapes the real listener: with native histograms on it takes protobuf, else OpenMetrics.

mod support;

use std::collections::BTreeSet;

use citadel_agent::http::{Content, Limits};
use support::prometheus::Prometheus;
use support::{Fake, NASTY, Server, histogram, page};

fn agent() -> Server {
    Server::start(Content::Metrics, Fake::new(|_| Ok(page(&NASTY))), Limits::default())
}

fn assert_close(got: f64, want: f64, ratio: f64) {
    assert!(got / want < ratio && want / got < ratio, "{got} is not within a factor of {ratio} of {want}");
}

/// The 50th of the 100 observations in each of the page's histograms, in seconds: `1e-6 * 10^(8 * 49 / 100)`.
const MEDIAN: f64 = 0.008_318;

fn assert_names_came_through(prometheus: &Prometheus) {
    let series = prometheus.wait_for("citadel_model_connections_open");
    let names: BTreeSet<&str> = series.iter().filter_map(|(labels, _)| labels["model"].as_str()).collect();
    assert_eq!(names, BTreeSet::from(NASTY));
    assert_eq!(prometheus.value("up"), 1.0);
}

#[test]
fn with_native_histograms_it_reads_protobuf() {
    let server = agent();
    let prometheus = Prometheus::scraping(server.addr, &["--enable-feature=native-histograms"]);
    assert_names_came_through(&prometheus);

    let truth = histogram(100);
    let name = "citadel_model_request_duration_seconds{port=\"11400\"}";
    assert_eq!(prometheus.value(&format!("histogram_count({name})")), 100.0);
    assert_close(prometheus.value(&format!("histogram_sum({name})")), truth.sum_ns() as f64 / 1e9, 1.000_001);
    // A native bucket is 9 % wide.
    assert_close(prometheus.value(&format!("histogram_quantile(0.5, {name})")), MEDIAN, 1.1);
    let below_a_second = truth.cumulative_to(0) as f64 / 100.0;
    assert_close(prometheus.value(&format!("histogram_fraction(0, 1, {name})")), below_a_second, 1.01);
    assert_eq!(prometheus.value("citadel_model_requests_total{port=\"11401\"}"), 43.0);
}

#[test]
fn without_them_it_reads_open_metrics() {
    let server = agent();
    let prometheus = Prometheus::scraping(server.addr, &[]);
    assert_names_came_through(&prometheus);

    let truth = histogram(100);
    let name = "citadel_model_request_duration_seconds";
    for (le, index) in [("6.103515625e-05", -112), ("1.0", 0), ("1.4142135623730951", 4), ("1024.0", 80)] {
        let bucket = format!("{name}_bucket{{port=\"11400\",le=\"{le}\"}}");
        assert_eq!(prometheus.value(&bucket), truth.cumulative_to(index) as f64, "{le}");
    }
    // A classic bucket is half an octave wide.
    let median = format!("histogram_quantile(0.5, {name}_bucket{{port=\"11400\"}})");
    assert_close(prometheus.value(&median), MEDIAN, 1.42);
    assert_eq!(prometheus.value("citadel_model_requests_total{port=\"11401\"}"), 43.0);
    assert_eq!(prometheus.value("process_start_time_seconds"), 1_700_000_000.25);
}
