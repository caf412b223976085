//! Logging to stderr: text on a terminal and for the systemd journal, JSON lines otherwise, unless configured.
//!
//! In the journal each line has a priority, with the prefix described in `sd-daemon(3)`, so that `journalctl -p
//! warning` works.
//!
//! The level comes from the configuration and changes with a reload. `RUST_LOG` overrides it permanently, also per
//! target (`info,citadel_agent::config=debug`); an invalid value is rejected.

use std::fmt;
use std::io::IsTerminal;
use std::str::FromStr;

use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Registry, reload};

use crate::config;
use crate::config::resolved::LogFormat;

/// The environment variable that overrides the configured level.
pub const ENV: &str = "RUST_LOG";

/// Target of the agent's own events: the name of the crate.
const OWN_TARGET: &str = "citadel_agent";

/// Format of events.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// One line per event, human-readable.
    Human,
    /// One JSON object per line.
    Json,
}

/// The destination of log lines.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sink {
    /// A terminal, with colours.
    Terminal,
    /// The systemd journal, which adds a timestamp to each line and reads its priority.
    Journal,
    /// A file, a pipe, anything else.
    Other,
}

impl Sink {
    /// Detects what stderr is.
    #[must_use]
    pub fn of_stderr() -> Self {
        let stderr = std::io::stderr();
        let journal = std::env::var("JOURNAL_STREAM").ok();
        match rustix::fs::fstat(&stderr) {
            _ if stderr.is_terminal() => Self::Terminal,
            Ok(stat) if journal.as_deref().is_some_and(|value| is_journal(value, stat.st_dev, stat.st_ino)) => {
                Self::Journal
            }
            _ => Self::Other,
        }
    }
}

/// Whether `JOURNAL_STREAM` (`systemd.exec(5)`) names the file with this device and inode: a child whose stderr was
/// redirected inherits the variable too.
fn is_journal(value: &str, device: u64, inode: u64) -> bool {
    value.split_once(':').is_some_and(|(dev, ino)| dev.parse() == Ok(device) && ino.parse() == Ok(inode))
}

impl Format {
    /// The format for a configuration and a sink.
    #[must_use]
    pub const fn of(configured: LogFormat, sink: Sink) -> Self {
        match (configured, sink) {
            (LogFormat::Text, _) | (LogFormat::Auto, Sink::Terminal | Sink::Journal) => Self::Human,
            (LogFormat::Json, _) | (LogFormat::Auto, Sink::Other) => Self::Json,
        }
    }
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// `RUST_LOG` is not a valid filter.
    #[error(
        "{ENV}: {part:?} is not a log filter{hint}; use a level (TRACE, DEBUG, INFO, WARN, ERROR, OFF) or TARGET=LEVEL, \
         separated by commas"
    )]
    BadFilter {
        /// The invalid part.
        part: String,
        /// `; did you mean "info"?`, or empty.
        hint: String,
    },
    /// The process already has a logger.
    #[error("logging is already set up")]
    AlreadySet,
}

/// Changes the level of the running log.
#[derive(Clone, Debug)]
pub struct LogHandle {
    filter: reload::Handle<Targets, Registry>,
    overridden: bool,
}

impl LogHandle {
    /// Sets the configured level. Returns false if `RUST_LOG` overrides it.
    #[must_use = "with RUST_LOG set, nothing changes, and the log should say so"]
    pub fn set_level(&self, level: Level) -> bool {
        !self.overridden && self.filter.reload(configured(level)).is_ok()
    }
}

/// Sets up logging on stderr with the configured format, and with `level` unless `RUST_LOG` is set.
///
/// # Errors
/// `RUST_LOG` is not a valid filter, or the process already has a logger.
pub fn init(level: Level, format: LogFormat) -> Result<LogHandle, LogError> {
    // A value that is not UTF-8 is invalid like any other.
    let env = std::env::var_os(ENV).map(|value| value.to_string_lossy().into_owned());
    let sink = Sink::of_stderr();
    let (subscriber, handle) = subscriber(level, env.as_deref(), Format::of(format, sink), sink, std::io::stderr)?;
    tracing::subscriber::set_global_default(subscriber).map_err(|_| LogError::AlreadySet)?;
    Ok(handle)
}

/// The subscriber without global state: `env` is the value of `RUST_LOG`, `writer` gets the lines.
///
/// # Errors
/// `env` is not a valid filter.
pub fn subscriber<W>(
    level: Level,
    env: Option<&str>,
    format: Format,
    sink: Sink,
    writer: W,
) -> Result<(impl Subscriber + Send + Sync, LogHandle), LogError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let env = env.map(str::trim).filter(|env| !env.is_empty());
    let targets = env.map_or_else(|| Ok(configured(level)), parse)?;
    let (filter, handle) = reload::Layer::new(targets);
    let layer = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(sink == Sink::Terminal);
    let layer = match (format, sink) {
        // The journal adds its own timestamp.
        (Format::Human, Sink::Journal) => layer.without_time().map_event_format(Prioritized).boxed(),
        (Format::Human, _) => layer.boxed(),
        (Format::Json, Sink::Journal) => layer.json().flatten_event(true).map_event_format(Prioritized).boxed(),
        (Format::Json, _) => layer.json().flatten_event(true).with_ansi(false).boxed(),
    };
    let subscriber = tracing_subscriber::registry().with(layer.with_filter(filter));
    Ok((subscriber, LogHandle { filter: handle, overridden: env.is_some() }))
}

/// Formats events with the inner format and prefixes each line with its priority as `<N>`.
struct Prioritized<F>(F);

impl<S, N, F> FormatEvent<S, N> for Prioritized<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        // As in syslog(3).
        let priority = match *event.metadata().level() {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            _ => 7,
        };
        let mut text = String::new();
        self.0.format_event(context, Writer::new(&mut text), event)?;
        text.lines().try_for_each(|line| writeln!(writer, "<{priority}>{line}"))
    }
}

/// The agent at `level`; libraries at INFO at most, because their debug lines are about themselves.
fn configured(level: Level) -> Targets {
    Targets::new().with_default(LevelFilter::from_level(level.min(Level::INFO))).with_target(OWN_TARGET, level)
}

/// Parses `env`. Stricter than [`Targets`], which takes a misspelt level for the name of a target.
fn parse(env: &str) -> Result<Targets, LogError> {
    const LEVELS: [&str; 6] = ["trace", "debug", "info", "warn", "error", "off"];
    for part in env.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (target, level) = part.split_once('=').map_or((None, part), |(target, level)| (Some(target), level));
        let level_is_good = LevelFilter::from_str(level.trim()).is_ok();
        let target_is_good =
            target.is_none_or(|target| !target.trim().is_empty() && !target.contains(['[', ']', '{', '}']));
        if !level_is_good || !target_is_good {
            let near = config::nearest(level.trim(), LEVELS).filter(|_| !level_is_good);
            let hint = near.map_or(String::new(), |near| format!("; did you mean {near:?}?"));
            return Err(LogError::BadFilter { part: part.to_owned(), hint });
        }
    }
    env.replace(' ', "").parse().map_err(|_| LogError::BadFilter { part: env.to_owned(), hint: String::new() })
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    use tracing::{debug, info, warn};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Lines {
        fn take(&self) -> String {
            String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap()
        }
    }

    /// Runs `events` under a log with these settings.
    fn with_log(level: Level, env: Option<&str>, format: Format, events: impl FnOnce(&LogHandle, &Lines)) {
        let lines = Lines::default();
        let writer = lines.clone();
        let (subscriber, handle) = subscriber(level, env, format, Sink::Other, move || writer.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, || events(&handle, &lines));
    }

    #[test]
    fn each_line_in_the_journal_has_its_priority_and_no_time() {
        for format in [Format::Human, Format::Json] {
            let lines = Lines::default();
            let writer = lines.clone();
            let (subscriber, _) =
                subscriber(Level::TRACE, None, format, Sink::Journal, move || writer.clone()).unwrap();
            tracing::subscriber::with_default(subscriber, || {
                tracing::error!("a");
                warn!("b");
                info!(port = 11400, "c");
                debug!("d");
                tracing::trace!("e");
            });
            let text = lines.take();
            let starts: Vec<&str> = text.lines().filter_map(|line| line.get(..3)).collect();
            assert_eq!(starts, ["<3>", "<4>", "<6>", "<7>", "<7>"], "{text}");
            if format == Format::Human {
                assert_eq!(text.lines().nth(2), Some("<6> INFO citadel_agent::logging::tests: c port=11400"), "{text}");
            } else {
                let line: serde_json::Value = serde_json::from_str(&text.lines().nth(2).unwrap()[3..]).unwrap();
                assert_eq!(line["message"], "c");
            }
        }
    }

    #[test]
    fn an_event_of_several_lines_keeps_its_priority_in_the_journal() {
        let lines = Lines::default();
        let writer = lines.clone();
        let (subscriber, _) =
            subscriber(Level::INFO, None, Format::Human, Sink::Journal, move || writer.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, || tracing::error!("FILE:1:1: one\nFILE:2:1: two"));
        let text = lines.take();
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(text.lines().all(|line| line.starts_with("<3>")), "{text}");
    }

    #[test]
    fn the_configured_format_goes_before_what_stderr_is() {
        use LogFormat::{Auto, Json, Text};
        for sink in [Sink::Terminal, Sink::Journal, Sink::Other] {
            assert_eq!(Format::of(Text, sink), Format::Human);
            assert_eq!(Format::of(Json, sink), Format::Json);
        }
        let auto = [Sink::Terminal, Sink::Journal, Sink::Other].map(|sink| Format::of(Auto, sink));
        assert_eq!(auto, [Format::Human, Format::Human, Format::Json]);
        assert!(is_journal("8:1234", 8, 1234));
        for other in ["8:1235", "9:1234", "8", "", "8:x"] {
            assert!(!is_journal(other, 8, 1234), "{other}");
        }
    }

    #[test]
    fn json_is_one_object_a_line_with_the_fields_at_the_top() {
        with_log(Level::INFO, None, Format::Json, |_, lines| {
            info!(port = 11400, "listening\non two lines");
            let text = lines.take();
            assert_eq!(text.lines().count(), 1, "{text}");
            let line: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert_eq!(line["level"], "INFO");
            assert_eq!(line["message"], "listening\non two lines");
            assert_eq!(line["port"], 11400);
        });
    }

    #[test]
    fn human_text_is_no_json() {
        with_log(Level::INFO, None, Format::Human, |_, lines| {
            info!("listening");
            let text = lines.take();
            assert!(text.contains("listening") && !text.starts_with('{'), "{text}");
        });
    }

    #[test]
    fn the_level_follows_the_configuration_at_a_reload() {
        with_log(Level::INFO, None, Format::Json, |handle, lines| {
            debug!("one");
            assert_eq!(lines.take(), "");
            assert!(handle.set_level(Level::DEBUG));
            debug!("two");
            assert!(lines.take().contains("two"));
            assert!(handle.set_level(Level::ERROR));
            warn!("three");
            assert_eq!(lines.take(), "");
        });
    }

    #[test]
    fn rust_log_overrides_the_configuration_and_its_reloads() {
        with_log(Level::TRACE, Some("warn, citadel_agent::logging=info"), Format::Json, |handle, lines| {
            debug!("hidden");
            info!("shown");
            info!(target: "hyper", "hidden too");
            let text = lines.take();
            assert!(text.contains("shown") && !text.contains("hidden"), "{text}");
            assert!(!handle.set_level(Level::TRACE));
            debug!("hidden still");
            assert_eq!(lines.take(), "");
        });
    }

    #[test]
    fn libraries_do_not_follow_the_agent_to_debug() {
        with_log(Level::DEBUG, None, Format::Json, |_, lines| {
            debug!(target: "hyper", "noise");
            info!(target: "hyper", "news");
            let text = lines.take();
            assert!(text.contains("news") && !text.contains("noise"), "{text}");
        });
    }

    #[test]
    fn a_bad_rust_log_says_which_part_and_what_was_meant() {
        let error = |env| {
            subscriber(Level::INFO, Some(env), Format::Json, Sink::Other, io::sink).map(|_| ()).unwrap_err().to_string()
        };
        assert!(
            error("inof").starts_with(r#"RUST_LOG: "inof" is not a log filter; did you mean "info"?; use"#),
            "{}",
            error("inof")
        );
        assert!(error("info,hyper=loud").contains(r#""hyper=loud" is not a log filter; use"#));
        assert!(error("=debug").contains(r#""=debug" is not a log filter; use"#));
        assert!(error("citadel_agent[span]=debug").contains("is not a log filter"));
    }

    #[test]
    fn an_empty_rust_log_is_none() {
        with_log(Level::DEBUG, Some("  "), Format::Json, |handle, lines| {
            debug!("shown");
            assert!(lines.take().contains("shown"));
            assert!(handle.set_level(Level::INFO));
        });
    }
}
