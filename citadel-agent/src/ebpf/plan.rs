//! Decides from facts and configuration what to do with each probe family. Pure.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use super::family::{Family, Form};
use super::support::{Capability, Kernel, Support};
use crate::config::resolved::{CallForm, Ebpf};

/// What to do with a family.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Decision {
    /// Load its programs and attach them to this cgroup.
    AttachTo {
        /// The cgroup v2 directory.
        cgroup: PathBuf,
    },
    /// Load its programs and attach them to their tracepoints.
    Trace,
    /// Load its programs and attach them to system calls.
    TraceCalls(Variant),
    /// Do not attach it.
    Skip(Reason),
}

impl Decision {
    /// Whether loading the programs needs the kernel's types.
    #[must_use]
    pub const fn is_traced(&self) -> bool {
        matches!(self, Self::Trace | Self::TraceCalls(_))
    }
}

/// One of the ways in which a family can be attached.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Variant {
    /// The form.
    pub form: Form,
    /// Why it was chosen.
    pub reason: String,
}

/// Why a family is not attached.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reason {
    /// Disabled in the configuration, by the switch of the family with this name.
    Disabled(&'static str),
    /// It depends on another family, which is not running.
    Needs(&'static str),
    /// These capabilities are missing.
    Capabilities(Vec<Capability>),
    /// The kernel is too old for the programs.
    KernelTooOld {
        /// The running kernel.
        have: Kernel,
        /// The oldest supported one.
        need: Kernel,
    },
    /// No cgroup v2 file system is mounted.
    NoCgroup2,
    /// The kernel was built without this feature.
    NotBuiltIn(&'static str),
    /// System calls cannot be observed at their own functions, for this reason.
    NoFentry(String),
    /// The programs are not supported on this processor architecture.
    Architecture(&'static str),
}

impl Reason {
    /// How to fix it.
    #[must_use]
    pub fn remedy(&self) -> String {
        match self {
            Self::Disabled(family) => format!("set ebpf.{family} to true in the configuration"),
            Self::Needs(family) => format!("fix family {family} first"),
            Self::Capabilities(missing) => format!(
                "run as root, or give the service AmbientCapabilities={}",
                missing.iter().map(|c| c.name()).collect::<Vec<_>>().join(" ")
            ),
            Self::KernelTooOld { need, .. } => format!("boot Linux {need} or later"),
            Self::NoCgroup2 => {
                "run `mount -t cgroup2 none /sys/fs/cgroup/unified`, or boot with systemd.unified_cgroup_hierarchy=1"
                    .to_owned()
            }
            Self::NoFentry(_) => {
                format!("boot a kernel that supports fentry, or set ebpf.syscall_form to raw_tp, which {RAW_TP_PRICE}")
            }
            Self::Architecture(_) => "run the agent on x86-64".to_owned(),
            Self::NotBuiltIn(BTF) => "boot a kernel with CONFIG_DEBUG_INFO_BTF=y".to_owned(),
            Self::NotBuiltIn(_) => "boot a kernel with CONFIG_BPF_SYSCALL=y and CONFIG_CGROUP_BPF=y".to_owned(),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disabled(_) => write!(f, "disabled in the configuration"),
            Self::Needs(family) => write!(f, "requires family {family}, which is not running"),
            Self::Capabilities(missing) => {
                write!(f, "missing {}", missing.iter().map(|c| c.name()).collect::<Vec<_>>().join(", "))
            }
            Self::KernelTooOld { have, need } => write!(f, "Linux {have} is older than {need}"),
            Self::NoCgroup2 => write!(f, "no cgroup v2 file system is mounted"),
            Self::NoFentry(error) => write!(f, "{error}"),
            Self::Architecture(what) => {
                write!(f, "the request queue relies on the store ordering of x86-64, and this is {what}")
            }
            Self::NotBuiltIn(what) => write!(f, "this kernel has no {what}"),
        }
    }
}

/// What a kernel without `/sys/kernel/btf/vmlinux` lacks.
const BTF: &str = "BTF";

/// The cost of the form raw_tp of `syscalls` (`docs/overhead.md`).
const RAW_TP_PRICE: &str =
    "slows down every system call of the host: nginx keeps 0.89 of its throughput, including on ports of no model";

/// Determined by the newest feature that `net` needs: sk_storage from cgroup_skb programs (5.9), and CAP_BPF (5.8).
/// 5.10 is the oldest kernel that is tested. BTF tracepoints exist since 5.5, iterators over sk_storage since 5.9.
const OLDEST_KERNEL: Kernel = Kernel(5, 10);

/// `bpf_sk_storage_get` from tracing programs (`bpf_sk_storage_get_tracing_proto`).
const RECVQ_KERNEL: Kernel = Kernel(5, 11);

/// Decides what to do with each family, in the order of [`Family::ALL`].
#[must_use]
pub fn decide(config: &Ebpf, support: &Support) -> Vec<(Family, Decision)> {
    let mut plan: Vec<(Family, Decision)> = Vec::new();
    for family in Family::ALL {
        let decided = decide_one(family, config, support, &plan).unwrap_or_else(Decision::Skip);
        plan.push((family, decided));
    }
    plan
}

fn decide_one(
    family: Family,
    config: &Ebpf,
    support: &Support,
    plan: &[(Family, Decision)],
) -> Result<Decision, Reason> {
    if !family.is_wanted(config) {
        // It has no switch of its own.
        let switch = if family == Family::InFlight { Family::Net } else { family };
        return Err(Reason::Disabled(switch.name()));
    }
    match family {
        Family::Net => net(config, support),
        // They are in its object.
        Family::Recvq | Family::InFlight => {
            if plan.iter().any(|(other, decision)| *other == Family::Net && matches!(decision, Decision::Skip(_))) {
                return Err(Reason::Needs(Family::Net.name()));
            }
            trace(if family == Family::Recvq { RECVQ_KERNEL } else { OLDEST_KERNEL }, support)
        }
        Family::Sched => trace(OLDEST_KERNEL, support),
        Family::Syscalls => system_calls(config, support),
    }
}

fn net(config: &Ebpf, support: &Support) -> Result<Decision, Reason> {
    // The programs of both directions share a queue without barriers, which eBPF has only since 6.15.
    if support.architecture != "x86_64" {
        return Err(Reason::Architecture(support.architecture));
    }
    not_older(OLDEST_KERNEL, support)?;
    permitted(&[Capability::Bpf, Capability::NetAdmin], support)?;
    for (can, what) in [
        (support.cgroup_skb, "cgroup_skb programs"),
        (support.sock_ops, "sock_ops programs"),
        (support.sk_storage, "sk_storage maps"),
    ] {
        built_in(can, what)?;
    }
    match (&config.cgroup, &support.cgroup2) {
        (Some(cgroup), _) | (None, Some(Some(cgroup))) => Ok(Decision::AttachTo { cgroup: cgroup.clone() }),
        (None, _) => Err(Reason::NoCgroup2),
    }
}

/// Programs at BTF tracepoints.
fn trace(oldest: Kernel, support: &Support) -> Result<Decision, Reason> {
    not_older(oldest, support)?;
    permitted(&[Capability::Bpf, Capability::Perfmon], support)?;
    built_in(support.btf, BTF)?;
    Ok(Decision::Trace)
}

/// Programs at system calls: the numbers and functions are only known for x86-64.
fn system_calls(config: &Ebpf, support: &Support) -> Result<Decision, Reason> {
    trace(OLDEST_KERNEL, support)?;
    built_in(Some(cfg!(target_arch = "x86_64")), "x86-64 system calls")?;
    let (form, reason) = match &support.fentry {
        _ if config.call_form == CallForm::RawTp => (Form::RawTp, RAW_TP_PRICE),
        Some(Ok(())) => (Form::Fentry, "adds no cost to calls that are not measured"),
        Some(Err(error)) => return Err(Reason::NoFentry(error.clone())),
        None => return Err(Reason::NoFentry("cannot determine whether this kernel supports fentry".to_owned())),
    };
    Ok(Decision::TraceCalls(Variant { form, reason: reason.to_owned() }))
}

fn not_older(need: Kernel, support: &Support) -> Result<(), Reason> {
    match support.kernel {
        Some(have) if have < need => Err(Reason::KernelTooOld { have, need }),
        _ => Ok(()),
    }
}

fn permitted(needed: &[Capability], support: &Support) -> Result<(), Reason> {
    if support.has(Capability::SysAdmin) {
        return Ok(());
    }
    let missing: Vec<_> = needed.iter().copied().filter(|&capability| !support.has(capability)).collect();
    if missing.is_empty() { Ok(()) } else { Err(Reason::Capabilities(missing)) }
}

fn built_in(can: Option<bool>, what: &'static str) -> Result<(), Reason> {
    if can == Some(false) { Err(Reason::NotBuiltIn(what)) } else { Ok(()) }
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
            btf: Some(true),
            fentry: Some(Ok(())),
            architecture: "x86_64",
        }
    }

    fn decide_for(family: Family, config: &Ebpf, support: &Support) -> Decision {
        let plan = decide(config, support);
        plan.into_iter().find(|(decided, _)| *decided == family).expect("all families are decided").1
    }

    fn decide_net(config: &Ebpf, support: &Support) -> Decision {
        decide_for(Family::Net, config, support)
    }

    const ON: Ebpf = Ebpf {
        net: true,
        recvq: true,
        sched: true,
        syscalls: true,
        calls: Vec::new(),
        call_form: CallForm::Auto,
        max_connections: None,
        client_addresses: true,
        cgroup: None,
    };

    #[test]
    fn an_able_host_attaches_at_the_root_of_the_mount() {
        assert_eq!(decide_net(&ON, &able()), Decision::AttachTo { cgroup: "/sys/fs/cgroup".into() });
    }

    #[test]
    fn a_configured_cgroup_goes_before_the_mount() {
        let config = Ebpf { cgroup: Some("/c/models".into()), ..ON };
        for cgroup2 in [Some(Some("/sys/fs/cgroup".into())), Some(None), None] {
            let support = Support { cgroup2, ..able() };
            assert_eq!(decide_net(&config, &support), Decision::AttachTo { cgroup: "/c/models".into() });
        }
    }

    #[test]
    fn what_is_switched_off_stays_off() {
        let config = Ebpf { net: false, ..ON };
        assert_eq!(decide_net(&config, &able()), Decision::Skip(Reason::Disabled("net")));
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
        assert!(matches!(decide_net(&ON, &support), Decision::AttachTo { .. }));
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
        let support = Support { cgroup2: able().cgroup2, architecture: "x86_64", ..Support::default() };
        assert!(matches!(decide_net(&ON, &support), Decision::AttachTo { .. }));
    }

    #[test]
    fn families_are_decided_one_by_one() {
        assert_eq!(decide_for(Family::Recvq, &ON, &able()), Decision::Trace);
        assert_eq!(decide_for(Family::Sched, &ON, &able()), Decision::Trace);
        let without_net = Ebpf { net: false, ..ON };
        assert_eq!(decide_for(Family::Recvq, &without_net, &able()), Decision::Skip(Reason::Needs("net")));
        assert_eq!(decide_for(Family::InFlight, &without_net, &able()), Decision::Skip(Reason::Disabled("net")));
        assert_eq!(decide_for(Family::Sched, &without_net, &able()), Decision::Trace);
        let without_sched = Ebpf { sched: false, ..ON };
        assert_eq!(decide_for(Family::Sched, &without_sched, &able()), Decision::Skip(Reason::Disabled("sched")));
        assert_eq!(decide_for(Family::Recvq, &without_sched, &able()), Decision::Trace);
    }

    #[test]
    fn without_btf_only_what_needs_it_is_left() {
        let support = Support { btf: Some(false), ..able() };
        let reason = Reason::NotBuiltIn(BTF);
        assert!(reason.remedy().contains("CONFIG_DEBUG_INFO_BTF"));
        assert_eq!(decide_for(Family::Recvq, &ON, &support), Decision::Skip(reason.clone()));
        assert_eq!(decide_for(Family::Sched, &ON, &support), Decision::Skip(reason));
        assert!(matches!(decide_net(&ON, &support), Decision::AttachTo { .. }));
    }

    #[test]
    fn the_receive_queue_needs_a_later_kernel_than_the_rest() {
        let support = Support { kernel: Some(Kernel(5, 10)), ..able() };
        let too_old = Reason::KernelTooOld { have: Kernel(5, 10), need: Kernel(5, 11) };
        assert_eq!(decide_for(Family::Recvq, &ON, &support), Decision::Skip(too_old));
        assert_eq!(decide_for(Family::Sched, &ON, &support), Decision::Trace);
        assert_eq!(decide_for(Family::InFlight, &ON, &support), Decision::Trace);
        assert!(matches!(decide_net(&ON, &support), Decision::AttachTo { .. }));
    }

    #[test]
    fn system_calls_are_seen_at_their_functions_where_the_kernel_allows() {
        let decided = |config: &Ebpf, fentry| decide_for(Family::Syscalls, config, &Support { fentry, ..able() });
        let form = |decision| match decision {
            Decision::TraceCalls(Variant { form, .. }) => Some(form),
            _ => None,
        };
        assert_eq!(form(decided(&ON, Some(Ok(())))), Some(Form::Fentry));
        // The other form is a tax on the whole host, which nobody has asked for.
        let refused = Reason::NoFentry("refused: EPERM".to_owned());
        assert!(refused.remedy().contains("syscall_form") && refused.remedy().contains("0.89"), "{}", refused.remedy());
        assert_eq!(decided(&ON, Some(Err("refused: EPERM".to_owned()))), Decision::Skip(refused));
        assert!(matches!(decided(&ON, None), Decision::Skip(Reason::NoFentry(_))));
        let configured = Ebpf { call_form: CallForm::RawTp, ..ON };
        for fentry in [Some(Ok(())), Some(Err("no".to_owned())), None] {
            assert_eq!(form(decided(&configured, fentry)), Some(Form::RawTp));
        }
        let off = Ebpf { syscalls: false, ..ON };
        assert_eq!(decide_for(Family::Syscalls, &off, &able()), Decision::Skip(Reason::Disabled("syscalls")));
    }

    #[test]
    fn other_processors_do_without_the_queue_of_requests() {
        let support = Support { architecture: "aarch64", ..able() };
        let reason = Reason::Architecture("aarch64");
        assert!(reason.to_string().ends_with("this is aarch64"));
        assert_eq!(decide_net(&ON, &support), Decision::Skip(reason));
        assert_eq!(decide_for(Family::Sched, &ON, &support), Decision::Trace);
    }

    #[test]
    fn tracing_needs_its_own_capability() {
        let support = Support { capabilities: Some(1 << 12 | 1 << 39), ..able() };
        assert!(matches!(decide_net(&ON, &support), Decision::AttachTo { .. }));
        let missing = Reason::Capabilities(vec![Capability::Perfmon]);
        assert_eq!(decide_for(Family::Sched, &ON, &support), Decision::Skip(missing));
    }
}
