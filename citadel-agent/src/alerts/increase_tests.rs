//! What counters do, one value a page each 15 s; the window is a minute.

use super::super::window::Reading;
use super::*;
use crate::metrics::catalogue::agent::{EVENTS_LOST, REMOTE_WRITE_SAMPLES};
use crate::metrics::catalogue::gpu::{ECC_ERRORS, ENERGY, XID_ERRORS};
use crate::metrics::catalogue::models::REQUESTS_ABORTED;
use crate::metrics::catalogue::services::UNIT_RESTARTS;
use crate::metrics::catalogue::storage::SMART_MEDIA_ERRORS;

const STEP: Millis = 15_000;

/// On the page: the counter, and what stands beside it.
type Step = (Option<f64>, bool);

/// Not on a page with the metric beside it.
const NONE: Step = (None, true);

/// Not on a page without it either.
const GONE: Step = (None, false);

fn at(value: f64) -> Step {
    (Some(value), true)
}

/// The increase after each page of an agent that started `age` pages before the first one.
fn after_each(counter: &'static Desc, age: Millis, steps: &[Step]) -> Vec<Option<f64>> {
    let minute = Duration::from_secs(60);
    let key = |desc: &Desc| desc.labels.iter().map(|label| (*label).into()).collect::<Key>();
    let (mut window, mut beside) = (Window::new(counter, minute), Beside::of(counter, minute));
    let mut grown = Vec::new();
    for (step, (value, there)) in (0..).zip(steps) {
        let now = step * STEP;
        window.push(now, value.map(|value| (key(counter), Reading::Number(value))).into_iter().collect());
        if let Some(beside) = &mut beside {
            beside.window.push(now, there.then(|| (key(beside.metric), Reading::Number(1.0))).into_iter().collect());
        }
        let increase = increases(counter, &window, beside.as_ref(), Some(-age * STEP), now).next();
        grown.push(increase.map(|(_, increase)| increase));
    }
    grown
}

/// The last increase of an agent that started long ago.
fn old(counter: &'static Desc, steps: &[Step]) -> Option<f64> {
    after_each(counter, 1000, steps).pop().unwrap()
}

/// The last increase of an agent whose first page came at once.
fn young(counter: &'static Desc, steps: &[Step]) -> Option<f64> {
    after_each(counter, 0, steps).pop().unwrap()
}

const FROM_START: [&Desc; 2] = [&REQUESTS_ABORTED, &XID_ERRORS];
const FROM_BEFORE: [&Desc; 2] = [&ENERGY, &UNIT_RESTARTS];
const OF_DEVICES: [&Desc; 2] = [&ECC_ERRORS, &SMART_MEDIA_ERRORS];

#[test]
fn a_first_event_counts_at_once_and_for_the_whole_window() {
    for counter in FROM_START {
        let mut steps = vec![NONE, NONE];
        steps.extend([at(7.0); 6]);
        let expected = [None, None, Some(7.0), Some(7.0), Some(7.0), Some(7.0)];
        assert_eq!(after_each(counter, 0, &steps)[..6], expected, "{}: the agent has just started", counter.name);
        assert_eq!(after_each(counter, 1000, &steps)[..5], expected[..5], "{}: long after its start", counter.name);
        assert_eq!(old(counter, &steps), Some(0.0), "{}: a window later", counter.name);
    }
}

#[test]
fn what_is_on_the_first_page_of_a_young_agent_has_happened_since_its_start() {
    for counter in FROM_START.into_iter().chain([&EVENTS_LOST]) {
        assert_eq!(young(counter, &[at(7.0)]), Some(7.0), "{}", counter.name);
        assert_eq!(old(counter, &[at(7.0)]), None, "{}: but not of an old one, as after a reload", counter.name);
        assert_eq!(old(counter, &[at(7.0), at(7.0)]), Some(0.0), "{}", counter.name);
    }
}

#[test]
fn a_count_that_began_before_the_agent_does_not_grow_by_appearing() {
    for counter in FROM_BEFORE.into_iter().chain(OF_DEVICES) {
        for age in [0, 1000] {
            let grown = after_each(counter, age, &[NONE, at(42.0), at(42.0), at(42.0)]);
            assert_eq!(grown, [None, None, Some(0.0), Some(0.0)], "{}, {age}", counter.name);
            assert!(after_each(counter, age, &[NONE, at(42.0), at(43.0)])[2].unwrap() > 0.0, "{}", counter.name);
        }
    }
}

#[test]
fn a_count_that_is_kept_over_restarts_grows_by_its_first_event_but_not_by_being_read_again() {
    let counter = &REMOTE_WRITE_SAMPLES;
    for age in [0, 1000] {
        assert_eq!(after_each(counter, age, &[NONE, at(500.0)])[1], Some(500.0), "the first loss");
        assert_eq!(after_each(counter, age, &[GONE, at(500.0), at(500.0)]), [None, None, Some(0.0)]);
    }
}

/// A model that is stopped, a GPU that is released, a page that is missing.
#[test]
fn what_comes_back_with_the_same_value_has_not_grown() {
    for counter in FROM_START.into_iter().chain(FROM_BEFORE).chain(OF_DEVICES) {
        for away in [1, 3, 4, 5, 40] {
            let mut steps = vec![at(5.0); 10];
            steps.extend(vec![GONE; away]);
            steps.extend([at(5.0); 6]);
            let grown = after_each(counter, 1000, &steps);
            assert!(grown.iter().flatten().all(|&grown| grown == 0.0), "{}, {away}: {grown:?}", counter.name);
        }
    }
}

#[test]
fn what_comes_back_higher_has_grown_by_the_difference_if_the_window_knows_it() {
    for counter in FROM_START.into_iter().chain(FROM_BEFORE).chain(OF_DEVICES) {
        let steps = |away| [vec![at(5.0); 10], vec![GONE; away], vec![at(8.0); 2]].concat();
        assert!(old(counter, &steps(2)).is_some_and(|grown| (2.9..5.0).contains(&grown)), "{}", counter.name);
        assert_eq!(old(counter, &steps(10)), Some(0.0), "{}: when is unknown", counter.name);
    }
}

#[test]
fn what_comes_back_lower_began_again_unless_it_is_another_device() {
    let steps = [vec![at(5.0); 10], vec![GONE], vec![at(2.0); 2]].concat();
    for counter in FROM_START.into_iter().chain(FROM_BEFORE) {
        assert!(old(counter, &steps).is_some_and(|grown| (1.9..4.0).contains(&grown)), "{}", counter.name);
    }
    for counter in OF_DEVICES {
        assert_eq!(old(counter, &steps), None, "{}", counter.name);
    }
}

/// The server crashes with its clients' requests, and its series end soon after.
#[test]
fn a_first_event_outlives_its_series() {
    for counter in FROM_START {
        let grown = after_each(counter, 1000, &[NONE, NONE, NONE, NONE, at(7.0), at(7.0), GONE, GONE]);
        assert_eq!(grown[4..], [Some(7.0); 4], "{}", counter.name);
    }
}

/// The kernel programs are attached again: what they count begins at 0, and 0 is not shown.
#[test]
fn a_count_that_begins_again_at_0_is_not_taken_for_the_old_one() {
    for counter in FROM_START {
        let steps = [vec![at(100.0); 10], vec![NONE; 8], vec![at(3.0)]].concat();
        assert_eq!(old(counter, &steps), Some(3.0), "{}", counter.name);
    }
}

/// A page on which the counter alone is missing is nothing to build on where it was there before.
#[test]
fn a_counter_that_is_missing_once_has_not_grown() {
    let steps = [vec![at(100.0); 10], vec![NONE], vec![at(100.0); 3]].concat();
    for counter in FROM_START {
        assert_eq!(old(counter, &steps), Some(0.0), "{}", counter.name);
    }
}

#[test]
fn counters_of_kernel_programs_that_were_taken_over_are_older_than_the_agent() {
    let mut page = Page::default();
    page.add(&PROCESS_START, [], Value::Float(5000.5));
    for counter in FROM_START {
        assert_eq!(counted_from(&page, counter), Some(5_000_500), "{}: without programs", counter.name);
    }
    page.add(&PROBE_START, [], Value::Float(1400.0));
    assert_eq!(counted_from(&page, &REQUESTS_ABORTED), Some(1_400_000));
    assert_eq!(counted_from(&page, &EVENTS_LOST), Some(1_400_000));
    assert_eq!(counted_from(&page, &XID_ERRORS), Some(5_000_500), "the agent itself counts them");
}
