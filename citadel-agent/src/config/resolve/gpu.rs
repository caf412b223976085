//! `gpu`.

use crate::config::mistakes::Mistakes;
use crate::config::resolved::Gpu;
use crate::config::section::Section;
use crate::config::value;

pub(super) fn gpu(section: &Section<'_>, defaults: &Gpu, mistakes: &mut Mistakes) -> Option<Gpu> {
    let enabled = section.read("enabled", defaults.enabled, value::boolean, mistakes);
    let sampling_interval = section.read("sampling_interval", defaults.sampling_interval, value::interval, mistakes);
    let dcgm_compat = section.read("dcgm_compat", defaults.dcgm_compat, value::dcgm_release, mistakes);
    let pcie_throughput = section.read("pcie_throughput", defaults.pcie_throughput, value::boolean, mistakes);
    let nvlink_fec = section.read("nvlink_fec", defaults.nvlink_fec, value::boolean, mistakes);
    let nvml_library = section.optional("nvml_library", value::absolute_path, mistakes);
    Some(Gpu {
        enabled: enabled?.value,
        sampling_interval: sampling_interval?.value,
        dcgm_compat: dcgm_compat?.value,
        pcie_throughput: pcie_throughput?.value,
        nvlink_fec: nvlink_fec?.value,
        nvml_library: nvml_library?,
    })
}
