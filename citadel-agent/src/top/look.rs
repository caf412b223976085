//! Colours and characters that the terminal has.

use ratatui::style::{Color, Modifier, Style};

use super::columns::Level;

/// How the terminal wants it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Look {
    /// With colours; without them, nothing is told by a colour alone anyway.
    pub(super) colour: bool,
    /// With characters beyond ASCII.
    pub(super) unicode: bool,
}

impl Look {
    /// How a figure of this level is written.
    #[must_use]
    pub(super) fn style(self, level: Level) -> Style {
        match level {
            Level::Normal => Style::new(),
            Level::Warning => self.coloured(Color::Yellow),
            Level::Bad => self.coloured(Color::Red).add_modifier(Modifier::BOLD),
        }
    }

    /// In this colour, where there are colours.
    #[must_use]
    pub(super) fn coloured(self, colour: Color) -> Style {
        if self.colour { Style::new().fg(colour) } else { Style::new() }
    }
}
