//! `cargo xtask fuzz`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use clap::ValueEnum;

use crate::process;
use crate::setup::{self, Purpose};
use crate::workspace::Workspace;

/// Arguments of `cargo xtask fuzz`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How long to look for a crash: in the tracker, and again in the host's parsers, which share it.
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Only this target.
    #[arg(long)]
    target: Option<Target>,
    /// Only this parser of the target `host`.
    #[arg(long)]
    parser: Option<String>,
}

/// A file of `fuzz/fuzz_targets`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Target {
    /// The HTTP tracker.
    Tracker,
    /// The parsers of what the host says.
    Host,
}

/// Runs `cargo xtask fuzz`.
pub(crate) fn main(workspace: &Workspace, args: &Args) -> Result<()> {
    setup::ensure(workspace, &[Purpose::Fuzz])?;
    let target = args.target.or(args.parser.is_some().then_some(Target::Host));
    if target != Some(Target::Host) {
        tracker(workspace, args.seconds)?;
    }
    if target != Some(Target::Tracker) {
        host(workspace, args)?;
    }
    Ok(())
}

fn tracker(workspace: &Workspace, seconds: u32) -> Result<()> {
    let mut cargo = fuzz(workspace, &["run", "tracker", "--"]);
    cargo.args(limits(seconds));
    process::run(&mut cargo).context("fuzzing tracker: an input that made it fail is under fuzz/artifacts/tracker")?;
    eprintln!("xtask: tracker found nothing in {seconds} s");
    Ok(())
}

/// All parsers by turns: each for its part of the time, from the fixtures and from what earlier runs have found.
fn host(workspace: &Workspace, args: &Args) -> Result<()> {
    process::run(&mut fuzz(workspace, &["build", "host"])).context("building the target host")?;
    let binary = binary(workspace)?;
    let listed = process::output(Command::new(&binary).env("CITADEL_PARSERS", "1"))?;
    let all: Vec<(&str, &str)> = listed.lines().filter_map(|line| line.split_once('\t')).collect();
    let wanted = |name: &str| args.parser.as_deref().is_none_or(|parser| parser == name);
    let parsers: Vec<_> = all.iter().filter(|(name, _)| wanted(name)).collect();
    if parsers.is_empty() {
        let names: Vec<&str> = all.iter().map(|(name, _)| *name).collect();
        bail!("there is no such parser; there are {}", names.join(", "));
    }
    let examples = examples(&workspace.root.join("citadel-agent/tests/fixtures"))?;
    let seconds = (args.seconds / parsers.len() as u32).max(1);
    for (name, seeds) in &parsers {
        let corpus = workspace.root.join("fuzz/corpus/host").join(name);
        let artifacts = workspace.root.join("fuzz/artifacts/host").join(name);
        fs::create_dir_all(&corpus)?;
        fs::create_dir_all(&artifacts)?;
        let own = examples.iter().filter(|(path, _)| is_seed(path, seeds));
        let mut count = 0;
        for (path, content) in own {
            fs::write(corpus.join(path.replace('/', "-")), content)?;
            count += 1;
        }
        ensure!(count > 0, "no fixture is called {seeds}: the parser {name} would begin with nothing");
        let mut run = Command::new(&binary);
        run.env("CITADEL_PARSER", name).arg(&corpus).args(limits(seconds));
        run.arg(format!("-artifact_prefix={}/", artifacts.display()));
        // It ends with a page of words that it has tried.
        let ended = run.output().context("cannot run the target host")?;
        if !ended.status.success() {
            eprintln!("{}", String::from_utf8_lossy(&ended.stderr));
            bail!("fuzzing {name}: an input that made it fail is under fuzz/artifacts/host/{name}");
        }
        eprintln!("xtask: {name}: {} inputs", executed(&String::from_utf8_lossy(&ended.stderr)));
    }
    eprintln!("xtask: the host's {} parsers found nothing in {seconds} s each", parsers.len());
    Ok(())
}

/// cargo-fuzz. The sanitizers are unstable flags; the pinned compiler takes them with this, so no nightly is needed.
fn fuzz(workspace: &Workspace, args: &[&str]) -> Command {
    let mut cargo = workspace.cargo("fuzz");
    cargo.args(args).env("RUSTC_BOOTSTRAP", "1");
    cargo
}

/// Without the verbosity, a line for each input that is kept: hundreds of them, of no use to a reader of the output.
fn limits(seconds: u32) -> [String; 3] {
    [format!("-max_total_time={seconds}"), "-print_final_stats=1".to_owned(), "-verbosity=0".to_owned()]
}

/// How many inputs libFuzzer has tried, of its statistics.
fn executed(output: &str) -> &str {
    let line = output.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
    line.map_or("an unknown number of", str::trim)
}

/// Where cargo-fuzz puts what it builds: under the compiler's own target.
fn binary(workspace: &Workspace) -> Result<PathBuf> {
    let about = process::output(Command::new("rustc").arg("-vV").current_dir(&workspace.root))?;
    let host = about.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc does not name its target")?;
    Ok(workspace.root.join("fuzz/target").join(host).join("release/host"))
}

/// The fixtures' files and those of the hosts among them, by their paths.
fn examples(fixtures: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let mut found = Vec::new();
    for folder in ["parsers", "smartctl"] {
        for file in fs::read_dir(fixtures.join(folder))? {
            let file = file?;
            found.push((format!("{folder}/{}", file.file_name().to_string_lossy()), fs::read(file.path())?));
        }
    }
    for file in fs::read_dir(fixtures.join("hosts"))? {
        let path = file?.path();
        if path.extension().is_some_and(|extension| extension == "tree") {
            let tree = fs::read_to_string(&path)?;
            let files = tree.split("==> ").skip(1).filter_map(|entry| entry.split_once('\n'));
            found.extend(files.map(|(name, content)| (name.to_owned(), content.as_bytes().to_vec())));
        }
    }
    Ok(found)
}

/// Whether the file is one of the examples: it itself, or one of a folder's.
fn is_seed(path: &str, seeds: &str) -> bool {
    path == seeds || (seeds.ends_with('/') && path.starts_with(seeds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_are_files_or_whole_folders() {
        assert!(is_seed("proc/stat", "proc/stat") && is_seed("smartctl/sda.json", "smartctl/"));
        assert!(!is_seed("proc/stat2", "proc/stat") && !is_seed("proc/statistics", "proc/stat"));
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../citadel-agent/tests/fixtures");
        let examples = examples(&fixtures).unwrap();
        assert_eq!(executed("#9 DONE\nstat::number_of_executed_units: 4711\nstat::peak_rss_mb: 35\n"), "4711");
        assert!(examples.iter().any(|(path, content)| path == "proc/meminfo" && content.starts_with(b"MemTotal:")));
    }
}
