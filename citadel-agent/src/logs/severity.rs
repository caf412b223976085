//! The severity of a line. The journal assigns the same priority to everything that a program writes to standard
//! output, so the level in the line itself takes precedence. Pure.

pub use crate::config::resolved::logs::Severity;

/// Levels as engines and libraries write them.
const WORDS: [(&str, Severity); 11] = [
    ("CRITICAL", Severity::Critical),
    ("FATAL", Severity::Critical),
    ("ERROR", Severity::Error),
    ("ERR", Severity::Error),
    ("WARNING", Severity::Warning),
    ("WARN", Severity::Warning),
    ("NOTICE", Severity::Info),
    ("INFO", Severity::Info),
    ("SUCCESS", Severity::Info),
    ("DEBUG", Severity::Debug),
    ("TRACE", Severity::Debug),
];

/// Keys of the level in structured lines; the value follows.
const KEYS: [&str; 6] =
    ["level=", "\"level\":\"", "\"level\": \"", "\"levelname\": \"", "\"severity\":\"", "\"severity\": \""];

/// Maximum length of the prefix before the text of a line.
const LONGEST_PREFIX: usize = 256;

impl Severity {
    /// From a priority of the journal (`syslog(3)`).
    #[must_use]
    pub fn of_priority(priority: u8) -> Self {
        match priority {
            0..=2 => Self::Critical,
            3 => Self::Error,
            4 => Self::Warning,
            5 | 6 => Self::Info,
            _ => Self::Debug,
        }
    }

    /// [OpenTelemetry's number](https://opentelemetry.io/docs/specs/otel/logs/data-model/#field-severitynumber).
    #[must_use]
    pub fn number(self) -> i32 {
        match self {
            Self::Critical => 21,
            Self::Error => 17,
            Self::Warning => 13,
            Self::Info => 9,
            Self::Debug => 5,
        }
    }
}

/// The level in a line, if any, and its text without the prefix: times, levels, `[FILE:LINE]`, `(PROCESS pid=N)`.
#[must_use]
pub fn split(message: &str) -> (Option<Severity>, &str) {
    let (mut severity, mut rest) = (None, message);
    while message.len() - rest.len() < LONGEST_PREFIX {
        rest = rest.trim_start_matches([' ', '\t', ':', '|']);
        let token_end = rest.find([' ', '\t']).unwrap_or(rest.len());
        let token = &rest[..token_end];
        if let Some(after) = without_colour(rest) {
            rest = after;
        } else if let Some((inside, after)) = bracketed(rest) {
            severity = severity.or_else(|| glog(inside)).or_else(|| inside.split(' ').find_map(word));
            rest = after;
        } else if let Some((found, length)) = leading_word(token).filter(|_| severity.is_none()) {
            (severity, rest) = (Some(found), &rest[length..]);
        } else if let Some(found) = glog(token).filter(|_| severity.is_none()) {
            (severity, rest) = (Some(found), &rest[token_end..]);
        } else if is_time(token) {
            rest = &rest[token_end..];
        } else {
            break;
        }
    }
    if rest.starts_with("Traceback (most recent call last)") {
        severity = severity.or(Some(Severity::Error));
    }
    (severity.or_else(|| structured(message)), rest)
}

/// The text after a colour escape sequence.
fn without_colour(text: &str) -> Option<&str> {
    let rest = text.strip_prefix("\x1b[")?;
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != ';')?;
    rest[end..].strip_prefix('m')
}

/// The content of the brackets at the start, and the rest.
fn bracketed(text: &str) -> Option<(&str, &str)> {
    let close = match text.as_bytes().first()? {
        b'[' => ']',
        b'(' => ')',
        _ => return None,
    };
    let end = text.find(close).filter(|&end| end < 100)?;
    Some((&text[1..end], &text[end + 1..]))
}

/// The level at the start of a token, and its length: `ERROR`, `ERROR:`, `WARNING:root:...`.
fn leading_word(token: &str) -> Option<(Severity, usize)> {
    let end = token.find(|c: char| !c.is_ascii_uppercase()).unwrap_or(token.len());
    let delimited = end == token.len() || token[end..].starts_with([':', '\x1b', '|']);
    word(&token[..end]).filter(|_| delimited).map(|severity| (severity, end))
}

fn word(text: &str) -> Option<Severity> {
    WORDS.iter().find(|(word, _)| *word == text).map(|(_, severity)| *severity)
}

/// glog's `E1124 10:00:00...`: level, month and day.
fn glog(text: &str) -> Option<Severity> {
    let (level, rest) = text.split_at_checked(1)?;
    let date = rest.len() >= 3 && rest.bytes().take_while(u8::is_ascii_digit).count() >= 3;
    let found = match level {
        "F" => Severity::Critical,
        "E" => Severity::Error,
        "W" => Severity::Warning,
        "I" => Severity::Info,
        _ => return None,
    };
    date.then_some(found)
}

fn is_time(token: &str) -> bool {
    // An address has more dots.
    token.starts_with(|c: char| c.is_ascii_digit())
        && token.bytes().filter(|byte| *byte == b'.').count() <= 1
        && token.bytes().all(|byte| byte.is_ascii_digit() || b":.,-+/TZ".contains(&byte))
}

/// The level in a line of JSON or of `key=value` pairs.
fn structured(message: &str) -> Option<Severity> {
    let mut end = message.len().min(512);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    let head = &message[..end];
    if !head.starts_with('{') && !head.starts_with("time=") && !head.starts_with("level=") && !head.starts_with("ts=") {
        return None;
    }
    let at = KEYS.iter().find_map(|key| head.find(key).map(|at| at + key.len()))?;
    let end = head[at..].find(|c: char| !c.is_ascii_alphabetic()).map_or(head.len(), |end| at + end);
    word(&head[at..end].to_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_of_engines_are_read_as_they_write_them() {
        use Severity::{Critical, Debug, Error, Info, Warning};
        for (line, severity, text) in [
            // vLLM
            (
                "INFO 11-24 10:00:00 [api_server.py:1289] vLLM API server version 0.11.0",
                Some(Info),
                "vLLM API server version 0.11.0",
            ),
            (
                "(EngineCore_DP0 pid=312) ERROR 11-24 10:00:00 [core.py:708] EngineCore failed to start.",
                Some(Error),
                "EngineCore failed to start.",
            ),
            ("(APIServer pid=1) WARNING 11-24 10:00:00 [config.py:1] x", Some(Warning), "x"),
            // uvicorn
            (
                "INFO:     127.0.0.1:50000 - \"GET /health HTTP/1.1\" 200 OK",
                Some(Info),
                "127.0.0.1:50000 - \"GET /health HTTP/1.1\" 200 OK",
            ),
            ("\x1b[32mINFO\x1b[0m:     Started server process [7]", Some(Info), "Started server process [7]"),
            // SGLang
            (
                "[2025-06-01 10:00:00 TP0] Scheduler hit an exception: Traceback",
                None,
                "Scheduler hit an exception: Traceback",
            ),
            ("[2025-06-01 10:00:00] WARNING server_args.py:1: x", Some(Warning), "server_args.py:1: x"),
            // TGI
            (
                "2024-05-01T10:00:00.000000Z ERROR text_generation_launcher: Shard 0 failed to start",
                Some(Error),
                "text_generation_launcher: Shard 0 failed to start",
            ),
            // Ollama
            (
                "time=2025-06-01T10:00:00.000Z level=WARN source=sched.go:1 msg=x",
                Some(Warning),
                "time=2025-06-01T10:00:00.000Z level=WARN source=sched.go:1 msg=x",
            ),
            // Triton
            (
                "E1124 10:00:00.123456 1 model_lifecycle.cc:654] failed to load",
                Some(Error),
                "model_lifecycle.cc:654] failed to load",
            ),
            // PyTorch
            (
                "[rank0]:[E1124 10:00:00.123456789 ProcessGroupNCCL.cpp:629] [Rank 0] Watchdog caught collective operation timeout: x",
                Some(Error),
                "Watchdog caught collective operation timeout: x",
            ),
            ("WARNING:root:careful", Some(Warning), "root:careful"),
            ("CRITICAL: it ends", Some(Critical), "it ends"),
            ("Traceback (most recent call last):", Some(Error), "Traceback (most recent call last):"),
            (
                "{\"timestamp\":\"2026\",\"level\":\"DEBUG\",\"message\":\"x\"}",
                Some(Debug),
                "{\"timestamp\":\"2026\",\"level\":\"DEBUG\",\"message\":\"x\"}",
            ),
            // What a request says is no level.
            ("prompt: 'ERROR'", None, "prompt: 'ERROR'"),
            ("ERRORS are not levels", None, "ERRORS are not levels"),
            ("level of detail: level=ERROR", None, "level of detail: level=ERROR"),
            ("", None, ""),
            ("\u{1f980}", None, "\u{1f980}"),
        ] {
            assert_eq!(split(line), (severity, text), "{line}");
        }
    }

    #[test]
    fn a_long_prefix_ends() {
        let long = "[x] ".repeat(100_000);
        assert!(long.len() - split(&long).1.len() < LONGEST_PREFIX + 110);
        for text in ["\x1b[", "[", "(", "\x1b[1", "E", "é1124", "[é"] {
            assert_eq!(split(text).1, text);
        }
    }
}
