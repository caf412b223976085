//! The default metrics of NVIDIA's dcgm-exporter, for dashboards and rules written for it: names, labels, types and
//! units of the release that `gpu.dcgm_compat` selects. On `/metrics/gpu`, from the same samples as the agent's own.
//!
//! - 4.8 (`etc/default-counters.csv` of 4.8.2 to 4.8.4; values as computed by DCGM's `DcgmCacheManager.cpp`). The label
//!   `hostname` and the gauge `NVLINK_BANDWIDTH_TOTAL` are those of 4.8.3, the first release with DCGM 4.6.
//! - 4.9 (its release notes; names from DCGM 4.7's `dcgm_fields.h`): 23 new names, eleven of them with another unit,
//!   and the memory capacity.
//!
//! For Prometheus, an empty label is an absent one: `GPU_I_*` are set only for MIG devices, and of the two labels for
//! the driver's version only the one of the release.

use super::{Desc, Kind, Section, Since, Unit};

/// Like [`catalogue!`], with the labels that all of these metrics have.
macro_rules! dcgm {
    ($($id:ident: $kind:ident $(($since:ident))? $name:literal $([$more:literal])* $help:literal;)*) => {
        catalogue! {
            Gpu;
            $($id: $kind $(($since))? None $name [
                "gpu", "UUID", "pci_bus_id", "device", "modelName", "GPU_I_PROFILE", "GPU_I_ID", "hostname",
                "DCGM_FI_DRIVER_VERSION", "DCGM_FI_SYSTEM_DRIVER_VERSION" $(, $more)*
            ] $help;)*
        }
    };
}

dcgm! {
    SM_CLOCK: Gauge "DCGM_FI_DEV_SM_CLOCK" "SM clock in MHz.";
    SM_CLOCK_HERTZ: Gauge "DCGM_FI_DEV_SM_CLOCK_HERTZ" "SM clock in Hz (4.9).";
    MEM_CLOCK: Gauge "DCGM_FI_DEV_MEM_CLOCK" "Memory clock in MHz.";
    MEMORY_CLOCK_HERTZ: Gauge "DCGM_FI_DEV_MEMORY_CLOCK_HERTZ" "Memory clock in Hz (4.9).";
    MEMORY_TEMP: Gauge "DCGM_FI_DEV_MEMORY_TEMP" "Memory temperature in degrees Celsius.";
    MEMORY_TEMP_CELSIUS: Gauge "DCGM_FI_DEV_MEMORY_TEMP_CELSIUS" "Memory temperature in degrees Celsius (4.9).";
    GPU_TEMP: Gauge "DCGM_FI_DEV_GPU_TEMP" "GPU temperature in degrees Celsius.";
    GPU_TEMP_CELSIUS: Gauge "DCGM_FI_DEV_GPU_TEMP_CELSIUS" "GPU temperature in degrees Celsius (4.9).";
    POWER_USAGE: Gauge "DCGM_FI_DEV_POWER_USAGE" "Power in watts.";
    BOARD_POWER_WATTS: Gauge "DCGM_FI_DEV_BOARD_POWER_WATTS" "Power in watts (4.9).";
    TOTAL_ENERGY: Counter(Before) "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION" "Energy since the driver was loaded, in mJ.";
    ENERGY_JOULES: Counter(Before) "DCGM_FI_DEV_GPU_ENERGY_JOULES_TOTAL" "Energy since the driver was loaded, in whole joules (4.9).";
    PCIE_REPLAY: Counter(Before) "DCGM_FI_DEV_PCIE_REPLAY_COUNTER" "PCIe packets that were retransmitted.";
    PCIE_REPLAY_TOTAL: Counter(Before) "DCGM_FI_DEV_PCIE_REPLAY_TOTAL" "PCIe packets that were retransmitted (4.9).";
    GPU_UTIL: Gauge "DCGM_FI_DEV_GPU_UTIL" "GPU utilization in percent.";
    GPU_UTIL_RATIO: Gauge "DCGM_FI_DEV_GPU_UTIL_RATIO" "GPU utilization as a fraction (4.9).";
    MEM_COPY_UTIL: Gauge "DCGM_FI_DEV_MEM_COPY_UTIL" "Memory utilization in percent.";
    MEMORY_UTIL_RATIO: Gauge "DCGM_FI_DEV_MEMORY_UTIL_RATIO" "Memory utilization as a fraction (4.9).";
    ENC_UTIL: Gauge "DCGM_FI_DEV_ENC_UTIL" "Encoder utilization in percent.";
    ENC_UTIL_RATIO: Gauge "DCGM_FI_DEV_ENC_UTIL_RATIO" "Encoder utilization as a fraction (4.9).";
    DEC_UTIL: Gauge "DCGM_FI_DEV_DEC_UTIL" "Decoder utilization in percent.";
    DEC_UTIL_RATIO: Gauge "DCGM_FI_DEV_DEC_UTIL_RATIO" "Decoder utilization as a fraction (4.9).";
    XID_ERRORS: Gauge "DCGM_FI_DEV_XID_ERRORS" ["err_code"] ["err_msg"] "Most recent Xid error, 0 if there was none; also exported for a lost GPU.";
    XID_ERROR: Gauge "DCGM_FI_DEV_XID_ERROR" ["err_code"] ["err_msg"] "Most recent Xid error, 0 if there was none; also exported for a lost GPU (4.9).";
    FB_FREE: Gauge "DCGM_FI_DEV_FB_FREE" "Free device memory in MiB.";
    FB_FREE_BYTES: Gauge "DCGM_FI_DEV_FB_FREE_BYTES" "Free device memory in bytes (4.9).";
    FB_USED: Gauge "DCGM_FI_DEV_FB_USED" "Allocated device memory in MiB.";
    FB_USED_BYTES: Gauge "DCGM_FI_DEV_FB_USED_BYTES" "Allocated device memory in bytes (4.9).";
    FB_RESERVED: Gauge "DCGM_FI_DEV_FB_RESERVED" "Device memory reserved by the driver, in MiB.";
    FB_RESERVED_BYTES: Gauge "DCGM_FI_DEV_FB_RESERVED_BYTES" "Device memory reserved by the driver, in bytes (4.9).";
    FB_CAPACITY_BYTES: Gauge "DCGM_FI_DEV_FB_CAPACITY_BYTES" "Device memory in bytes (4.9).";
    NVLINK_BANDWIDTH: Gauge "DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL" "NVLink traffic of all links in both directions, in MB per second; a rate, despite the name.";
    NVLINK_BYTES: Gauge "DCGM_FI_DEV_NVLINK_THROUGHPUT_BYTES_PER_SECOND" "NVLink traffic of all links in both directions, in bytes per second (4.9).";
    VGPU_LICENSE: Gauge "DCGM_FI_DEV_VGPU_LICENSE_STATUS" "1 if the GPU has a vGPU licence.";
    UNCORRECTABLE_ROWS: Counter(Lifetime) "DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS" "Rows remapped for uncorrectable errors.";
    UNCORRECTABLE_TOTAL: Counter(Lifetime) "DCGM_FI_DEV_ROW_REMAP_UNCORRECTABLE_TOTAL" "Rows remapped for uncorrectable errors (4.9).";
    CORRECTABLE_ROWS: Counter(Lifetime) "DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS" "Rows remapped for correctable errors.";
    CORRECTABLE_TOTAL: Counter(Lifetime) "DCGM_FI_DEV_ROW_REMAP_CORRECTABLE_TOTAL" "Rows remapped for correctable errors (4.9).";
    ROW_REMAP_FAILURE: Gauge "DCGM_FI_DEV_ROW_REMAP_FAILURE" "1 if remapping a row has failed.";
    ROW_REMAP_FAILED: Gauge "DCGM_FI_DEV_ROW_REMAP_FAILED" "1 if remapping a row has failed (4.9).";
    GR_ENGINE_ACTIVE: Gauge "DCGM_FI_PROF_GR_ENGINE_ACTIVE" "Fraction of time in which the graphics engine was active.";
    GR_ENGINE_RATIO: Gauge "DCGM_FI_PROF_GR_ENGINE_UTIL_RATIO" "Fraction of time in which the graphics engine was active (4.9).";
    TENSOR_ACTIVE: Gauge "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE" "Fraction of cycles in which a tensor pipe was active.";
    TENSOR_RATIO: Gauge "DCGM_FI_PROF_TENSOR_UTIL_RATIO" "Fraction of cycles in which a tensor pipe was active (4.9).";
    DRAM_ACTIVE: Gauge "DCGM_FI_PROF_DRAM_ACTIVE" "Fraction of cycles in which device memory transferred data.";
    DRAM_RATIO: Gauge "DCGM_FI_PROF_DRAM_UTIL_RATIO" "Fraction of cycles in which device memory transferred data (4.9).";
    PCIE_TX: Gauge "DCGM_FI_PROF_PCIE_TX_BYTES" "PCIe bytes transmitted per second.";
    PCIE_RX: Gauge "DCGM_FI_PROF_PCIE_RX_BYTES" "PCIe bytes received per second.";
}
