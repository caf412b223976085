//! GPUs: `/metrics/gpu`.

use super::{Desc, Kind, Section, Since, Unit};

catalogue! {
    Gpu;

    UP: Gauge None "citadel_gpu_up" ["gpu", "index", "name"]
        "1 if the GPU answered within the last samples, 0 if it is lost or NVML does not answer.";
    INFO: Gauge None "citadel_gpu_info" ["gpu", "index", "name", "driver", "cuda", "vbios", "pci_bus_id", "serial"]
        "Always 1; the labels say what the GPU and its driver are.";
    UTILIZATION: Gauge Ratio "citadel_gpu_utilization_ratio" ["gpu", "index", "name"]
        "Part of the driver's last period in which any kernel ran, however small; absent in MIG mode.";
    ENGINE_ACTIVE: Gauge Ratio "citadel_gpu_engine_active_ratio" ["gpu", "index", "name"]
        "Part of the time in which any engine worked, between the last two samples; this and the following: Hopper and newer (GPM).";
    SM_ACTIVE: Gauge Ratio "citadel_gpu_sm_active_ratio" ["gpu", "index", "name"]
        "Part of the SMs that were busy. Says how much of the GPU is in use; citadel_gpu_utilization_ratio does not.";
    SM_OCCUPANCY: Gauge Ratio "citadel_gpu_sm_occupancy_ratio" ["gpu", "index", "name"]
        "Warps that were active, as a part of the most that the SMs can hold.";
    TENSOR_ACTIVE: Gauge Ratio "citadel_gpu_tensor_active_ratio" ["gpu", "index", "name"]
        "Part of the time in which the SMs did tensor operations of any type.";
    TENSOR_PIPE_ACTIVE: Gauge Ratio "citadel_gpu_tensor_pipe_active_ratio" ["gpu", "index", "name", "pipe"]
        "Part of the time in which the SMs did tensor operations of a type: hmma (16 bits and less), imma (integer), dfma and dmma (64 bits).";
    PIPE_ACTIVE: Gauge Ratio "citadel_gpu_pipe_active_ratio" ["gpu", "index", "name", "pipe"]
        "Part of the time in which the SMs did other operations: fp64, fp32, fp16, integer.";
    DRAM_ACTIVE: Gauge Ratio "citadel_gpu_dram_active_ratio" ["gpu", "index", "name"]
        "Part of the memory's bandwidth that was used.";
    MEMORY_USED: Gauge Bytes "citadel_gpu_memory_used_bytes" ["gpu", "index", "name"]
        "Allocated device memory, without what the driver keeps for itself where it says so (R510 and newer). Inexact where the operating system manages it (Grace).";
    MEMORY_TOTAL: Gauge Bytes "citadel_gpu_memory_total_bytes" ["gpu", "index", "name"]
        "Installed device memory.";
    MEMORY_UTILIZATION: Gauge Ratio "citadel_gpu_memory_utilization_ratio" ["gpu", "index", "name"]
        "Part of the driver's last period in which device memory was read or written; absent in MIG mode.";
    POWER: Gauge Watts "citadel_gpu_power_watts" ["gpu", "index", "name"]
        "Power of the GPU: averaged over a second on Ampere and newer, but of this moment on GA100 (A100, A30) and older GPUs.";
    POWER_INSTANT: Gauge Watts "citadel_gpu_power_instant_watts" ["gpu", "index", "name"]
        "Power of the GPU at this moment.";
    MODULE_POWER: Gauge Watts "citadel_gpu_module_power_watts" ["gpu", "index", "name"]
        "Power at this moment of the module that the GPU is a part of, with its CPU (Grace).";
    POWER_LIMIT: Gauge Watts "citadel_gpu_power_limit_watts" ["gpu", "index", "name"]
        "Enforced power limit: the lowest of all that are set, also out of band.";
    POWER_LIMIT_DEFAULT: Gauge Watts "citadel_gpu_power_limit_default_watts" ["gpu", "index", "name"]
        "Power limit after a boot.";
    POWER_LIMIT_REQUESTED: Gauge Watts "citadel_gpu_power_limit_requested_watts" ["gpu", "index", "name"]
        "Power limit that was asked for through the driver.";
    POWER_LIMIT_MIN: Gauge Watts "citadel_gpu_power_limit_min_watts" ["gpu", "index", "name"]
        "Lowest power limit that can be set.";
    POWER_LIMIT_MAX: Gauge Watts "citadel_gpu_power_limit_max_watts" ["gpu", "index", "name"]
        "Highest power limit that can be set.";
    MODULE_POWER_LIMIT: Gauge Watts "citadel_gpu_module_power_limit_watts" ["gpu", "index", "name"]
        "Enforced power limit of the module that the GPU is a part of (Grace).";
    POWER_SMOOTHING: Gauge None "citadel_gpu_power_smoothing_enabled" ["gpu", "index", "name"]
        "1 if power smoothing is on; GPUs that have it (Blackwell).";
    POWER_SMOOTHING_BOUND: Gauge Watts "citadel_gpu_power_smoothing_bound_watts" ["gpu", "index", "name", "bound"]
        "Applied floor and ceiling of power smoothing.";
    EDPP_MULTIPLIER: Gauge Ratio "citadel_gpu_edpp_multiplier_ratio" ["gpu", "index", "name"]
        "Multiplier of the peak power (EDPp) that is allowed.";
    ENERGY: Counter(Before) Joules "citadel_gpu_energy_joules_total" ["gpu", "index", "name"]
        "Energy since the driver was loaded, as the GPU counts it.";
    TEMPERATURE: Gauge Celsius "citadel_gpu_temperature_celsius" ["gpu", "index", "name", "sensor"]
        "Temperature by sensor: gpu, memory, and margin, which is the distance of the gpu to its slowdown.";
    TEMPERATURE_LIMIT: Gauge Celsius "citadel_gpu_temperature_limit_celsius" ["gpu", "index", "name", "limit"]
        "Temperature at which the GPU shuts down, slows down, and down to which clocks are throttled for the GPU and for its memory.";
    TEMPERATURE_LIMIT_MARGIN: Gauge Celsius "citadel_gpu_temperature_limit_margin_celsius" ["gpu", "index", "name", "limit"]
        "The same limits on Ada and newer GPUs, as values of the sensor margin.";
    FAN: Gauge Ratio "citadel_gpu_fan_ratio" ["gpu", "index", "name", "fan"]
        "Intended fan speed, as a part of the fastest.";
    CLOCK: Gauge Hertz "citadel_gpu_clock_hertz" ["gpu", "index", "name", "clock"]
        "Current clock: graphics, sm, memory, video.";
    CLOCK_MAX: Gauge Hertz "citadel_gpu_clock_max_hertz" ["gpu", "index", "name", "clock"]
        "Highest clock that the GPU can have; what holds it down is in citadel_gpu_throttle_active.";
    PERFORMANCE_STATE: Gauge None "citadel_gpu_performance_state" ["gpu", "index", "name"]
        "Performance state, from 0 (most) to 15 (least).";
    THROTTLE_ACTIVE: Gauge None "citadel_gpu_throttle_active" ["gpu", "index", "name", "reason"]
        "1 while clocks are held down for this reason. Reasons that this version has no name for are their bit in hex.";
    THROTTLE_SECONDS: Counter(Before) Seconds "citadel_gpu_throttle_seconds_total" ["gpu", "index", "name", "reason"]
        "Time for which clocks were held down for this reason, since the driver was loaded; several may hold at a time.";
    BELOW_BASE_CLOCKS: Counter(Before) Seconds "citadel_gpu_below_base_clocks_seconds_total" ["gpu", "index", "name"]
        "Time for which clocks were below the base clocks for any reason, since the driver was loaded.";
    ECC_ERRORS: Counter(Lifetime) None "citadel_gpu_ecc_errors_total" ["gpu", "index", "name", "kind", "location"]
        "ECC errors over the board's lifetime: corrected and uncorrected.";
    ECC_VOLATILE: Counter(Before) None "citadel_gpu_ecc_volatile_errors_total" ["gpu", "index", "name", "kind"]
        "ECC errors since the driver was loaded: corrected and uncorrected.";
    SRAM_ERRORS: Counter(Lifetime) None "citadel_gpu_sram_ecc_errors_total" ["gpu", "index", "name", "kind"]
        "ECC errors of the SRAM over the board's lifetime: corrected, and uncorrected by parity or by SEC-DED; Ampere and newer.";
    SRAM_UNCORRECTED: Counter(Lifetime) None "citadel_gpu_sram_uncorrected_errors_total" ["gpu", "index", "name", "unit"]
        "Uncorrected ECC errors of the SRAM over the board's lifetime by unit: l2, sm, pcie, microcontroller, other.";
    SRAM_THRESHOLD: Gauge None "citadel_gpu_sram_ecc_threshold_exceeded" ["gpu", "index", "name"]
        "1 if the SRAM has more uncorrected errors than NVIDIA's field diagnostics allow.";
    RETIRED_PAGES: Gauge None "citadel_gpu_retired_pages" ["gpu", "index", "name", "cause"]
        "Pages of memory retired for single bit and double bit errors; GPUs before Ampere.";
    RETIRED_PENDING: Gauge None "citadel_gpu_retired_pages_pending" ["gpu", "index", "name"]
        "1 if pages of memory are retired at the next reset.";
    REMAP_BANKS: Gauge None "citadel_gpu_remap_banks" ["gpu", "index", "name", "availability"]
        "Banks of memory by how many spare rows they have left: max, high, partial, low, none; Ampere and newer.";
    REPAIR_PENDING: Gauge None "citadel_gpu_repair_pending" ["gpu", "index", "name", "repair"]
        "1 if a memory channel or a TPC is repaired at the next reset; Ampere and newer.";
    UNREPAIRABLE: Gauge None "citadel_gpu_memory_unrepairable" ["gpu", "index", "name"]
        "1 if the GPU has memory that cannot be repaired; Hopper and newer.";
    RECOVERY_ACTION: Gauge None "citadel_gpu_recovery_action" ["gpu", "index", "name", "action"]
        "1 for what the GPU needs to work again: none, reset, reboot (of the host), drain_p2p, drain_and_reset, recover_imex_domain.";
    MODES: Gauge None "citadel_gpu_modes_info" ["gpu", "index", "name", "virtualization", "confidential_computing", "ecc", "ecc_pending", "persistence", "compute"]
        "Always 1; the labels are the GPU's modes, empty where it does not say.";
    VGPU_INFO: Gauge None "citadel_gpu_vgpu_info" ["gpu", "index", "name", "vgpu", "vm", "profile"]
        "Always 1; one series a vGPU that runs on the GPU, with its virtual machine.";
    VGPU_MEMORY: Gauge Bytes "citadel_gpu_vgpu_memory_used_bytes" ["gpu", "index", "name", "vgpu"]
        "Device memory that a vGPU uses.";
    REMAPPED_ROWS: Gauge None "citadel_gpu_remapped_rows" ["gpu", "index", "name", "kind"]
        "Memory rows remapped for correctable and uncorrectable errors; 1 if a remapping is pending or has failed.";
    PCIE_BYTES: Counter(Start) Bytes "citadel_gpu_pcie_bytes_total" ["gpu", "index", "name", "direction"]
        "PCIe traffic since the agent started. From the GPU's own counters on Hopper and newer; before, if gpu.pcie_throughput is set, an estimate from samples.";
    PCIE_RATE: Gauge None "citadel_gpu_pcie_bytes_per_second" ["gpu", "index", "name", "direction"]
        "PCIe traffic between the last two samples; Hopper and newer (GPM).";
    PCIE_GENERATION: Gauge None "citadel_gpu_pcie_link_generation" ["gpu", "index", "name"]
        "PCIe generation now; lower while the GPU is idle.";
    PCIE_GENERATION_MAX: Gauge None "citadel_gpu_pcie_link_max_generation" ["gpu", "index", "name"]
        "Highest PCIe generation that the GPU and the host can have together.";
    PCIE_WIDTH: Gauge None "citadel_gpu_pcie_link_width" ["gpu", "index", "name"]
        "PCIe lanes now.";
    PCIE_WIDTH_MAX: Gauge None "citadel_gpu_pcie_link_max_width" ["gpu", "index", "name"]
        "Most PCIe lanes that the GPU and the host can have together.";
    PCIE_ERRORS: Counter(Before) None "citadel_gpu_pcie_errors_total" ["gpu", "index", "name", "kind"]
        "PCIe errors as the GPU counts them; some count the same error twice.";
    PCIE_REPLAYS: Counter(Before) None "citadel_gpu_pcie_replays_total" ["gpu", "index", "name"]
        "PCIe packets that were sent again.";
    NVLINK_BYTES: Counter(Before) Bytes "citadel_gpu_nvlink_bytes_total" ["gpu", "index", "name", "link", "direction"]
        "Payload over an NVLink, in whole KiB; absent while it is down.";
    NVLINK_RAW_BYTES: Counter(Before) Bytes "citadel_gpu_nvlink_raw_bytes_total" ["gpu", "index", "name", "link", "direction"]
        "All bytes over an NVLink, overhead included; NVLink 5 (Blackwell) and newer.";
    NVLINK_RATE: Gauge None "citadel_gpu_nvlink_bytes_per_second" ["gpu", "index", "name", "direction"]
        "Traffic of all NVLinks between the last two samples; Hopper and newer (GPM).";
    NVLINK_UP: Gauge None "citadel_gpu_nvlink_up" ["gpu", "index", "name", "link"]
        "1 if the NVLink is active.";
    NVLINK_VERSION: Gauge None "citadel_gpu_nvlink_version" ["gpu", "index", "name", "link"]
        "Version of an active NVLink, such as 4 (Hopper) or 5 (Blackwell).";
    NVLINK_SPEED: Gauge None "citadel_gpu_nvlink_speed_bytes_per_second" ["gpu", "index", "name", "link"]
        "Speed of an active NVLink.";
    NVLINK_ERRORS: Counter(Before) None "citadel_gpu_nvlink_errors_total" ["gpu", "index", "name", "link", "kind"]
        "Errors of an NVLink: replay, recovery and crc up to Hopper; of NVLink 5 (Blackwell) others.";
    NVLINK_RECOVERIES: Counter(Before) None "citadel_gpu_nvlink_recoveries_total" ["gpu", "index", "name", "link", "result"]
        "How often an NVLink went into recovery: successful, or failed, after which it is down; NVLink 5 and newer.";
    NVLINK_BER: Gauge Ratio "citadel_gpu_nvlink_bit_error_ratio" ["gpu", "index", "name", "link", "kind"]
        "Bit error rate of an NVLink: effective (after correction) and symbol; NVLink 5 and newer.";
    NVLINK_BLOCKS: Counter(Before) None "citadel_gpu_nvlink_blocks_total" ["gpu", "index", "name", "link", "kind"]
        "Blocks that the physical layer of an NVLink transmitted and retransmitted; where the driver has it.";
    NVLINK_FEC: Counter(Before) None "citadel_gpu_nvlink_fec_errors_total" ["gpu", "index", "name", "link", "bin"]
        "Symbol errors that forward error correction corrected, by the driver's bins; NVLink 5 and newer, with gpu.nvlink_fec.";
    FABRIC_STATE: Gauge None "citadel_gpu_fabric_state" ["gpu", "index", "name", "state"]
        "1 for the state of the GPU's registration with the NVLink fabric: not_started, in_progress, completed; Hopper and newer.";
    FABRIC_REGISTERED: Gauge None "citadel_gpu_fabric_registered" ["gpu", "index", "name"]
        "1 if the completed registration with the NVLink fabric succeeded.";
    FABRIC_HEALTH: Gauge None "citadel_gpu_fabric_health" ["gpu", "index", "name", "health"]
        "1 for the health of the GPU's part of the fabric: healthy, unhealthy, limited_capacity.";
    FABRIC_PROBLEM: Gauge None "citadel_gpu_fabric_problem" ["gpu", "index", "name", "problem"]
        "1 while the GPU's part of the fabric has this problem.";
    C2C_UP: Gauge None "citadel_gpu_c2c_link_up" ["gpu", "index", "name", "link"]
        "1 if the chip-to-chip link to the CPU is active (Grace).";
    C2C_SPEED: Gauge None "citadel_gpu_c2c_link_speed_bytes_per_second" ["gpu", "index", "name", "link"]
        "Highest speed of an active chip-to-chip link.";
    C2C_ERRORS: Counter(Before) None "citadel_gpu_c2c_errors_total" ["gpu", "index", "name", "link", "kind"]
        "Errors of a chip-to-chip link: crc, replay, replay_back_to_back.";
    C2C_RATE: Gauge None "citadel_gpu_c2c_bytes_per_second" ["gpu", "index", "name", "direction"]
        "Traffic of all chip-to-chip links between the last two samples (GPM).";
    XID_ERRORS: Counter(Start, beside UP) None "citadel_gpu_xid_errors_total" ["gpu", "index", "name", "xid"]
        "Xid errors since the agent started, from NVML's events and the kernel's log, each counted once. Numbers that the driver does not have are other.";
    XID_REFUSED: Counter(Start) None "citadel_gpu_xid_lines_refused_total" ["reason"]
        "Lines of the kernel's log that read like an Xid and did not count: not the driver's, or of no GPU of this host.";
    FALLEN: Counter(Start, beside UP) None "citadel_gpu_fallen_off_bus_total" ["gpu", "index", "name", "pci_bus_id"]
        "How often the kernel's log has said that the GPU has fallen off the bus, since the agent started.";
    KMSG_LOST: Counter(Start) None "citadel_gpu_kmsg_records_lost_total" []
        "Records of the kernel's log that were overwritten before they were read for Xid errors.";
    PROCESS_MEMORY: Gauge Bytes "citadel_gpu_process_memory_bytes" ["gpu", "index", "name", "pid", "model"]
        "Device memory of a process; model is empty where the process is no model's.";
    PROCESS_CODEC: Gauge Ratio "citadel_gpu_process_codec_ratio" ["gpu", "index", "name", "pid", "model", "engine"]
        "Part of the time of the video encoders and decoders that a process had; absent while it has none.";
    SHARING: Gauge None "citadel_gpu_sharing_info" ["gpu", "index", "name", "sharing"]
        "Always 1; how processes share the GPU: none (one or no process computes), time_slicing, mps, mig.";
    MIG_INFO: Gauge None "citadel_gpu_mig_info" ["gpu", "index", "name", "gi", "ci", "uuid", "profile"]
        "Always 1; one series a MIG device.";
    MIG_MEMORY_USED: Gauge Bytes "citadel_gpu_mig_memory_used_bytes" ["gpu", "index", "name", "gi", "ci"]
        "Allocated memory of a MIG device.";
    MIG_MEMORY_TOTAL: Gauge Bytes "citadel_gpu_mig_memory_total_bytes" ["gpu", "index", "name", "gi", "ci"]
        "Memory of a MIG device.";
    MIG_UTILIZATION: Gauge Ratio "citadel_gpu_mig_utilization_ratio" ["gpu", "index", "name", "gi", "ci"]
        "Part of the SMs' time in which the GPU instance ran a kernel; Hopper and newer.";
    SUSPENDED: Gauge None "citadel_gpu_suspended" ["pci_bus_id"]
        "Always 1; a GPU that sleeps (runtime power management) and is left alone.";
    MISSING: Gauge None "citadel_gpu_missing" ["pci_bus_id"]
        "Always 1; an NVIDIA GPU on the PCI bus, of no other driver, that NVML does not list.";
    RELEASED: Gauge None "citadel_gpu_released" []
        "1 while NVML is closed by order of `citadel-agent gpu release`.";
    NVML_CALL: Histogram<Calls> Seconds "citadel_gpu_nvml_call_seconds" ["call"]
        "How long calls of NVML took.";
    NVML_ERRORS: Counter(Start) None "citadel_gpu_nvml_errors_total" ["call"]
        "Calls of NVML that failed for another reason than that the GPU has no such thing.";
    NVML_REFUSED: Counter(Start) None "citadel_gpu_nvml_values_refused_total" ["call"]
        "Values of NVML that are impossible (2619 %, 2^32-1 W) and were left out.";
    SAMPLES: Counter(Start) None "citadel_gpu_samples_total" []
        "Sampling passes over all GPUs.";
    SAMPLER_CPU: Counter(Start) Seconds "citadel_gpu_sampler_cpu_seconds_total" []
        "CPU time of the thread that samples the GPUs.";
}
