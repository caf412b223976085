//! The manual page `citadel-agent.yaml(5)`, generated from the configuration keys.

use citadel_agent::config::{DEFAULT_PATH, MAX_FILE_BYTES, keys};
use clap_mangen::roff::{Inline, Roff, bold, italic, roman};

/// The page as roff source.
pub(crate) fn configuration() -> String {
    let mut page = Roff::new();
    let version = concat!("citadel-agent ", env!("CARGO_PKG_VERSION"));
    page.control("TH", ["citadel-agent.yaml", "5", "", version, "Configuration"]);
    page.control("SH", ["NAME"]);
    page.text([roman("citadel-agent.yaml - configuration of citadel-agent")]);

    page.control("SH", ["SYNOPSIS"]);
    page.text([italic(DEFAULT_PATH)]);

    page.control("SH", ["DESCRIPTION"]);
    page.text([
        roman("A YAML file with sections and keys. All keys are optional, and so is the file. "),
        roman(format!("Its size is limited to {} KiB. ", MAX_FILE_BYTES / 1024)),
        roman("Unknown keys, duplicate keys and values of the wrong type are errors; "),
        bold("citadel-agent config check"),
        roman(" reports all of them with their line numbers."),
    ]);
    page.control("PP", []);
    page.text([
        roman("The agent reloads the file on "),
        bold("systemctl reload citadel-agent"),
        roman(" and within seconds of a change. If the file is invalid, the agent keeps its current configuration."),
    ]);
    page.control("PP", []);
    page.text([
        roman("A duration is a number of seconds, or a number with a unit ("),
        bold("15s"),
        roman(", "),
        bold("500ms"),
        roman(", "),
        bold("5m"),
        roman("). In the keys below, "),
        bold("*"),
        roman(" stands for any name and "),
        bold("[]"),
        roman(" for an item of a list."),
    ]);

    page.control("SH", ["KEYS"]);
    let mut section = String::new();
    for key in keys() {
        let own = key.path.split('.').next().unwrap_or_default();
        if own != section {
            own.clone_into(&mut section);
            page.control("SS", [own]);
        }
        page.control("TP", []);
        page.text([bold(key.path.as_str())]);
        page.text(marked(&key.meaning));
        page.control("br", []);
        let mut kind = marked(&key.kind);
        if !key.default.is_empty() {
            kind.push(roman("; default "));
            kind.push(bold(key.default.as_str()));
        }
        page.text(kind);
    }

    page.control("SH", ["FILES"]);
    page.control("TP", []);
    page.text([italic(DEFAULT_PATH)]);
    page.text([
        roman("Default location; override it with "),
        bold("--config"),
        roman(" or "),
        bold("CITADEL_AGENT_CONFIG"),
        roman("."),
    ]);

    page.control("SH", ["SEE ALSO"]);
    page.text([bold("citadel-agent"), roman("(1), "), bold("citadel-agent-config-check"), roman("(1)")]);
    page.render()
}

/// Converts Markdown code spans to bold.
fn marked(text: &str) -> Vec<Inline> {
    let parts = text.split('`').enumerate();
    parts.map(|(index, part)| if index % 2 == 1 { bold(part) } else { roman(part) }).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    use super::*;

    /// The page as rendered by `man`, if that is installed.
    fn shown() -> Option<String> {
        let mut man = Command::new("man")
            .args(["--local-file", "--warnings", "--pager=cat", "-"])
            .env("MANWIDTH", "1000")
            .env("LC_ALL", "C.UTF-8")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .ok()?;
        man.stdin.take()?.write_all(configuration().as_bytes()).ok()?;
        let output = man.wait_with_output().ok()?;
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "man has warnings");
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    #[test]
    fn every_key_is_on_the_page() {
        let source = configuration();
        for key in keys() {
            let escaped = key.path.replace('-', "\\-");
            assert!(source.contains(&format!("\\fB{escaped}\\fR")), "{}", key.path);
        }
        // Without man, only the source can be checked.
        if let Some(shown) = shown() {
            for key in keys() {
                assert!(shown.contains(&key.path), "{} is not shown:\n{shown}", key.path);
            }
        }
    }
}
