//! The processes on a GPU: who holds memory, and who had the SMs.

use std::collections::BTreeMap;
use std::sync::Arc;

use nvml_wrapper::Device;
use nvml_wrapper::enums::device::UsedGpuMemory;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::struct_wrappers::device::{ProcessInfo, ProcessUtilizationSample};

use super::calls::{Calls, Gone};
use crate::discovery::inventory::Pid;
use crate::gpu::sample::Process;

/// A function of NVML that lists processes, and the wrapper's call of it.
type List<'n> = (&'static str, fn(&Device<'n>) -> Result<Vec<ProcessInfo>, NvmlError>);

/// Reads all processes. `seen` is the time of the newest utilization sample so far, which is moved on.
pub(super) fn read<'n>(
    calls: &mut Calls,
    gpu: &Arc<str>,
    device: &Device<'n>,
    seen: &mut u64,
) -> Result<Vec<Process>, Gone> {
    // The second versions are for drivers before R510, which have no list for MPS.
    let lists: [&[List<'n>]; 3] = [
        &[
            ("nvmlDeviceGetComputeRunningProcesses_v3", Device::running_compute_processes),
            ("nvmlDeviceGetComputeRunningProcesses_v2", Device::running_compute_processes_v2),
        ],
        &[
            ("nvmlDeviceGetGraphicsRunningProcesses_v3", Device::running_graphics_processes),
            ("nvmlDeviceGetGraphicsRunningProcesses_v2", Device::running_graphics_processes_v2),
        ],
        &[("nvmlDeviceGetMPSComputeRunningProcesses_v3", Device::mps_running_compute_processes)],
    ];
    let mut infos = Vec::new();
    for versions in lists {
        for (call, list) in versions {
            if let Some(found) = calls.ask(gpu, call, 0, || list(device))? {
                infos.extend(found);
                break;
            }
        }
    }
    const UTILIZATION: &str = "nvmlDeviceGetProcessUtilization";
    // No sample since the last one is an answer: nobody had the SMs.
    let samples = calls.ask(gpu, UTILIZATION, 0, || match device.process_utilization_stats(*seen) {
        Err(NvmlError::NotFound) => Ok(Vec::new()),
        result => result,
    })?;
    *seen = samples.iter().flatten().map(|sample| sample.timestamp).fold(*seen, u64::max);
    Ok(merge(&infos, samples.as_deref()))
}

/// One entry a process and MIG device: a process that computes and draws, or an MPS client, is on several lists with the
/// same memory. `samples` is `None` where the driver cannot tell who had the SMs.
fn merge(infos: &[ProcessInfo], samples: Option<&[ProcessUtilizationSample]>) -> Vec<Process> {
    let mut sums: BTreeMap<Pid, (u64, u32)> = BTreeMap::new();
    // Process 0 is the driver's word for a slot that nobody is in.
    for sample in samples.unwrap_or_default().iter().filter(|sample| sample.pid != 0) {
        let (sum, count) = sums.entry(sample.pid).or_default();
        // A percentage; some drivers give garbage to processes that have just begun.
        *sum += u64::from(sample.sm_util.min(100));
        *count += 1;
    }
    let sm = |pid| samples.map(|_| sums.get(&pid).map_or(0.0, |&(sum, count)| sum as f64 / f64::from(count)));

    let mut merged: BTreeMap<(Pid, Option<(u32, u32)>), Process> = BTreeMap::new();
    for info in infos {
        let mig = info.gpu_instance_id.zip(info.compute_instance_id);
        let memory = match info.used_gpu_memory {
            UsedGpuMemory::Used(bytes) => Some(bytes),
            UsedGpuMemory::Unavailable => None,
        };
        let process = merged.entry((info.pid, mig)).or_insert_with(|| Process {
            pid: info.pid,
            memory: None,
            sm: sm(info.pid),
            mig,
        });
        process.memory = process.memory.max(memory);
    }
    // Ran since the last pass and has left, or is on no list.
    for &pid in sums.keys() {
        if merged.range((pid, None)..=(pid, Some((u32::MAX, u32::MAX)))).next().is_none() {
            merged.insert((pid, None), Process { pid, memory: None, sm: sm(pid), mig: None });
        }
    }
    merged.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(pid: u32, bytes: Option<u64>) -> ProcessInfo {
        let used_gpu_memory = bytes.map_or(UsedGpuMemory::Unavailable, UsedGpuMemory::Used);
        ProcessInfo { pid, used_gpu_memory, gpu_instance_id: None, compute_instance_id: None }
    }

    fn sample(pid: u32, sm_util: u32) -> ProcessUtilizationSample {
        ProcessUtilizationSample { pid, timestamp: 1, sm_util, mem_util: 0, enc_util: 0, dec_util: 0 }
    }

    fn process(pid: u32, memory: Option<u64>, sm: Option<f64>) -> Process {
        Process { pid, memory, sm, mig: None }
    }

    #[test]
    fn a_process_on_several_lists_is_one() {
        let infos = [info(1, Some(100)), info(2, None), info(1, Some(100)), info(2, Some(5))];
        assert_eq!(merge(&infos, None), [process(1, Some(100), None), process(2, Some(5), None)]);
    }

    #[test]
    fn samples_of_a_process_are_averaged_and_silence_is_zero() {
        let samples = [sample(1, 20), sample(1, 40), sample(0, 99), sample(9, 7), sample(1, 4_000_000_000)];
        assert_eq!(
            merge(&[info(1, Some(1)), info(2, Some(2))], Some(&samples)),
            [
                process(1, Some(1), Some(160.0 / 3.0)),
                process(2, Some(2), Some(0.0)),
                // It is on no list any more, but it had its time.
                process(9, None, Some(7.0)),
            ]
        );
    }
}
