//! Checks the text of each source file: its first line, its size, its name, `unsafe`, open ends and the contract's words.
//!
//! Pure: takes a path and a text, returns findings. Generated code (`gen/`) is exempt.

use super::{Finding, layers::Rules, lexer};

const LINES_MAX: usize = 600;
const REFUSED_NAMES: [&str; 8] =
    ["util.rs", "utils.rs", "helper.rs", "helpers.rs", "common.rs", "types.rs", "misc.rs", "shared.rs"];
/// Put together here, so that this file passes its own check.
const CONTRACT_WORDS: [&str; 2] = [concat!("mas", "ter"), concat!("sla", "ve")];
const OPEN_END: &str = concat!("TO", "DO");

/// Checks one file. `path` is relative to the root.
pub(crate) fn check(path: &str, text: &str, may_be_unsafe: bool, rules: &Rules) -> Vec<Finding> {
    if path.contains("/src/gen/") && !path.starts_with("xtask/") {
        return Vec::new();
    }
    let mut findings = Vec::new();
    if !text.starts_with("//!") {
        findings.push(Finding::error(path, "the first line must be `//!` and say what the file is"));
    }
    let name = path.rsplit('/').next().unwrap_or(path);
    if REFUSED_NAMES.contains(&name) {
        findings.push(Finding::error(path, "names a kind, not a subject; name the file for what it is about"));
    }
    let lines = text.lines().count();
    if lines > LINES_MAX {
        findings.push(Finding::warning(path, &format!("has {lines} lines, {LINES_MAX} at most; cut it by subject")));
    }
    let code = lexer::code_only(text);
    if !may_be_unsafe && let Some(line) = code.lines().position(|line| has_word(line, "unsafe")) {
        findings.push(Finding::error(
            &at(path, line),
            "`unsafe` stands only in crates with `unsafe = true` in the layer table",
        ));
    }
    for (number, line) in text.lines().enumerate() {
        if line.match_indices(OPEN_END).any(|(found, _)| !names_an_issue(&line[found + OPEN_END.len()..])) {
            findings
                .push(Finding::error(&at(path, number), &format!("{OPEN_END} needs an issue number: {OPEN_END}(#12)")));
        }
    }
    // Only our own names: comments and strings name things of others, their source files, routes and kernel files.
    if !rules.contract_words_in.iter().any(|allowed| path.starts_with(allowed.as_str())) {
        for (number, line) in code.lines().enumerate() {
            let lower = line.to_lowercase();
            if let Some(word) = CONTRACT_WORDS.iter().find(|word| lower.contains(**word) && !is_kernel_word(line)) {
                let what = format!("`{word}` belongs to the Mesos contract; here it is agent or control plane");
                findings.push(Finding::error(&at(path, number), &what));
            }
        }
    }
    findings
}

/// The kernel has these words too, for mount propagation.
fn is_kernel_word(line: &str) -> bool {
    line.contains(concat!("MS_SLA", "VE"))
}

fn at(path: &str, line_index: usize) -> String {
    format!("{path}:{}", line_index + 1)
}

fn names_an_issue(rest: &str) -> bool {
    rest.strip_prefix("(#")
        .and_then(|rest| rest.split_once(')'))
        .is_some_and(|(number, _)| !number.is_empty() && number.chars().all(|c| c.is_ascii_digit()))
}

fn has_word(line: &str, word: &str) -> bool {
    line.split(|c: char| !(c.is_alphanumeric() || c == '_')).any(|found| found == word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(path: &str, text: &str, may_be_unsafe: bool) -> Vec<String> {
        let rules = Rules {
            dev: Vec::new(),
            licences: Vec::new(),
            refused: Vec::new(),
            contract_words_in: vec!["protocol/http-api/src/mesos_v1".to_owned()],
        };
        check(path, text, may_be_unsafe, &rules).into_iter().map(|finding| finding.to_string()).collect()
    }

    #[test]
    fn each_rule_finds_its_fault_and_nothing_else() {
        let old_word = CONTRACT_WORDS[1];
        let long = format!("//! x\n{}", "\n".repeat(LINES_MAX));
        for (name, path, text, wanted) in [
            ("a good file", "a/src/plan.rs", "//! Plans.\nfn f() {}\n".to_owned(), None),
            ("no header", "a/src/plan.rs", "fn f() {}\n".to_owned(), Some("first line")),
            ("refused name", "a/src/utils.rs", "//! x\n".to_owned(), Some("names a kind")),
            ("long file", "a/src/plan.rs", long, Some("601 lines")),
            ("unsafe code", "a/src/plan.rs", "//! x\nfn f() { unsafe {} }\n".to_owned(), Some("plan.rs:2: `unsafe`")),
            (
                "unsafe in words",
                "a/src/plan.rs",
                "//! x\n// unsafe\nfn f() { g(\"unsafe\", unsafe_code) }\n".to_owned(),
                None,
            ),
            ("open end", "a/src/plan.rs", format!("//! x\n// {OPEN_END}: later\n"), Some("issue number")),
            ("open end with an issue", "a/src/plan.rs", format!("//! x\n// {OPEN_END}(#12): later\n"), None),
            (
                "open end without digits",
                "a/src/plan.rs",
                format!("//! x\n// {OPEN_END}(#): later\n"),
                Some("issue number"),
            ),
            ("old word", "a/src/plan.rs", format!("//! x\nlet {old_word}_id = 1;\n"), Some("Mesos contract")),
            ("old word in a comment", "a/src/plan.rs", format!("//! x\n// {old_word}\nf(\"{old_word}\")"), None),
            (
                "old word where it belongs",
                "protocol/http-api/src/mesos_v1/x.rs",
                format!("//! x\nlet {old_word}_id = 1;\n"),
                None,
            ),
            ("generated code", "a/src/gen/types.rs", "fn f() { unsafe {} }\n".to_owned(), None),
        ] {
            let found = findings(path, &text, false);
            match wanted {
                None => assert!(found.is_empty(), "case: {name}: {found:?}"),
                Some(part) => assert!(found.len() == 1 && found[0].contains(part), "case: {name}: {found:?}"),
            }
        }
    }

    #[test]
    fn a_crate_that_may_be_unsafe_is_left_alone() {
        assert!(findings("agent/linux/src/a.rs", "//! x\nfn f() { unsafe {} }\n", true).is_empty());
    }
}
