//! How a result is printed: a table for people, then one JSON line for machines.

use serde_json::{Map, Value};

use crate::measure;

/// A result under way.
pub(crate) struct Outcome {
    name: &'static str,
    rows: Vec<(String, String)>,
    line: Map<String, Value>,
}

impl Outcome {
    pub(crate) fn new(name: &'static str) -> Self {
        let mut line = Map::new();
        line.insert("bench".to_owned(), name.into());
        line.insert("time".to_owned(), measure::unix_seconds().into());
        line.insert("commit".to_owned(), measure::commit().into());
        line.insert("machine".to_owned(), measure::machine());
        Self { name, rows: Vec::new(), line }
    }

    /// A row for people.
    pub(crate) fn row(&mut self, what: impl Into<String>, value: impl Into<String>) {
        self.rows.push((what.into(), value.into()));
    }

    /// A field for machines.
    pub(crate) fn field(&mut self, key: &str, value: impl Into<Value>) {
        self.line.insert(key.to_owned(), value.into());
    }

    /// Prints both.
    pub(crate) fn print(&self) {
        let width = self.rows.iter().map(|(what, _)| what.chars().count()).max().unwrap_or(0);
        println!("\n{}", self.name);
        for (what, value) in &self.rows {
            println!("  {what:<width$}  {value}");
        }
        println!("{}", Value::Object(self.line.clone()));
    }
}

/// Says on the way what a long run is at.
pub(crate) fn progress(what: &str) {
    eprintln!("{what}");
}

/// A length of time for people.
pub(crate) fn millis(milliseconds: f64) -> String {
    if milliseconds < 1.0 { format!("{:.0} µs", milliseconds * 1000.0) } else { format!("{milliseconds:.1} ms") }
}
