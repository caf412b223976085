//! Events in log lines that someone should know about: a table of patterns. Each matches the start of the text of a
//! line, so that text from a request that an engine logs is not counted. Pure.

use regex_lite::Regex;

use super::severity::split;
use crate::config::resolved::logs::SHIPPED_EVENTS;
use crate::gpu::pci;

/// Events of models, and the lines that indicate them. `...`: the text starts with the part before and contains the
/// part after.
const SHIPPED: &[(&str, &[&str])] = &[
    (
        CUDA_OUT_OF_MEMORY,
        &[
            // PyTorch, used by vLLM, SGLang and TGI
            "torch.OutOfMemoryError: CUDA out of memory",
            "torch.cuda.OutOfMemoryError: CUDA out of memory",
            "RuntimeError: CUDA error: out of memory",
            "RuntimeError: CUDA out of memory",
            // llama.cpp, used by Ollama
            "ggml_backend_cuda_buffer_type_alloc_buffer: ...cudaMalloc failed: out of memory",
            "CUDA error: out of memory",
        ],
    ),
    (
        NCCL_TIMEOUT,
        &[
            // PyTorch's watchdog, once per rank
            "Watchdog caught collective operation timeout",
        ],
    ),
    (
        ENGINE_DEAD,
        &[
            // vLLM
            "EngineCore encountered a fatal error",
            "EngineCore failed to start",
            "Engine core proc ...died unexpectedly",
            "vllm.v1.engine.exceptions.EngineDeadError",
            "vllm.engine.async_llm_engine.AsyncEngineDeadError",
            // SGLang
            "Scheduler hit an exception",
            // TGI
            "text_generation_launcher: Shard ...crashed",
            "text_generation_launcher: Shard process was signaled to shutdown",
            // llama.cpp
            "GGML_ASSERT(...) failed",
        ],
    ),
];

/// A GPU ran out of memory.
pub const CUDA_OUT_OF_MEMORY: &str = SHIPPED_EVENTS[0];
/// A collective operation between GPUs timed out.
pub const NCCL_TIMEOUT: &str = SHIPPED_EVENTS[1];
/// The engine died; its server may still answer.
pub const ENGINE_DEAD: &str = SHIPPED_EVENTS[2];
/// The kernel killed a process because memory was exhausted.
pub const OOM_KILL: &str = SHIPPED_EVENTS[3];
/// The driver reported an error of a GPU.
pub const XID: &str = SHIPPED_EVENTS[4];

/// The events for which every model has a series.
pub const OF_MODELS: [&str; 4] = [CUDA_OUT_OF_MEMORY, NCCL_TIMEOUT, ENGINE_DEAD, OOM_KILL];

/// The events in a line of a model: from the shipped table and the configured ones.
pub fn of_model<'a>(message: &'a str, own: &'a [(String, Regex)]) -> impl Iterator<Item = &'a str> {
    let (_, text) = split(message);
    let is = move |pattern: &str| match pattern.split_once("...") {
        None => text.starts_with(pattern),
        Some((begin, inside)) => text.strip_prefix(begin).is_some_and(|rest| rest.contains(inside)),
    };
    let shipped = SHIPPED.iter().filter(move |(_, patterns)| patterns.iter().any(|pattern| is(pattern)));
    let own = own.iter().filter(move |(_, pattern)| pattern.is_match(message));
    shipped.map(|(event, _)| *event).chain(own.map(|(event, _)| event.as_str()))
}

/// The meaning of a kernel message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Kernel<'a> {
    /// About a GPU: its PCI address, in the form used by sysfs, if the message has one, and whether it is an Xid.
    Gpu(Option<String>, bool),
    /// A process was killed: its cgroup and PID.
    Killed(&'a str, Option<u32>),
    /// Another message of the OOM killer.
    Memory,
}

/// The meaning of a kernel message if it concerns GPUs or the OOM killer.
#[must_use]
pub fn of_kernel(message: &str) -> Option<Kernel<'_>> {
    if let Some(rest) = message.strip_prefix("oom-kill:") {
        let field = |name: &str| {
            let at = rest.find(name).filter(|&at| at == 0 || rest[..at].ends_with(','))? + name.len();
            Some(rest[at..].split(',').next().unwrap_or_default())
        };
        let pid = field("pid=").and_then(|pid| pid.parse().ok());
        return Some(Kernel::Killed(field("task_memcg=").unwrap_or_default(), pid));
    }
    if message.starts_with("Out of memory: ")
        || message.starts_with("Memory cgroup out of memory: ")
        || message.starts_with("oom_reaper: ")
        || message.contains(" invoked oom-killer: ")
        || message.starts_with("Tasks in ") && message.contains("oom.group")
    {
        return Some(Kernel::Memory);
    }
    let ours = message.starts_with("NVRM: ") || message.starts_with("nvidia") || message.starts_with("NVLRM: ");
    ours.then(|| Kernel::Gpu(pci(message), message.starts_with("NVRM: Xid (PCI:")))
}

/// The first address such as `0000:3b:00` or `0000:3B:00.0`, in the form used by sysfs.
fn pci(message: &str) -> Option<String> {
    let hex = |text: &str, digits: &[usize]| {
        let plain = digits.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        plain.then(|| u32::from_str_radix(text, 16).ok()).flatten()
    };
    message.split(|c: char| !c.is_ascii_hexdigit() && c != ':').map(|word| word.trim_matches(':')).find_map(|word| {
        let mut parts = word.split(':');
        let (domain, bus, device) = (parts.next()?, parts.next()?, parts.next()?);
        let address = pci::address(hex(domain, &[4, 8])?, hex(bus, &[2])?, hex(device, &[2])?);
        parts.next().is_none().then_some(address)
    })
}

/// Whether a line of an engine is about one GPU, by CUDA's number of it: PyTorch's and llama.cpp's out-of-memory lines. CUDA numbers
/// the GPUs that a process may see, so the number does not say which of the host's it is.
#[must_use]
pub fn names_device(message: &str) -> bool {
    let follows = |before: &str, after: &[&str]| {
        message.match_indices(before).any(|(at, _)| {
            let rest = &message[at + before.len()..];
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            digits > 0 && after.iter().any(|after| rest[digits..].starts_with(after))
        })
    };
    follows("GPU ", &[" has a total capacity", "; "]) || follows("on device ", &[": cudaMalloc failed"])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(line: &str) -> Vec<&str> {
        of_model(line, &[]).collect()
    }

    #[test]
    fn each_event_is_found_in_the_lines_that_engines_write() {
        for (event, line) in [
            (
                CUDA_OUT_OF_MEMORY,
                "(EngineCore_0 pid=312) ERROR 11-24 10:00:00 [core.py:586] torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.10 GiB of which 1.02 GiB is free.",
            ),
            (
                CUDA_OUT_OF_MEMORY,
                "torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate 14.00 MiB (GPU 0; 23.69 GiB total capacity)",
            ),
            (
                CUDA_OUT_OF_MEMORY,
                "ggml_backend_cuda_buffer_type_alloc_buffer: allocating 4096.00 MiB on device 0: cudaMalloc failed: out of memory",
            ),
            (CUDA_OUT_OF_MEMORY, "RuntimeError: CUDA error: out of memory"),
            (
                NCCL_TIMEOUT,
                "[rank3]:[E1124 10:00:00.123456789 ProcessGroupNCCL.cpp:629] [Rank 3] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=9, OpType=ALLREDUCE, NumelIn=1, NumelOut=1, Timeout(ms)=600000) ran for 600021 milliseconds before timing out.",
            ),
            (
                ENGINE_DEAD,
                "(EngineCore_0 pid=312) ERROR 11-24 10:00:00 [core.py:702] EngineCore encountered a fatal error.",
            ),
            (
                ENGINE_DEAD,
                "ERROR 11-24 10:00:00 [core_client.py:562] Engine core proc EngineCore_DP0 died unexpectedly, shutting down client.",
            ),
            (
                ENGINE_DEAD,
                "(APIServer pid=1) ERROR 11-24 10:00:00 [async_llm.py:480] vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue. See stack trace (above) for the root cause.",
            ),
            (ENGINE_DEAD, "[2025-06-01 10:00:00 TP0] Scheduler hit an exception: Traceback (most recent call last):"),
            (ENGINE_DEAD, "GGML_ASSERT(n_tokens <= n_batch) failed"),
        ] {
            assert_eq!(events(line), [event], "{line}");
        }
    }

    #[test]
    fn what_a_request_says_is_no_event() {
        for line in [
            "INFO 11-24 10:00:00 [logger.py:39] Received request cmpl-1: prompt: 'torch.OutOfMemoryError: CUDA out of memory'",
            "INFO:     127.0.0.1:1 - \"GET /CUDA%20out%20of%20memory HTTP/1.1\" 404 Not Found",
            "why does my program say CUDA out of memory?",
            "EngineCore started",
            "",
        ] {
            assert!(events(line).is_empty(), "{line}");
        }
    }

    #[test]
    fn lines_about_one_gpu_are_known() {
        for (line, names) in [
            (
                "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.10 GiB",
                true,
            ),
            ("CUDA out of memory. Tried to allocate 14.00 MiB (GPU 12; 23.69 GiB total capacity)", true),
            ("allocating 4096.00 MiB on device 1: cudaMalloc failed: out of memory", true),
            ("RuntimeError: CUDA error: out of memory", false),
            ("GPU  has a total capacity, GPU 7", false),
            ("GPU KV cache usage: 3.1%", false),
        ] {
            assert_eq!(names_device(line), names, "{line}");
        }
    }

    #[test]
    fn own_patterns_are_searched_in_the_whole_line() {
        let own = [("slow".to_owned(), Regex::new("took [0-9]{2,} s").unwrap())];
        assert_eq!(of_model("INFO: it took 12 s", &own).collect::<Vec<_>>(), ["slow"]);
        assert_eq!(of_model("INFO: it took 1 s", &own).count(), 0);
    }

    #[test]
    fn lines_of_the_kernel_are_told_apart() {
        let killed = "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/system.slice/citadel-phi3.service,task_memcg=/system.slice/citadel-phi3.service,task=VLLM::EngineCor,pid=4711,uid=0";
        for (line, found) in [
            (
                "NVRM: Xid (PCI:0000:3b:00): 79, pid=1, name=x, GPU has fallen off the bus.",
                Some(Kernel::Gpu(Some("0000:3b:00.0".to_owned()), true)),
            ),
            (
                "NVRM: GPU 00000000:3B:00.0: GPU has fallen off the bus.",
                Some(Kernel::Gpu(Some("0000:3b:00.0".to_owned()), false)),
            ),
            (
                "nvidia-nvswitch0: SXid (PCI:0000:c1:00.0): 12028, x",
                Some(Kernel::Gpu(Some("0000:c1:00.0".to_owned()), false)),
            ),
            ("NVRM: loading NVIDIA UNIX Open Kernel Module", Some(Kernel::Gpu(None, false))),
            (killed, Some(Kernel::Killed("/system.slice/citadel-phi3.service", Some(4711)))),
            ("Memory cgroup out of memory: Killed process 4711 (python3) total-vm:1kB", Some(Kernel::Memory)),
            ("python3 invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0", Some(Kernel::Memory)),
            ("eth0: link up at NVRM: Xid (PCI:0000:3b:00): 79", None),
            ("", None),
        ] {
            assert_eq!(of_kernel(line), found, "{line}");
        }
    }
}
