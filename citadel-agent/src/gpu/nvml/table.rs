//! The fields that are read from a GPU: one line each, with its unit as in nvml.h (13.0). GPUs and drivers report
//! unsupported fields individually; the generations are those of nvml.h or, if it has none, of the product
//! documentation, and are listed in `docs/gpu.md`.

use nvml_wrapper::sys_exports::field_id::*;

use super::limits::{CELSIUS, COUNT, NANOSECONDS};
use crate::metrics::catalogue::Desc;
use crate::metrics::catalogue::gpu as catalogue;

/// The scope of a field, as in nvml.h.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Of {
    Gpu,
    /// The module that contains the GPU and its CPU (Grace).
    Module,
    /// Each active NVLink.
    Link,
    /// Each chip-to-chip link (Grace).
    C2c,
}

/// How often a field is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Pace {
    /// At each pass.
    Pass,
    /// Slowly changing values: every ten seconds, and after each memory error.
    Slow,
}

/// The meaning of a field.
#[derive(Clone, Copy, Debug)]
pub(super) enum Means {
    /// Used for more than the page.
    Own(Field),
    /// An integer, exported unchanged.
    Count(&'static Desc, &'static str),
    /// A number in a smaller unit than the metric's: the divisor.
    Per(f64, &'static Desc, &'static str),
    /// A number in a larger unit than the metric's: the factor.
    Times(u64, &'static Desc),
    /// A bit error rate: bits 0 to 7 are the exponent, 8 to 11 the mantissa of m * 10^-e.
    BitErrors(&'static Desc, &'static str),
    /// A number that means a word: one series per word, 1 for the current one.
    OneOf(&'static Desc, &'static [&'static str]),
}

/// Fields with other uses than the page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Field {
    /// Degrees Celsius.
    MemoryTemperature,
    /// Nanoseconds of slowdown because of heat, by software: the newer field, and the older one for the same counter.
    SwThermal,
    OldSwThermal,
    /// A count.
    PcieReplays,
    /// Number of rows, or a flag.
    Remapped(&'static str),
    /// Bytes, transmitted or received. Can wrap.
    PcieBytes(usize),
    /// KiB over a link.
    LinkKib(&'static str),
    /// Milliwatts.
    Power,
}

/// A field.
#[derive(Debug)]
pub(super) struct Spec {
    /// Its ID in the numbering of CUDA 12.
    pub(super) id: u32,
    pub(super) of: Of,
    pub(super) pace: Pace,
    /// Minimum and maximum of the possible values.
    pub(super) possible: (i128, i128),
    pub(super) means: Means,
}

impl Spec {
    /// Whether it is an FEC bin.
    pub(super) fn is_fec(&self) -> bool {
        matches!(self.means, Means::Count(desc, _) if std::ptr::eq(desc, &catalogue::NVLINK_FEC))
    }
}

use Of::{C2c, Gpu, Link, Module};
use Pace::{Pass, Slow};

const fn spec(id: u32, of: Of, pace: Pace, least: i128, most: i128, means: Means) -> Spec {
    Spec { id, of, pace, possible: (least, most), means }
}

/// A counter.
const fn count(id: u32, of: Of, pace: Pace, desc: &'static Desc, label: &'static str) -> Spec {
    spec(id, of, pace, 0, COUNT as i128, Means::Count(desc, label))
}

const fn flag(id: u32, of: Of, desc: &'static Desc) -> Spec {
    spec(id, of, Slow, 0, 1, Means::Count(desc, ""))
}

/// Time in nanoseconds during which clocks were throttled.
const fn throttled(id: u32, desc: &'static Desc, reason: &'static str) -> Spec {
    spec(id, Gpu, Pass, 0, NANOSECONDS as i128, Means::Per(1e9, desc, reason))
}

/// Milliwatts.
const fn power(id: u32, of: Of, pace: Pace, desc: &'static Desc) -> Spec {
    spec(id, of, pace, 0, 50_000_000, Means::Per(1e3, desc, ""))
}

/// Degrees Celsius.
const fn celsius(id: u32, limit: &'static str) -> Spec {
    let means = Means::Per(1.0, &catalogue::TEMPERATURE_LIMIT_MARGIN, limit);
    spec(id, Gpu, Slow, *CELSIUS.start() as i128, *CELSIUS.end() as i128, means)
}

const fn own(id: u32, of: Of, least: i128, most: i128, field: Field) -> Spec {
    spec(id, of, Pass, least, most, Means::Own(field))
}

/// Limit of power values in watts.
const WATTS: i128 = 50_000;
/// Limit in MB per second over a link.
const MBPS: i128 = 100_000_000;

/// `NVML_FI_DEV_EDPP_MULTIPLIER` and later are newer than the bindings (nvml.h of CUDA 13.1 and later).
const EDPP_MULTIPLIER: u32 = 274;
const PLR_XMIT_BLOCKS: u32 = 294;
const PLR_XMIT_RETRY_BLOCKS: u32 = 295;

/// All fields. The IDs of throttling predate the name "clock event"; `TOTAL_APP_CLOCKS` is deprecated.
pub(super) static FIELDS: &[Spec] = &[
    // Throttling: accumulated nanoseconds.
    throttled(NVML_FI_DEV_PERF_POLICY_POWER, &catalogue::THROTTLE_SECONDS, "sw_power_cap"),
    throttled(NVML_FI_DEV_PERF_POLICY_SYNC_BOOST, &catalogue::THROTTLE_SECONDS, "sync_boost"),
    throttled(NVML_FI_DEV_PERF_POLICY_BOARD_LIMIT, &catalogue::THROTTLE_SECONDS, "board_limit"),
    throttled(NVML_FI_DEV_PERF_POLICY_LOW_UTILIZATION, &catalogue::THROTTLE_SECONDS, "low_utilization"),
    throttled(NVML_FI_DEV_PERF_POLICY_RELIABILITY, &catalogue::THROTTLE_SECONDS, "reliability"),
    throttled(NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_THERM_SLOWDOWN, &catalogue::THROTTLE_SECONDS, "hw_thermal_slowdown"),
    throttled(
        NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_POWER_BRAKE_SLOWDOWN,
        &catalogue::THROTTLE_SECONDS,
        "hw_power_brake_slowdown",
    ),
    // The total of all reasons, therefore not one of them.
    throttled(NVML_FI_DEV_PERF_POLICY_TOTAL_BASE_CLOCKS, &catalogue::BELOW_BASE_CLOCKS, ""),
    own(NVML_FI_DEV_CLOCKS_EVENT_REASON_SW_THERM_SLOWDOWN, Gpu, 0, NANOSECONDS as i128, Field::SwThermal),
    own(NVML_FI_DEV_PERF_POLICY_THERMAL, Gpu, 0, NANOSECONDS as i128, Field::OldSwThermal),
    // Memory.
    own(NVML_FI_DEV_MEMORY_TEMP, Gpu, *CELSIUS.start() as i128, *CELSIUS.end() as i128, Field::MemoryTemperature),
    own(NVML_FI_DEV_REMAPPED_COR, Gpu, 0, 1 << 32, Field::Remapped("correctable")),
    own(NVML_FI_DEV_REMAPPED_UNC, Gpu, 0, 1 << 32, Field::Remapped("uncorrectable")),
    own(NVML_FI_DEV_REMAPPED_PENDING, Gpu, 0, 1, Field::Remapped("pending")),
    own(NVML_FI_DEV_REMAPPED_FAILURE, Gpu, 0, 1, Field::Remapped("failure")),
    count(NVML_FI_DEV_ECC_SBE_VOL_TOTAL, Gpu, Slow, &catalogue::ECC_VOLATILE, "corrected"),
    count(NVML_FI_DEV_ECC_DBE_VOL_TOTAL, Gpu, Slow, &catalogue::ECC_VOLATILE, "uncorrected"),
    count(NVML_FI_DEV_RETIRED_SBE, Gpu, Slow, &catalogue::RETIRED_PAGES, "single_bit"),
    count(NVML_FI_DEV_RETIRED_DBE, Gpu, Slow, &catalogue::RETIRED_PAGES, "double_bit"),
    flag(NVML_FI_DEV_RETIRED_PENDING, Gpu, &catalogue::RETIRED_PENDING),
    spec(
        NVML_FI_DEV_GET_GPU_RECOVERY_ACTION,
        Gpu,
        Slow,
        0,
        255,
        Means::OneOf(
            &catalogue::RECOVERY_ACTION,
            &["none", "reset", "reboot", "drain_p2p", "drain_and_reset", "recover_imex_domain"],
        ),
    ),
    // Power and temperature: milliwatts, degrees to the limit.
    own(NVML_FI_DEV_POWER_INSTANT, Gpu, 0, 50_000_000, Field::Power),
    power(NVML_FI_DEV_POWER_INSTANT, Module, Pass, &catalogue::MODULE_POWER),
    power(NVML_FI_DEV_POWER_CURRENT_LIMIT, Module, Slow, &catalogue::MODULE_POWER_LIMIT),
    power(NVML_FI_DEV_POWER_MIN_LIMIT, Gpu, Slow, &catalogue::POWER_LIMIT_MIN),
    power(NVML_FI_DEV_POWER_MAX_LIMIT, Gpu, Slow, &catalogue::POWER_LIMIT_MAX),
    power(NVML_FI_DEV_POWER_DEFAULT_LIMIT, Gpu, Slow, &catalogue::POWER_LIMIT_DEFAULT),
    power(NVML_FI_DEV_POWER_REQUESTED_LIMIT, Gpu, Slow, &catalogue::POWER_LIMIT_REQUESTED),
    celsius(NVML_FI_DEV_TEMPERATURE_SHUTDOWN_TLIMIT, "shutdown"),
    celsius(NVML_FI_DEV_TEMPERATURE_SLOWDOWN_TLIMIT, "hw_slowdown"),
    celsius(NVML_FI_DEV_TEMPERATURE_MEM_MAX_TLIMIT, "memory"),
    celsius(NVML_FI_DEV_TEMPERATURE_GPU_MAX_TLIMIT, "gpu"),
    flag(NVML_FI_PWR_SMOOTHING_ENABLED, Gpu, &catalogue::POWER_SMOOTHING),
    spec(
        NVML_FI_PWR_SMOOTHING_APPLIED_TMP_CEIL,
        Gpu,
        Slow,
        0,
        WATTS,
        Means::Per(1.0, &catalogue::POWER_SMOOTHING_BOUND, "ceiling"),
    ),
    spec(
        NVML_FI_PWR_SMOOTHING_APPLIED_TMP_FLOOR,
        Gpu,
        Slow,
        0,
        WATTS,
        Means::Per(1.0, &catalogue::POWER_SMOOTHING_BOUND, "floor"),
    ),
    spec(EDPP_MULTIPLIER, Gpu, Slow, 0, 1000, Means::Per(100.0, &catalogue::EDPP_MULTIPLIER, "")),
    // PCIe.
    own(NVML_FI_DEV_PCIE_REPLAY_COUNTER, Gpu, 0, COUNT as i128, Field::PcieReplays),
    own(NVML_FI_DEV_PCIE_COUNT_TX_BYTES, Gpu, 0, u64::MAX as i128, Field::PcieBytes(0)),
    own(NVML_FI_DEV_PCIE_COUNT_RX_BYTES, Gpu, 0, u64::MAX as i128, Field::PcieBytes(1)),
    count(NVML_FI_DEV_PCIE_L0_TO_RECOVERY_COUNTER, Gpu, Slow, &catalogue::PCIE_ERRORS, "l0_to_recovery"),
    count(NVML_FI_DEV_PCIE_COUNT_CORRECTABLE_ERRORS, Gpu, Slow, &catalogue::PCIE_ERRORS, "correctable"),
    count(NVML_FI_DEV_PCIE_COUNT_NAKS_RECEIVED, Gpu, Slow, &catalogue::PCIE_ERRORS, "naks_received"),
    count(NVML_FI_DEV_PCIE_COUNT_RECEIVER_ERROR, Gpu, Slow, &catalogue::PCIE_ERRORS, "receiver"),
    count(NVML_FI_DEV_PCIE_COUNT_BAD_TLP, Gpu, Slow, &catalogue::PCIE_ERRORS, "bad_tlp"),
    count(NVML_FI_DEV_PCIE_COUNT_NAKS_SENT, Gpu, Slow, &catalogue::PCIE_ERRORS, "naks_sent"),
    count(NVML_FI_DEV_PCIE_COUNT_BAD_DLLP, Gpu, Slow, &catalogue::PCIE_ERRORS, "bad_dllp"),
    count(NVML_FI_DEV_PCIE_COUNT_NON_FATAL_ERROR, Gpu, Slow, &catalogue::PCIE_ERRORS, "non_fatal"),
    count(NVML_FI_DEV_PCIE_COUNT_FATAL_ERROR, Gpu, Slow, &catalogue::PCIE_ERRORS, "fatal"),
    count(NVML_FI_DEV_PCIE_COUNT_UNSUPPORTED_REQ, Gpu, Slow, &catalogue::PCIE_ERRORS, "unsupported_request"),
    count(NVML_FI_DEV_PCIE_COUNT_LCRC_ERROR, Gpu, Slow, &catalogue::PCIE_ERRORS, "lcrc"),
    // NVLink: KiB of payload, MB per second.
    own(NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX, Link, 0, COUNT as i128, Field::LinkKib("transmit")),
    own(NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX, Link, 0, COUNT as i128, Field::LinkKib("receive")),
    spec(NVML_FI_DEV_NVLINK_GET_SPEED, Link, Slow, 0, MBPS, Means::Times(1_000_000, &catalogue::NVLINK_SPEED)),
    // Up to Hopper.
    count(NVML_FI_DEV_NVLINK_ERROR_DL_REPLAY, Link, Slow, &catalogue::NVLINK_ERRORS, "replay"),
    count(NVML_FI_DEV_NVLINK_ERROR_DL_RECOVERY, Link, Slow, &catalogue::NVLINK_ERRORS, "recovery"),
    count(NVML_FI_DEV_NVLINK_ERROR_DL_CRC, Link, Slow, &catalogue::NVLINK_ERRORS, "crc"),
    // NVLink 5: Blackwell and newer.
    count(NVML_FI_DEV_NVLINK_COUNT_XMIT_BYTES, Link, Slow, &catalogue::NVLINK_RAW_BYTES, "transmit"),
    count(NVML_FI_DEV_NVLINK_COUNT_RCV_BYTES, Link, Slow, &catalogue::NVLINK_RAW_BYTES, "receive"),
    count(NVML_FI_DEV_NVLINK_COUNT_MALFORMED_PACKET_ERRORS, Link, Slow, &catalogue::NVLINK_ERRORS, "malformed_packet"),
    count(NVML_FI_DEV_NVLINK_COUNT_BUFFER_OVERRUN_ERRORS, Link, Slow, &catalogue::NVLINK_ERRORS, "buffer_overrun"),
    count(NVML_FI_DEV_NVLINK_COUNT_RCV_ERRORS, Link, Slow, &catalogue::NVLINK_ERRORS, "receive"),
    count(NVML_FI_DEV_NVLINK_COUNT_RCV_REMOTE_ERRORS, Link, Slow, &catalogue::NVLINK_ERRORS, "receive_remote"),
    count(NVML_FI_DEV_NVLINK_COUNT_RCV_GENERAL_ERRORS, Link, Slow, &catalogue::NVLINK_ERRORS, "receive_general"),
    count(
        NVML_FI_DEV_NVLINK_COUNT_LOCAL_LINK_INTEGRITY_ERRORS,
        Link,
        Slow,
        &catalogue::NVLINK_ERRORS,
        "link_integrity",
    ),
    count(NVML_FI_DEV_NVLINK_COUNT_XMIT_DISCARDS, Link, Slow, &catalogue::NVLINK_ERRORS, "transmit_discard"),
    count(NVML_FI_DEV_NVLINK_COUNT_EFFECTIVE_ERRORS, Link, Slow, &catalogue::NVLINK_ERRORS, "effective"),
    count(NVML_FI_DEV_NVLINK_COUNT_SYMBOL_ERRORS, Link, Slow, &catalogue::NVLINK_ERRORS, "symbol"),
    count(
        NVML_FI_DEV_NVLINK_COUNT_LINK_RECOVERY_SUCCESSFUL_EVENTS,
        Link,
        Slow,
        &catalogue::NVLINK_RECOVERIES,
        "successful",
    ),
    count(NVML_FI_DEV_NVLINK_COUNT_LINK_RECOVERY_FAILED_EVENTS, Link, Slow, &catalogue::NVLINK_RECOVERIES, "failed"),
    bit_errors(NVML_FI_DEV_NVLINK_COUNT_EFFECTIVE_BER, "effective"),
    bit_errors(NVML_FI_DEV_NVLINK_COUNT_SYMBOL_BER, "symbol"),
    count(PLR_XMIT_BLOCKS, Link, Slow, &catalogue::NVLINK_BLOCKS, "transmitted"),
    count(PLR_XMIT_RETRY_BLOCKS, Link, Slow, &catalogue::NVLINK_BLOCKS, "retransmitted"),
    fec(0),
    fec(1),
    fec(2),
    fec(3),
    fec(4),
    fec(5),
    fec(6),
    fec(7),
    fec(8),
    fec(9),
    fec(10),
    fec(11),
    fec(12),
    fec(13),
    fec(14),
    fec(15),
    // Chip-to-chip links, on Grace.
    flag(NVML_FI_DEV_C2C_LINK_GET_STATUS, C2c, &catalogue::C2C_UP),
    spec(NVML_FI_DEV_C2C_LINK_GET_MAX_BW, C2c, Slow, 0, MBPS, Means::Times(1_000_000, &catalogue::C2C_SPEED)),
    count(NVML_FI_DEV_C2C_LINK_ERROR_INTR, C2c, Slow, &catalogue::C2C_ERRORS, "crc"),
    count(NVML_FI_DEV_C2C_LINK_ERROR_REPLAY, C2c, Slow, &catalogue::C2C_ERRORS, "replay"),
    count(NVML_FI_DEV_C2C_LINK_ERROR_REPLAY_B2B, C2c, Slow, &catalogue::C2C_ERRORS, "replay_back_to_back"),
];

/// Twelve bits: exponent and mantissa.
const fn bit_errors(id: u32, kind: &'static str) -> Spec {
    spec(id, Link, Slow, 0, 0xfff, Means::BitErrors(&catalogue::NVLINK_BER, kind))
}

/// Labels of the FEC bins.
const BINS: [&str; 16] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15"];

/// Corrected symbol errors, by bin.
const fn fec(bin: u32) -> Spec {
    count(NVML_FI_DEV_NVLINK_COUNT_FEC_HISTORY_0 + bin, Link, Slow, &catalogue::NVLINK_FEC, BINS[bin as usize])
}
