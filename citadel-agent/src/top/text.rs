//! A view as text, for a pipe: a line of titles, then one line per model.

use ratatui::text::Span;

use super::columns::COLUMNS;
use super::view::View;

/// The table.
#[must_use]
pub(super) fn table(view: &View) -> String {
    let titles = COLUMNS.iter().map(|column| column.title.to_owned()).collect();
    let rows = view.models.iter().map(|model| COLUMNS.iter().map(|column| column.text(model)).collect());
    let rows: Vec<Vec<String>> = std::iter::once(titles).chain(rows).collect();
    // Some characters take two cells of a terminal.
    let width = |text: &str| Span::raw(text).width();
    let widest = |at: usize| rows.iter().map(|row| width(&row[at])).max().unwrap_or(0);
    let widths: Vec<usize> = (0..COLUMNS.len()).map(widest).collect();
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for ((cell, column), wide) in row.iter().zip(COLUMNS).zip(&widths) {
            if !line.is_empty() {
                line.push(' ');
            }
            let (pad, cell) = (" ".repeat(wide - width(cell)), cell.as_str());
            line.extend(if column.is_number() { [pad.as_str(), cell] } else { [cell, pad.as_str()] });
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}
