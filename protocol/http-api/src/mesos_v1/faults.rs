//! Texts of Mesos for ids, roles and numbers that break a rule. Clients and people search for them.

use muster_model::IdError;

/// What is wrong with an id.
pub(super) fn id_fault(text: &str, error: &IdError) -> String {
    match error {
        IdError::Empty { .. } => "ID must not be empty".to_owned(),
        IdError::TooLong { .. } => "ID must not be greater than 255 characters".to_owned(),
        IdError::Refused { .. } if text == "." || text == ".." => format!("'{text}' is disallowed"),
        IdError::Refused { .. } => format!("'{text}' contains invalid characters"),
    }
}

/// What is wrong with a role's name; the first broken rule in the order of Mesos.
pub(super) fn role_fault(role: &str, error: &IdError) -> String {
    if role.is_empty() {
        return "Role names cannot be the empty string".to_owned();
    }
    if role.starts_with('/') {
        return format!("Role '{role}' cannot start with a slash");
    }
    if role.ends_with('/') {
        return format!("Role '{role}' cannot end with a slash");
    }
    if role.contains("//") {
        return format!("Role '{role}' cannot contain two adjacent slashes");
    }
    for component in role.split('/') {
        if matches!(component, "." | ".." | "*") {
            return format!("Role '{role}' cannot include '{component}' as a component");
        }
        if component.starts_with('-') {
            return format!("Role component '{component}' is invalid because it starts with a dash");
        }
        if component.bytes().any(|byte| matches!(byte, 0x09..=0x0d | 0x20 | 0x7f)) {
            return format!("Role component '{component}' is invalid because it contains backspace or whitespace");
        }
    }
    error.to_string()
}

/// A double as C++ streams print it: six digits, `1e+10`, `inf`.
pub(super) fn six_digits(value: f64) -> String {
    if value.is_nan() {
        return "nan".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    let scientific = format!("{value:.5e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..6).contains(&exponent) {
        let decimals = usize::try_from(5_i32.saturating_sub(exponent)).unwrap_or(0);
        let plain = format!("{value:.decimals$}");
        return if plain.contains('.') { plain.trim_end_matches('0').trim_end_matches('.').to_owned() } else { plain };
    }
    let mantissa = mantissa.trim_end_matches('0').trim_end_matches('.');
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_model::{Role, TaskId};

    #[test]
    fn ids_are_refused_in_the_words_of_mesos() {
        for (id, expected) in [
            ("", "ID must not be empty"),
            (&"x".repeat(256), "ID must not be greater than 255 characters"),
            ("..", "'..' is disallowed"),
            ("a/b", "'a/b' contains invalid characters"),
        ] {
            assert_eq!(id_fault(id, &TaskId::parse(id).unwrap_err()), expected);
        }
    }

    #[test]
    fn roles_are_refused_in_the_words_of_mesos() {
        for (role, expected) in [
            ("", "Role names cannot be the empty string"),
            ("/a", "Role '/a' cannot start with a slash"),
            ("a/", "Role 'a/' cannot end with a slash"),
            ("a//b", "Role 'a//b' cannot contain two adjacent slashes"),
            ("a/./b", "Role 'a/./b' cannot include '.' as a component"),
            ("../a", "Role '../a' cannot include '..' as a component"),
            ("a/*", "Role 'a/*' cannot include '*' as a component"),
            ("a/-b", "Role component '-b' is invalid because it starts with a dash"),
            ("a b", "Role component 'a b' is invalid because it contains backspace or whitespace"),
            ("a\tb", "Role component 'a\tb' is invalid because it contains backspace or whitespace"),
        ] {
            assert_eq!(role_fault(role, &Role::parse(role).unwrap_err()), expected);
        }
    }

    #[test]
    fn doubles_have_six_digits() {
        for (value, expected) in [
            (1e10, "1e+10"),
            (-1e10, "-1e+10"),
            (9_223_372_037.0, "9.22337e+09"),
            (9.3e9, "9.3e+09"),
            (f64::INFINITY, "inf"),
            (f64::NAN, "nan"),
            (0.5, "0.5"),
            (100.0, "100"),
            (123_456.0, "123456"),
            (1e-5, "1e-05"),
            (0.0, "0"),
        ] {
            assert_eq!(six_digits(value), expected);
        }
    }
}
