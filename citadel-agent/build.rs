//! Builds the eBPF programs and tells the crate where the object files are.
//!
//! aya-build works only with rustup's compiler; this uses the compiler and the linker that `cargo xtask setup` found or
//! installed (`target/tools/ebpf.env`), so that Debian's compiler works as well.

use std::collections::BTreeMap;
use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// One object file per probe family.
const FAMILIES: [&str; 3] = ["net", "sched", "syscalls"];

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("cargo::error={error}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), String> {
    // Read at run time: a target folder copied to another checkout contains a build script compiled in the old one.
    let manifest = env::var_os("CARGO_MANIFEST_DIR").ok_or("cargo sets CARGO_MANIFEST_DIR")?;
    let root = Path::new(&manifest).parent().ok_or("the crate has no parent folder")?;
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    for path in ["citadel-agent-ebpf/src", "citadel-agent-ebpf/Cargo.toml", "citadel-agent-ebpf/Cargo.lock"] {
        println!("cargo::rerun-if-changed={}", root.join(path).display());
    }
    println!("cargo::rerun-if-changed={}", root.join("citadel-agent-common/src").display());
    describe_build();

    let tools = tools(&root.join("target/tools/ebpf.env"))?;
    let linker = tools.get("BPF_LINKER").ok_or("target/tools/ebpf.env names no BPF_LINKER: run `cargo xtask setup`")?;
    let arch = env::var("CARGO_CFG_TARGET_ARCH").map_err(|_| "CARGO_CFG_TARGET_ARCH is not set")?;
    let flags = [
        format!("--cfg=bpf_target_arch=\"{arch}\""),
        // 32-bit arithmetic, since Linux 5.1.
        "-Ctarget-cpu=v3".to_owned(),
        // The BTF of the maps is generated from debug information.
        "-Cdebuginfo=2".to_owned(),
        "-Clink-arg=--btf".to_owned(),
        // Otherwise zeroing an array becomes a byte loop of hundreds of instructions.
        "-Clink-arg=--disable-expand-memcpy-in-order".to_owned(),
        // Words of header text may be unaligned; x86-64 and arm64 can load them.
        "-Clink-arg=--cpu-features=+allows-misaligned-mem-access".to_owned(),
        format!("-Clinker={linker}"),
    ];
    // Shared by all builds of this checkout (debug, release, clippy, fuzz), so that they compile the programs once.
    let log = env::var_os("CARGO_FEATURE_BPF_LOG").is_some();
    let target_dir = root.join("target/ebpf").join(if log { format!("{arch}-log") } else { arch });
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .current_dir(root.join("citadel-agent-ebpf"))
        .args(["build", "--release", "--locked", "-Z", "build-std=core", "--target", "bpfel-unknown-none"])
        .args(log.then_some("--features=log"))
        .arg("--target-dir")
        .arg(&target_dir)
        // Cargo passes its own settings down; those are for the host.
        .env_remove("RUSTFLAGS")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("RUSTC_WRAPPER")
        .env_remove("RUSTC")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
        // `-Z build-std` on the pinned stable compiler.
        .env("RUSTC_BOOTSTRAP", "1");
    // So is `CARGO_PROFILE_RELEASE_LTO=off`: without it, the programs are other programs. Incremental compilation changes them
    // too.
    cargo.env_remove("CARGO_INCREMENTAL");
    for (key, _) in env::vars_os().filter(|(key, _)| key.to_string_lossy().starts_with("CARGO_PROFILE_")) {
        cargo.env_remove(key);
    }
    for (key, value) in &tools {
        cargo.env(key, value);
    }
    let output = cargo.output().map_err(|error| format!("cannot run cargo for the eBPF crate: {error}"))?;
    if !output.status.success() {
        return Err(format!(
            "the eBPF crate does not build (is `cargo xtask setup` done?): {}",
            String::from_utf8_lossy(&output.stderr).replace('\n', "\ncargo::error=")
        ));
    }
    for family in FAMILIES {
        let object = target_dir.join("bpfel-unknown-none/release").join(family);
        let whole = std::fs::read(&object).map_err(|error| format!("cannot read {}: {error}", object.display()))?;
        let stripped = strip(&whole).map_err(|error| format!("cannot strip {}: {error}", object.display()))?;
        let path = out.join(format!("{family}.o"));
        std::fs::write(&path, stripped).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    }
    Ok(())
}

/// Removes DWARF, from which the linker has made BTF: three quarters of an object, which aya would read at each start.
fn strip(object: &[u8]) -> Result<Vec<u8>, object::build::Error> {
    let mut elf = object::build::elf::Builder::read(object)?;
    for section in &mut elf.sections {
        section.delete = [&b".debug_"[..], b".rel.debug_"].iter().any(|prefix| section.name.starts_with(prefix));
    }
    // The symbols in them.
    elf.delete_orphans();
    // LLVM writes the sections' names into the symbols' string table, which the writer does not do.
    let names = elf.sections.add();
    names.name = b".shstrtab"[..].into();
    names.sh_type = object::elf::SHT_STRTAB;
    names.data = object::build::elf::SectionData::SectionString;
    let mut stripped = Vec::new();
    elf.write(&mut stripped)?;
    Ok(stripped)
}

/// Parses `KEY=VALUE` lines.
fn tools(path: &Path) -> Result<BTreeMap<String, String>, String> {
    println!("cargo::rerun-if-changed={}", path.display());
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("{}: {error}: run `cargo xtask setup` first", path.display()))?;
    Ok(text.lines().filter_map(|line| line.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect())
}

/// Sets what `citadel_agent_build_info` and `citadel-agent version` report; "unknown" if git or the compiler cannot be
/// run.
fn describe_build() {
    let ask = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().ok().filter(|output| output.status.success())?;
        Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
    };
    let say = |variable: &str, program: &str, arguments: &[&str]| {
        let text = ask(program, arguments);
        println!("cargo::rustc-env={variable}={}", text.as_deref().unwrap_or("unknown"));
    };
    // In a linked worktree, `.git` is a file; a path that does not exist would cause a full rebuild each time.
    if let Some(head) = ask("git", &["rev-parse", "--git-path", "HEAD"]) {
        println!("cargo::rerun-if-changed={head}");
    }
    say("CITADEL_COMMIT", "git", &["rev-parse", "--short=12", "HEAD"]);
    let rustc = env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    say("CITADEL_RUSTC", &rustc, &["--version"]);
}
