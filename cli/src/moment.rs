//! Moments for people: how long ago, or how far ahead.

use std::time::{SystemTime, UNIX_EPOCH};

/// A moment in seconds since the Unix epoch as `3 min ago` or `in 2 h`.
pub(crate) fn ago(moment: f64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |now| now.as_secs_f64());
    relative(now - moment)
}

fn relative(seconds: f64) -> String {
    let size = seconds.abs();
    let (count, unit) = match size {
        _ if size < 60.0 => (size, "s"),
        _ if size < 3600.0 => (size / 60.0, "min"),
        _ if size < 86_400.0 => (size / 3600.0, "h"),
        _ => (size / 86_400.0, "days"),
    };
    let count = count.floor();
    // Units of measure have no plural; days are a word.
    let unit = if unit == "days" && count < 2.0 { "day" } else { unit };
    if seconds < 0.0 { format!("in {count} {unit}") } else { format!("{count} {unit} ago") }
}

#[cfg(test)]
mod tests {
    use super::relative;

    #[test]
    fn lengths_have_one_unit() {
        for (seconds, expected) in [
            (0.4, "0 s ago"),
            (59.9, "59 s ago"),
            (60.0, "1 min ago"),
            (7300.0, "2 h ago"),
            (100_000.0, "1 day ago"),
            (200_000.0, "2 days ago"),
            (-90.0, "in 1 min"),
        ] {
            assert_eq!(relative(seconds), expected, "case: {seconds}");
        }
    }
}
