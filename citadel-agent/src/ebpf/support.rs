//! Facts: what this kernel supports, and what this process is allowed to do. `None` means unknown, which is no reason
//! to give up.

use std::path::PathBuf;

use aya::maps::MapType;
use aya::programs::ProgramType;
use aya::sys::{is_map_supported, is_program_supported};

use super::error::chain;
use crate::host::files::{read_value, read_whole_text};
use crate::host::{Roots, kernel_types, mountinfo};

/// A capability that the agent may need (`capabilities(7)`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Capability {
    /// Loading programs and maps, since 5.8.
    Bpf,
    /// Network programs.
    NetAdmin,
    /// Tracing programs, since 5.8.
    Perfmon,
    /// All of these, and the only one in older kernels.
    SysAdmin,
    /// Processes of other users.
    SysPtrace,
    /// Files that only root may read.
    DacReadSearch,
    /// The kernel log.
    Syslog,
    /// More locked memory than `RLIMIT_MEMLOCK`.
    SysResource,
}

impl Capability {
    /// Bit in the capability sets (`linux/capability.h`).
    #[must_use]
    pub const fn bit(self) -> u32 {
        match self {
            Self::DacReadSearch => 2,
            Self::NetAdmin => 12,
            Self::SysPtrace => 19,
            Self::SysAdmin => 21,
            Self::SysResource => 24,
            Self::Syslog => 34,
            Self::Perfmon => 38,
            Self::Bpf => 39,
        }
    }

    /// The name used by systemd and `capsh`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bpf => "CAP_BPF",
            Self::NetAdmin => "CAP_NET_ADMIN",
            Self::Perfmon => "CAP_PERFMON",
            Self::SysAdmin => "CAP_SYS_ADMIN",
            Self::SysPtrace => "CAP_SYS_PTRACE",
            Self::DacReadSearch => "CAP_DAC_READ_SEARCH",
            Self::Syslog => "CAP_SYSLOG",
            Self::SysResource => "CAP_SYS_RESOURCE",
        }
    }
}

/// A kernel version.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Kernel(pub u32, pub u32);

impl std::fmt::Display for Kernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// The facts.
#[derive(Clone, Debug, Default)]
pub struct Support {
    /// The running kernel.
    pub kernel: Option<Kernel>,
    /// The effective capability set.
    pub capabilities: Option<u64>,
    /// Where cgroup v2 is mounted; the inner `None`: nowhere.
    pub cgroup2: Option<Option<PathBuf>>,
    /// Whether programs of type cgroup_skb can be loaded.
    pub cgroup_skb: Option<bool>,
    /// Whether programs of type sock_ops can be loaded.
    pub sock_ops: Option<bool>,
    /// Whether maps of type sk_storage can be created.
    pub sk_storage: Option<bool>,
    /// Whether the kernel has BTF (CONFIG_DEBUG_INFO_BTF).
    pub btf: Option<bool>,
    /// Whether programs at kernel functions (fentry) can be loaded and attached; or why not.
    pub fentry: Option<Result<(), String>>,
    /// The processor architecture, in Rust's terms.
    pub architecture: &'static str,
}

impl Support {
    /// Determines the facts on this host.
    #[must_use]
    pub fn gather(roots: &Roots) -> Self {
        let status = read_whole_text(&roots.proc.join("self/status"), 1 << 20).ok();
        let release = read_value(&roots.proc.join("sys/kernel/osrelease"));
        Self {
            kernel: release.as_deref().and_then(parse_release),
            capabilities: status.as_deref().and_then(parse_effective_capabilities),
            cgroup2: mountinfo::read_cgroup2_mount(roots).ok(),
            // An unprivileged process is refused before the kernel looks at the type: the result is unknown.
            cgroup_skb: is_program_supported(ProgramType::CgroupSkb).ok(),
            sock_ops: is_program_supported(ProgramType::SockOps).ok(),
            sk_storage: is_map_supported(MapType::SkStorage).ok(),
            btf: kernel_types::path(roots).try_exists().ok(),
            fentry: Some(try_fentry()),
            architecture: std::env::consts::ARCH,
        }
    }

    /// Whether this process has a capability; true if unknown, because the attempt will show it.
    #[must_use]
    pub fn has(&self, capability: Capability) -> bool {
        self.capabilities.is_none_or(|set| set >> capability.bit() & 1 == 1)
    }
}

/// Briefly attaches an empty program to an empty kernel function: there is no other way to find out.
fn try_fentry() -> Result<(), String> {
    match is_program_supported(ProgramType::Tracing) {
        Ok(true) => Ok(()),
        Ok(false) => Err("this kernel has no fentry".to_owned()),
        Err(error) => Err(format!("this kernel rejects fentry: {}", chain(&error))),
    }
}

/// Parses the first two numbers of a kernel release such as `6.18.44-fc`.
#[must_use]
pub fn parse_release(release: &str) -> Option<Kernel> {
    let mut numbers = release.trim().split(|c: char| !c.is_ascii_digit());
    Some(Kernel(numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Parses `CapEff` in `/proc/self/status`.
#[must_use]
pub fn parse_effective_capabilities(status: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(value.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_of_all_styles_are_read() {
        assert_eq!(parse_release("6.18.44-fc-v657\n"), Some(Kernel(6, 18)));
        assert_eq!(parse_release("5.10.0-33-cloud-amd64"), Some(Kernel(5, 10)));
        assert_eq!(parse_release("7.0-rc1"), Some(Kernel(7, 0)));
        assert_eq!(parse_release("linux"), None);
        assert!(Kernel(5, 10) < Kernel(6, 1) && Kernel(5, 9) < Kernel(5, 10));
    }

    #[test]
    fn capabilities_are_read_from_the_effective_set() {
        let status = "CapPrm:\tffffffffffffffff\nCapEff:\t0000008000001000\n";
        let support = Support { capabilities: parse_effective_capabilities(status), ..Support::default() };
        assert!(support.has(Capability::Bpf) && support.has(Capability::NetAdmin));
        assert!(!support.has(Capability::SysAdmin) && !support.has(Capability::Perfmon));
        assert_eq!(parse_effective_capabilities("CapEff:\tx"), None);
    }

    #[test]
    fn this_host_can_be_asked() {
        let support = Support::gather(&Roots::default());
        assert!(support.kernel.is_some() && support.capabilities.is_some() && support.cgroup2.is_some());
    }
}
