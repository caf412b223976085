//! `cargo xtask setup`: finds or installs what the other subcommands need, as listed in [`NEEDS`].

use anyhow::{Context as _, Result};
use clap::ValueEnum;

use crate::cross;
use crate::debian::{self, Known, Package};
use crate::ebpf::{self, Route};
use crate::emulator;
use crate::newer;
use crate::tools::{self, Tool};
use crate::workspace::Workspace;

/// What a need is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Purpose {
    /// Compile the agent and its eBPF programs; required for everything else.
    Build,
    /// Run the tests.
    Test,
    /// Check format, lints, docs and dependencies.
    Lint,
    /// Fuzz the tracker.
    Fuzz,
    /// Run stand-in models.
    Demo,
    /// Boot old kernels.
    Kernels,
    /// Measure the overhead.
    Bench,
    /// Build packages and install them in fresh systems.
    Dist,
    /// Build for other architectures.
    Cross,
    /// Test against a real engine.
    Engine,
}

/// A dependency on the machine.
pub(crate) struct Need {
    /// Its name, in the output and in errors.
    pub(crate) name: &'static str,
    /// What it is for.
    why: &'static str,
    purpose: Purpose,
    how: How,
}

/// How a need is found and installed.
enum How {
    /// From Debian, all missing ones in one apt-get run.
    Debian(Package),
    /// Built by cargo under `target/tools`.
    Cargo(Tool),
    /// By its own functions.
    Own { find: fn(&Workspace) -> Result<Option<String>>, provide: fn(&Workspace) -> Result<String> },
}

/// Everything that this project needs on a machine beyond rustup, a C compiler and git, in the order of installation.
const NEEDS: &[Need] = &[
    Need {
        name: "g++",
        why: "bpf-linker and libFuzzer contain C++",
        purpose: Purpose::Build,
        how: How::Debian(Package::new("g++", Known::Program("c++"))),
    },
    Need {
        name: "rust-src",
        why: "core is compiled for the BPF target from its source",
        purpose: Purpose::Build,
        how: How::Own { find: ebpf::find_source, provide: ebpf::provide_source },
    },
    Need {
        name: "bpf-linker",
        why: "links the eBPF programs",
        purpose: Purpose::Build,
        how: How::Own { find: ebpf::find_linker, provide: ebpf::provide_linker },
    },
    Need {
        name: "nginx",
        why: "a real server that the tests measure",
        purpose: Purpose::Test,
        how: How::Debian(NGINX),
    },
    Need {
        name: "wrk",
        why: "generates the load that the agent must count exactly",
        purpose: Purpose::Test,
        how: How::Debian(WRK),
    },
    Need {
        name: "prometheus",
        why: "promtool checks each page; a real Prometheus scrapes it",
        purpose: Purpose::Test,
        how: How::Debian(PROMETHEUS),
    },
    Need {
        name: "prometheus 3",
        why: "a receiver of remote write 2.0 and a promtool that tests native histograms, in addition to the older versions",
        purpose: Purpose::Test,
        how: PROMETHEUS_3,
    },
    Need {
        name: "victoria-metrics",
        why: "another receiver of remote write",
        purpose: Purpose::Test,
        how: VICTORIA_METRICS,
    },
    Need {
        name: "python3-prometheus-client",
        why: "a strict OpenMetrics parser",
        purpose: Purpose::Test,
        how: How::Debian(Package::new("python3-prometheus-client", Known::Installed)),
    },
    Need {
        name: "prometheus-alertmanager",
        why: "a real Alertmanager receives, groups and resolves alerts",
        purpose: Purpose::Test,
        how: How::Debian(
            Package::new("prometheus-alertmanager", Known::Program("prometheus-alertmanager"))
                .with_services(&["prometheus-alertmanager"]),
        ),
    },
    Need {
        name: "node_exporter",
        why: "the host metrics are compared with it",
        purpose: Purpose::Test,
        how: How::Debian(NODE_EXPORTER),
    },
    Need {
        name: "smartmontools",
        why: "reads the health of disks",
        purpose: Purpose::Test,
        how: How::Debian(
            Package::new("smartmontools", Known::Program("smartctl")).with_services(&["smartmontools", "smartd"]),
        ),
    },
    Need {
        name: "systemd-journal-remote",
        why: "writes real journals for the tests, and receives logs",
        purpose: Purpose::Test,
        how: How::Debian(JOURNAL_REMOTE),
    },
    Need {
        name: "dbus",
        why: "a bus on which the tests emulate systemd",
        purpose: Purpose::Test,
        how: How::Debian(Package::new("dbus-daemon", Known::Program("dbus-daemon"))),
    },
    Need {
        name: "systemd",
        why: "a real service manager, whose units the agent follows",
        purpose: Purpose::Test,
        how: How::Debian(Package::new("systemd", Known::Program("busctl"))),
    },
    Need {
        name: "chromium",
        why: "a real browser loads the agent's page",
        purpose: Purpose::Test,
        how: How::Debian(Package::new("chromium", Known::Program("chromium"))),
    },
    Need {
        name: "iproute2",
        why: "network namespaces for retransmits and reordering",
        purpose: Purpose::Test,
        how: How::Debian(Package::new("iproute2", Known::Program("ip"))),
    },
    Need {
        name: "nftables",
        why: "a network that loses packets",
        purpose: Purpose::Test,
        how: How::Debian(Package::new("nftables", Known::Program("nft"))),
    },
    Need {
        name: "python3-venv",
        why: "uvicorn and FastAPI, the HTTP stack of vLLM, in a virtual environment",
        purpose: Purpose::Test,
        how: How::Debian(PYTHON_VENV),
    },
    Need {
        name: "llama.cpp",
        why: "a real engine that the tests measure",
        purpose: Purpose::Engine,
        how: How::Own { find: newer::find_llama, provide: newer::provide_llama },
    },
    Need {
        name: "python3-venv",
        why: "the stand-in models run in a virtual environment",
        purpose: Purpose::Demo,
        how: How::Debian(PYTHON_VENV),
    },
    Need { name: "nginx", why: "the server under load", purpose: Purpose::Bench, how: How::Debian(NGINX) },
    Need { name: "wrk", why: "generates the load", purpose: Purpose::Bench, how: How::Debian(WRK) },
    Need {
        name: "prometheus",
        why: "the cost of remote write is compared with its agent mode",
        purpose: Purpose::Bench,
        how: How::Debian(PROMETHEUS),
    },
    Need { name: "prometheus 3", why: "likewise", purpose: Purpose::Bench, how: PROMETHEUS_3 },
    Need {
        name: "victoria-metrics",
        why: "has vmagent, which remote write is compared with",
        purpose: Purpose::Bench,
        how: VICTORIA_METRICS,
    },
    Need {
        name: "node_exporter",
        why: "the cost of the host metrics is compared with it",
        purpose: Purpose::Bench,
        how: How::Debian(NODE_EXPORTER),
    },
    Need {
        name: "systemd-journal-remote",
        why: "writes a journal, and has the program that logs are held against",
        purpose: Purpose::Bench,
        how: How::Debian(JOURNAL_REMOTE),
    },
    Need {
        name: "qemu",
        why: "emulates the machine that old kernels boot on",
        purpose: Purpose::Kernels,
        how: How::Own { find: emulator::find, provide: emulator::provide },
    },
    Need {
        name: "cpio",
        why: "packs the initramfs of a kernel",
        purpose: Purpose::Kernels,
        how: How::Debian(Package::new("cpio", Known::Program("cpio"))),
    },
    Need { name: "cargo-deb", why: "makes the Debian package", purpose: Purpose::Dist, how: CARGO_DEB },
    Need {
        name: "cargo-deb",
        why: "makes the Debian package that the machine of systemd installs",
        purpose: Purpose::Kernels,
        how: CARGO_DEB,
    },
    Need {
        name: "cargo-about",
        why: "collects the licences of everything linked into the agent",
        purpose: Purpose::Dist,
        how: How::Cargo(Tool {
            name: "cargo-about",
            version: "0.9.3",
            // Slightly optimised: it compares each text with all known licences.
            args: &[
                "--debug",
                "--locked",
                "--no-default-features",
                "--features=cli",
                "--config=profile.dev.opt-level=1",
            ],
        }),
    },
    Need {
        name: "lintian",
        why: "Debian's own check of packages",
        purpose: Purpose::Dist,
        how: How::Debian(Package::new("lintian", Known::Program("lintian"))),
    },
    Need {
        name: "mmdebstrap",
        why: "fresh systems in which packages are installed",
        purpose: Purpose::Dist,
        how: How::Debian(Package::new("mmdebstrap", Known::Program("mmdebstrap"))),
    },
    Need {
        name: "gcc for arm64",
        why: "links the agent for arm64, and compiles its C",
        purpose: Purpose::Cross,
        how: How::Debian(Package::new("gcc-aarch64-linux-gnu", Known::Program("aarch64-linux-gnu-gcc"))),
    },
    Need {
        name: "libc for arm64",
        why: "libraries that it links to",
        purpose: Purpose::Cross,
        how: How::Debian(Package::new("libc6-dev-arm64-cross", Known::Installed)),
    },
    Need {
        name: "rust-std for arm64",
        why: "Rust's standard library for arm64",
        purpose: Purpose::Cross,
        how: How::Own { find: cross::find, provide: cross::provide },
    },
    Need {
        name: "cargo-deny",
        why: "licences, sources and advisories of the dependencies",
        purpose: Purpose::Lint,
        how: How::Cargo(Tool {
            name: "cargo-deny",
            version: "0.20.2",
            // Unoptimised: it runs for a second, and compiles in a third of the time.
            args: &["--debug", "--locked", "--no-default-features"],
        }),
    },
];

const PROMETHEUS: Package = Package::new("prometheus", Known::Program("promtool")).with_services(&["prometheus"]);
const PROMETHEUS_3: How = How::Own { find: newer::find_prometheus, provide: newer::provide_prometheus };
const VICTORIA_METRICS: How = How::Own { find: newer::find_victoria_metrics, provide: newer::provide_victoria_metrics };
const NODE_EXPORTER: Package = Package::new("prometheus-node-exporter", Known::Program("prometheus-node-exporter"))
    .with_services(&["prometheus-node-exporter"]);
/// It compresses through Debian's xz-utils, which dpkg brings.
const CARGO_DEB: How =
    How::Cargo(Tool { name: "cargo-deb", version: "3.8.0", args: &["--debug", "--locked", "--no-default-features"] });
const JOURNAL_REMOTE: Package =
    Package::new("systemd-journal-remote", Known::Installed).with_services(&["systemd-journal-remote.socket"]);
const NGINX: Package = Package::new("nginx", Known::Program("nginx")).with_services(&["nginx"]);
const WRK: Package = Package::new("wrk", Known::Program("wrk"));

/// Debian's python3 lacks the module that puts pip into a virtual environment.
const PYTHON_VENV: Package = Package::new("python3-venv", Known::Runs(&["/usr/bin/python3", "-c", "import ensurepip"]));

/// Arguments of `cargo xtask setup`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// What to set up for; every other subcommand sets up for itself.
    #[arg(value_enum, default_value = "build")]
    purposes: Vec<Purpose>,
    /// Use this route to the eBPF compiler instead of the first that works.
    #[arg(long, value_enum)]
    route: Option<Route>,
}

/// Runs `cargo xtask setup`.
pub(crate) fn main(workspace: &Workspace, args: &Args) -> Result<()> {
    if let Some(route) = args.route {
        ebpf::choose(workspace, route)?;
    }
    ensure(workspace, &args.purposes)
}

/// Installs what `purposes` need, and what [`Purpose::Build`] needs, which everything else requires.
pub(crate) fn ensure(workspace: &Workspace, purposes: &[Purpose]) -> Result<()> {
    let wanted = |need: &&Need| need.purpose == Purpose::Build || purposes.contains(&need.purpose);
    let context = |need: &Need| format!("installing {} ({})", need.name, need.why);

    let mut missing = Vec::new();
    for need in NEEDS.iter().filter(wanted) {
        let found = match &need.how {
            How::Debian(package) => package.find(),
            How::Cargo(tool) => tools::find(workspace, tool),
            How::Own { find, .. } => find(workspace).with_context(|| context(need))?,
        };
        match found {
            Some(found) => say(need, &format!("already there: {found}")),
            None => {
                say(need, &format!("missing: {}", need.why));
                missing.push(need);
            }
        }
    }

    let packages = missing.iter().filter_map(|need| match &need.how {
        How::Debian(package) => Some(package),
        How::Cargo(_) | How::Own { .. } => None,
    });
    debian::install(&packages.collect::<Vec<_>>())?;
    for need in missing {
        let provided = match &need.how {
            How::Debian(_) => Ok("installed from Debian".to_owned()),
            How::Cargo(tool) => tools::install(workspace, tool),
            How::Own { provide, .. } => provide(workspace),
        };
        say(need, &provided.with_context(|| context(need))?);
    }
    Ok(())
}

/// Prints one line of progress.
fn say(need: &Need, what: &str) {
    eprintln!("setup: {:<12} {what}", need.name);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_need_is_listed_once_for_a_purpose() {
        for (position, need) in NEEDS.iter().enumerate() {
            let twin = NEEDS[..position].iter().find(|other| other.name == need.name && other.purpose == need.purpose);
            assert!(twin.is_none(), "{} is listed twice for {:?}", need.name, need.purpose);
        }
    }
}
