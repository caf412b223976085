//! The two text formats: how they differ, and the escapes that they share.

use std::borrow::Cow;

/// A text format.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Dialect {
    /// Prometheus 0.0.4.
    Prometheus,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

/// Escapes backslashes, newlines and, where `quotes`, quotes: so in label values and in OpenMetrics' HELP, but in 0.0.4's
/// HELP `\"` would stay as it is.
pub(super) fn escape(text: &str, quotes: bool) -> Cow<'_, str> {
    if !text.contains(['\\', '\n', '"']) {
        return Cow::Borrowed(text);
    }
    let text = text.replace('\\', r"\\").replace('\n', r"\n");
    Cow::Owned(if quotes { text.replace('"', "\\\"") } else { text })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_is_escaped_as_each_format_wants_it() {
        let help = "A \"quoted\" back\\slash\nand a line.";
        assert_eq!(escape(help, false), "A \"quoted\" back\\\\slash\\nand a line.");
        assert_eq!(escape(help, true), "A \\\"quoted\\\" back\\\\slash\\nand a line.");
        assert!(matches!(escape("Plain.", true), Cow::Borrowed("Plain.")));
    }
}
