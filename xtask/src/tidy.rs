//! `cargo xtask tidy`: the rules of the house that a machine can check and the compiler does not.
//!
//! The rules' data is in the root Cargo.toml, `[workspace.metadata.layout]` and `[workspace.metadata.tidy]`.

mod layers;
mod lexer;
mod licence;
mod sources;

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, bail};
use layers::Metadata;

/// One thing that is not as it should be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    at: String,
    what: String,
    severity: Severity,
}

#[derive(Debug, PartialEq, Eq, Clone, Copy)]
enum Severity {
    Error,
    Warning,
}

impl Finding {
    fn error(at: &str, what: &str) -> Self {
        Self { at: at.to_owned(), what: what.to_owned(), severity: Severity::Error }
    }

    fn warning(at: &str, what: &str) -> Self {
        Self { at: at.to_owned(), what: what.to_owned(), severity: Severity::Warning }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.severity {
            Severity::Error => write!(f, "{}: {}", self.at, self.what),
            Severity::Warning => write!(f, "warning: {}: {}", self.at, self.what),
        }
    }
}

/// Checks the workspace at `root` and prints what it finds.
///
/// Errors: when there is a finding that is more than a warning.
pub(crate) fn run(root: &Path) -> anyhow::Result<()> {
    let metadata = read_metadata(root)?;
    let tables = metadata.metadata.as_ref().context("the root Cargo.toml has no [workspace.metadata]")?;
    let mut findings = layers::check_arrows(&metadata, tables);
    findings.extend(layers::check_origin(&metadata, tables));
    let mut file_count = 0usize;
    for (folder, _) in metadata.members() {
        let manifest = format!("{folder}/Cargo.toml");
        let text = read(&root.join(&manifest))?;
        findings.extend(check_lints(&manifest, &text));
        let may_be_unsafe = tables.layout.get(&folder).is_some_and(|row| row.may_be_unsafe);
        for file in rust_files(&root.join(&folder))? {
            let path = file.strip_prefix(root).unwrap_or(&file).to_string_lossy().into_owned();
            findings.extend(sources::check(&path, &read(&file)?, may_be_unsafe, &tables.tidy));
            file_count += 1;
        }
    }
    for finding in &findings {
        println!("{finding}");
    }
    let duplicates = layers::duplicates(&metadata);
    let listed: Vec<String> =
        duplicates.iter().map(|(name, versions)| format!("{name} {}", versions.join(" + "))).collect();
    println!("tidy: {file_count} files; {} packages in more than one version: {}", duplicates.len(), listed.join(", "));
    let errors = findings.iter().filter(|finding| finding.severity == Severity::Error).count();
    if errors > 0 {
        bail!("tidy found {errors} faults");
    }
    Ok(())
}

fn read_metadata(root: &Path) -> anyhow::Result<Metadata> {
    // Only what is built on our platform: packages for others are in the lock file, not in our binaries.
    let output = Command::new(crate::cargo())
        .args(["metadata", "--format-version", "1", "--locked", "--filter-platform", crate::TARGET])
        .current_dir(root)
        .output()
        .context("cannot run cargo metadata")?;
    if !output.status.success() {
        bail!("cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    serde_json::from_slice(&output.stdout)
        .context("cargo metadata or the tables in the root Cargo.toml are not as expected")
}

fn check_lints(path: &str, manifest: &str) -> Vec<Finding> {
    let inherits = manifest.parse::<toml::Table>().ok().is_some_and(|table| {
        table.get("lints").and_then(|lints| lints.get("workspace")).and_then(toml::Value::as_bool) == Some(true)
    });
    if inherits { Vec::new() } else { vec![Finding::error(path, "must say `[lints] workspace = true`")] }
}

/// All .rs files below `folder`, sorted; not those of crates inside it, build output or installed packages.
fn rust_files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))? {
            let entry = entry?;
            let path = entry.path();
            let name = entry.file_name();
            if entry.file_type()?.is_dir() {
                if name != "target" && name != "node_modules" && !name.to_string_lossy().starts_with('.') {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

fn read(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests;
