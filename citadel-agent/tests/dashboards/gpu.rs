//! GPUs. Who comes from dcgm-exporter finds the names he knows in the descriptions.

use super::grafana::{Dashboard, Variable};
use super::panel::{Kind, Panel};
use super::query::{HOST, by, sum};

pub(crate) fn dashboard() -> Dashboard {
    Dashboard {
        file: "gpu",
        title: "GPUs",
        about: "What each GPU does, for whom, and what holds it back.",
        variables: &[Variable::Instances],
        annotations: vec![super::alerts(HOST), super::agent_started(HOST), super::configuration_loaded(HOST)],
        rows: vec![
            ("Now", now()),
            ("Load", load()),
            ("Memory", memory()),
            ("Power, heat, clocks", power()),
            ("NVLink and PCIe", links()),
            ("Errors", errors()),
        ],
    }
}

/// A panel, with the names that dcgm-exporter has for it.
fn panel(title: &'static str, unit: &'static str, about: &str, dcgm: &str) -> Panel {
    let dcgm = if dcgm.is_empty() { String::new() } else { format!(" dcgm-exporter: {dcgm}.") };
    Panel::new(Kind::Graph, title, unit).about(format!("{about}{dcgm}").trim().to_owned())
}

fn now() -> Vec<Panel> {
    let stat = |title, unit| Panel::new(Kind::Stat, title, unit);
    let any = &[(1.0, "red")];
    let zero = |expression: String| HOST.or_zero(&expression);
    let count = |selector: String| by("count", "", &selector);
    vec![
        stat("GPUs", "short").query(count(HOST.series("citadel_gpu_up", "")), ""),
        stat("Lost", "short")
            .thresholds(any)
            .query(zero(count(format!("{} == 0", HOST.series("citadel_gpu_up", "")))), ""),
        stat("Not in NVML", "short").thresholds(any).query(zero(count(HOST.series("citadel_gpu_missing", ""))), ""),
        stat("Need a reset or more", "short").thresholds(any).query(
            zero(count(format!("{} == 1", HOST.series("citadel_gpu_recovery_action", r#"action!="none""#)))),
            "",
        ),
        stat("Xids in 24 h", "short")
            .thresholds(&[(1.0, "orange")])
            .query(zero(HOST.increase("", "citadel_gpu_xid_errors_total", "", "24h")), ""),
        stat("Uncorrected ECC in 24 h", "short")
            .thresholds(any)
            .query(zero(HOST.increase("", "citadel_gpu_ecc_errors_total", r#"kind="uncorrected""#, "24h")), ""),
        stat("Hottest", "celsius")
            .thresholds(&[(80.0, "orange"), (87.0, "red")])
            .query(by("max", "", &HOST.series("citadel_gpu_temperature_celsius", r#"sensor="gpu""#)), ""),
        stat("Held down", "percentunit")
            .thresholds(&[(0.01, "orange"), (0.1, "red")])
            .query(
                by(
                    "max",
                    "",
                    &HOST.rate("citadel_gpu_throttle_seconds_total", r#"reason=~"hw_.*|sw_thermal_slowdown""#),
                ),
                "",
            )
            .about("Part of the time in which heat or power held clocks down."),
    ]
}

fn load() -> Vec<Panel> {
    vec![
        panel(
            "SMs busy",
            "percentunit",
            "How much of the GPU is in use; before Hopper: whether any kernel ran.",
            "DCGM_FI_DEV_GPU_UTIL",
        )
        .max(1.0)
        .query(
            format!(
                "{} or {}",
                HOST.series("citadel_gpu_sm_active_ratio", ""),
                HOST.series("citadel_gpu_utilization_ratio", "")
            ),
            "{{index}} {{name}}",
        ),
        panel("Tensor cores", "percentunit", "Hopper and newer.", "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE")
            .max(1.0)
            .query(HOST.series("citadel_gpu_tensor_active_ratio", ""), "{{index}}"),
        panel("Memory bandwidth", "percentunit", "Near 1: decoding is bound by it.", "DCGM_FI_PROF_DRAM_ACTIVE")
            .max(1.0)
            .query(HOST.series("citadel_gpu_dram_active_ratio", ""), "{{index}}"),
        panel("Engine active, occupancy", "percentunit", "", "DCGM_FI_PROF_GR_ENGINE_ACTIVE")
            .max(1.0)
            .query(HOST.series("citadel_gpu_engine_active_ratio", ""), "{{index}} engine")
            .query(HOST.series("citadel_gpu_sm_occupancy_ratio", ""), "{{index}} occupancy"),
        panel("SM time by model", "percentunit", "Who uses it; the series without a model is all others.", "")
            .max(1.0)
            .query(sum("gpu, model", &HOST.series("citadel_model_gpu_sm_ratio", "")), "{{gpu}} {{model}}")
            .link("One model", "citadel-model"),
        panel("Power by model", "watt", "The energy counter, split by SM time.", "")
            .query(HOST.sum_rate("gpu, model", "citadel_model_gpu_energy_joules_total", ""), "{{gpu}} {{model}}"),
    ]
}

fn memory() -> Vec<Panel> {
    vec![
        panel("Memory used", "bytes", "", "DCGM_FI_DEV_FB_USED")
            .query(HOST.series("citadel_gpu_memory_used_bytes", ""), "{{index}} used")
            .query(HOST.series("citadel_gpu_memory_total_bytes", ""), "{{index}} total"),
        panel("Memory by model", "bytes", "", "")
            .query(sum("gpu, model", &HOST.series("citadel_model_gpu_memory_bytes", "")), "{{gpu}} {{model}}"),
        panel("Memory by process", "bytes", "", "")
            .query(HOST.series("citadel_gpu_process_memory_bytes", ""), "{{index}} {{model}} {{pid}}"),
    ]
}

fn power() -> Vec<Panel> {
    vec![
        panel("Power", "watt", "", "DCGM_FI_DEV_POWER_USAGE")
            .query(HOST.series("citadel_gpu_power_watts", ""), "{{index}}")
            .query(HOST.series("citadel_gpu_power_limit_watts", ""), "{{index}} limit"),
        panel("Temperature", "celsius", "", "DCGM_FI_DEV_GPU_TEMP, DCGM_FI_DEV_MEMORY_TEMP")
            .thresholds(&[(87.0, "red")])
            .query(HOST.series("citadel_gpu_temperature_celsius", r#"sensor!="margin""#), "{{index}} {{sensor}}"),
        panel("Clocks", "hertz", "", "DCGM_FI_DEV_SM_CLOCK, DCGM_FI_DEV_MEM_CLOCK")
            .query(HOST.series("citadel_gpu_clock_hertz", r#"clock=~"sm|memory""#), "{{index}} {{clock}}")
            .query(HOST.series("citadel_gpu_clock_max_hertz", r#"clock="sm""#), "{{index}} sm at most"),
        panel(
            "Clocks held down, by reason",
            "percentunit",
            "Part of the time. hw_*, sw_thermal_slowdown: cooling or power. sw_power_cap: the limit that is set.",
            "",
        )
        .max(1.0)
        .query(HOST.sum_rate("index, reason", "citadel_gpu_throttle_seconds_total", ""), "{{index}} {{reason}}")
        .size(16, 8),
        panel(
            "Energy",
            "watt",
            "From the energy counter: exact over any time.",
            "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION",
        )
        .query(HOST.sum_rate("index", "citadel_gpu_energy_joules_total", ""), "{{index}}"),
    ]
}

fn links() -> Vec<Panel> {
    vec![
        panel("NVLink", "Bps", "Payload of all links.", "DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL")
            .query(HOST.sum_rate("index, direction", "citadel_gpu_nvlink_bytes_total", ""), "{{index}} {{direction}}"),
        panel("NVLinks down", "short", "", "").thresholds(&[(1.0, "red")]).query(
            format!(
                "{} - {}",
                by("count", "index", &HOST.series("citadel_gpu_nvlink_up", "")),
                sum("index", &HOST.series("citadel_gpu_nvlink_up", ""))
            ),
            "{{index}}",
        ),
        panel("NVLink errors", "cps", "", "")
            .query(HOST.sum_rate("index, kind", "citadel_gpu_nvlink_errors_total", ""), "{{index}} {{kind}}"),
        panel("PCIe", "Bps", "", "DCGM_FI_PROF_PCIE_TX_BYTES, DCGM_FI_PROF_PCIE_RX_BYTES")
            .query(HOST.sum_rate("index, direction", "citadel_gpu_pcie_bytes_total", ""), "{{index}} {{direction}}"),
        panel(
            "PCIe lanes missing",
            "short",
            "Trained with fewer lanes than GPU and host can have: seating, or a riser.",
            "",
        )
        .thresholds(&[(1.0, "red")])
        .query(
            format!(
                "{} - {}",
                HOST.series("citadel_gpu_pcie_link_max_width", ""),
                HOST.series("citadel_gpu_pcie_link_width", "")
            ),
            "{{index}}",
        ),
        panel("PCIe replays", "cps", "", "DCGM_FI_DEV_PCIE_REPLAY_COUNTER")
            .query(HOST.sum_rate("index", "citadel_gpu_pcie_replays_total", ""), "{{index}}"),
    ]
}

fn errors() -> Vec<Panel> {
    let bars = |title, about, dcgm, by_labels: &str, name: &str| {
        let legend: String = by_labels.split(", ").map(|label| format!("{{{{{label}}}}} ")).collect();
        panel(title, "short", about, dcgm).query(HOST.or_zero(&HOST.increase(by_labels, name, "", "1h")), &legend)
    };
    vec![
        bars("Xids in an hour", "NVIDIA's list of Xid errors says what each means.", "DCGM_FI_DEV_XID_ERRORS", "index, xid", "citadel_gpu_xid_errors_total"),
        bars("ECC errors in an hour", "Uncorrected: the program on the GPU has crashed.", "", "index, kind, location", "citadel_gpu_ecc_errors_total"),
        panel("Remapped rows", "short", "pending: reset the GPU. failure: exchange it.", "DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS, DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS, DCGM_FI_DEV_ROW_REMAP_FAILURE")
            .query(HOST.series("citadel_gpu_remapped_rows", ""), "{{index}} {{kind}}"),
        panel("Needs a hand", "short", "What the driver says that it needs to work again.", "")
            .query(HOST.or_zero(&sum("index, action", &HOST.series("citadel_gpu_recovery_action", r#"action!="none""#))), "{{index}} {{action}}"),
        panel("Up", "short", "0: lost, or NVML does not answer.", "").max(1.0).query(HOST.series("citadel_gpu_up", ""), "{{index}} {{name}}"),
        bars("Fallen off the bus, in an hour", "The kernel's log says so.", "", "index", "citadel_gpu_fallen_off_bus_total"),
    ]
}
