//! Decision: facts and configuration in, what is to be done with each probe family out. Pure.

use std::fmt;
use std::path::PathBuf;

use super::support::{Capability, Kernel, Support};
use crate::config::resolved::Ebpf;

/// A probe family: what is loaded, attached and reported together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    /// Requests, tokens and TCP.
    Net,
}

impl Family {
    /// All families.
    pub const ALL: [Self; 1] = [Self::Net];

    /// Name in `/status`, metrics and configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Net => "net",
        }
    }

    /// Its programs, in the order in which they are attached.
    #[must_use]
    pub const fn programs(self) -> &'static [&'static str] {
        match self {
            // Connections first: one that begins while the others are being attached is known from its handshake.
            Self::Net => &["net_sockops", "net_egress", "net_early", "net_ingress"],
        }
    }
}

/// What is to be done with a family.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Decision {
    /// Load its programs and attach them to this cgroup.
    Attach {
        /// The cgroup v2 directory.
        cgroup: PathBuf,
    },
    /// Leave it, because.
    Skip(Reason),
}

/// Why a family is not attached.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reason {
    /// The configuration says so.
    Disabled,
    /// These capabilities are missing.
    Capabilities(Vec<Capability>),
    /// The kernel is older than what the programs need.
    KernelTooOld {
        /// The running kernel.
        have: Kernel,
        /// The oldest that will do.
        need: Kernel,
    },
    /// No cgroup v2 file system is mounted.
    NoCgroup2,
    /// The kernel was built without something.
    NotBuiltIn(&'static str),
}

impl Reason {
    /// What a person can do about it.
    #[must_use]
    pub fn remedy(&self) -> String {
        match self {
            Self::Disabled => "set ebpf.net to true in the configuration".to_owned(),
            Self::Capabilities(missing) => format!(
                "run as root, or give the service AmbientCapabilities={}",
                missing.iter().map(|c| c.name()).collect::<Vec<_>>().join(" ")
            ),
            Self::KernelTooOld { need, .. } => format!("boot Linux {need} or later"),
            Self::NoCgroup2 => {
                "mount it: mount -t cgroup2 none /sys/fs/cgroup/unified, or boot with systemd.unified_cgroup_hierarchy=1"
                    .to_owned()
            }
            Self::NotBuiltIn(_) => "boot a kernel with CONFIG_BPF_SYSCALL=y and CONFIG_CGROUP_BPF=y".to_owned(),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disabled => write!(f, "disabled by the configuration"),
            Self::Capabilities(missing) => {
                write!(f, "missing {}", missing.iter().map(|c| c.name()).collect::<Vec<_>>().join(", "))
            }
            Self::KernelTooOld { have, need } => write!(f, "Linux {have} is older than {need}"),
            Self::NoCgroup2 => write!(f, "no cgroup v2 file system is mounted"),
            Self::NotBuiltIn(what) => write!(f, "this kernel has no {what}"),
        }
    }
}

/// The newest feature that `net` needs: sk_storage from cgroup_skb programs (5.9), and CAP_BPF (5.8). 5.10 is the oldest
/// kernel that the project tests.
const NET_KERNEL: Kernel = Kernel(5, 10);

/// Decides what to do with `family`.
#[must_use]
pub fn decide(family: Family, config: &Ebpf, support: &Support) -> Decision {
    match family {
        Family::Net => net(config, support),
    }
}

fn net(config: &Ebpf, support: &Support) -> Decision {
    if !config.net {
        return Decision::Skip(Reason::Disabled);
    }
    if let Some(have) = support.kernel
        && have < NET_KERNEL
    {
        return Decision::Skip(Reason::KernelTooOld { have, need: NET_KERNEL });
    }
    if !support.has(Capability::SysAdmin) {
        let missing: Vec<_> =
            [Capability::Bpf, Capability::NetAdmin].into_iter().filter(|&c| !support.has(c)).collect();
        if !missing.is_empty() {
            return Decision::Skip(Reason::Capabilities(missing));
        }
    }
    for (can, what) in [
        (support.cgroup_skb, "cgroup_skb programs"),
        (support.sock_ops, "sock_ops programs"),
        (support.sk_storage, "sk_storage maps"),
    ] {
        if can == Some(false) {
            return Decision::Skip(Reason::NotBuiltIn(what));
        }
    }
    match (&config.cgroup, &support.cgroup2) {
        (Some(cgroup), _) | (None, Some(Some(cgroup))) => Decision::Attach { cgroup: cgroup.clone() },
        (None, _) => Decision::Skip(Reason::NoCgroup2),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A host that can do everything; each test takes one ability away.
    fn able() -> Support {
        Support {
            kernel: Some(Kernel(6, 1)),
            capabilities: Some(u64::MAX),
            cgroup2: Some(Some("/sys/fs/cgroup".into())),
            cgroup_skb: Some(true),
            sock_ops: Some(true),
            sk_storage: Some(true),
        }
    }

    fn decide_net(config: &Ebpf, support: &Support) -> Decision {
        decide(Family::Net, config, support)
    }

    const ON: Ebpf = Ebpf { net: true, cgroup: None };

    #[test]
    fn an_able_host_attaches_at_the_root_of_the_mount() {
        assert_eq!(decide_net(&ON, &able()), Decision::Attach { cgroup: "/sys/fs/cgroup".into() });
    }

    #[test]
    fn a_configured_cgroup_goes_before_the_mount() {
        let config = Ebpf { net: true, cgroup: Some("/c/models".into()) };
        for cgroup2 in [Some(Some("/sys/fs/cgroup".into())), Some(None), None] {
            let support = Support { cgroup2, ..able() };
            assert_eq!(decide_net(&config, &support), Decision::Attach { cgroup: "/c/models".into() });
        }
    }

    #[test]
    fn what_is_switched_off_stays_off() {
        let config = Ebpf { net: false, cgroup: None };
        assert_eq!(decide_net(&config, &able()), Decision::Skip(Reason::Disabled));
    }

    #[test]
    fn missing_capabilities_are_named() {
        let support = Support { capabilities: Some(1 << 12), ..able() };
        let reason = Reason::Capabilities(vec![Capability::Bpf]);
        assert_eq!(decide_net(&ON, &support), Decision::Skip(reason.clone()));
        assert_eq!(reason.to_string(), "missing CAP_BPF");
        assert!(reason.remedy().contains("AmbientCapabilities=CAP_BPF"));
    }

    #[test]
    fn sys_admin_alone_is_enough() {
        let support = Support { capabilities: Some(1 << 21), ..able() };
        assert!(matches!(decide_net(&ON, &support), Decision::Attach { .. }));
    }

    #[test]
    fn an_old_kernel_is_named_with_the_one_that_will_do() {
        let support = Support { kernel: Some(Kernel(4, 19)), ..able() };
        let Decision::Skip(reason) = decide_net(&ON, &support) else { panic!("attached") };
        assert_eq!(reason.to_string(), "Linux 4.19 is older than 5.10");
    }

    #[test]
    fn what_the_kernel_lacks_is_named() {
        let without_skb = Support { cgroup_skb: Some(false), ..able() };
        let without_ops = Support { sock_ops: Some(false), ..able() };
        let without_storage = Support { sk_storage: Some(false), ..able() };
        for support in [without_skb, without_ops, without_storage] {
            assert!(matches!(decide_net(&ON, &support), Decision::Skip(Reason::NotBuiltIn(_))));
        }
        let support = Support { cgroup2: Some(None), ..able() };
        assert_eq!(decide_net(&ON, &support), Decision::Skip(Reason::NoCgroup2));
    }

    #[test]
    fn not_knowing_is_no_reason_to_give_up() {
        let support = Support { cgroup2: able().cgroup2, ..Support::default() };
        assert!(matches!(decide_net(&ON, &support), Decision::Attach { .. }));
    }
}
