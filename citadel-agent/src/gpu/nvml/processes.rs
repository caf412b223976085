//! The processes on a GPU: their memory and SM time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use nvml_wrapper::Device;
use nvml_wrapper::enums::device::UsedGpuMemory;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::struct_wrappers::device::{ProcessInfo, ProcessUtilizationSample};

use super::calls::{Calls, Gone};
use super::limits::PERCENT;
use crate::discovery::inventory::Pid;
use crate::gpu::sample::{Process, Sharing};

/// A function of NVML that lists processes, and the wrapper's call.
type List<'n> = (&'static str, fn(&Device<'n>) -> Result<Vec<ProcessInfo>, NvmlError>);

/// A process's samples since the last pass: sums of percentages, their number, and the number of impossible ones.
#[derive(Clone, Copy, Default)]
struct Sum {
    sm: u64,
    codecs: [u64; 2],
    count: u32,
    impossible: u32,
}

/// The result.
pub(super) struct Found {
    pub(super) processes: Vec<Process>,
    /// How the GPU is shared; `None` if the driver lists no compute processes.
    pub(super) sharing: Option<Sharing>,
}

/// Reads all processes. `seen` is the timestamp of the newest utilization sample so far, which is updated; `most` is
/// the maximum memory of a process.
pub(super) fn read<'n>(
    calls: &mut Calls,
    gpu: &Arc<str>,
    device: &Device<'n>,
    seen: &mut u64,
    most: u64,
) -> Result<Found, Gone> {
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
    let mut listed = [None; 3];
    for (versions, listed) in lists.into_iter().zip(&mut listed) {
        for (call, list) in versions {
            if let Some(found) = calls.ask(gpu, call, 0, || list(device))? {
                *listed = Some(found.iter().map(|info| info.pid).collect::<BTreeSet<_>>().len());
                infos.extend(found.into_iter().map(|info| plausible(calls, call, info, most)));
                break;
            }
        }
    }
    const UTILIZATION: &str = "nvmlDeviceGetProcessUtilization";
    // No samples since the last one means that no process used the SMs.
    let samples = calls.ask(gpu, UTILIZATION, 0, || match device.process_utilization_stats(*seen) {
        Err(NvmlError::NotFound) => Ok(Vec::new()),
        result => result,
    })?;
    *seen = samples.iter().flatten().map(|sample| sample.timestamp).fold(*seen, u64::max);
    let sums = samples.map(|samples| sum(samples, |value| calls.sane(UTILIZATION, "", Some(value), &PERCENT)));
    let mig = infos.iter().any(|info| info.gpu_instance_id.is_some());
    let [compute, _, mps] = listed;
    let sharing = compute.map(|compute| match (mps, compute) {
        _ if mig => Sharing::Mig,
        (Some(1..), _) => Sharing::Mps,
        (_, 2..) => Sharing::TimeSlicing,
        _ => Sharing::None,
    });
    Ok(Found { processes: merge(&infos, sums.as_ref()), sharing })
}

/// If a process has more memory than exists, its memory is unknown.
fn plausible(calls: &mut Calls, call: &'static str, mut info: ProcessInfo, most: u64) -> ProcessInfo {
    if let UsedGpuMemory::Used(bytes) = info.used_gpu_memory
        && calls.sane(call, "memory", Some(bytes), &(0..=most)).is_none()
    {
        info.used_gpu_memory = UsedGpuMemory::Unavailable;
    }
    info
}

/// Sums samples by process. A sample with an impossible percentage is ignored: some drivers return garbage for new
/// processes.
fn sum(samples: Vec<ProcessUtilizationSample>, mut sane: impl FnMut(u32) -> Option<u32>) -> BTreeMap<Pid, Sum> {
    let mut sums: BTreeMap<Pid, Sum> = BTreeMap::new();
    // Process 0 marks an unused entry.
    for sample in samples.into_iter().filter(|sample| sample.pid != 0) {
        let sum = sums.entry(sample.pid).or_default();
        match [sample.sm_util, sample.enc_util, sample.dec_util].map(&mut sane) {
            [Some(sm), Some(encoder), Some(decoder)] => {
                sum.sm += u64::from(sm);
                sum.codecs[0] += u64::from(encoder);
                sum.codecs[1] += u64::from(decoder);
                sum.count += 1;
            }
            _ => sum.impossible += 1,
        }
    }
    sums
}

/// One entry per process and MIG device: a process with compute and graphics, or an MPS client, is in several lists
/// with the same memory. `sums` is `None` if the driver does not report SM time.
fn merge(infos: &[ProcessInfo], sums: Option<&BTreeMap<Pid, Sum>>) -> Vec<Process> {
    let average = |sum: u64, count: u32| sum as f64 / f64::from(count);
    // No samples means 0; only impossible samples means unknown.
    let used = |pid: &Pid| match sums?.get(pid).copied().unwrap_or_default() {
        Sum { count: 0, impossible: 1.., .. } => None,
        Sum { count: 0, .. } => Some((0.0, [0.0; 2])),
        Sum { sm, codecs, count, .. } => Some((average(sm, count), codecs.map(|sum| average(sum, count)))),
    };
    let process = |pid: Pid, mig| {
        let used = used(&pid);
        Process { pid, memory: None, sm: used.map(|(sm, _)| sm), codecs: used.map(|(_, codecs)| codecs), mig }
    };
    let mut merged: BTreeMap<(Pid, Option<(u32, u32)>), Process> = BTreeMap::new();
    for info in infos {
        let mig = info.gpu_instance_id.zip(info.compute_instance_id);
        let memory = match info.used_gpu_memory {
            UsedGpuMemory::Used(bytes) => Some(bytes),
            UsedGpuMemory::Unavailable => None,
        };
        let process = merged.entry((info.pid, mig)).or_insert_with(|| process(info.pid, mig));
        process.memory = process.memory.max(memory);
    }
    // Was active since the last pass and has exited, or is in no list.
    for &pid in sums.into_iter().flat_map(BTreeMap::keys) {
        if merged.range((pid, None)..=(pid, Some((u32::MAX, u32::MAX)))).next().is_none() {
            merged.insert((pid, None), process(pid, None));
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
        Process { pid, memory, sm, codecs: sm.map(|_| [0.0; 2]), mig: None }
    }

    #[test]
    fn a_process_on_several_lists_is_one() {
        let infos = [info(1, Some(100)), info(2, None), info(1, Some(100)), info(2, Some(5))];
        assert_eq!(merge(&infos, None), [process(1, Some(100), None), process(2, Some(5), None)]);
    }

    fn sums(samples: Vec<ProcessUtilizationSample>) -> BTreeMap<Pid, Sum> {
        sum(samples, |percent| PERCENT.contains(&percent).then_some(percent))
    }

    #[test]
    fn samples_of_a_process_are_averaged_and_silence_is_zero() {
        let sums = sums(vec![sample(1, 20), sample(1, 40), sample(0, 99), sample(9, 7)]);
        assert_eq!(
            merge(&[info(1, Some(1)), info(2, Some(2))], Some(&sums)),
            [
                process(1, Some(1), Some(30.0)),
                process(2, Some(2), Some(0.0)),
                // It is on no list any more, but it had its time.
                process(9, None, Some(7.0)),
            ]
        );
    }

    #[test]
    fn impossible_samples_are_not_brought_into_range() {
        let sums = sums(vec![sample(1, 20), sample(1, 2619), sample(2, u32::MAX)]);
        assert_eq!(
            merge(&[info(1, Some(1)), info(2, Some(2))], Some(&sums)),
            [process(1, Some(1), Some(20.0)), process(2, Some(2), None)]
        );
    }
}
