//! The command line: parse, load the configuration, dispatch, map errors to exit codes.

mod durations;

use std::ffi::OsString;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use tracing::info;

use self::durations::within_a_day;
use crate::check::Severity;
use crate::config::{self, Config, ConfigErrors, DEFAULT_PATH};
use crate::control::{self, ControlError, Order};
use crate::logging::{self, LogError, LogHandle};
use crate::remote_write::command::{self, CommandError};
use crate::remote_write::encode::Protocol;
use crate::test_mode::{self, TestModeError};
use crate::top::{self, TopError};
use crate::{agent, alerts, check, explain, logs, trace};

/// Exit code for failures.
pub const FAILED: u8 = 1;
/// Exit code of `check` if there are warnings but no errors.
pub const WARNED: u8 = 3;
/// Exit code for an invalid command line, environment or configuration.
pub const MISTAKE: u8 = 2;

/// The version, and the commit that it was built from.
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (commit ", env!("CITADEL_COMMIT"), ")");

/// File name that means standard input.
const STANDARD_INPUT: &str = "-";

/// Per-model latency of LLM servers, measured in the kernel.
#[derive(Parser, Debug)]
#[command(name = "citadel-agent", version = VERSION, arg_required_else_help = true, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 success, 1 failure, 2 invalid usage or configuration, 3 warnings only (check).
Environment: CITADEL_AGENT_CONFIG is the configuration file, RUST_LOG overrides the log level.";

#[derive(Subcommand, Debug)]
enum Command {
    /// Run the agent in the foreground, as systemd does. SIGHUP reloads the configuration.
    ///
    /// With --test-mode, measure one model for a limited time, print a report and its overhead, and exit. Nothing is sent or served, and the
    /// model is not probed.
    Run(RunArgs),
    /// Check what can run on this host, and how to fix what cannot.
    ///
    /// Prints one line per finding. Briefly attaches the kernel programs and sends an empty request to each destination; changes
    /// nothing. Run it as root, or as the service's user with its capabilities.
    Check {
        #[command(flatten)]
        config: ConfigArg,
        /// Output format.
        #[arg(long, value_enum, default_value = "text")]
        format: check::Format,
        /// Run only these checks, separated by commas.
        #[arg(long, value_name = "CHECK", value_delimiter = ',', value_parser = check::names())]
        only: Vec<String>,
    },
    /// Write the body of one remote-write request with the current samples.
    ///
    /// It does not contain metrics that need a running agent, such as request latency, which kernel programs measure from their start.
    Export(ExportArgs),
    /// Test remote-write destinations, or replay requests that were set aside.
    #[command(subcommand)]
    RemoteWrite(RemoteWriteCommand),
    /// Check or print the configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Check or print alert rules, or send a test alert.
    #[command(subcommand)]
    Alerts(AlertsCommand),
    /// Test log destinations.
    #[command(subcommand)]
    Logs(LogsCommand),
    /// Say why a model is slow, failing or silent: what is wrong first, then why.
    ///
    /// The running agent compares a window with the hour before it, or with yesterday, names causes, the most telling first, and says
    /// what is normal and what is not measured on this host. Root and the group citadel-agent may ask.
    Explain {
        #[command(flatten)]
        config: ConfigArg,
        #[command(flatten)]
        what: explain::command::What,
    },
    /// Reload the configuration of the running agent, and wait until it is applied.
    ///
    /// If the file is invalid, the agent keeps its current configuration, and this command prints all errors and fails.
    Reload(ConfigArg),
    /// Show a table of the models, live or once.
    ///
    /// Enter shows one model with sparklines and heat maps, ? lists the keys. Can be used by root and the group citadel-agent.
    Top {
        #[command(flatten)]
        config: ConfigArg,
        #[command(flatten)]
        what: top::What,
    },
    /// Print finished requests, one line each: of whom, how long each part took, how it ended.
    ///
    /// Prints requests as they end until it is interrupted; the running agent records all requests meanwhile. With --last, prints the
    /// newest of the slowest and the failed requests of the last hour, which are always recorded. Root and the group citadel-agent may
    /// ask.
    Trace {
        #[command(flatten)]
        config: ConfigArg,
        #[command(flatten)]
        what: trace::command::What,
    },
    /// Release or resume the GPUs of the running agent.
    #[command(subcommand)]
    Gpu(GpuCommand),
    /// Print the version.
    Version,
}

#[derive(Args, Debug)]
struct RunArgs {
    #[command(flatten)]
    config: ConfigArg,
    /// Model to measure: its name or its port.
    #[arg(long, value_name = "NAME", requires = "test_mode")]
    model: Option<String>,
    /// Measure one model, print a report, and exit; the exit code is 1 if nothing could be measured.
    #[arg(long, requires = "model")]
    test_mode: bool,
    /// How long to measure, such as 90s or 10m; a plain number is in seconds.
    #[arg(long = "for", value_name = "DURATION", default_value = "60s", value_parser = within_a_day, requires = "test_mode")]
    time: Duration,
}

#[derive(Subcommand, Debug)]
enum LogsCommand {
    /// Read the journal, send one line to each destination, and print its response.
    Test(ConfigArg),
}

#[derive(Subcommand, Debug)]
enum AlertsCommand {
    /// Report all errors in FILE with their line numbers, including those in alert rules.
    Check {
        /// Configuration file to check; `-` is standard input.
        file: PathBuf,
    },
    /// Print the active rules: the shipped ones with their overrides, and the configured ones.
    Rules {
        #[command(flatten)]
        config: ConfigArg,
        /// Print them as a Prometheus rule file.
        #[arg(long)]
        prometheus: bool,
    },
    /// Send a test alert that resolves by itself to each Alertmanager, and print its response.
    Test(ConfigArg),
}

#[derive(Subcommand, Debug)]
enum ConfigCommand {
    /// Report all errors in FILE with their line numbers.
    Check {
        /// File to check; `-` is standard input.
        file: PathBuf,
    },
    /// Print the effective configuration as YAML, including defaults.
    Print(ConfigArg),
    /// Print the JSON Schema of the configuration file, for use in editors.
    Schema,
}

#[derive(Subcommand, Debug)]
enum GpuCommand {
    /// Close NVML so that a GPU can be reset or the driver unloaded.
    Release {
        #[command(flatten)]
        config: ConfigArg,
        /// How long to keep NVML closed, at most 24h, such as 90s or 10m; a plain number is in seconds.
        #[arg(long = "for", value_name = "DURATION", default_value = "10m", value_parser = within_a_day)]
        time: Duration,
    },
    /// Reopen NVML before the release ends.
    Resume(ConfigArg),
}

#[derive(Args, Debug)]
struct ExportArgs {
    #[command(flatten)]
    config: ConfigArg,
    /// Collect once and exit. Required, so that the command is not mistaken for a service.
    #[arg(long, required = true)]
    once: bool,
    /// Output file [default: standard output].
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Remote-write protocol version.
    #[arg(long, default_value = "2", value_parser = ["1", "2"])]
    protocol: String,
}

#[derive(Subcommand, Debug)]
enum RemoteWriteCommand {
    /// Send one sample to each destination and print its response.
    Test(ConfigArg),
    /// Resend requests that were set aside because the receiver failed on them, and delete those it accepts.
    Replay {
        #[command(flatten)]
        config: ConfigArg,
        /// Only requests for this destination.
        #[arg(long, value_name = "NAME")]
        destination: Option<String>,
    },
}

#[derive(Args, Debug)]
struct ConfigArg {
    /// Configuration file [default: /etc/citadel-agent/monitoring-integration.yaml if it exists, else built-in defaults].
    #[arg(long = "config", value_name = "FILE", env = "CITADEL_AGENT_CONFIG")]
    file: Option<PathBuf>,
}

impl ConfigArg {
    /// The file to load: the given one, else the default one if it exists, else none.
    fn path(self) -> Option<PathBuf> {
        let default = || {
            let path = Path::new(DEFAULT_PATH);
            // A dangling symlink or an inaccessible file is an error to report, not a missing file.
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

/// Why a command failed.
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
    Top(#[from] TopError),
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
            | CliError::Top(_)
            | CliError::TestMode(_)
            | CliError::Alerts(_)
            | CliError::Logs(_)
            | CliError::Agent(_) => ExitCode::from(FAILED),
        }
    }
}

/// The command line, from which manual pages and completions are generated.
#[must_use]
pub fn command() -> clap::Command {
    <Cli as clap::CommandFactory>::command()
}

/// Runs the program and returns its exit code: 0, [`FAILED`], [`MISTAKE`] or [`WARNED`].
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to stdout, errors to stderr. Nobody reads a closed pipe.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(MISTAKE) } else { ExitCode::SUCCESS };
        }
    };
    dispatch(cli.command).unwrap_or_else(|error| match error {
        // The reader closed the pipe (`config print | head`), which is not a failure.
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
            // The report says what was not measured.
            logging::init(tracing::Level::ERROR, config.local.log_format)?;
            writeln!(
                io::stderr(),
                "measuring {model} for {}; press Ctrl-C to stop earlier",
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
            // Warnings would only repeat the findings of the check.
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
        Command::Explain { config, what } => {
            let (config, _) = config.load()?;
            print(explain::command::run(&what, &config.local.control_socket)?)?;
        }
        Command::Reload(config) => order(config, &Order::Reload {})?,
        Command::Top { config, what } => {
            let (config, _) = config.load()?;
            print(top::run(what, &config.local.control_socket)?)?;
        }
        Command::Trace { config, what } => {
            let (config, _) = config.load()?;
            trace::command::run(&what, &config.local.control_socket)??;
        }
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

/// Sends a command to the running agent and prints its answer.
fn order(config: ConfigArg, order: &Order) -> Result<(), CliError> {
    let (config, _) = config.load()?;
    let answer = control::send(&config.local.control_socket, order)?;
    Ok(print(format_args!("{answer}\n"))?)
}

/// Loads a configuration to check it; `-` reads standard input.
fn checked(file: &Path) -> Result<Config, ConfigErrors> {
    if file.as_os_str() == STANDARD_INPUT {
        return config::load_from(&shown(file), io::stdin().lock());
    }
    config::load(Some(file))
}

/// Name of a file in messages.
fn shown(file: &Path) -> String {
    if file.as_os_str() == STANDARD_INPUT { "standard input".to_owned() } else { file.display().to_string() }
}

fn start_log(config: &Config, path: Option<&Path>) -> Result<LogHandle, LogError> {
    let log = logging::init(config.local.log_level, config.local.log_format)?;
    match path {
        Some(path) => info!(file = %path.display(), "configuration loaded"),
        None => info!("no configuration file ({DEFAULT_PATH} does not exist), using built-in defaults"),
    }
    Ok(log)
}

/// Runs a command that prints line by line and returns whether everything succeeded.
fn printing(run: impl FnOnce(&mut dyn FnMut(&str)) -> Result<bool, CliError>) -> Result<ExitCode, CliError> {
    let mut failed = None;
    let all = run(&mut |line| failed = failed.take().or(print(format_args!("{line}\n")).err()))?;
    match failed {
        Some(error) => Err(error.into()),
        None if all => Ok(ExitCode::SUCCESS),
        None => Ok(ExitCode::from(FAILED)),
    }
}

/// Writes to stdout; unlike `println!`, a closed pipe is an error, not a panic.
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
    fn help_names_the_default_path() {
        let mut command = Cli::command();
        let run = command.find_subcommand_mut("run").unwrap();
        assert!(run.render_help().to_string().contains(DEFAULT_PATH));
    }
}
