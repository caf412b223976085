//! What is usual before a window: the time before it without the parts that were wrong themselves, so that a fault that has
//! lasted for a while is not compared with itself.

use super::Verdict;
use super::case::Case;
use super::verdict::verdict;
use crate::history::window::Window;
use crate::history::{History, Millis, Subject};

/// Length of the parts that are judged.
const SLICE_MS: Millis = 2 * 60 * 1000;

/// The same where the history is so short that there would be fewer than [`FEW`] of them.
const SHORT_SLICE_MS: Millis = 10 * 1000;
const FEW: usize = 4;

/// The parts of the time before a window that were wrong.
#[derive(Debug)]
pub(super) struct Usual {
    range: (Millis, Millis),
    slice_ms: Millis,
    wrong: Vec<(Millis, Millis)>,
}

impl Usual {
    /// Judges each part by those before it that were not wrong.
    pub(super) fn of(history: &History, subject: &Subject, range: (Millis, Millis)) -> Self {
        let (slice_ms, slices) = cut(history, subject, range);
        Self { range, slice_ms, wrong: wrong(&slices) }
    }

    /// All of the range.
    pub(super) const fn all(range: (Millis, Millis)) -> Self {
        Self { range, slice_ms: SLICE_MS, wrong: Vec::new() }
    }

    /// Whether nothing is left out.
    pub(super) fn is_all(&self) -> bool {
        self.wrong.is_empty()
    }

    /// What was measured of a subject when the model was as usual.
    pub(super) fn window(&self, history: &History, subject: &Subject) -> Window {
        if self.wrong.is_empty() {
            return history.window(subject, self.range.0, self.range.1);
        }
        let is_usual = |slice: &&Window| {
            let middle = slice.from_ms.midpoint(slice.to_ms);
            !self.wrong.iter().any(|(from, to)| (*from..*to).contains(&middle))
        };
        cut_by(history, subject, self.range, self.slice_ms).iter().filter(is_usual).fold(
            Window::default(),
            |mut sum, slice| {
                sum.merge(slice);
                sum
            },
        )
    }

    /// Since when the model has been wrong without a break, if that began before the end of the range.
    pub(super) fn wrong_since(&self) -> Option<Millis> {
        let mut since = None;
        let mut until = self.range.1;
        for (from, to) in self.wrong.iter().rev() {
            // An interval lies where its middle is.
            if until - to > self.slice_ms / 2 {
                break;
            }
            (since, until) = (Some(*from), *from);
        }
        since
    }
}

/// A range in slices that can be judged, the oldest first.
pub(super) fn slices(history: &History, subject: &Subject, range: (Millis, Millis)) -> Vec<Window> {
    cut(history, subject, range).1
}

/// The same, and their length.
fn cut(history: &History, subject: &Subject, range: (Millis, Millis)) -> (Millis, Vec<Window>) {
    let slices = cut_by(history, subject, range, SLICE_MS);
    if slices.len() >= FEW {
        return (SLICE_MS, slices);
    }
    (SHORT_SLICE_MS, cut_by(history, subject, range, SHORT_SLICE_MS))
}

fn cut_by(history: &History, subject: &Subject, (from, to): (Millis, Millis), step: Millis) -> Vec<Window> {
    history.series(Some(subject), from, to, step).into_iter().next().map(|series| series.windows).unwrap_or_default()
}

/// Of these slices, the oldest first, those that are wrong by the ones before them that are not.
fn wrong(slices: &[Window]) -> Vec<(Millis, Millis)> {
    let (mut usual, nothing) = (Window::default(), Window::default());
    let mut wrong = Vec::new();
    for slice in slices {
        let case = Case::new(slice, &usual, (&nothing, &nothing), &[], Vec::new());
        match verdict(&case).0 {
            Verdict::Failing | Verdict::Stalled | Verdict::Slow => wrong.push((slice.from_ms, slice.to_ms)),
            Verdict::Starved | Verdict::Unknown | Verdict::Well => usual.merge(slice),
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::super::tests::{healthy, spread};
    use super::*;

    /// Slices of two minutes, each with its mean time to first token.
    fn slices(means: &[f64]) -> Vec<Window> {
        let slice = |(at, mean): (i64, &f64)| {
            let mut slice = healthy(120.0);
            (slice.from_ms, slice.to_ms) = (at * SLICE_MS, (at + 1) * SLICE_MS);
            for key in ["first_token", "first_byte"] {
                slice.histograms.insert(key.to_owned(), spread(240, *mean));
            }
            slice
        };
        (0..).zip(means).map(slice).collect()
    }

    fn usual(means: &[f64]) -> Usual {
        let range = (0, means.len() as i64 * SLICE_MS);
        Usual { range, slice_ms: SLICE_MS, wrong: wrong(&slices(means)) }
    }

    #[test]
    fn what_was_wrong_is_not_usual_however_long_it_lasted() {
        let (well, slow) = (0.12, 0.4);
        let mut means = vec![well; 30];
        assert_eq!(usual(&means).wrong_since(), None);
        means[10..].fill(slow);
        assert_eq!(usual(&means).wrong.len(), 20);
        assert_eq!(usual(&means).wrong_since(), Some(10 * SLICE_MS));
        // It was well in between, and is now.
        means[20..].fill(well);
        assert_eq!((usual(&means).wrong.len(), usual(&means).wrong_since()), (10, None));
        means[28..].fill(slow);
        assert_eq!(usual(&means).wrong_since(), Some(28 * SLICE_MS));
        // What has been so for all of the time is usual.
        assert_eq!(usual(&[slow; 30]).wrong.len(), 0);
    }

    #[test]
    fn slices_add_up_to_their_window() {
        let mut sum = Window::default();
        slices(&[0.12, 0.4]).iter().for_each(|slice| sum.merge(slice));
        assert_eq!((sum.from_ms, sum.to_ms, sum.covered_seconds), (0, 2 * SLICE_MS, 240.0));
        assert_eq!(sum.sum("requests.chat_completions.200"), 480.0);
        let first = sum.histogram("first_token").unwrap();
        assert_eq!(first.count, 480);
        assert!((first.mean().unwrap() - 0.26).abs() < 1e-9);
        assert!(first.buckets.is_sorted_by_key(|(index, _)| *index));
        assert_eq!(sum.gauge("in_flight").map(|gauge| (gauge.mean, gauge.min, gauge.max)), Some((1.0, 0.0, 3.0)));
    }
}
