//! Why a family is not running.

use std::io;

use aya::EbpfError;
use aya::maps::MapError;

use super::slots::TooManyPorts;

/// Why the family could not be loaded or attached.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The cgroup directory cannot be opened.
    #[error("cannot open the cgroup {path}: {error}")]
    Cgroup {
        /// Path of the directory.
        path: String,
        /// The cause.
        error: io::Error,
    },
    /// The maps could not be created.
    #[error("the kernel refused the maps: {0}")]
    Maps(#[from] EbpfError),
    /// The kernel rejected a program.
    #[error("the kernel refused {program}: {error}")]
    Program {
        /// Name of the program.
        program: &'static str,
        /// The cause; the verifier's log is written to the debug log.
        error: String,
    },
    /// A map could not be read or written.
    #[error("map {map}: {error}")]
    Map {
        /// Name of the map.
        map: &'static str,
        /// The cause.
        error: MapError,
    },
    /// A map could not be mapped into memory.
    #[error("cannot map {map} into memory: {error}")]
    Mmap {
        /// Name of the map.
        map: &'static str,
        /// The cause.
        error: io::Error,
    },
    /// The kernel's own types cannot be read.
    #[error("{0}")]
    Types(String),
    /// It depends on another family that is not running.
    #[error("requires family {0}, which is not running")]
    Needs(&'static str),
    /// A family that must run fails.
    #[error("{family}: {reason}")]
    Family {
        /// Name of the family.
        family: &'static str,
        /// The reason.
        reason: String,
    },
    /// There are more ports than slots.
    #[error(transparent)]
    TooManyPorts(#[from] TooManyPorts),
    /// A file descriptor cannot be duplicated.
    #[error("cannot duplicate a file descriptor: {0}")]
    Descriptor(#[from] io::Error),
    /// A map of a type that the agent does not use.
    #[error("map {0} has an unexpected type; this build is broken")]
    UnknownMap(String),
    /// The object lacks something required.
    #[error("the embedded eBPF object has no {0}; this build is broken")]
    Missing(&'static str),
}

impl ProbeError {
    /// The program that failed, if it was one.
    #[must_use]
    pub const fn program(&self) -> Option<&'static str> {
        match self {
            Self::Program { program, .. } => Some(program),
            _ => None,
        }
    }

    /// How to fix it.
    #[must_use]
    pub const fn remedy(&self) -> &'static str {
        match self {
            Self::Cgroup { .. } => "set ebpf.cgroup to a directory of the cgroup v2 hierarchy, or remove it",
            Self::Maps(_) | Self::Mmap { .. } => "check LimitMEMLOCK (kernels before 5.11) and free memory",
            Self::Program { .. } => {
                "run with RUST_LOG=debug for the verifier log, and report it with the kernel version"
            }
            Self::Needs(_) => "fix the other family first",
            Self::TooManyPorts(_) => "restart the agent",
            Self::Descriptor(_) => "raise the limit of open files (LimitNOFILE)",
            Self::UnknownMap(_) | Self::Map { .. } | Self::Family { .. } | Self::Missing(_) | Self::Types(_) => {
                "report this with the kernel version"
            }
        }
    }
}

/// An error with its causes, in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
