//! What keys change: pure.

use std::cmp::Ordering;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::columns::COLUMNS;
use super::span::Span;
use super::view::{Model, View};

/// The column by which rows are sorted initially: the port.
const FIRST_SORT: usize = 1;

/// Longest filter.
const LONGEST_FILTER: usize = 64;

/// What is shown, and how.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct State {
    /// Column by which rows are sorted.
    pub(super) sort: usize,
    /// Sorted in reverse.
    pub(super) reversed: bool,
    /// Only models whose name contains it.
    pub(super) filter: String,
    /// The filter is being edited.
    pub(super) typing: bool,
    /// Refreshing is paused.
    pub(super) paused: bool,
    /// One model fills the screen.
    pub(super) detail: bool,
    /// The help is shown.
    pub(super) help: bool,
    /// First visible column after the name.
    pub(super) from_column: usize,
    /// The time span.
    pub(super) span: Span,
    /// The selected model; if it is not shown, the first one is selected.
    selected: Option<u16>,
}

/// What a key causes besides redrawing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Effect {
    /// Nothing.
    None,
    /// A new request, immediately.
    Refresh,
    /// Exit.
    Quit,
}

impl State {
    /// The table for this time span; `detail` shows one model.
    #[must_use]
    pub(super) const fn new(span: Span, detail: bool) -> Self {
        Self {
            sort: FIRST_SORT,
            reversed: false,
            filter: String::new(),
            typing: false,
            paused: false,
            detail,
            help: false,
            from_column: 1,
            span,
            selected: None,
        }
    }

    /// The models that are shown, in their order.
    #[must_use]
    pub(super) fn rows<'a>(&self, view: &'a View) -> Vec<&'a Model> {
        let filter = self.filter.to_lowercase();
        let mut rows: Vec<_> = view.models.iter().filter(|model| model.name.to_lowercase().contains(&filter)).collect();
        let order = |a: &Model, b: &Model| COLUMNS.get(self.sort).map_or(Ordering::Equal, |column| column.order(a, b));
        rows.sort_by(|a, b| if self.reversed { order(b, a) } else { order(a, b) });
        rows
    }

    /// Which of the rows is selected; `None` where there are none.
    #[must_use]
    pub(super) fn selected(&self, rows: &[&Model]) -> Option<usize> {
        let found = rows.iter().position(|model| Some(model.port) == self.selected);
        found.or((!rows.is_empty()).then_some(0))
    }

    /// Handles a key.
    pub(super) fn key(&mut self, key: KeyEvent, view: &View) -> Effect {
        if key.kind == KeyEventKind::Release {
            return Effect::None;
        }
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return if key.code == KeyCode::Char('c') { Effect::Quit } else { Effect::None };
        }
        if self.typing {
            self.write(key.code);
            return Effect::None;
        }
        if std::mem::take(&mut self.help) {
            return if key.code == KeyCode::Char('q') { Effect::Quit } else { Effect::None };
        }
        match key.code {
            KeyCode::Char('q') => return Effect::Quit,
            KeyCode::Esc if self.detail => self.detail = false,
            KeyCode::Esc => self.filter.clear(),
            KeyCode::Enter => {
                self.detail = !self.detail;
                return Effect::Refresh;
            }
            KeyCode::Char('?' | 'h') => self.help = true,
            KeyCode::Char('/') => self.typing = true,
            KeyCode::Char('p' | ' ') => {
                self.paused = !self.paused;
                return Effect::Refresh;
            }
            KeyCode::Char('s') => self.sort = (self.sort + 1) % COLUMNS.len(),
            KeyCode::Char('S') => self.sort = (self.sort + COLUMNS.len() - 1) % COLUMNS.len(),
            KeyCode::Char('r') => self.reversed = !self.reversed,
            KeyCode::Char('+') => return self.change(Span::longer),
            KeyCode::Char('-') => return self.change(Span::shorter),
            KeyCode::Right => self.from_column = (self.from_column + 1).min(COLUMNS.len() - 1),
            KeyCode::Left => self.from_column = self.from_column.saturating_sub(1).max(1),
            KeyCode::Down | KeyCode::Char('j') => return self.step(view, 1),
            KeyCode::Up | KeyCode::Char('k') => return self.step(view, -1),
            KeyCode::Home => return self.step(view, isize::MIN),
            KeyCode::End => return self.step(view, isize::MAX),
            _ => {}
        }
        Effect::None
    }

    fn change(&mut self, to: fn(Span) -> Span) -> Effect {
        self.span = to(self.span);
        Effect::Refresh
    }

    fn write(&mut self, key: KeyCode) {
        match key {
            KeyCode::Enter => self.typing = false,
            KeyCode::Esc => {
                self.filter.clear();
                self.typing = false;
            }
            KeyCode::Backspace => _ = self.filter.pop(),
            KeyCode::Char(c) if self.filter.len() < LONGEST_FILTER && !c.is_control() => self.filter.push(c),
            _ => {}
        }
    }

    fn step(&mut self, view: &View, by: isize) -> Effect {
        let rows = self.rows(view);
        let Some(at) = self.selected(&rows) else { return Effect::None };
        let at = at.saturating_add_signed(by).min(rows.len() - 1);
        self.selected = rows.get(at).map(|model| model.port);
        Effect::Refresh
    }
}
