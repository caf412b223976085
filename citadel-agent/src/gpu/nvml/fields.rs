//! Field values: the counters that one call reads all at once, and the only way to some of them. Raw, because the
//! wrapper's own call has no place for the link that a field is about.

use std::mem;

use nvml_wrapper::error::{NvmlError, nvml_sym, nvml_try};
use nvml_wrapper::sys_exports::field_id::*;
use nvml_wrapper::{Device, FieldIdScheme};
use nvml_wrapper_sys::bindings::{
    nvmlFieldValue_t, nvmlValueType_enum_NVML_VALUE_TYPE_SIGNED_INT as SIGNED_INT,
    nvmlValueType_enum_NVML_VALUE_TYPE_SIGNED_LONG_LONG as SIGNED_LONG_LONG,
    nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_INT as UNSIGNED_INT,
    nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_LONG as UNSIGNED_LONG,
    nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_LONG_LONG as UNSIGNED_LONG_LONG,
};

/// What a field means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Field {
    /// Degrees Celsius.
    MemoryTemperature,
    /// Nanoseconds for which clocks were held down.
    Throttled(&'static str),
    /// A count.
    PcieReplays,
    /// Rows, or a flag.
    Remapped(&'static str),
    /// Bytes; transmitted or received. May wrap.
    PcieBytes(usize),
    /// KiB over a link.
    LinkKib(u32, &'static str),
    /// Errors of a link.
    LinkErrors(u32, &'static str),
}

/// The fields of a GPU as a whole. The first numbers of throttling are older than the name "clock event".
const OF_GPU: &[(u32, Field)] = &[
    (NVML_FI_DEV_PERF_POLICY_POWER, Field::Throttled("sw_power_cap")),
    (NVML_FI_DEV_PERF_POLICY_THERMAL, Field::Throttled("thermal")),
    (NVML_FI_DEV_PERF_POLICY_SYNC_BOOST, Field::Throttled("sync_boost")),
    (NVML_FI_DEV_PERF_POLICY_BOARD_LIMIT, Field::Throttled("board_limit")),
    (NVML_FI_DEV_PERF_POLICY_LOW_UTILIZATION, Field::Throttled("low_utilization")),
    (NVML_FI_DEV_PERF_POLICY_RELIABILITY, Field::Throttled("reliability")),
    (NVML_FI_DEV_PERF_POLICY_TOTAL_APP_CLOCKS, Field::Throttled("below_application_clocks")),
    (NVML_FI_DEV_PERF_POLICY_TOTAL_BASE_CLOCKS, Field::Throttled("below_base_clocks")),
    (NVML_FI_DEV_CLOCKS_EVENT_REASON_SW_THERM_SLOWDOWN, Field::Throttled("sw_thermal_slowdown")),
    (NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_THERM_SLOWDOWN, Field::Throttled("hw_thermal_slowdown")),
    (NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_POWER_BRAKE_SLOWDOWN, Field::Throttled("hw_power_brake_slowdown")),
    (NVML_FI_DEV_MEMORY_TEMP, Field::MemoryTemperature),
    (NVML_FI_DEV_PCIE_REPLAY_COUNTER, Field::PcieReplays),
    (NVML_FI_DEV_REMAPPED_COR, Field::Remapped("correctable")),
    (NVML_FI_DEV_REMAPPED_UNC, Field::Remapped("uncorrectable")),
    (NVML_FI_DEV_REMAPPED_PENDING, Field::Remapped("pending")),
    (NVML_FI_DEV_REMAPPED_FAILURE, Field::Remapped("failure")),
    (NVML_FI_DEV_PCIE_COUNT_TX_BYTES, Field::PcieBytes(0)),
    (NVML_FI_DEV_PCIE_COUNT_RX_BYTES, Field::PcieBytes(1)),
];

/// A number, and whether it is one of 32 bits, which wraps early.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Number {
    pub(super) value: u64,
    pub(super) narrow: bool,
}

/// The fields that a GPU is asked for, in the order of the call.
#[derive(Debug)]
pub(super) struct Batch {
    /// Field, its number in the driver's own scheme, and the link it is about.
    asked: Vec<(Field, u32, u32)>,
}

impl Batch {
    /// All fields of a GPU with these active links.
    pub(super) fn new(scheme: FieldIdScheme, links: &[u32]) -> Self {
        let whole = OF_GPU.iter().map(|&(id, field)| (field, id, 0));
        let of_link = |&link: &u32| {
            [
                (Field::LinkKib(link, "transmit"), NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX, link),
                (Field::LinkKib(link, "receive"), NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX, link),
                (Field::LinkErrors(link, "replay"), NVML_FI_DEV_NVLINK_ERROR_DL_REPLAY, link),
                (Field::LinkErrors(link, "recovery"), NVML_FI_DEV_NVLINK_ERROR_DL_RECOVERY, link),
                (Field::LinkErrors(link, "crc"), NVML_FI_DEV_NVLINK_ERROR_DL_CRC, link),
            ]
        };
        let asked = whole.chain(links.iter().flat_map(of_link));
        Self { asked: asked.map(|(field, id, link)| (field, in_scheme(scheme, id), link)).collect() }
    }

    /// Whether nothing is left to ask for.
    pub(super) fn is_empty(&self) -> bool {
        self.asked.is_empty()
    }

    /// Reads all fields. What the GPU says it does not have is not asked for again.
    pub(super) fn read(&mut self, device: &Device<'_>) -> Result<Vec<(Field, Number)>, NvmlError> {
        let lib = device.nvml().lib();
        let get = nvml_sym(lib.nvmlDeviceGetFieldValues.as_ref())?;
        let request = |&(_, id, link): &(Field, u32, u32)| {
            // SAFETY: numbers and a union of numbers, for which all zeros is a value.
            let mut value: nvmlFieldValue_t = unsafe { mem::zeroed() };
            (value.fieldId, value.scopeId) = (id, link);
            value
        };
        let mut values: Vec<nvmlFieldValue_t> = self.asked.iter().map(request).collect();
        // SAFETY: the handle is the wrapper's own, the library is loaded, and there are as many values as it is told.
        nvml_try(unsafe { get(device.handle(), values.len() as i32, values.as_mut_ptr()) })?;
        // By position: the driver gives ids back in its own scheme.
        let answers: Vec<_> = self.asked.iter().map(|(field, ..)| *field).zip(&values).collect();
        let read = answers.iter().filter_map(|(field, value)| Some((*field, number(value)?))).collect();
        let mut values = values.iter();
        self.asked.retain(|_| {
            let answer = values.next().map_or(Ok(()), |value| nvml_try(value.nvmlReturn));
            !matches!(answer, Err(NvmlError::NotSupported | NvmlError::InvalidArg))
        });
        Ok(read)
    }
}

fn number(value: &nvmlFieldValue_t) -> Option<Number> {
    nvml_try(value.nvmlReturn).ok()?;
    let narrow = matches!(value.valueType, UNSIGNED_INT | SIGNED_INT);
    let number = match value.valueType {
        // SAFETY: the type says which of the union's numbers was written.
        UNSIGNED_INT => u64::from(unsafe { value.value.uiVal }),
        // SAFETY: likewise.
        UNSIGNED_LONG => unsafe { value.value.ulVal },
        // SAFETY: likewise.
        UNSIGNED_LONG_LONG => unsafe { value.value.ullVal },
        // SAFETY: likewise. Negative where a counter is due: no answer.
        SIGNED_INT => u64::try_from(unsafe { value.value.siVal }).ok()?,
        // SAFETY: likewise.
        SIGNED_LONG_LONG => u64::try_from(unsafe { value.value.sllVal }).ok()?,
        _ => return None,
    };
    Some(Number { value: number, narrow })
}

/// A field's number as this driver has it: CUDA 13.0 Update 1 moved 251-255 behind the 18 that followed them (NVML's known
/// issues; the wrapper finds out which, and translates in its own calls only).
fn in_scheme(scheme: FieldIdScheme, id: u32) -> u32 {
    match (scheme, id) {
        (FieldIdScheme::V13Update1, 251..=255) => id + 18,
        (FieldIdScheme::V13Update1, 256..=273) => id - 5,
        _ => id,
    }
}

/// Makes of a counter that may wrap one that does not.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Unwrapped {
    last: Option<u64>,
    total: u64,
}

impl Unwrapped {
    /// Counts what came since the last reading, and gives what came since the first.
    pub(super) fn count(&mut self, now: Number) -> u64 {
        let came = match self.last {
            None => 0,
            Some(last) if last <= now.value => now.value - last,
            Some(last) if now.narrow => now.value + (1 << 32) - last,
            // 64 bits do not wrap in a GPU's life: it counts anew.
            Some(_) => now.value,
        };
        self.last = Some(now.value);
        self.add(came)
    }

    /// The same count, for readings that have nothing to do with the last one.
    pub(super) fn resumed(self) -> Self {
        Self { last: None, ..self }
    }

    /// Counts an amount.
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
        let narrow = |value| Number { value, narrow: true };
        let wide = |value| Number { value, narrow: false };
        assert_eq!(bytes.count(narrow(u64::from(u32::MAX) - 10)), 0, "what was before is not ours");
        assert_eq!(bytes.count(narrow(9)), 20);
        let mut bytes = Unwrapped::default();
        bytes.count(wide(1 << 40));
        assert_eq!(bytes.count(wide((1 << 40) + 7)), 7);
        assert_eq!(bytes.count(wide(5)), 12, "a counter that begins anew loses nothing that it says");
    }

    #[test]
    fn ids_are_moved_where_the_driver_moved_them() {
        let moved = [251, 255, 256, 273, 250, 274].map(|id| in_scheme(FieldIdScheme::V13Update1, id));
        assert_eq!(moved, [269, 273, 251, 268, 250, 274]);
        assert_eq!(in_scheme(FieldIdScheme::V12, 251), 251);
    }
}
