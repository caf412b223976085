//! GPUs: `/metrics/gpu`.

use super::{Desc, Kind, Section, Since, Unit};

catalogue! {
    Gpu;

    UP: Gauge None "citadel_gpu_up" ["gpu", "index", "name"]
        "1 if the GPU answered in recent samples, 0 if it is lost or NVML does not answer.";
    INFO: Gauge None "citadel_gpu_info" ["gpu", "index", "name", "driver", "cuda", "vbios", "pci_bus_id", "serial"]
        "Always 1; the labels describe the GPU and its driver.";
    UTILIZATION: Gauge Ratio "citadel_gpu_utilization_ratio" ["gpu", "index", "name"]
        "Fraction of the driver's last sample period in which at least one kernel ran, however small; absent in MIG mode.";
    ENGINE_ACTIVE: Gauge Ratio "citadel_gpu_engine_active_ratio" ["gpu", "index", "name"]
        "Fraction of time in which any engine was active, between the last two samples; Hopper and newer (GPM).";
    SM_ACTIVE: Gauge Ratio "citadel_gpu_sm_active_ratio" ["gpu", "index", "name"]
        "Fraction of the SMs that were busy, between the last two samples; Hopper and newer (GPM). Shows how much of the GPU is in use, which citadel_gpu_utilization_ratio does not.";
    SM_OCCUPANCY: Gauge Ratio "citadel_gpu_sm_occupancy_ratio" ["gpu", "index", "name"]
        "Active warps as a fraction of the maximum that the SMs support, between the last two samples; Hopper and newer (GPM).";
    TENSOR_ACTIVE: Gauge Ratio "citadel_gpu_tensor_active_ratio" ["gpu", "index", "name"]
        "Fraction of time in which the SMs executed tensor operations of any type, between the last two samples; Hopper and newer (GPM).";
    TENSOR_PIPE_ACTIVE: Gauge Ratio "citadel_gpu_tensor_pipe_active_ratio" ["gpu", "index", "name", "pipe"]
        "Fraction of time in which the SMs executed tensor operations by type, between the last two samples: hmma (16-bit and smaller), imma (integer), dfma and dmma (64-bit); Hopper and newer (GPM).";
    PIPE_ACTIVE: Gauge Ratio "citadel_gpu_pipe_active_ratio" ["gpu", "index", "name", "pipe"]
        "Fraction of time in which the SMs executed non-tensor operations by type, between the last two samples: fp64, fp32, fp16, integer; Hopper and newer (GPM).";
    DRAM_ACTIVE: Gauge Ratio "citadel_gpu_dram_active_ratio" ["gpu", "index", "name"]
        "Fraction of the memory bandwidth that was used, between the last two samples; Hopper and newer (GPM).";
    MEMORY_USED: Gauge Bytes "citadel_gpu_memory_used_bytes" ["gpu", "index", "name"]
        "Allocated device memory, excluding memory reserved by the driver if the driver reports it (R510 and newer). Inexact if the operating system manages the memory (Grace).";
    MEMORY_TOTAL: Gauge Bytes "citadel_gpu_memory_total_bytes" ["gpu", "index", "name"]
        "Installed device memory.";
    MEMORY_UTILIZATION: Gauge Ratio "citadel_gpu_memory_utilization_ratio" ["gpu", "index", "name"]
        "Fraction of the driver's last sample period in which device memory was read or written; absent in MIG mode.";
    POWER: Gauge Watts "citadel_gpu_power_watts" ["gpu", "index", "name"]
        "Power draw of the GPU: averaged over one second on Ampere and newer, instantaneous on GA100 (A100, A30) and older GPUs.";
    POWER_INSTANT: Gauge Watts "citadel_gpu_power_instant_watts" ["gpu", "index", "name"]
        "Instantaneous power draw of the GPU.";
    MODULE_POWER: Gauge Watts "citadel_gpu_module_power_watts" ["gpu", "index", "name"]
        "Instantaneous power draw of the module that contains the GPU and its CPU (Grace).";
    POWER_LIMIT: Gauge Watts "citadel_gpu_power_limit_watts" ["gpu", "index", "name"]
        "Enforced power limit: the lowest of all limits that are set, including out of band.";
    POWER_LIMIT_DEFAULT: Gauge Watts "citadel_gpu_power_limit_default_watts" ["gpu", "index", "name"]
        "Default power limit, as applied at boot.";
    POWER_LIMIT_REQUESTED: Gauge Watts "citadel_gpu_power_limit_requested_watts" ["gpu", "index", "name"]
        "Power limit requested through the driver.";
    POWER_LIMIT_MIN: Gauge Watts "citadel_gpu_power_limit_min_watts" ["gpu", "index", "name"]
        "Lowest power limit that can be set.";
    POWER_LIMIT_MAX: Gauge Watts "citadel_gpu_power_limit_max_watts" ["gpu", "index", "name"]
        "Highest power limit that can be set.";
    MODULE_POWER_LIMIT: Gauge Watts "citadel_gpu_module_power_limit_watts" ["gpu", "index", "name"]
        "Enforced power limit of the module that contains the GPU (Grace).";
    POWER_SMOOTHING: Gauge None "citadel_gpu_power_smoothing_enabled" ["gpu", "index", "name"]
        "1 if power smoothing is enabled, on GPUs that support it (Blackwell).";
    POWER_SMOOTHING_BOUND: Gauge Watts "citadel_gpu_power_smoothing_bound_watts" ["gpu", "index", "name", "bound"]
        "Applied floor and ceiling of power smoothing.";
    EDPP_MULTIPLIER: Gauge Ratio "citadel_gpu_edpp_multiplier_ratio" ["gpu", "index", "name"]
        "Allowed multiplier of the peak power (EDPp).";
    ENERGY: Counter(Before) Joules "citadel_gpu_energy_joules_total" ["gpu", "index", "name"]
        "Energy consumed since the driver was loaded, as counted by the GPU.";
    TEMPERATURE: Gauge Celsius "citadel_gpu_temperature_celsius" ["gpu", "index", "name", "sensor"]
        "Temperature by sensor: gpu, memory, and margin (degrees left until the GPU slows down).";
    TEMPERATURE_LIMIT: Gauge Celsius "citadel_gpu_temperature_limit_celsius" ["gpu", "index", "name", "limit"]
        "Temperature limits: at which the GPU shuts down, at which it slows down, and the maximum operating temperatures of the GPU and of its memory, above which clocks are throttled.";
    TEMPERATURE_LIMIT_MARGIN: Gauge Celsius "citadel_gpu_temperature_limit_margin_celsius" ["gpu", "index", "name", "limit"]
        "Temperature limits on Ada and newer GPUs, as values of the margin sensor.";
    FAN: Gauge Ratio "citadel_gpu_fan_ratio" ["gpu", "index", "name", "fan"]
        "Intended fan speed, as a fraction of the maximum.";
    CLOCK: Gauge Hertz "citadel_gpu_clock_hertz" ["gpu", "index", "name", "clock"]
        "Current clock: graphics, sm, memory, video.";
    CLOCK_MAX: Gauge Hertz "citadel_gpu_clock_max_hertz" ["gpu", "index", "name", "clock"]
        "Maximum clock of the GPU; citadel_gpu_throttle_active shows why it runs below that.";
    PERFORMANCE_STATE: Gauge None "citadel_gpu_performance_state" ["gpu", "index", "name"]
        "Performance state (P-state), from 0 (maximum performance) to 15 (minimum).";
    THROTTLE_ACTIVE: Gauge None "citadel_gpu_throttle_active" ["gpu", "index", "name", "reason"]
        "1 while clocks are throttled for this reason. Reasons unknown to this version are shown as their bit in hexadecimal.";
    THROTTLE_SECONDS: Counter(Before) Seconds "citadel_gpu_throttle_seconds_total" ["gpu", "index", "name", "reason"]
        "Time during which clocks were throttled for this reason, since the driver was loaded. Several reasons can apply at once.";
    BELOW_BASE_CLOCKS: Counter(Before) Seconds "citadel_gpu_below_base_clocks_seconds_total" ["gpu", "index", "name"]
        "Time during which clocks were below the base clocks for any reason, since the driver was loaded.";
    ECC_ERRORS: Counter(Lifetime) None "citadel_gpu_ecc_errors_total" ["gpu", "index", "name", "kind", "location"]
        "ECC errors over the board's lifetime: corrected and uncorrected.";
    ECC_VOLATILE: Counter(Before) None "citadel_gpu_ecc_volatile_errors_total" ["gpu", "index", "name", "kind"]
        "ECC errors since the driver was loaded: corrected and uncorrected.";
    SRAM_ERRORS: Counter(Lifetime) None "citadel_gpu_sram_ecc_errors_total" ["gpu", "index", "name", "kind"]
        "ECC errors of the SRAM over the board's lifetime: corrected, and uncorrected by parity or by SEC-DED; Ampere and newer.";
    SRAM_UNCORRECTED: Counter(Lifetime) None "citadel_gpu_sram_uncorrected_errors_total" ["gpu", "index", "name", "unit"]
        "Uncorrected ECC errors of the SRAM over the board's lifetime by unit: l2, sm, pcie, microcontroller, other.";
    SRAM_THRESHOLD: Gauge None "citadel_gpu_sram_ecc_threshold_exceeded" ["gpu", "index", "name"]
        "1 if the number of uncorrected SRAM errors exceeds the threshold of NVIDIA's field diagnostics.";
    RETIRED_PAGES: Gauge None "citadel_gpu_retired_pages" ["gpu", "index", "name", "cause"]
        "Memory pages retired because of single-bit and double-bit errors, on GPUs older than Ampere.";
    RETIRED_PENDING: Gauge None "citadel_gpu_retired_pages_pending" ["gpu", "index", "name"]
        "1 if memory pages will be retired at the next reset.";
    REMAP_BANKS: Gauge None "citadel_gpu_remap_banks" ["gpu", "index", "name", "availability"]
        "Memory banks by remaining spare rows: max, high, partial, low, none; Ampere and newer.";
    REPAIR_PENDING: Gauge None "citadel_gpu_repair_pending" ["gpu", "index", "name", "repair"]
        "1 if a memory channel or a TPC will be repaired at the next reset; Ampere and newer.";
    UNREPAIRABLE: Gauge None "citadel_gpu_memory_unrepairable" ["gpu", "index", "name"]
        "1 if the GPU has memory that cannot be repaired; Hopper and newer.";
    RECOVERY_ACTION: Gauge None "citadel_gpu_recovery_action" ["gpu", "index", "name", "action"]
        "1 for the action that recovers the GPU: none, reset, reboot (of the host), drain_p2p, drain_and_reset, recover_imex_domain.";
    MODES: Gauge None "citadel_gpu_modes_info" ["gpu", "index", "name", "virtualization", "confidential_computing", "ecc", "ecc_pending", "persistence", "compute"]
        "Always 1; the labels are the GPU's modes. Unknown labels are empty.";
    VGPU_INFO: Gauge None "citadel_gpu_vgpu_info" ["gpu", "index", "name", "vgpu", "vm", "profile"]
        "Always 1; one series per vGPU that runs on the GPU, with its virtual machine.";
    VGPU_MEMORY: Gauge Bytes "citadel_gpu_vgpu_memory_used_bytes" ["gpu", "index", "name", "vgpu"]
        "Device memory that a vGPU uses.";
    REMAPPED_ROWS: Gauge None "citadel_gpu_remapped_rows" ["gpu", "index", "name", "kind"]
        "Memory rows remapped because of correctable and uncorrectable errors; for kinds pending and failure, 1 if a remapping is pending or has failed.";
    PCIE_BYTES: Counter(Start) Bytes "citadel_gpu_pcie_bytes_total" ["gpu", "index", "name", "direction"]
        "PCIe traffic since the agent started: from the GPU's own counters on Hopper and newer; on older GPUs, if gpu.pcie_throughput is set, estimated from samples.";
    PCIE_RATE: Gauge None "citadel_gpu_pcie_bytes_per_second" ["gpu", "index", "name", "direction"]
        "PCIe traffic between the last two samples; Hopper and newer (GPM).";
    PCIE_GENERATION: Gauge None "citadel_gpu_pcie_link_generation" ["gpu", "index", "name"]
        "Current PCIe generation of the link; lower while the GPU is idle.";
    PCIE_GENERATION_MAX: Gauge None "citadel_gpu_pcie_link_max_generation" ["gpu", "index", "name"]
        "Highest PCIe generation that both the GPU and the host support.";
    PCIE_WIDTH: Gauge None "citadel_gpu_pcie_link_width" ["gpu", "index", "name"]
        "Current number of PCIe lanes.";
    PCIE_WIDTH_MAX: Gauge None "citadel_gpu_pcie_link_max_width" ["gpu", "index", "name"]
        "Maximum number of PCIe lanes that both the GPU and the host support.";
    PCIE_ERRORS: Counter(Before) None "citadel_gpu_pcie_errors_total" ["gpu", "index", "name", "kind"]
        "PCIe errors as counted by the GPU. Some kinds overlap: one error can count in two of them.";
    PCIE_REPLAYS: Counter(Before) None "citadel_gpu_pcie_replays_total" ["gpu", "index", "name"]
        "PCIe packets that were retransmitted.";
    NVLINK_BYTES: Counter(Before) Bytes "citadel_gpu_nvlink_bytes_total" ["gpu", "index", "name", "link", "direction"]
        "Payload transferred over an NVLink, with a resolution of 1 KiB; absent while the link is down.";
    NVLINK_RAW_BYTES: Counter(Before) Bytes "citadel_gpu_nvlink_raw_bytes_total" ["gpu", "index", "name", "link", "direction"]
        "Bytes transferred over an NVLink, including protocol overhead; NVLink 5 (Blackwell) and newer.";
    NVLINK_RATE: Gauge None "citadel_gpu_nvlink_bytes_per_second" ["gpu", "index", "name", "direction"]
        "Traffic of all NVLinks between the last two samples; Hopper and newer (GPM).";
    NVLINK_UP: Gauge None "citadel_gpu_nvlink_up" ["gpu", "index", "name", "link"]
        "1 if the NVLink is active.";
    NVLINK_VERSION: Gauge None "citadel_gpu_nvlink_version" ["gpu", "index", "name", "link"]
        "Version of an active NVLink, such as 4 (Hopper) or 5 (Blackwell).";
    NVLINK_SPEED: Gauge None "citadel_gpu_nvlink_speed_bytes_per_second" ["gpu", "index", "name", "link"]
        "Speed of an active NVLink.";
    NVLINK_ERRORS: Counter(Before) None "citadel_gpu_nvlink_errors_total" ["gpu", "index", "name", "link", "kind"]
        "Errors of an NVLink by kind: replay, recovery and crc up to Hopper; other kinds on NVLink 5 (Blackwell).";
    NVLINK_RECOVERIES: Counter(Before) None "citadel_gpu_nvlink_recoveries_total" ["gpu", "index", "name", "link", "result"]
        "Recoveries of an NVLink by result: successful, or failed (the link is then down); NVLink 5 and newer.";
    NVLINK_BER: Gauge Ratio "citadel_gpu_nvlink_bit_error_ratio" ["gpu", "index", "name", "link", "kind"]
        "Bit error rate of an NVLink: effective (after correction) and symbol; NVLink 5 and newer.";
    NVLINK_BLOCKS: Counter(Before) None "citadel_gpu_nvlink_blocks_total" ["gpu", "index", "name", "link", "kind"]
        "Blocks transmitted and retransmitted by the physical layer of an NVLink, if the driver reports them.";
    NVLINK_FEC: Counter(Before) None "citadel_gpu_nvlink_fec_errors_total" ["gpu", "index", "name", "link", "bin"]
        "Symbol errors corrected by forward error correction, by the driver's bins; NVLink 5 and newer, if gpu.nvlink_fec is set.";
    FABRIC_STATE: Gauge None "citadel_gpu_fabric_state" ["gpu", "index", "name", "state"]
        "1 for the current state of the GPU's registration with the NVLink fabric: not_started, in_progress, completed; Hopper and newer.";
    FABRIC_REGISTERED: Gauge None "citadel_gpu_fabric_registered" ["gpu", "index", "name"]
        "1 if the completed registration with the NVLink fabric succeeded.";
    FABRIC_HEALTH: Gauge None "citadel_gpu_fabric_health" ["gpu", "index", "name", "health"]
        "1 for the current health of the GPU's part of the NVLink fabric: healthy, unhealthy, limited_capacity.";
    FABRIC_PROBLEM: Gauge None "citadel_gpu_fabric_problem" ["gpu", "index", "name", "problem"]
        "1 while the GPU's part of the NVLink fabric has this problem.";
    C2C_UP: Gauge None "citadel_gpu_c2c_link_up" ["gpu", "index", "name", "link"]
        "1 if the chip-to-chip link to the CPU is active (Grace).";
    C2C_SPEED: Gauge None "citadel_gpu_c2c_link_speed_bytes_per_second" ["gpu", "index", "name", "link"]
        "Maximum speed of an active chip-to-chip link.";
    C2C_ERRORS: Counter(Before) None "citadel_gpu_c2c_errors_total" ["gpu", "index", "name", "link", "kind"]
        "Errors of a chip-to-chip link: crc, replay, replay_back_to_back.";
    C2C_RATE: Gauge None "citadel_gpu_c2c_bytes_per_second" ["gpu", "index", "name", "direction"]
        "Traffic of all chip-to-chip links between the last two samples (GPM).";
    XID_ERRORS: Counter(Start, beside UP) None "citadel_gpu_xid_errors_total" ["gpu", "index", "name", "xid"]
        "Xid errors since the agent started, from NVML events and the kernel log, each counted once. Numbers unknown to the driver are counted as other.";
    XID_REFUSED: Counter(Start) None "citadel_gpu_xid_lines_refused_total" ["reason"]
        "Kernel log lines that look like an Xid and were not counted, because the driver did not write them or they name no GPU of this host.";
    FALLEN: Counter(Start, beside UP) None "citadel_gpu_fallen_off_bus_total" ["gpu", "index", "name", "pci_bus_id"]
        "Times the kernel log has reported that the GPU fell off the bus, since the agent started.";
    KMSG_LOST: Counter(Start) None "citadel_gpu_kmsg_records_lost_total" []
        "Kernel log records overwritten before the agent could read them for Xid errors.";
    PROCESS_MEMORY: Gauge Bytes "citadel_gpu_process_memory_bytes" ["gpu", "index", "name", "pid", "model"]
        "Device memory used by a process; model is empty if the process belongs to no model.";
    PROCESS_CODEC: Gauge Ratio "citadel_gpu_process_codec_ratio" ["gpu", "index", "name", "pid", "model", "engine"]
        "Fraction of the video encoders' and decoders' time used by a process; absent while it uses none.";
    SHARING: Gauge None "citadel_gpu_sharing_info" ["gpu", "index", "name", "sharing"]
        "Always 1; sharing is how processes share the GPU: none (at most one compute process), time_slicing, mps, mig.";
    MIG_INFO: Gauge None "citadel_gpu_mig_info" ["gpu", "index", "name", "gi", "ci", "uuid", "profile"]
        "Always 1; one series per MIG device.";
    MIG_MEMORY_USED: Gauge Bytes "citadel_gpu_mig_memory_used_bytes" ["gpu", "index", "name", "gi", "ci"]
        "Allocated memory of a MIG device.";
    MIG_MEMORY_TOTAL: Gauge Bytes "citadel_gpu_mig_memory_total_bytes" ["gpu", "index", "name", "gi", "ci"]
        "Total memory of a MIG device.";
    MIG_UTILIZATION: Gauge Ratio "citadel_gpu_mig_utilization_ratio" ["gpu", "index", "name", "gi", "ci"]
        "Fraction of SM time in which the GPU instance ran a kernel; Hopper and newer.";
    SUSPENDED: Gauge None "citadel_gpu_suspended" ["pci_bus_id"]
        "Always 1; a GPU suspended by runtime power management, which the agent does not wake.";
    MISSING: Gauge None "citadel_gpu_missing" ["pci_bus_id"]
        "Always 1; an NVIDIA GPU on the PCI bus that is not bound to another driver and that NVML does not list.";
    RELEASED: Gauge None "citadel_gpu_released" []
        "1 while NVML is closed by `citadel-agent gpu release`.";
    NVML_CALL: Histogram<Calls> Seconds "citadel_gpu_nvml_call_seconds" ["call"]
        "Duration of NVML calls.";
    NVML_ERRORS: Counter(Start) None "citadel_gpu_nvml_errors_total" ["call"]
        "NVML calls that failed, except those that the GPU does not support.";
    NVML_REFUSED: Counter(Start) None "citadel_gpu_nvml_values_refused_total" ["call"]
        "NVML values that were omitted because they are impossible (2619 %, 2^32-1 W).";
    SAMPLES: Counter(Start) None "citadel_gpu_samples_total" []
        "Sampling passes over all GPUs.";
    SAMPLER_CPU: Counter(Start) Seconds "citadel_gpu_sampler_cpu_seconds_total" []
        "CPU time of the thread that samples the GPUs.";
}
