use std::collections::BTreeMap;
use std::time::Duration;

use citadel_agent_common::hist::Histogram;

use super::*;
use crate::metrics::catalogue::models::STREAM_CHUNKS;
use crate::metrics::catalogue::storage::SMART_MEDIA_ERRORS;

const MINUTE: Duration = Duration::from_secs(60);

/// A window that saw these numbers, one each 15 s from time 0; `None`: the series was not on that page.
fn window(length: Duration, values: &[Option<f64>]) -> (Window, Millis) {
    let mut window = Window::new(&STREAM_CHUNKS, length);
    let mut now = 0;
    for (step, value) in (0..).zip(values) {
        now = step * 15_000;
        window.push(now, value.map(|value| (vec!["a".into()], Reading::Number(value))).into_iter().collect());
    }
    (window, now)
}

fn rate(values: &[Option<f64>]) -> Option<f64> {
    let (window, now) = window(MINUTE, values);
    window.rates(now).next().map(|(_, rate)| rate)
}

fn increase(values: &[Option<f64>]) -> Option<f64> {
    let (window, now) = window(MINUTE, values);
    window.all().next().and_then(|(_, series)| window.increase(series, now))
}

#[test]
fn a_steady_counter_has_its_rate() {
    assert_eq!(rate(&[Some(0.0)]), None, "one sample says nothing");
    let steady: Vec<_> = (0..40).map(|step| Some(f64::from(step) * 30.0)).collect();
    assert_eq!(rate(&steady), Some(2.0));
    assert_eq!(increase(&steady), Some(120.0));
}

#[test]
fn a_reset_is_no_loss() {
    // 10 in the first half, then from 0 to 10 again.
    assert_eq!(rate(&[100.0, 105.0, 110.0, 5.0, 10.0].map(Some)), Some(20.0 / 60.0));
}

#[test]
fn a_device_that_is_exchanged_has_no_growth() {
    let mut window = Window::new(&SMART_MEDIA_ERRORS, MINUTE);
    for (step, value) in (0..).zip([100.0, 100.0, 3.0, 3.0]) {
        window.push(step * 15_000, [(vec!["sda".into()], Reading::Number(value))].into());
    }
    assert_eq!(window.rates(45_000).next(), None, "3 errors of the new one are not of this minute");
    for step in 4..8 {
        window.push(step * 15_000, [(vec!["sda".into()], Reading::Number(4.0))].into());
    }
    assert!(window.rates(105_000).next().is_some_and(|(_, rate)| rate > 0.0), "but its next one is");
}

#[test]
fn what_was_there_when_pages_began_is_no_growth() {
    assert_eq!(increase(&[Some(1e6)]), None);
    assert_eq!(increase(&[Some(1e6), Some(1e6)]), Some(0.0));
}

#[test]
fn a_series_that_left_counts_until_its_samples_leave_the_window() {
    let mut values: Vec<_> = (0..8).map(|step| Some(f64::from(step) * 30.0)).collect();
    values.push(None);
    let (mut seen, now) = window(MINUTE, &values);
    assert!(seen.rates(now).next().is_some());
    for step in 1..=5 {
        seen.push(now + step * 15_000, BTreeMap::new());
    }
    assert_eq!(seen.rates(now + 75_000).next(), None);
    assert!(seen.series.is_empty(), "and is forgotten");
}

#[test]
fn a_window_holds_no_more_than_it_needs() {
    let values: Vec<_> = (0..1000).map(|step| Some(f64::from(step))).collect();
    let (window, _) = window(MINUTE, &values);
    assert!(window.series.values().all(|series| series.len() <= 6), "{:?}", window.series);
}

#[test]
fn a_clock_that_goes_back_begins_anew() {
    let (mut window, now) = window(MINUTE, &[Some(1.0), Some(2.0), Some(3.0)]);
    window.push(now - 60_000, [(vec!["a".into()], Reading::Number(4.0))].into());
    assert_eq!(window.rates(now - 60_000).next(), None);
}

#[test]
fn a_clock_that_is_set_takes_the_window_along() {
    let (mut window, now) = window(MINUTE, &[Some(0.0), Some(30.0), Some(60.0), Some(90.0), Some(120.0)]);
    window.clock_was_set(-7_000_000);
    assert_eq!(window.rates(now - 7_000_000).next().map(|(_, rate)| rate), Some(2.0));
}

#[test]
fn predictions_follow_the_line() {
    let falling: Vec<_> = (0..10).map(|step| Some(1e12 - f64::from(step) * 15.0)).collect();
    let (window, now) = window(Duration::from_secs(600), &falling);
    let (_, in_an_hour) = window.predictions(now, Duration::from_secs(3600)).next().unwrap();
    assert!((in_an_hour - (1e12 - 135.0 - 3600.0)).abs() < 1e-3, "{in_an_hour}");
}

#[test]
fn distributions_are_what_was_observed_in_the_window() {
    let mut histogram = Histogram::EMPTY;
    histogram.observe(1_000_000_000);
    let mut window = Window::new(&STREAM_CHUNKS, MINUTE);
    let push = |window: &mut Window, at, histogram: &Histogram| {
        window.push(at, [(vec![], Reading::Buckets(Buckets::from(histogram)))].into());
    };
    push(&mut window, 0, &histogram);
    for _ in 0..60 {
        histogram.observe(8_000_000_000);
    }
    push(&mut window, 30_000, &histogram);
    push(&mut window, 60_000, &histogram);
    let (_, observed) = window.distributions(60_000).next().unwrap();
    assert!((observed.count() - 1.0).abs() < 1e-9, "60 in 60 s: {}", observed.count());
    assert_eq!(observed.quantile(1.0), 8.0, "and not the one before the window");

    // The process behind it began anew.
    let mut anew = Histogram::EMPTY;
    anew.observe(2_000_000_000);
    push(&mut window, 75_000, &anew);
    let (_, observed) = window.distributions(75_000).next().unwrap();
    assert!((observed.quantile(0.0) - 2.0).abs() < 0.2, "{}", observed.quantile(0.0));
}
