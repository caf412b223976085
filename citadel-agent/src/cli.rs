//! The command line: parse, load the configuration, dispatch, map errors to exit codes.

use std::ffi::OsString;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use tracing::info;

use crate::check::Severity;
use crate::config::{self, Config, ConfigErrors, DEFAULT_PATH};
use crate::control::{self, ControlError, LONGEST_RELEASE, Order};
use crate::logging::{self, LogError, LogHandle};
use crate::remote_write::command::{self, CommandError};
use crate::remote_write::encode::Protocol;
use crate::test_mode::{self, TestModeError};
use crate::{agent, alerts, check, logs};

/// Exit code when something failed.
pub const FAILED: u8 = 1;
/// Exit code of `check` when it works, with something missing.
pub const WARNED: u8 = 3;
/// Exit code when the command line, the environment or the configuration is mistaken.
pub const MISTAKE: u8 = 2;

/// The version, and the commit that it was built from.
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (commit ", env!("CITADEL_COMMIT"), ")");

/// What stands for standard input where a file is named.
const STANDARD_INPUT: &str = "-";

/// Per-model latency of LLM servers, measured in the kernel.
#[derive(Parser, Debug)]
#[command(name = "citadel-agent", version = VERSION, arg_required_else_help = true, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 ok, 1 failed, 2 usage or configuration mistake, 3 warnings only (check).
Environment: CITADEL_AGENT_CONFIG names the configuration file, RUST_LOG overrides the log level.";

#[derive(Subcommand, Debug)]
enum Command {
    /// Run the agent in the foreground, as systemd starts it. SIGHUP reloads the configuration.
    ///
    /// With --test-mode it measures one model for a while, prints what it saw and what that cost, and ends: nothing is sent, served or
    /// asked of the model.
    Run(RunArgs),
    /// Check whether the agent works on this host, and how to fix what does not.
    ///
    /// One line for each finding. Kernel programs are attached for a moment and each destination gets an empty request; nothing is
    /// changed. Run it as root, or as the service's user with its capabilities.
    Check {
        #[command(flatten)]
        config: ConfigArg,
        /// How to print what is found.
        #[arg(long, value_enum, default_value = "text")]
        format: check::Format,
        /// Only these checks, separated by commas.
        #[arg(long, value_name = "CHECK", value_delimiter = ',', value_parser = check::names())]
        only: Vec<String>,
    },
    /// Write what would be sent now by remote write, as the body of one request.
    ///
    /// What needs a running agent is not in it: the latency of requests, which kernel programs count from their start on.
    Export(ExportArgs),
    /// Try the way to the destinations of remote write.
    #[command(subcommand)]
    RemoteWrite(RemoteWriteCommand),
    /// Check or print the configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Check, print or try alerts.
    #[command(subcommand)]
    Alerts(AlertsCommand),
    /// Test connectivity to the destinations of logs.
    #[command(subcommand)]
    Logs(LogsCommand),
    /// Have the running agent load its configuration again, and wait until it has.
    ///
    /// Fails when the agent refuses the file, with every mistake in it; the configuration before stays in force.
    Reload(ConfigArg),
    /// Give the running agent orders about the GPUs.
    #[command(subcommand)]
    Gpu(GpuCommand),
    /// Print the version.
    Version,
}

#[derive(Args, Debug)]
struct RunArgs {
    #[command(flatten)]
    config: ConfigArg,
    /// The model to measure: its name, or its port.
    #[arg(long, value_name = "NAME", requires = "test_mode")]
    model: Option<String>,
    /// Measure one model, print what was seen, and end; the exit code is 1 where nothing could be measured.
    #[arg(long, requires = "model")]
    test_mode: bool,
    /// How long to measure: 90s, 10m, or a number of seconds.
    #[arg(long = "for", value_name = "DURATION", default_value = "60s", value_parser = test_time, requires = "test_mode")]
    time: Duration,
}

/// How long one model may be measured.
fn test_time(text: &str) -> Result<Duration, String> {
    let time = duration(text)?;
    let day = Duration::from_secs(24 * 60 * 60);
    if time < Duration::from_secs(1) || time > day { Err("1s to 24h".to_owned()) } else { Ok(time) }
}

#[derive(Subcommand, Debug)]
enum LogsCommand {
    /// Read the journal, send one line to each destination, and print what it answers.
    Test(ConfigArg),
}

#[derive(Subcommand, Debug)]
enum AlertsCommand {
    /// Report every mistake in FILE, those of its alert rules among them, each with its line.
    Check {
        /// The configuration file to check; `-` is standard input.
        file: PathBuf,
    },
    /// Print the rules in force: the shipped ones as they are configured, and the configured ones.
    Rules {
        #[command(flatten)]
        config: ConfigArg,
        /// Print a Prometheus rule file.
        #[arg(long)]
        prometheus: bool,
    },
    /// Send a test alert, which ends by itself, to each Alertmanager and tell what comes back.
    Test(ConfigArg),
}

#[derive(Subcommand, Debug)]
enum ConfigCommand {
    /// Report every mistake in FILE, each with its line.
    Check {
        /// The file to check; `-` is standard input.
        file: PathBuf,
    },
    /// Print the effective values as YAML, defaults included.
    Print(ConfigArg),
    /// Print the JSON Schema of the configuration file, for editors.
    Schema,
}

#[derive(Subcommand, Debug)]
enum GpuCommand {
    /// Let go of NVML, so that a GPU can be reset or the driver unloaded.
    Release {
        #[command(flatten)]
        config: ConfigArg,
        /// For how long, 24h at most: 90s, 10m, or a number of seconds.
        #[arg(long = "for", value_name = "DURATION", default_value = "10m", value_parser = release_time)]
        time: Duration,
    },
    /// Take NVML back before the time.
    Resume(ConfigArg),
}

/// A time for which GPUs may go unmeasured.
fn release_time(text: &str) -> Result<Duration, String> {
    let time = duration(text)?;
    if time < Duration::from_secs(1) || time > LONGEST_RELEASE { Err("1s to 24h".to_owned()) } else { Ok(time) }
}

/// A time as it is written in the configuration too: a number is seconds.
fn duration(text: &str) -> Result<Duration, String> {
    match text.trim().parse() {
        Ok(seconds) => Ok(Duration::from_secs(seconds)),
        Err(_) => humantime::parse_duration(text)
            .map_err(|error| format!("{error}; write a number of seconds, or a number with a unit such as 90s or 10m")),
    }
}

#[derive(Args, Debug)]
struct ExportArgs {
    #[command(flatten)]
    config: ConfigArg,
    /// Collect once and end. The only way so far, and asked for so that it is not taken for a service.
    #[arg(long, required = true)]
    once: bool,
    /// Where to [default: standard output].
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Remote-write protocol.
    #[arg(long, default_value = "2", value_parser = ["1", "2"])]
    protocol: String,
}

#[derive(Subcommand, Debug)]
enum RemoteWriteCommand {
    /// Send one sample to each destination and print what it answers.
    Test(ConfigArg),
    /// Send what was set aside because a receiver failed on it, and remove what it takes.
    Replay {
        #[command(flatten)]
        config: ConfigArg,
        /// Only what was set aside for this destination.
        #[arg(long, value_name = "NAME")]
        destination: Option<String>,
    },
}

#[derive(Args, Debug)]
struct ConfigArg {
    /// The configuration file [default: /etc/citadel-agent/monitoring-integration.yaml if it exists, else built in].
    #[arg(long = "config", value_name = "FILE", env = "CITADEL_AGENT_CONFIG")]
    file: Option<PathBuf>,
}

impl ConfigArg {
    /// The file to load: the named one, else the default one if it is there, else none.
    fn path(self) -> Option<PathBuf> {
        let default = || {
            let path = Path::new(DEFAULT_PATH);
            // A dangling link or a file that cannot be reached is a mistake to report, not an absence.
            let absent = path.symlink_metadata().is_err_and(|error| error.kind() == ErrorKind::NotFound);
            (!absent).then(|| path.to_owned())
        };
        self.file.or_else(default)
    }

    fn load(self) -> Result<(Config, Option<PathBuf>), ConfigErrors> {
        let path = self.path();
        config::load(path.as_deref()).map(|config| (config, path))
    }
}

/// Why a command did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
enum CliError {
    #[error("{0}")]
    Config(#[from] ConfigErrors),
    #[error("{0}")]
    Log(#[from] LogError),
    #[error("{0}")]
    Control(#[from] ControlError),
    #[error("cannot write to standard output: {0}")]
    Output(#[from] io::Error),
    #[error("{0}")]
    RemoteWrite(#[from] CommandError),
    #[error("{0}")]
    Logs(#[from] logs::command::CommandError),
    #[error("{0}")]
    TestMode(#[from] TestModeError),
    #[error("{0}")]
    Alerts(#[from] alerts::command::CommandError),
    #[error("{0:#}")]
    Agent(#[from] anyhow::Error),
}

impl CliError {
    fn exit_code(&self) -> ExitCode {
        match self {
            CliError::Config(_) | CliError::Log(_) => ExitCode::from(MISTAKE),
            CliError::Control(_)
            | CliError::Output(_)
            | CliError::RemoteWrite(_)
            | CliError::TestMode(_)
            | CliError::Alerts(_)
            | CliError::Logs(_)
            | CliError::Agent(_) => ExitCode::from(FAILED),
        }
    }
}

/// The command line, for what is made of it: manual pages and completions.
#[must_use]
pub fn command() -> clap::Command {
    <Cli as clap::CommandFactory>::command()
}

/// The whole program: takes the arguments, gives the exit code (0 ok, [`FAILED`], [`MISTAKE`]).
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and the version go to stdout, mistakes to stderr. A closed pipe leaves nobody to tell.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(MISTAKE) } else { ExitCode::SUCCESS };
        }
    };
    dispatch(cli.command).unwrap_or_else(|error| match error {
        // The reader had enough (`config print | head`), which is no failure.
        CliError::Output(error) if error.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        error => {
            let _ = writeln!(io::stderr(), "{error}");
            error.exit_code()
        }
    })
}

fn dispatch(command: Command) -> Result<ExitCode, CliError> {
    match command {
        Command::Run(RunArgs { config, model: Some(model), time, .. }) => {
            let (config, _) = config.load()?;
            // What was not measured is in the report.
            logging::init(tracing::Level::ERROR, config.local.log_format)?;
            writeln!(
                io::stderr(),
                "measuring {model} for {}; Ctrl-C ends it earlier",
                humantime::format_duration(time)
            )?;
            let (report, good) = test_mode::run(&config, &model, time)?;
            print(report)?;
            return Ok(if good { ExitCode::SUCCESS } else { ExitCode::from(FAILED) });
        }
        Command::Run(RunArgs { config, .. }) => {
            let (config, path) = config.load()?;
            let log = start_log(&config, path.as_deref())?;
            agent::run(&config, path.as_deref(), &log)?;
        }
        Command::Check { config, format, only } => {
            let (config, _) = config.load()?;
            // What would be warned of is what the check finds, and says better.
            logging::init(tracing::Level::ERROR, config.local.log_format)?;
            return Ok(match check::check(&config, &only, format)? {
                Severity::Ok => ExitCode::SUCCESS,
                Severity::Warning => ExitCode::from(WARNED),
                Severity::Error => ExitCode::from(FAILED),
            });
        }
        Command::Export(args) => {
            let (config, path) = args.config.load()?;
            start_log(&config, path.as_deref())?;
            let protocol = if args.protocol == "1" { Protocol::V1 } else { Protocol::V2 };
            let said = command::export(&config, agent::read_once(&config)?, protocol, args.output.as_deref())?;
            writeln!(io::stderr(), "{said}")?;
        }
        Command::RemoteWrite(RemoteWriteCommand::Test(config)) => {
            let (config, path) = config.load()?;
            start_log(&config, path.as_deref())?;
            return printing(|say| Ok(command::test(&config, say)?));
        }
        Command::RemoteWrite(RemoteWriteCommand::Replay { config, destination }) => {
            let (config, path) = config.load()?;
            start_log(&config, path.as_deref())?;
            return printing(|say| Ok(command::replay(&config, destination.as_deref(), say)?));
        }
        Command::Config(ConfigCommand::Check { file }) => {
            checked(&file)?;
            print(format_args!("{}: ok\n", shown(&file)))?;
        }
        Command::Config(ConfigCommand::Print(config)) => {
            let (config, _) = config.load()?;
            print(config::print(&config))?;
        }
        Command::Config(ConfigCommand::Schema) => print(format_args!("{:#}\n", config::json_schema()))?,
        Command::Logs(LogsCommand::Test(config)) => {
            let (config, path) = config.load()?;
            start_log(&config, path.as_deref())?;
            return printing(|say| Ok(logs::command::test(&config, say)?));
        }
        Command::Alerts(command) => return alerts_command(command),
        Command::Gpu(GpuCommand::Release { config, time }) => {
            order(config, &Order::GpuRelease { seconds: time.as_secs() })?;
        }
        Command::Gpu(GpuCommand::Resume(config)) => order(config, &Order::GpuResume {})?,
        Command::Reload(config) => order(config, &Order::Reload {})?,
        Command::Version => print(format_args!("citadel-agent {VERSION}\n"))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn alerts_command(command: AlertsCommand) -> Result<ExitCode, CliError> {
    match command {
        AlertsCommand::Check { file } => {
            let rules = checked(&file)?.alerts.rules.len();
            print(format_args!("{}: ok, {rules} rules\n", shown(&file)))?;
        }
        AlertsCommand::Rules { config, prometheus } => {
            let (config, _) = config.load()?;
            print(if prometheus { alerts::rule_file(&config.alerts.rules) } else { config::print_alerts(&config) })?;
        }
        AlertsCommand::Test(config) => {
            let (config, _) = config.load()?;
            let mut lines = String::new();
            let all = alerts::command::test(&config, &mut |line| lines.extend([line, "\n"]))?;
            print(lines)?;
            return Ok(if all { ExitCode::SUCCESS } else { ExitCode::from(FAILED) });
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Gives the running agent an order, and prints what it answers.
fn order(config: ConfigArg, order: &Order) -> Result<(), CliError> {
    let (config, _) = config.load()?;
    let answer = control::send(&config.local.control_socket, order)?;
    Ok(print(format_args!("{answer}\n"))?)
}

/// The configuration that a person names to have it checked.
fn checked(file: &Path) -> Result<Config, ConfigErrors> {
    if file.as_os_str() == STANDARD_INPUT {
        return config::load_from(&shown(file), io::stdin().lock());
    }
    config::load(Some(file))
}

/// What a file is called in messages.
fn shown(file: &Path) -> String {
    if file.as_os_str() == STANDARD_INPUT { "standard input".to_owned() } else { file.display().to_string() }
}

fn start_log(config: &Config, path: Option<&Path>) -> Result<LogHandle, LogError> {
    let log = logging::init(config.local.log_level, config.local.log_format)?;
    match path {
        Some(path) => info!(file = %path.display(), "configuration loaded"),
        None => info!("no configuration file ({DEFAULT_PATH} does not exist): using the built-in default"),
    }
    Ok(log)
}

/// Writes to stdout; unlike `println!`, a closed pipe is an error and no panic.
/// Runs a command that prints line by line, and whose answer says whether all went well.
fn printing(run: impl FnOnce(&mut dyn FnMut(&str)) -> Result<bool, CliError>) -> Result<ExitCode, CliError> {
    let mut failed = None;
    let all = run(&mut |line| failed = failed.take().or(print(format_args!("{line}\n")).err()))?;
    match failed {
        Some(error) => Err(error.into()),
        None if all => Ok(ExitCode::SUCCESS),
        None => Ok(ExitCode::from(FAILED)),
    }
}

fn print(text: impl std::fmt::Display) -> io::Result<()> {
    let mut out = io::stdout().lock();
    write!(out, "{text}")?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_number_is_seconds() {
        assert_eq!(release_time("10"), Ok(Duration::from_secs(10)));
        assert_eq!(release_time("60"), release_time("60s"));
        assert_eq!(release_time("1m"), release_time("60"));
        assert_eq!(release_time("0").unwrap_err(), "1s to 24h");
        assert_eq!(release_time("86401").unwrap_err(), "1s to 24h");
        assert!(
            release_time("soon")
                .unwrap_err()
                .ends_with("write a number of seconds, or a number with a unit such as 90s or 10m")
        );
    }

    #[test]
    fn help_names_the_default_path() {
        let mut command = Cli::command();
        let run = command.find_subcommand_mut("run").unwrap();
        assert!(run.render_help().to_string().contains(DEFAULT_PATH));
    }
}
