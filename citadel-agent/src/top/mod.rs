//! `citadel-agent top`: what each model does now, live or once.
//!
//! `ask` queries the history of the running agent through its control socket, `view` and `trend` compute figures from it, `columns`
//! defines the table, `text` prints it to a pipe; `state` is what keys change, `screen`, `detail` and `requests` draw, `live` handles the
//! terminal. All modules but `ask` and `live` are pure.

mod ask;
mod columns;
mod detail;
mod live;
mod look;
mod requests;
mod screen;
mod span;
mod state;
#[cfg(test)]
mod tests;
mod text;
mod trend;
mod units;
mod view;

use std::io::{self, IsTerminal as _};
use std::path::Path;
use std::time::Duration;

use clap::{Args, ValueEnum};

use self::ask::{Wish, fetch};
use self::look::Look;
use self::span::Span;
use self::state::State;
use crate::clock::duration;
use crate::control::ControlError;

/// What is to be shown.
#[derive(Args, Debug)]
pub struct What {
    /// Only this model: its name, or its port.
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// Window of the figures, from 5s to 24h: 30s, 15m, 2h.
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = span)]
    last: Span,
    /// Refresh interval, from 1s to 1h. The agent collects every 5 s.
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = interval)]
    interval: Duration,
    /// Print the figures once and exit. Default if standard output is not a terminal.
    #[arg(long)]
    once: bool,
    /// Output format with --once, which it implies [default: table].
    #[arg(long, value_enum)]
    format: Option<Format>,
}

/// How figures are printed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Format {
    /// One line per model.
    Table,
    /// One object with the host, its GPUs and its models.
    Json,
}

/// Why nothing is shown.
#[derive(Debug, thiserror::Error)]
pub enum TopError {
    /// The agent does not run, or does not answer.
    #[error("{0}{start}", start = start(.0))]
    Control(#[from] ControlError),
    /// The terminal cannot be used.
    #[error("cannot use the terminal: {0}; --once prints a table")]
    Terminal(io::Error),
    /// The figures cannot be written as JSON.
    #[error("cannot write JSON: {0}")]
    Json(#[from] serde_json::Error),
}

/// How to start an agent, if none responds.
const fn start(error: &ControlError) -> &'static str {
    match error {
        ControlError::Unreachable { .. } => {
            "\nstart it with `sudo systemctl start citadel-agent`, or in the foreground with `sudo citadel-agent run`"
        }
        ControlError::NoAnswer(_) | ControlError::Failed(_) => "",
    }
}

fn span(text: &str) -> Result<Span, String> {
    Span::of(duration(text)?)
}

fn interval(text: &str) -> Result<Duration, String> {
    let time = duration(text)?;
    let limits = Duration::from_secs(1)..=Duration::from_secs(60 * 60);
    if limits.contains(&time) { Ok(time) } else { Err("must be between 1s and 1h".to_owned()) }
}

/// Shows the state of the agent that listens at `socket`: live on a terminal, and then the returned text is empty.
///
/// # Errors
/// See [`TopError`].
pub fn run(what: What, socket: &Path) -> Result<String, TopError> {
    let dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
    let once = what.once || what.format.is_some() || dumb || !io::stdout().is_terminal();
    let requests = what.format == Some(Format::Json);
    let wish = Wish { span: what.last, model: what.model.clone(), plots_of: None, all_requests: requests };
    let first = fetch(socket, &wish)?;
    if once {
        return Ok(match what.format.unwrap_or(Format::Table) {
            Format::Table => text::table(&first.view),
            Format::Json => format!("{}\n", serde_json::to_string_pretty(&first.view)?),
        });
    }
    let state = State::new(what.last, what.model.is_some());
    live::run(socket.to_owned(), what.model, what.interval, state, first, look()).map_err(TopError::Terminal)?;
    Ok(String::new())
}

/// Reads the capabilities of the terminal from the environment: <https://no-color.org>, and the locale's characters.
fn look() -> Look {
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(set).unwrap_or_default().to_lowercase();
    Look { colour: set("NO_COLOR").is_none(), unicode: locale.contains("utf-8") || locale.contains("utf8") }
}
