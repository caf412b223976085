//! `cargo xtask fuzz`.

use std::cmp::Reverse;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail, ensure};
use clap::ValueEnum;

use crate::setup::{self, Purpose};
use crate::workspace::Workspace;
use crate::{cores, process};

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
    build(workspace)?;
    let listed = process::output(Command::new(binary(workspace, Target::Host)).env("CITADEL_PARSERS", "1"))?;
    let all: Vec<(&str, &str)> = listed.lines().filter_map(|line| line.split_once('\t')).collect();
    let hours = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() / 3600;
    let trials = trials(&all, args, hours)?;
    let examples = examples(&workspace.root.join("citadel-agent/tests/fixtures"))?;
    // libFuzzer works on one core.
    cores::share(&trials, |trial| attempt(workspace, trial, &examples))?;
    eprintln!("xtask: {} fuzz trials found nothing", trials.len());
    Ok(())
}

/// Builds both targets. Only the workspace's own crates are instrumented and optimised; their dependencies are those that
/// `cargo xtask test` builds, so after it only a few crates are left to compile.
fn build(workspace: &Workspace) -> Result<()> {
    let mut cargo = workspace.cargo("build");
    cargo.args(["--locked", "--workspace", "--exclude", crate::test::ON_THE_KERNEL]);
    cargo.args(["--features", "citadel-agent-fuzz/targets", "--bin", "tracker", "--bin", "host"]);
    // There are none. With the flag cargo resolves features as it does for tests, and finds their dependencies built.
    cargo.arg("--examples");
    for (package, level) in [("citadel-agent-common", 3), ("citadel-agent", 1), ("citadel-agent-fuzz", 1)] {
        cargo.arg(format!("--config=profile.dev.package.{package}.opt-level={level}"));
    }
    cargo.env("RUSTC_WORKSPACE_WRAPPER", workspace.root.join("fuzz/instrumented-rustc"));
    process::run(&mut cargo).context("building the fuzz targets")
}

/// One run of a target.
#[derive(PartialEq, Eq, Debug)]
struct Trial<'a> {
    what: What<'a>,
    seconds: u32,
}

/// What a trial runs.
#[derive(PartialEq, Eq, Debug)]
enum What<'a> {
    Tracker,
    /// A parser of the target `host`, and the fixtures that it starts with.
    Parser {
        name: &'a str,
        seeds: &'a str,
    },
}

impl What<'_> {
    /// Its folder below `fuzz/corpus` and `fuzz/artifacts`.
    fn folder(&self) -> PathBuf {
        match self {
            Self::Tracker => "tracker".into(),
            Self::Parser { name, .. } => Path::new("host").join(name),
        }
    }
}

/// The trials of this hour, the longest first: the tracker and [`PARSERS_BY_TURNS`] parsers for the whole time, all other parsers for
/// a second.
fn trials<'a>(all: &[(&'a str, &'a str)], args: &Args, hours: u64) -> Result<Vec<Trial<'a>>> {
    ensure!(!all.is_empty(), "the target host lists no parsers");
    let parser = |&(name, seeds), seconds| Trial { what: What::Parser { name, seeds }, seconds };
    if let Some(wanted) = &args.parser {
        let Some(found) = all.iter().find(|(name, _)| name == wanted) else {
            let names: Vec<&str> = all.iter().map(|(name, _)| *name).collect();
            bail!("no parser is called {wanted}; the parsers are {}", names.join(", "));
        };
        return Ok(vec![parser(found, args.seconds)]);
    }
    let mut trials = Vec::new();
    if args.target != Some(Target::Host) {
        trials.push(Trial { what: What::Tracker, seconds: args.seconds });
    }
    if args.target != Some(Target::Tracker) {
        // The next hour goes on where this one ends, and all have had their turn after a day.
        let begin = (hours % all.len() as u64) as usize * PARSERS_BY_TURNS % all.len();
        let turn = |index: usize| (index + all.len() - begin) % all.len() < PARSERS_BY_TURNS;
        let seconds = |index| if turn(index) { args.seconds } else { 1 };
        trials.extend(all.iter().enumerate().map(|(index, found)| parser(found, seconds(index))));
    }
    trials.sort_by_key(|trial| Reverse(trial.seconds));
    Ok(trials)
}

/// Runs one trial, from the fixtures and what earlier runs have found.
fn attempt(workspace: &Workspace, trial: &Trial<'_>, examples: &[(String, Vec<u8>)]) -> Result<()> {
    let (folder, seconds) = (trial.what.folder(), trial.seconds);
    let name = folder.display();
    let corpus = workspace.root.join("fuzz/corpus").join(&folder);
    let artifacts = workspace.root.join("fuzz/artifacts").join(&folder);
    fs::create_dir_all(&corpus)?;
    fs::create_dir_all(&artifacts)?;
    let mut run = match trial.what {
        What::Tracker => Command::new(binary(workspace, Target::Tracker)),
        What::Parser { name: parser, seeds } => {
            let own: Vec<_> = examples.iter().filter(|(path, _)| is_seed(path, seeds)).collect();
            ensure!(!own.is_empty(), "no fixture is called {seeds}: the parser {parser} would start with nothing");
            for (path, content) in own {
                fs::write(corpus.join(path.replace('/', "-")), content)?;
            }
            let mut host = Command::new(binary(workspace, Target::Host));
            host.env("CITADEL_PARSER", parser);
            host
        }
    };
    run.arg(&corpus).args(limits(seconds)).arg(format!("-artifact_prefix={}/", artifacts.display()));
    // It ends with a page of dictionary words.
    let ended = run.output().with_context(|| format!("cannot run the fuzz target of {name}"))?;
    let output = String::from_utf8_lossy(&ended.stderr);
    if !ended.status.success() {
        eprintln!("{output}");
        bail!("fuzzing {name}: an input that made it fail is under fuzz/artifacts/{name}");
    }
    eprintln!("xtask: {name}: {} inputs in {seconds} s", executed(&output));
    Ok(())
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

/// A built target.
fn binary(workspace: &Workspace, target: Target) -> PathBuf {
    workspace.target().join("debug").join(match target {
        Target::Tracker => "tracker",
        Target::Host => "host",
    })
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
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_parser_has_its_minute_within_as_many_hours() {
        let names: Vec<String> = (0..37).map(|n| n.to_string()).collect();
        let all: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "seeds")).collect();
        let args = |target, parser: Option<&str>| Args { seconds: 60, target, parser: parser.map(str::to_owned) };
        let mut had = BTreeSet::new();
        for hours in 490_000..490_010 {
            let trials = trials(&all, &args(None, None), hours).unwrap();
            assert_eq!(trials.len(), 1 + 37);
            let long = trials.iter().take_while(|trial| trial.seconds == 60).map(|trial| trial.what.folder());
            let long: Vec<_> = long.collect();
            assert_eq!(long.len(), 1 + PARSERS_BY_TURNS);
            had.extend(long);
        }
        assert_eq!(had.len(), 1 + 37);
        let parser = What::Parser { name: "5", seeds: "seeds" };
        assert_eq!(trials(&all, &args(None, Some("5")), 0).unwrap(), [Trial { what: parser, seconds: 60 }]);
        let tracker = Trial { what: What::Tracker, seconds: 60 };
        assert_eq!(trials(&all, &args(Some(Target::Tracker), None), 0).unwrap(), [tracker]);
        assert_eq!(trials(&all, &args(Some(Target::Host), None), 0).unwrap().len(), 37);
        assert!(trials(&all, &args(None, Some("no such")), 0).is_err());
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
