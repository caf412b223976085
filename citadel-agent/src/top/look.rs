//! Colours and characters that the terminal supports.

use ratatui::style::{Color, Modifier, Style};

use super::columns::Level;

/// Capabilities of the terminal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Look {
    /// Colours. No information is conveyed by colour alone.
    pub(super) colour: bool,
    /// Characters beyond ASCII.
    pub(super) unicode: bool,
}

impl Look {
    /// The style of a value of this level.
    #[must_use]
    pub(super) fn style(self, level: Level) -> Style {
        match level {
            Level::Normal => Style::new(),
            Level::Warning => self.coloured(Color::Yellow),
            Level::Bad => self.coloured(Color::Red).add_modifier(Modifier::BOLD),
        }
    }

    /// This colour, if the terminal has colours.
    #[must_use]
    pub(super) fn coloured(self, colour: Color) -> Style {
        if self.colour { Style::new().fg(colour) } else { Style::new() }
    }
}
