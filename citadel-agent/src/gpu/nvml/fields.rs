//! Field values: counters that a single call reads all at once, and the only way to read some of them. Uses raw calls,
//! because the wrapper cannot specify the link of a field.

use std::mem;
use std::time::Instant;

use nvml_wrapper::error::{NvmlError, nvml_sym, nvml_try};
use nvml_wrapper::{Device, FieldIdScheme};
use nvml_wrapper_sys::bindings::{
    nvmlFieldValue_t, nvmlValueType_enum_NVML_VALUE_TYPE_DOUBLE as DOUBLE,
    nvmlValueType_enum_NVML_VALUE_TYPE_SIGNED_INT as SIGNED_INT,
    nvmlValueType_enum_NVML_VALUE_TYPE_SIGNED_LONG_LONG as SIGNED_LONG_LONG,
    nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_INT as UNSIGNED_INT,
    nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_LONG as UNSIGNED_LONG,
    nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_LONG_LONG as UNSIGNED_LONG_LONG,
};

use super::calls::UNSUPPORTED;
use super::table::{FIELDS, Of, Pace, Spec};

/// A number, and whether it has only 32 bits and wraps early.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Number {
    pub(super) value: i128,
    pub(super) narrow: bool,
}

/// A field to be read.
#[derive(Debug)]
struct Asked {
    spec: &'static Spec,
    /// Its ID in the driver's numbering, and its scope or link.
    id: u32,
    scope: u32,
    /// Not read before this time, because the GPU does not support it.
    again: Option<Instant>,
    /// Whether it was answered the last time.
    answered: bool,
}

/// The fields of a GPU that are read at the same interval, in the order of the call.
pub(super) struct Batch {
    scheme: FieldIdScheme,
    pace: Pace,
    asked: Vec<Asked>,
    values: Vec<nvmlFieldValue_t>,
    /// Whether to read FEC bins, which are many series.
    fec: bool,
}

/// A value: its field, the link, and the number.
pub(super) type FieldValue = (&'static Spec, u32, Number);

impl Batch {
    /// The fields of a GPU, without those of links.
    pub(super) fn new(scheme: FieldIdScheme, pace: Pace) -> Self {
        let mut batch = Self { scheme, pace, asked: Vec::new(), values: Vec::new(), fec: false };
        batch.ask_of(Of::Gpu, &[0]);
        batch.ask_of(Of::Module, &[1]);
        batch
    }

    /// Sets the active links whose fields are read.
    pub(super) fn set_links(&mut self, links: &[u32], c2c: &[u32], fec: bool) {
        self.fec = fec;
        self.asked.retain(|asked| matches!(asked.spec.of, Of::Gpu | Of::Module));
        self.ask_of(Of::Link, links);
        self.ask_of(Of::C2c, c2c);
    }

    fn ask_of(&mut self, of: Of, scopes: &[u32]) {
        let (scheme, pace, fec) = (self.scheme, self.pace, self.fec);
        let wanted = |spec: &&Spec| spec.of == of && spec.pace == pace && (fec || !spec.is_fec());
        for &scope in scopes {
            let asked = |spec: &'static Spec| Asked {
                spec,
                id: in_scheme(scheme, spec.id),
                scope,
                again: None,
                answered: false,
            };
            self.asked.extend(FIELDS.iter().filter(wanted).map(asked));
        }
    }

    /// Reads a single field of the GPU that is not in the batch.
    pub(super) fn one(&self, device: &Device<'_>, id: u32) -> Result<Option<i128>, NvmlError> {
        let get = nvml_sym(device.nvml().lib().nvmlDeviceGetFieldValues.as_ref())?;
        // SAFETY: consists of numbers and a union of numbers, for which all zeros is a valid value.
        let mut value: nvmlFieldValue_t = unsafe { mem::zeroed() };
        value.fieldId = in_scheme(self.scheme, id);
        // SAFETY: the handle is the wrapper's own, the library is loaded, and there is one value.
        nvml_try(unsafe { get(device.handle(), 1, &raw mut value) })?;
        nvml_try(value.nvmlReturn)?;
        Ok(number(&value).map(|number| number.value))
    }

    /// Reads all fields. Unsupported ones are not read again for a while. The second part of the result is whether a
    /// field that was answered before was refused now, probably because a link went down.
    pub(super) fn read(&mut self, device: &Device<'_>) -> Result<(Vec<FieldValue>, bool), NvmlError> {
        let lib = device.nvml().lib();
        let get = nvml_sym(lib.nvmlDeviceGetFieldValues.as_ref())?;
        let now = Instant::now();
        let asked = |asked: &&mut Asked| asked.again.is_none_or(|again| again <= now);
        self.values.clear();
        for Asked { id, scope, .. } in self.asked.iter_mut().filter(asked) {
            // SAFETY: consists of numbers and a union of numbers, for which all zeros is a valid value.
            let mut value: nvmlFieldValue_t = unsafe { mem::zeroed() };
            (value.fieldId, value.scopeId) = (*id, *scope);
            self.values.push(value);
        }
        if self.values.is_empty() {
            return Ok((Vec::new(), false));
        }
        // SAFETY: the handle is the wrapper's own, the library is loaded, and the number of values is correct.
        nvml_try(unsafe { get(device.handle(), self.values.len() as i32, self.values.as_mut_ptr()) })?;
        let mut answers = Vec::with_capacity(self.values.len());
        let mut gone = false;
        // By position: the driver returns IDs in its own numbering.
        for (asked, value) in self.asked.iter_mut().filter(asked).zip(&self.values) {
            match nvml_try(value.nvmlReturn) {
                Ok(()) => {
                    asked.answered = true;
                    answers.extend(number(value).map(|number| (asked.spec, asked.scope, number)));
                }
                Err(error) => {
                    gone |= asked.spec.of == Of::Link && mem::take(&mut asked.answered);
                    if matches!(error, NvmlError::NotSupported | NvmlError::InvalidArg) {
                        asked.again = Some(now + UNSUPPORTED);
                    }
                }
            }
        }
        Ok((answers, gone))
    }
}

fn number(value: &nvmlFieldValue_t) -> Option<Number> {
    let narrow = matches!(value.valueType, UNSIGNED_INT | SIGNED_INT);
    let number = match value.valueType {
        // SAFETY: the type says which member of the union was written.
        UNSIGNED_INT => i128::from(unsafe { value.value.uiVal }),
        // SAFETY: as above.
        UNSIGNED_LONG => i128::from(unsafe { value.value.ulVal }),
        // SAFETY: as above.
        UNSIGNED_LONG_LONG => i128::from(unsafe { value.value.ullVal }),
        // SAFETY: as above.
        SIGNED_INT => i128::from(unsafe { value.value.siVal }),
        // SAFETY: as above.
        SIGNED_LONG_LONG => i128::from(unsafe { value.value.sllVal }),
        // All fields used here are integers.
        DOUBLE => {
            // SAFETY: as above.
            let number = unsafe { value.value.dVal };
            number.is_finite().then_some(number as i128)?
        }
        _ => return None,
    };
    Some(Number { value: number, narrow })
}

/// A field's ID in this driver's numbering: CUDA 13.0 Update 1 moved 251-255 after the 18 that followed them (NVML's
/// known issues; the wrapper detects which, but translates only in its own calls).
fn in_scheme(scheme: FieldIdScheme, id: u32) -> u32 {
    match (scheme, id) {
        (FieldIdScheme::V13Update1, 251..=255) => id + 18,
        (FieldIdScheme::V13Update1, 256..=273) => id - 5,
        _ => id,
    }
}

/// Converts a counter that can wrap into a monotonic one.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Unwrapped {
    last: Option<u64>,
    total: u64,
}

impl Unwrapped {
    /// Adds the growth since the last reading, and returns the total since the first.
    pub(super) fn count(&mut self, value: u64, narrow: bool) -> u64 {
        let came = match self.last {
            None => 0,
            Some(last) if last <= value => value - last,
            Some(last) if narrow => value.saturating_add(1 << 32).saturating_sub(last),
            // 64 bits do not wrap within a GPU's life, so the counter was reset.
            Some(_) => value,
        };
        self.last = Some(value);
        self.add(came)
    }

    /// The same total, for readings unrelated to the last one.
    pub(super) fn resumed(self) -> Self {
        Self { last: None, ..self }
    }

    /// Adds an amount.
    pub(super) fn add(&mut self, amount: u64) -> u64 {
        self.total = self.total.saturating_add(amount);
        self.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_go_on_where_they_wrap() {
        let mut bytes = Unwrapped::default();
        assert_eq!(bytes.count(u64::from(u32::MAX) - 10, true), 0, "what was before is not ours");
        assert_eq!(bytes.count(9, true), 20);
        let mut bytes = Unwrapped::default();
        bytes.count(1 << 40, false);
        assert_eq!(bytes.count((1 << 40) + 7, false), 7);
        assert_eq!(bytes.count(5, false), 12, "a counter that begins again loses nothing that it says");
    }

    #[test]
    fn ids_are_moved_where_the_driver_moved_them() {
        let moved = [251, 255, 256, 273, 250, 274].map(|id| in_scheme(FieldIdScheme::V13Update1, id));
        assert_eq!(moved, [269, 273, 251, 268, 250, 274]);
        assert_eq!(in_scheme(FieldIdScheme::V12, 251), 251);
    }
}
