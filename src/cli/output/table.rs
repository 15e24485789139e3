//! Tables of text for people: aligned columns, and lines that belong to the row above them.

use super::safe_text::SafeText;
use crate::base::Printable;

/// The alignment of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Align {
    Left,
    Right,
}

/// A table under construction. Each column is as wide as its widest cell; the last one is not
/// filled up.
pub(super) struct Table<const N: usize> {
    align: [Align; N],
    lines: Vec<Line<N>>,
}

enum Line<const N: usize> {
    Row([String; N]),
    Below(String),
}

impl<const N: usize> Table<N> {
    /// A table whose columns have these titles.
    pub(super) fn new(columns: [(&str, Align); N]) -> Self {
        let titles = columns.map(|(title, _)| title.to_owned());
        Self { align: columns.map(|(_, align)| align), lines: vec![Line::Row(titles)] }
    }

    /// Adds a row. Cells are shown as they are printed: with escapes, on one line.
    pub(super) fn row(&mut self, cells: [String; N]) {
        self.lines.push(Line::Row(cells.map(|cell| Printable(cell).to_string())));
    }

    /// Adds an indented line below the last row.
    pub(super) fn below(&mut self, line: String) {
        self.lines.push(Line::Below(line));
    }

    /// The text of the table.
    pub(super) fn text(&self) -> SafeText {
        let mut widths = [0; N];
        for line in &self.lines {
            let Line::Row(cells) = line else { continue };
            for (width, cell) in widths.iter_mut().zip(cells) {
                *width = (*width).max(cell.chars().count());
            }
        }
        self.lines
            .iter()
            .map(|line| match line {
                Line::Row(cells) => self.padded(cells, &widths),
                Line::Below(line) => format!("  {line}"),
            })
            .collect()
    }

    fn padded(&self, cells: &[String; N], widths: &[usize; N]) -> String {
        let mut line = String::new();
        for (number, cell) in cells.iter().enumerate() {
            let width = widths[number];
            let separator = if number == 0 { "" } else { "  " };
            line.push_str(separator);
            line.push_str(&match self.align[number] {
                Align::Right => format!("{cell:>width$}"),
                Align::Left if number + 1 == N => cell.clone(),
                Align::Left => format!("{cell:<width$}"),
            });
        }
        line.truncate(line.trim_end().len());
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_cells_end_no_line() {
        let mut table =
            Table::new([("NAME", Align::Left), ("SIZE", Align::Right), ("STATE", Align::Left)]);
        table.row(["größe".into(), "7 B".into(), "ok".into()]);
        table.below("a note".into());
        table.row(["a\nb".into(), "1.0 MiB".into(), String::new()]);
        assert_eq!(
            table.text().as_str(),
            "NAME      SIZE  STATE\ngröße      7 B  ok\n  a note\na\\nb   1.0 MiB\n"
        );
    }
}
