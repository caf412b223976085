//! The compiler, library source and linker of the eBPF programs, by one of two routes.
//!
//! The result is written to `target/tools/ebpf.env`, lines of `KEY=VALUE` that `citadel-agent/build.rs` reads, so that
//! a plain `cargo build` works after set-up:
//!
//! - `ROUTE`: `rustup` or `debian`;
//! - `BPF_LINKER`: absolute path of bpf-linker;
//! - `RUSTC`: the compiler for the eBPF programs, only where it is not the toolchain's own.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::ValueEnum;

use crate::debian::{self, Known, Package};
use crate::process;
use crate::tools::{self, Tool};
use crate::workspace::Workspace;

/// A way to compile and link the eBPF programs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Route {
    /// The pinned toolchain, rust-src from rustup, and a bpf-linker that uses that rustc's LLVM.
    Rustup,
    /// Debian's rustc-web and rust-web-src for the eBPF programs only, and a bpf-linker with Debian's LLVM 22.
    Debian,
}

/// Debian's compiler, as opposed to the toolchain's.
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";

/// These two always match each other, whatever version Debian has.
const DEBIAN_COMPILER: Package = Package::new("rustc-web", Known::Installed);
const DEBIAN_SOURCE: Package = Package::new("rust-web-src", Known::Installed);
const DEBIAN_LLVM: Package = Package::new("llvm-22-dev", Known::Installed);
const DEBIAN_ZLIB: Package = Package::new("zlib1g-dev", Known::Installed);
const DEBIAN_ZSTD: Package = Package::new("libzstd-dev", Known::Installed);

impl Route {
    fn name(self) -> &'static str {
        match self {
            Self::Rustup => "rustup",
            Self::Debian => "debian",
        }
    }

    /// The linker must understand the LLVM of the route's rustc: 22 for both, but each from its own library.
    fn linker(self) -> Tool {
        match self {
            Self::Rustup => Tool {
                name: "bpf-linker",
                version: "0.10.4",
                args: &["--locked", "--no-default-features", "--features", "rust-llvm-22"],
            },
            Self::Debian => Tool {
                name: "bpf-linker",
                version: "0.13.0",
                args: &["--locked", "--no-default-features", "--features", "llvm-22"],
            },
        }
    }

    fn rustc(self) -> &'static str {
        match self {
            Self::Rustup => "rustc",
            Self::Debian => DEBIAN_RUSTC,
        }
    }

    /// The library source of the route's rustc; `None` when it is missing.
    fn source(self, workspace: &Workspace) -> Option<PathBuf> {
        let output = workspace.command(self.rustc()).args(["--print", "sysroot"]).output().ok()?;
        let sysroot = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
        let library = sysroot.join("lib/rustlib/src/rust/library");
        library.join("core/Cargo.toml").is_file().then_some(library)
    }
}

/// The route that set-up took or was told to take; `None` before the first set-up.
pub(crate) fn route(workspace: &Workspace) -> Option<Route> {
    let text = fs::read_to_string(record(workspace)).ok()?;
    let name = text.lines().find_map(|line| line.strip_prefix("ROUTE="))?;
    Route::value_variants().iter().copied().find(|route| route.name() == name)
}

/// Makes the next set-up take `route`.
pub(crate) fn choose(workspace: &Workspace, route: Route) -> Result<()> {
    if self::route(workspace) == Some(route) {
        return Ok(());
    }
    write_record(workspace, &format!("ROUTE={}\n", route.name()))
}

/// Where the library source is, of the chosen route or of rustup.
pub(crate) fn find_source(workspace: &Workspace) -> Result<Option<String>> {
    let route = route(workspace).unwrap_or(Route::Rustup);
    Ok(route.source(workspace).map(|library| format!("{} (route: {})", library.display(), route.name())))
}

/// Gets the library source from rustup or, where rustup cannot download, from Debian.
pub(crate) fn provide_source(workspace: &Workspace) -> Result<String> {
    if route(workspace) != Some(Route::Debian) {
        let mut rustup = workspace.command("rustup");
        match process::run(rustup.args(["component", "add", "rust-src"])) {
            Ok(()) => {
                choose(workspace, Route::Rustup)?;
                return Ok("added by rustup (route: rustup)".to_owned());
            }
            Err(error) if route(workspace) == Some(Route::Rustup) => return Err(error),
            Err(error) => {
                eprintln!("setup: rust-src     {error:#}; using Debian's compiler instead");
            }
        }
    }
    debian::install(&[&DEBIAN_COMPILER, &DEBIAN_SOURCE])?;
    Route::Debian.source(workspace).with_context(|| format!("{DEBIAN_RUSTC} has no library source"))?;
    choose(workspace, Route::Debian)?;
    Ok(format!("{DEBIAN_RUSTC} for the eBPF programs only, from rustc-web and rust-web-src (route: debian)"))
}

/// Where the linker is; only valid together with a complete record.
pub(crate) fn find_linker(workspace: &Workspace) -> Result<Option<String>> {
    let Some(route) = route(workspace) else {
        return Ok(None);
    };
    let complete = fs::read_to_string(record(workspace)).is_ok_and(|text| text == record_text(workspace, route));
    Ok(if complete { tools::find(workspace, &route.linker()) } else { None })
}

/// Builds the linker for the route unless it exists, and completes the record.
pub(crate) fn provide_linker(workspace: &Workspace) -> Result<String> {
    let route = route(workspace).unwrap_or(Route::Rustup);
    let tool = route.linker();
    let done = match (tools::find(workspace, &tool), route) {
        (Some(found), _) => format!("already there: {found}"),
        (None, Route::Rustup) => tools::install(workspace, &tool)?,
        (None, Route::Debian) => {
            let packages = [DEBIAN_LLVM, DEBIAN_ZLIB, DEBIAN_ZSTD];
            debian::install(&packages.iter().filter(|package| package.find().is_none()).collect::<Vec<_>>())?;
            // A plain llvm-config on the path may be another version.
            tools::install_with(workspace, &tool, &[("LLVM_PREFIX", "/usr/lib/llvm-22")])?
        }
    };
    write_record(workspace, &record_text(workspace, route))?;
    Ok(format!("{done} (route: {})", route.name()))
}

/// The file that `citadel-agent/build.rs` reads.
fn record(workspace: &Workspace) -> PathBuf {
    workspace.tools().join("ebpf.env")
}

fn record_text(workspace: &Workspace, route: Route) -> String {
    let linker = workspace.tools().join("bin/bpf-linker");
    let mut text = format!("ROUTE={}\nBPF_LINKER={}\n", route.name(), linker.display());
    if route == Route::Debian {
        text.push_str(&format!("RUSTC={DEBIAN_RUSTC}\n"));
    }
    text
}

fn write_record(workspace: &Workspace, text: &str) -> Result<()> {
    let path = record(workspace);
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}
