//! Lists as columns that fit the terminal.

use std::io::IsTerminal;

const GAP: usize = 2;
/// A column is never cut to less, so that something of it stays readable.
const WIDTH_MIN: usize = 6;
/// Ids are cut to this before anything else is cut: `…b53a62-S0`.
const ID_WIDTH_MIN: usize = 10;

/// A list with a head.
#[derive(Debug)]
pub(crate) struct Table {
    head: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

/// One field, and how it is painted on a terminal.
#[derive(Debug, Clone)]
pub(crate) struct Cell {
    text: String,
    paint: Paint,
    cut: Cut,
}

/// Which part of a field goes first when there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    End,
    /// Ids of one cluster differ at their end.
    Start,
}

/// What a colour says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Paint {
    Plain,
    Good,
    Bad,
    Waiting,
}

impl Cell {
    /// A painted field.
    pub(crate) fn painted(text: impl Into<String>, paint: Paint) -> Self {
        Self { text: text.into(), paint, cut: Cut::End }
    }

    /// An id: its end is shown when there is no room for all of it.
    pub(crate) fn id(text: impl Into<String>) -> Self {
        Self { text: text.into(), paint: Paint::Plain, cut: Cut::Start }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::painted(text, Paint::Plain)
    }
}

impl Table {
    /// A table without rows.
    pub(crate) fn new(head: &[&'static str]) -> Self {
        Self { head: head.to_vec(), rows: Vec::new() }
    }

    /// Adds a row with as many fields as the head has.
    pub(crate) fn add(&mut self, row: Vec<Cell>) {
        self.rows.push(row);
    }

    /// The table's text for standard output: painted and, unless it may be wide, cut if that is a terminal; whole and
    /// plain if not.
    pub(crate) fn for_stdout(&self, may_be_wide: bool) -> String {
        if !std::io::stdout().is_terminal() {
            return self.render(usize::MAX, false);
        }
        if may_be_wide {
            return self.render(usize::MAX, std::env::var_os("NO_COLOR").is_none());
        }
        let width = terminal_size::terminal_size().map_or(80, |(terminal_size::Width(width), _)| usize::from(width));
        self.render(width, std::env::var_os("NO_COLOR").is_none())
    }

    fn render(&self, width: usize, is_painted: bool) -> String {
        let widths = self.widths(width);
        let mut out = String::new();
        let head: Vec<Cell> = self.head.iter().map(|&name| Cell::from(name)).collect();
        for row in std::iter::once(&head).chain(&self.rows) {
            let mut line = String::new();
            for (cell, &width) in row.iter().zip(&widths) {
                let text = fit(cell, width);
                let padding = width.saturating_sub(text.chars().count()) + GAP;
                line.push_str(&paint(&text, cell.paint, is_painted));
                line.extend(std::iter::repeat_n(' ', padding));
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }

    /// The width of each column: as wide as its widest field, the widest ones cut until all fit.
    fn widths(&self, limit: usize) -> Vec<usize> {
        let mut widths: Vec<usize> = self.head.iter().map(|name| name.chars().count()).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.text.chars().count());
            }
        }
        let is_id: Vec<bool> =
            self.rows.first().map_or_else(Vec::new, |row| row.iter().map(|it| it.cut == Cut::Start).collect());
        let room = limit.saturating_sub(GAP * widths.len().saturating_sub(1));
        // Of an id the end is enough to tell it from others; only then something is lost.
        while widths.iter().sum::<usize>() > room {
            let ids = widths.iter_mut().zip(&is_id).filter(|(width, is_id)| **is_id && **width > ID_WIDTH_MIN);
            match ids.map(|(width, _)| width).max() {
                Some(widest) => *widest -= 1,
                None => break,
            }
        }
        while widths.iter().sum::<usize>() > room {
            match widths.iter_mut().max() {
                Some(widest) if *widest > WIDTH_MIN => *widest -= 1,
                _ => break,
            }
        }
        widths
    }
}

/// Cuts a text and marks the cut; line breaks and control characters become spaces.
fn fit(cell: &Cell, width: usize) -> String {
    let plain = cell.text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let count = cell.text.chars().count();
    if count <= width {
        return plain.collect();
    }
    let kept = width.saturating_sub(1);
    match cell.cut {
        Cut::End => plain.take(kept).chain(std::iter::once('…')).collect(),
        Cut::Start => std::iter::once('…').chain(plain.skip(count.saturating_sub(kept))).collect(),
    }
}

fn paint(text: &str, paint: Paint, is_painted: bool) -> String {
    let code = match paint {
        Paint::Good => "32",
        Paint::Bad => "31",
        Paint::Waiting => "33",
        Paint::Plain => return text.to_owned(),
    };
    if is_painted { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(&["ID", "STATE"]);
        table.add(vec!["a-long-identifier".into(), Cell::painted("running", Paint::Good)]);
        table.add(vec!["b\nc".into(), Cell::painted("lost", Paint::Bad)]);
        table
    }

    #[test]
    fn a_wide_table_is_whole_and_aligned() {
        assert_eq!(
            table().render(80, false),
            "ID                 STATE\na-long-identifier  running\nb c                lost\n"
        );
    }

    #[test]
    fn a_narrow_terminal_cuts_the_widest_column() {
        let text = table().render(20, false);
        assert_eq!(text, "ID           STATE\na-long-ide…  running\nb c          lost\n");
        assert!(text.lines().all(|line| line.chars().count() <= 20));
    }

    #[test]
    fn of_an_id_the_end_is_kept() {
        let mut table = Table::new(&["ID", "STATE"]);
        table.add(vec![Cell::id("0f761d6f-88a9-4b89-S0"), "lost".into()]);
        assert_eq!(table.render(15, false), "ID        STATE\n…4b89-S0  lost\n");
    }

    #[test]
    fn a_terminal_too_narrow_for_anything_still_shows_something() {
        assert!(table().render(0, false).contains("a-lon…"));
    }

    #[test]
    fn colours_do_not_move_columns() {
        assert!(table().render(80, true).contains("a-long-identifier  \u{1b}[32mrunning\u{1b}[0m\n"));
    }
}
