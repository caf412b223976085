//! What takes CPUs, packets and GPUs away; each is gone with its value.

use std::io::Write as _;
use std::process::{Child, Command, Stdio};

use citadel_agent_tests::tools::program;
use fake_nvml::hosts::{h100, host};
use fake_nvml::install::Installed;
use fake_nvml::scenario::Scenario;

/// Processes that only compute.
pub(crate) struct Busy(Vec<Child>);

impl Busy {
    pub(crate) fn on_cpu(cpu: usize, count: usize) -> Self {
        let one = |_| {
            let mut command = Command::new("nice");
            command.args(["-n", "-10", "taskset", "-c", &cpu.to_string(), "sh", "-c", "while :; do :; done"]);
            command.spawn().expect("start a busy loop")
        };
        Self((0..count).map(one).collect())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        for child in &mut self.0 {
            _ = child.kill();
            _ = child.wait();
        }
    }
}

/// A firewall rule that drops a part of what a server sends.
pub(crate) struct Loss(String);

impl Loss {
    pub(crate) fn from_port(port: u16) -> Self {
        let table = format!("citadel_loss_{port}");
        let rules = format!(
            "table ip {table} {{ chain input {{ type filter hook input priority 0; tcp sport {port} numgen random mod 100 < 25 drop; }}; }}"
        );
        let mut child = Command::new(program("nft", "nftables"))
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .spawn()
            .expect("start nft");
        child.stdin.take().expect("its input").write_all(rules.as_bytes()).expect("write the rules");
        assert!(child.wait().expect("wait for nft").success(), "nft takes {rules}");
        Self(table)
    }
}

impl Drop for Loss {
    fn drop(&mut self) {
        _ = Command::new(program("nft", "nftables")).args(["delete", "table", "ip", &self.0]).status();
    }
}

/// A GPU for each of two models.
pub(crate) struct Gpus {
    pub(crate) installed: Installed,
    /// The models' processes.
    pub(crate) pids: [u32; 2],
}

/// Clock event reason: the GPU is too hot (`nvmlClocksEventReasonHwThermalSlowdown`).
const HOT: u64 = 0x40;

impl Gpus {
    /// The first one too hot, the second one shared with a process that is no model's, or neither.
    pub(crate) fn scenario(pids: [u32; 2], hot: bool, shared: bool) -> Scenario {
        let [mut first, second] = [0, 1].map(|index| {
            let stranger = [(pids[index], 40_000, 40), (std::process::id(), 8000, 50)];
            let mut gpu = h100(index, if index == 1 && shared { &stranger } else { &stranger[..1] });
            gpu.reasons = Some(0);
            // Times for which clocks are held down stand still.
            gpu.fields.values_mut().for_each(|[_, step]| *step = 0);
            gpu
        });
        if hot {
            first.reasons = Some(HOT);
            first.clocks = Some([1005, 1005, 2619, 1545]);
        }
        host(vec![first, second])
    }

    pub(crate) fn set(&self, hot: bool, shared: bool) {
        self.installed.set(&Self::scenario(self.pids, hot, shared)).expect("change the GPUs");
    }
}
