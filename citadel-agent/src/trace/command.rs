//! `citadel-agent trace`.

use std::io::{self, Write as _};
use std::path::Path;
use std::thread;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::filter::{self, Filter, Network};
use super::request::{Request, Requests};
use super::text;
use crate::clock::duration;
use crate::control::{Connection, ControlError, Order};

/// How often the agent is asked.
const PACE: Duration = Duration::from_millis(200);

/// Which requests to print.
#[derive(Args, Debug)]
pub struct What {
    /// Only this model: its name, or its port.
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// Only requests that took at least this long, such as 2s or 500ms; a plain number is in seconds.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    slower_than: Option<Duration>,
    /// Only requests that were aborted, or answered with a status code of 400 or above.
    #[arg(long)]
    errors: bool,
    /// Only this endpoint, as in the label `endpoint` of the metrics: chat_completions, embeddings.
    #[arg(long, value_name = "ENDPOINT", value_parser = filter::endpoint)]
    endpoint: Option<String>,
    /// Only clients with this address or in this network: 10.1.2.3, 10.0.0.0/8, fd00::/8.
    #[arg(long, value_name = "NETWORK")]
    client: Option<Network>,
    /// Print the newest N of the slowest and the failed requests of the last hour, and exit.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=2000))]
    last: Option<u16>,
    /// Output format.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

/// Output format.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Format {
    /// A table.
    Text,
    /// A JSON object a line.
    Json,
}

impl What {
    fn order(&self, since: Option<u64>) -> Order {
        let slower_than_ms = self.slower_than.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        let (endpoint, client) = (self.endpoint.clone(), self.client);
        Order::Trace {
            model: self.model.clone(),
            filter: Filter { slower_than_ms, errors: self.errors, endpoint, client },
            since,
            last: self.last.map(usize::from),
        }
    }

    fn line(&self, request: &Request) -> String {
        match self.format {
            Format::Text => text::row(request),
            Format::Json => serde_json::to_string(request).unwrap_or_default(),
        }
    }
}

/// Queries the agent that listens at `socket`, and prints a line for each request: with `last` once, else until it is interrupted or
/// nobody reads what it prints.
///
/// # Errors
/// The agent cannot be reached, or knows no such model; or (inside) standard output cannot be written.
pub fn run(what: &What, socket: &Path) -> Result<io::Result<()>, ControlError> {
    let mut connection = Connection::open(socket)?;
    let mut answer: Requests = connection.data(&what.order(None))?;
    if what.last.is_none() {
        // On stderr, so that it is in no pipe. Nobody may read it.
        _ = writeln!(io::stderr(), "recording all requests; press Ctrl-C to stop");
    }
    let mut begin = (what.format == Format::Text).then(text::heading);
    loop {
        let lines = begin.take().into_iter().chain(answer.requests.iter().map(|request| what.line(request)));
        if let Err(error) = print(lines) {
            return Ok(Err(error));
        }
        if what.last.is_some() {
            return Ok(Ok(()));
        }
        thread::sleep(PACE);
        let lost = answer.lost;
        answer = connection.data(&what.order(Some(answer.next)))?;
        let not_shown = answer.missed + answer.lost.saturating_sub(lost);
        if not_shown > 0 {
            _ = writeln!(io::stderr(), "{not_shown} requests are not shown: they ended faster than they could be read");
        }
    }
}

/// Writes lines to stdout.
fn print(lines: impl Iterator<Item = String>) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for line in lines {
        writeln!(out, "{line}")?;
    }
    out.flush()
}
