//! Converts field values to exported ones.

use super::calls::Calls;
use super::fields::Number as Answered;
use super::table::{Means, Of, Spec};
use crate::gpu::sample::{Labels, Measured, Number};

/// The function that reads fields.
pub(super) const FIELD_VALUES: &str = "nvmlDeviceGetFieldValues";

/// A field's number, if it is possible.
pub(super) fn possible(calls: &mut Calls, spec: &'static Spec, number: Answered) -> Option<i128> {
    let (least, most) = spec.possible;
    let what = match spec.means {
        Means::Count(desc, _)
        | Means::Per(_, desc, _)
        | Means::Times(_, desc)
        | Means::BitErrors(desc, _)
        | Means::OneOf(desc, _) => desc.name,
        Means::Own(_) => "",
    };
    calls.sane(FIELD_VALUES, what, Some(number.value), &(least..=most))
}

/// The exported value of a field.
pub(super) fn measured(spec: &'static Spec, scope: u32, value: i128) -> Vec<Measured> {
    let linked = matches!(spec.of, Of::Link | Of::C2c);
    let labels = |label: &'static str| match (linked, label) {
        (false, "") => Labels::None,
        (false, label) => Labels::One(label),
        (true, "") => Labels::Link(scope),
        (true, label) => Labels::LinkAnd(scope, label),
    };
    let whole = u64::try_from(value).unwrap_or(0);
    let one = |desc, label, value| vec![Measured { desc, labels: labels(label), value }];
    match spec.means {
        Means::Own(_) => Vec::new(),
        Means::Count(desc, label) => one(desc, label, Number::Integer(whole)),
        Means::Per(parts, desc, label) => one(desc, label, Number::Float(value as f64 / parts)),
        Means::Times(times, desc) => one(desc, "", Number::Integer(whole.saturating_mul(times))),
        Means::BitErrors(desc, label) => {
            let (exponent, mantissa) = (whole & 0xff, whole >> 8 & 0xf);
            // The number closest to the decimal one, which a product of two rounded numbers is not.
            let rate = format!("{mantissa}e-{exponent}").parse().unwrap_or(f64::NAN);
            one(desc, label, Number::Float(rate))
        }
        Means::OneOf(desc, words) => {
            let word = |(number, word): (u64, &&'static str)| Measured {
                desc,
                labels: labels(word),
                value: Number::Integer(u64::from(number == whole)),
            };
            let mut all: Vec<_> = (0..).zip(words).map(word).collect();
            if whole >= words.len() as u64 {
                all.push(Measured { desc, labels: labels("other"), value: Number::Integer(1) });
            }
            all
        }
    }
}
