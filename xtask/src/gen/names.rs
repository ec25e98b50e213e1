//! Rust names as prost-build prints them, so that the JSON code can refer to its structs.

use heck::{ToSnakeCase, ToUpperCamelCase};

/// A struct or enum name: `TTYInfo` becomes `TtyInfo`.
pub(super) fn type_name(proto: &str) -> String {
    escape(proto.to_upper_camel_case())
}

/// A field or module name: `type` becomes `r#type`.
pub(super) fn value_name(proto: &str) -> String {
    escape(proto.to_snake_case())
}

fn escape(name: String) -> String {
    const KEYWORDS: [&str; 12] =
        ["type", "ref", "use", "mod", "match", "move", "loop", "static", "struct", "enum", "in", "gen"];
    if KEYWORDS.contains(&name.as_str()) { format!("r#{name}") } else { name }
}

/// The path from the module of `package` to the type with the full proto name `.a.b.Outer.Inner`.
///
/// `depth` is how many modules below the package's module the code stands (0 = in it).
pub(super) fn path_to(full: &str, package: &str, depth: usize) -> String {
    let mut target: Vec<&str> = full.trim_start_matches('.').split('.').collect();
    let name = target.pop().unwrap_or_default();
    let here: Vec<&str> = package.split('.').collect();
    let shared = target.iter().zip(&here).take_while(|(a, b)| a == b).count();
    let up = here.len() - shared + depth;
    let mut path = "super::".repeat(up);
    for part in target.iter().skip(shared) {
        path.push_str(&value_name(part));
        path.push_str("::");
    }
    path.push_str(&type_name(name));
    path
}
