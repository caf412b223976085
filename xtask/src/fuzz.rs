//! `cargo xtask fuzz`.

use std::fs;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail, ensure};
use clap::ValueEnum;

use crate::process;
use crate::setup::{self, Purpose};
use crate::workspace::Workspace;

/// Arguments of `cargo xtask fuzz`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Seconds to look for a crash: in the tracker, and in each of the host's parsers whose turn it is.
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Only this target.
    #[arg(long)]
    target: Option<Target>,
    /// Only this parser of the target `host`.
    #[arg(long)]
    parser: Option<String>,
}

/// How many of the host's parsers are fuzzed for the whole time in one run; the hour selects them.
const PARSERS_BY_TURNS: usize = 4;

/// A file of `fuzz/fuzz_targets`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Target {
    /// The HTTP tracker.
    Tracker,
    /// The parsers of the host's files.
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
    process::run(&mut cargo).context("fuzzing the tracker failed: the input is in fuzz/artifacts/tracker")?;
    eprintln!("xtask: tracker: no failure in {seconds} s");
    Ok(())
}

/// A parser of the target `host` and how long it is fuzzed.
struct Trial<'a> {
    name: &'a str,
    /// The fixtures used as its seed corpus.
    seeds: &'a str,
    seconds: u32,
}

/// Fuzzes the parsers of the target `host`: some for the whole time in turn, all others for a second, or only the one
/// that is named. Each starts with the fixtures and the corpus of earlier runs.
fn host(workspace: &Workspace, args: &Args) -> Result<()> {
    process::run(&mut fuzz(workspace, &["build", "host"])).context("building the target host")?;
    let binary = binary(workspace)?;
    let listed = process::output(Command::new(&binary).env("CITADEL_PARSERS", "1"))?;
    let all: Vec<(&str, &str)> = listed.lines().filter_map(|line| line.split_once('\t')).collect();
    let hours = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() / 3600;
    let trials = trials(&all, args, hours)?;
    let examples = examples(&workspace.root.join("citadel-agent/tests/fixtures"))?;
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some(trial) = trials.get(next.fetch_add(1, Ordering::Relaxed)) {
            try_parser(workspace, &binary, trial, &examples)?;
        }
        Ok(())
    };
    // libFuzzer uses one core.
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        let ended = workers.into_iter().map(|worker| worker.join().unwrap_or_else(|panic| resume_unwind(panic)));
        ended.collect::<Result<Vec<()>>>()
    })?;
    eprintln!("xtask: {} host parsers: no failure", trials.len());
    Ok(())
}

/// What is fuzzed in this hour, the longest first.
fn trials<'a>(all: &[(&'a str, &'a str)], args: &Args, hours: u64) -> Result<Vec<Trial<'a>>> {
    if let Some(wanted) = &args.parser {
        let Some(&(name, seeds)) = all.iter().find(|(name, _)| name == wanted) else {
            let names: Vec<&str> = all.iter().map(|(name, _)| *name).collect();
            bail!("no parser is called {wanted}; the parsers are {}", names.join(", "));
        };
        return Ok(vec![Trial { name, seeds, seconds: args.seconds }]);
    }
    ensure!(!all.is_empty(), "the target host lists no parsers");
    // The next hour continues where this one stops, so that every parser has its turn within a day.
    let begin = (hours % all.len() as u64) as usize * PARSERS_BY_TURNS % all.len();
    let turn = |index: usize| (index + all.len() - begin) % all.len() < PARSERS_BY_TURNS;
    let trial = |(index, &(name, seeds)): (usize, &(&'a str, &'a str))| {
        let seconds = if turn(index) { args.seconds } else { 1 };
        Trial { name, seeds, seconds }
    };
    let mut trials: Vec<_> = all.iter().enumerate().map(trial).collect();
    trials.sort_by_key(|trial| std::cmp::Reverse(trial.seconds));
    Ok(trials)
}

fn try_parser(workspace: &Workspace, binary: &Path, trial: &Trial<'_>, examples: &[(String, Vec<u8>)]) -> Result<()> {
    let Trial { name, seeds, seconds } = *trial;
    let corpus = workspace.root.join("fuzz/corpus/host").join(name);
    let artifacts = workspace.root.join("fuzz/artifacts/host").join(name);
    fs::create_dir_all(&corpus)?;
    fs::create_dir_all(&artifacts)?;
    let own: Vec<_> = examples.iter().filter(|(path, _)| is_seed(path, seeds)).collect();
    ensure!(!own.is_empty(), "no fixture is called {seeds}: the parser {name} would have no seed");
    for (path, content) in own {
        fs::write(corpus.join(path.replace('/', "-")), content)?;
    }
    let mut run = Command::new(binary);
    run.env("CITADEL_PARSER", name).arg(&corpus).args(limits(seconds));
    run.arg(format!("-artifact_prefix={}/", artifacts.display()));
    // It ends with a page of dictionary words.
    let ended = run.output().context("cannot run the target host")?;
    let output = String::from_utf8_lossy(&ended.stderr);
    if !ended.status.success() {
        eprintln!("{output}");
        bail!("fuzzing {name} failed: the input is in fuzz/artifacts/host/{name}");
    }
    eprintln!("xtask: {name}: {} inputs in {seconds} s", executed(&output));
    Ok(())
}

/// cargo-fuzz. The sanitizers are unstable flags; with this variable the pinned compiler accepts them, so no nightly is
/// needed.
fn fuzz(workspace: &Workspace, args: &[&str]) -> Command {
    let mut cargo = workspace.cargo("fuzz");
    cargo.args(args).env("RUSTC_BOOTSTRAP", "1");
    cargo
}

/// With the default verbosity libFuzzer prints a line for each new input: hundreds of them.
fn limits(seconds: u32) -> [String; 3] {
    [format!("-max_total_time={seconds}"), "-print_final_stats=1".to_owned(), "-verbosity=0".to_owned()]
}

/// Number of inputs tried, from libFuzzer's statistics.
fn executed(output: &str) -> &str {
    let line = output.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
    line.map_or("an unknown number of", str::trim)
}

/// Where cargo-fuzz puts its binaries: under the compiler's target triple.
fn binary(workspace: &Workspace) -> Result<PathBuf> {
    let about = process::output(Command::new("rustc").arg("-vV").current_dir(&workspace.root))?;
    let host = about.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc does not print its target")?;
    Ok(workspace.root.join("fuzz/target").join(host).join("release/host"))
}

/// The fixtures, including those in the hosts' folders, by path.
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

/// Whether the file is one of the seeds: itself, or a file in a seed folder.
fn is_seed(path: &str, seeds: &str) -> bool {
    path == seeds || (seeds.ends_with('/') && path.starts_with(seeds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_parser_has_its_minute_within_as_many_hours() {
        let names: Vec<String> = (0..37).map(|n| n.to_string()).collect();
        let all: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "seeds")).collect();
        let args = Args { seconds: 60, target: None, parser: None };
        let mut had = std::collections::BTreeSet::new();
        for hours in 490_000..490_010 {
            let trials = trials(&all, &args, hours).unwrap();
            assert_eq!(trials.len(), 37);
            let long: Vec<_> = trials.iter().filter(|trial| trial.seconds == 60).collect();
            assert_eq!(long.len(), PARSERS_BY_TURNS);
            had.extend(long.iter().map(|trial| trial.name));
        }
        assert_eq!(had.len(), 37);
        let one = Args { parser: Some("5".to_owned()), ..args };
        let trials = trials(&all, &one, 0).unwrap();
        assert!(matches!(&trials[..], [Trial { name: "5", seconds: 60, .. }]));
    }

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
