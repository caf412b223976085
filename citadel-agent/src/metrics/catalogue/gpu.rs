//! GPUs: `/metrics/gpu`.

use super::{Desc, Kind, Section, Since, Unit};

catalogue! {
    Gpu;

    UP: Gauge None "citadel_gpu_up" ["gpu", "index", "name"]
        "1 if the GPU answered within the last samples, 0 if it is lost or NVML does not answer.";
    INFO: Gauge None "citadel_gpu_info" ["gpu", "index", "name", "driver", "cuda", "vbios", "pci_bus_id", "serial"]
        "Always 1; the labels say what the GPU and its driver are.";
    UTILIZATION: Gauge Ratio "citadel_gpu_utilization_ratio" ["gpu", "index", "name"]
        "Part of the driver's last period in which any kernel ran; absent in MIG mode.";
    MEMORY_USED: Gauge Bytes "citadel_gpu_memory_used_bytes" ["gpu", "index", "name"]
        "Allocated device memory, without what the driver keeps for itself where it says so (R510 and newer).";
    MEMORY_TOTAL: Gauge Bytes "citadel_gpu_memory_total_bytes" ["gpu", "index", "name"]
        "Installed device memory.";
    MEMORY_UTILIZATION: Gauge Ratio "citadel_gpu_memory_utilization_ratio" ["gpu", "index", "name"]
        "Part of the driver's last period in which device memory was read or written; absent in MIG mode.";
    POWER: Gauge Watts "citadel_gpu_power_watts" ["gpu", "index", "name"]
        "Power as the driver last averaged it; energy is the more exact of the two.";
    POWER_LIMIT: Gauge Watts "citadel_gpu_power_limit_watts" ["gpu", "index", "name"]
        "Enforced power limit.";
    ENERGY: Counter(Before) Joules "citadel_gpu_energy_joules_total" ["gpu", "index", "name"]
        "Energy since the driver was loaded, as the GPU counts it.";
    TEMPERATURE: Gauge Celsius "citadel_gpu_temperature_celsius" ["gpu", "index", "name", "sensor"]
        "Temperature by sensor: gpu, memory, and margin, which is the distance of the gpu to its slowdown.";
    FAN: Gauge Ratio "citadel_gpu_fan_ratio" ["gpu", "index", "name", "fan"]
        "Intended fan speed, as a part of the fastest.";
    CLOCK: Gauge Hertz "citadel_gpu_clock_hertz" ["gpu", "index", "name", "clock"]
        "Current clock: graphics, sm, memory, video.";
    THROTTLE_ACTIVE: Gauge None "citadel_gpu_throttle_active" ["gpu", "index", "name", "reason"]
        "1 while clocks are held down for this reason. Reasons that this version has no name for are their bit in hex.";
    THROTTLE_SECONDS: Counter(Before) Seconds "citadel_gpu_throttle_seconds_total" ["gpu", "index", "name", "reason"]
        "Time for which clocks were held down for this reason, since the driver was loaded.";
    ECC_ERRORS: Counter(Lifetime) None "citadel_gpu_ecc_errors_total" ["gpu", "index", "name", "kind", "location"]
        "ECC errors over the board's lifetime: corrected and uncorrected.";
    REMAPPED_ROWS: Gauge None "citadel_gpu_remapped_rows" ["gpu", "index", "name", "kind"]
        "Memory rows remapped for correctable and uncorrectable errors; 1 if a remapping is pending or has failed.";
    PCIE_BYTES: Counter(Start) Bytes "citadel_gpu_pcie_bytes_total" ["gpu", "index", "name", "direction"]
        "PCIe traffic since the agent started. From the GPU's own counters on Hopper and newer; before, if gpu.pcie_throughput is set, an estimate from samples.";
    PCIE_REPLAYS: Counter(Before) None "citadel_gpu_pcie_replays_total" ["gpu", "index", "name"]
        "PCIe packets that were sent again.";
    NVLINK_BYTES: Counter(Before) Bytes "citadel_gpu_nvlink_bytes_total" ["gpu", "index", "name", "link", "direction"]
        "Payload over an NVLink, in whole KiB.";
    NVLINK_ERRORS: Counter(Before) None "citadel_gpu_nvlink_errors_total" ["gpu", "index", "name", "link", "kind"]
        "Errors of an NVLink: replay, recovery, crc.";
    XID_ERRORS: Counter(Start, beside UP) None "citadel_gpu_xid_errors_total" ["gpu", "index", "name", "xid"]
        "Xid errors since the agent started, from NVML's events and the kernel's log, each counted once.";
    KMSG_LOST: Counter(Start) None "citadel_gpu_kmsg_records_lost_total" []
        "Records of the kernel's log that were overwritten before they were read for Xid errors.";
    PROCESS_MEMORY: Gauge Bytes "citadel_gpu_process_memory_bytes" ["gpu", "index", "name", "pid", "model"]
        "Device memory of a process; model is empty where the process is no model's.";
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
    RELEASED: Gauge None "citadel_gpu_released" []
        "1 while NVML is closed by order of `citadel-agent gpu release`.";
    NVML_CALL: Histogram Seconds "citadel_gpu_nvml_call_seconds" ["call"]
        "How long calls of NVML took.";
    NVML_ERRORS: Counter(Start) None "citadel_gpu_nvml_errors_total" ["call"]
        "Calls of NVML that failed for another reason than that the GPU has no such thing.";
    SAMPLES: Counter(Start) None "citadel_gpu_samples_total" []
        "Sampling passes over all GPUs.";
    SAMPLER_CPU: Counter(Start) Seconds "citadel_gpu_sampler_cpu_seconds_total" []
        "CPU time of the thread that samples the GPUs.";
}
