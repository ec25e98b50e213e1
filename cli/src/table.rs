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
        let columns = self.columns(width);
        let mut out = String::new();
        let head: Vec<Cell> = self.head.iter().map(|&name| Cell::from(name)).collect();
        for row in std::iter::once(&head).chain(&self.rows) {
            let mut line = String::new();
            for (cell, column) in row.iter().zip(&columns).filter(|(_, column)| !column.is_left_out) {
                let width = column.width;
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

    /// How the columns fit a width. What tells least goes first: of ids all but their ends; then the ids of other lists
    /// that stand behind the first column, from the right; then of every text but states, the longest first.
    fn columns(&self, limit: usize) -> Vec<Column> {
        let mut columns: Vec<Column> = self.head.iter().map(|name| Column::of(name)).collect();
        for row in &self.rows {
            for (column, cell) in columns.iter_mut().zip(row) {
                column.add(cell);
            }
        }
        let is_too_wide = |columns: &[Column]| {
            let shown = || columns.iter().filter(|column| !column.is_left_out);
            shown().map(|column| column.width + GAP).sum::<usize>() > limit.saturating_add(GAP)
        };
        let shrink = |may_shrink: &dyn Fn(&Column) -> bool, columns: &mut [Column]| {
            while is_too_wide(columns) {
                let wide = columns.iter_mut().filter(|column| !column.is_left_out && may_shrink(column));
                match wide.max_by_key(|column| column.width) {
                    Some(widest) => widest.width -= 1,
                    None => break,
                }
            }
        };
        shrink(&|column| column.is_id && column.width > ID_WIDTH_MIN, &mut columns);
        for index in (1..columns.len()).rev() {
            let is_wide = is_too_wide(&columns);
            if let Some(column) = columns.get_mut(index).filter(|column| column.is_id && is_wide) {
                column.is_left_out = true;
            }
        }
        shrink(&|column| !column.is_state && column.width > column.head.max(WIDTH_MIN), &mut columns);
        shrink(&|column| column.width > WIDTH_MIN, &mut columns);
        columns
    }
}

/// How one column is shown.
struct Column {
    width: usize,
    head: usize,
    is_id: bool,
    is_state: bool,
    is_left_out: bool,
}

impl Column {
    fn of(name: &str) -> Self {
        let head = name.chars().count();
        Self { width: head, head, is_id: false, is_state: false, is_left_out: false }
    }

    fn add(&mut self, cell: &Cell) {
        self.width = self.width.max(cell.text.chars().count());
        self.is_id |= cell.cut == Cut::Start;
        self.is_state |= cell.paint != Paint::Plain;
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
    fn ids_of_other_lists_are_left_out_before_a_state_or_the_own_id_is_cut() {
        let mut table = Table::new(&["ID", "STATE", "MESSAGE", "AGENT", "FRAMEWORK"]);
        table.add(vec![
            "run-1f2e3d4c".into(),
            Cell::painted("finished", Paint::Good),
            "it ended by itself".into(),
            Cell::id("0f761d6f-88a9-4b89-S0"),
            Cell::id("0f761d6f-88a9-4b89-0001"),
        ]);
        for (width, expected) in [
            (80, &["ID", "STATE", "MESSAGE", "AGENT", "FRAMEWORK"][..]),
            (60, &["ID", "STATE", "MESSAGE", "AGENT"]),
            (45, &["ID", "STATE", "MESSAGE"]),
            (30, &["ID", "STATE", "MESSAGE"]),
        ] {
            let text = table.render(width, false);
            let lines: Vec<&str> = text.lines().collect();
            assert!(lines.iter().all(|line| line.chars().count() <= width), "{width}: {text}");
            assert_eq!(lines[0].split_whitespace().collect::<Vec<_>>(), expected, "{width}: {text}");
            assert!(lines[1].contains(" finished "), "{width}: {text}");
            assert_eq!(lines[1].contains("run-1f2e3d4c "), width > 30, "{width}: {text}");
        }
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
