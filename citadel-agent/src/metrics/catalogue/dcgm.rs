//! The default metrics of NVIDIA's dcgm-exporter, for dashboards and rules that are written for it: its names, labels,
//! types and units (`etc/default-counters.csv`; values as DCGM's `DcgmCacheManager.cpp` computes them). On `/metrics/gpu`
//! with `gpu.dcgm_compat`, from the same samples as ours.
//!
//! An empty label is one that is not there, to Prometheus: `GPU_I_*` are set for MIG devices alone.

use super::{Desc, Kind, Section, Since, Unit};

/// As [`catalogue!`], with the labels that all of these have.
macro_rules! dcgm {
    ($($id:ident: $kind:ident $(($since:ident))? $name:literal $help:literal;)*) => {
        catalogue! {
            Gpu;
            $($id: $kind $(($since))? None $name [
                "gpu", "UUID", "pci_bus_id", "device", "modelName", "GPU_I_PROFILE", "GPU_I_ID", "Hostname",
                "DCGM_FI_DRIVER_VERSION"
            ] $help;)*
        }
    };
}

dcgm! {
    SM_CLOCK: Gauge "DCGM_FI_DEV_SM_CLOCK" "SM clock in MHz.";
    MEM_CLOCK: Gauge "DCGM_FI_DEV_MEM_CLOCK" "Memory clock in MHz.";
    MEMORY_TEMP: Gauge "DCGM_FI_DEV_MEMORY_TEMP" "Memory temperature in degrees Celsius.";
    GPU_TEMP: Gauge "DCGM_FI_DEV_GPU_TEMP" "GPU temperature in degrees Celsius.";
    POWER_USAGE: Gauge "DCGM_FI_DEV_POWER_USAGE" "Power in watts.";
    TOTAL_ENERGY: Counter(Before) "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION" "Energy since the driver was loaded, in mJ.";
    PCIE_REPLAY: Counter(Before) "DCGM_FI_DEV_PCIE_REPLAY_COUNTER" "PCIe packets that were sent again.";
    GPU_UTIL: Gauge "DCGM_FI_DEV_GPU_UTIL" "GPU utilization in percent.";
    MEM_COPY_UTIL: Gauge "DCGM_FI_DEV_MEM_COPY_UTIL" "Memory utilization in percent.";
    ENC_UTIL: Gauge "DCGM_FI_DEV_ENC_UTIL" "Encoder utilization in percent.";
    DEC_UTIL: Gauge "DCGM_FI_DEV_DEC_UTIL" "Decoder utilization in percent.";
    XID: Gauge "DCGM_FI_DEV_XID_ERRORS" "The newest Xid, 0 before the first.";
    FB_FREE: Gauge "DCGM_FI_DEV_FB_FREE" "Free device memory in MiB.";
    FB_USED: Gauge "DCGM_FI_DEV_FB_USED" "Allocated device memory in MiB.";
    FB_RESERVED: Gauge "DCGM_FI_DEV_FB_RESERVED" "Device memory that the driver keeps, in MiB.";
    NVLINK_BANDWIDTH: Counter(Before) "DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL" "NVLink traffic of all links and both directions in MB a second: a rate, in spite of its name and type.";
    VGPU_LICENSE: Gauge "DCGM_FI_DEV_VGPU_LICENSE_STATUS" "1 if the GPU has a vGPU licence.";
    UNCORRECTABLE_ROWS: Counter(Lifetime) "DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS" "Rows remapped for uncorrectable errors.";
    CORRECTABLE_ROWS: Counter(Lifetime) "DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS" "Rows remapped for correctable errors.";
    ROW_REMAP_FAILURE: Gauge "DCGM_FI_DEV_ROW_REMAP_FAILURE" "1 if remapping a row has failed.";
    GR_ENGINE_ACTIVE: Gauge "DCGM_FI_PROF_GR_ENGINE_ACTIVE" "Part of the time in which the graphics engine was active.";
    TENSOR_ACTIVE: Gauge "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE" "Part of the cycles in which a tensor pipe was active.";
    DRAM_ACTIVE: Gauge "DCGM_FI_PROF_DRAM_ACTIVE" "Part of the cycles in which device memory moved data.";
    PCIE_TX: Gauge "DCGM_FI_PROF_PCIE_TX_BYTES" "PCIe bytes a second, transmitted.";
    PCIE_RX: Gauge "DCGM_FI_PROF_PCIE_RX_BYTES" "PCIe bytes a second, received.";
}
