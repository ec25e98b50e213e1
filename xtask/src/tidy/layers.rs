//! Checks each crate's dependencies against the layer table, and the whole tree's licences, sources and duplicates.
//!
//! Pure: takes what `cargo metadata` printed, returns findings.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::{Finding, licence};

/// The part of `cargo metadata` that is looked at.
#[derive(Debug, Deserialize)]
pub(crate) struct Metadata {
    pub(crate) packages: Vec<Package>,
    pub(crate) workspace_members: Vec<String>,
    pub(crate) workspace_root: String,
    pub(crate) metadata: Option<Tables>,
    pub(crate) resolve: Option<Resolve>,
}

/// Which packages are built for the platform that was asked for.
#[derive(Debug, Deserialize)]
pub(crate) struct Resolve {
    pub(crate) nodes: Vec<Node>,
}

/// One built package.
#[derive(Debug, Deserialize)]
pub(crate) struct Node {
    pub(crate) id: String,
}

/// One package, ours or theirs.
#[derive(Debug, Deserialize)]
pub(crate) struct Package {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) license: Option<String>,
    pub(crate) source: Option<String>,
    pub(crate) manifest_path: String,
    pub(crate) dependencies: Vec<Dependency>,
}

/// One line of a manifest's dependencies. `kind` is absent for ordinary ones, else `dev` or `build`.
#[derive(Debug, Deserialize)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    pub(crate) kind: Option<String>,
    pub(crate) path: Option<String>,
}

/// The two tables of the root manifest.
#[derive(Debug, Deserialize)]
pub(crate) struct Tables {
    pub(crate) layout: BTreeMap<String, Row>,
    pub(crate) tidy: Rules,
}

/// What one crate may depend on.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Row {
    pub(crate) ours: Vec<String>,
    pub(crate) theirs: Vec<String>,
    #[serde(default, rename = "unsafe")]
    pub(crate) may_be_unsafe: bool,
}

/// Rules that hold for all crates.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Rules {
    pub(crate) dev: Vec<String>,
    pub(crate) licences: Vec<String>,
    pub(crate) refused: Vec<String>,
    pub(crate) contract_words_in: Vec<String>,
}

impl Metadata {
    /// Our packages as (folder below the root, package).
    pub(crate) fn members(&self) -> Vec<(String, &Package)> {
        let root = format!("{}/", self.workspace_root);
        let folder = |package: &Package| {
            let path = package.manifest_path.strip_prefix(&root).unwrap_or(&package.manifest_path);
            path.strip_suffix("/Cargo.toml").unwrap_or(path).to_owned()
        };
        let ours = |package: &&Package| self.workspace_members.contains(&package.id);
        self.packages.iter().filter(ours).map(|package| (folder(package), package)).collect()
    }

    /// Packages of others that are built on the platform asked for.
    fn theirs(&self) -> Vec<&Package> {
        let built: Option<BTreeSet<&str>> =
            self.resolve.as_ref().map(|resolve| resolve.nodes.iter().map(|node| node.id.as_str()).collect());
        let is_built = |package: &&Package| built.as_ref().is_none_or(|ids| ids.contains(package.id.as_str()));
        self.packages.iter().filter(|p| !self.workspace_members.contains(&p.id)).filter(is_built).collect()
    }
}

/// Compares the arrows and the direct dependencies of our crates with the table.
pub(crate) fn check_arrows(metadata: &Metadata, tables: &Tables) -> Vec<Finding> {
    let mut findings = Vec::new();
    let members = metadata.members();
    for (folder, package) in &members {
        let at = format!("{folder}/Cargo.toml");
        let Some(row) = tables.layout.get(folder) else {
            findings
                .push(Finding::error(&at, "has no row in [workspace.metadata.layout] of the root Cargo.toml; add one"));
            continue;
        };
        for dependency in &package.dependencies {
            let name = &dependency.name;
            let is_dev = dependency.kind.as_deref() == Some("dev");
            let ours = dependency.path.as_ref().and_then(|path| {
                let path = path.strip_prefix(&format!("{}/", metadata.workspace_root)).unwrap_or(path);
                members.iter().find(|(folder, _)| folder == path).map(|(folder, _)| folder)
            });
            if tables.tidy.refused.contains(name) {
                findings.push(Finding::error(
                    &at,
                    &format!("`{name}` is refused as a direct dependency; see `refused` in the root Cargo.toml"),
                ));
            } else if let Some(target) = ours {
                // A crate's own tests may name it once more, to switch on its test doubles.
                let is_itself = is_dev && target == folder;
                if !is_itself && !row.ours.iter().any(|allowed| allowed == "*" || allowed == target) {
                    findings.push(Finding::error(
                        &at,
                        &format!("new arrow {folder} -> {target}: it needs an ADR and a change of the layer table"),
                    ));
                }
                if ["tests", "bench", "xtask", "sim"].contains(&target.as_str()) {
                    findings.push(Finding::error(&at, &format!("nothing may depend on {target}")));
                }
            } else if !(row.theirs.contains(name) || is_dev && tables.tidy.dev.contains(name)) {
                findings.push(Finding::error(
                    &at,
                    &format!("`{name}` is not among the dependencies of {folder} in the layer table"),
                ));
            }
        }
    }
    for folder in tables.layout.keys() {
        if !members.iter().any(|(member, _)| member == folder) {
            findings.push(Finding::error(
                "Cargo.toml",
                &format!("the layer table has a row for {folder}, which is no member"),
            ));
        }
    }
    findings
}

/// Checks where the packages of others come from and under which licence.
pub(crate) fn check_origin(metadata: &Metadata, tables: &Tables) -> Vec<Finding> {
    let mut findings = Vec::new();
    for package in metadata.theirs() {
        let at = format!("{} {}", package.name, package.version);
        match &package.source {
            Some(source) if source.starts_with("registry+") || source.starts_with("sparse+") => {}
            Some(source) => {
                findings.push(Finding::error(&at, &format!("comes from {source}; only registry releases are allowed")))
            }
            None => findings.push(Finding::error(
                &at,
                "is a path dependency outside the workspace; only registry releases are allowed",
            )),
        }
        match package.license.as_deref() {
            None => findings.push(Finding::error(&at, "names no licence; find out, then replace it or argue for it")),
            Some(expression) => match licence::is_allowed(expression, &tables.tidy.licences) {
                Ok(true) => {}
                Ok(false) => findings.push(Finding::error(
                    &at,
                    &format!("licence `{expression}` is not allowed by the list in the root Cargo.toml"),
                )),
                Err(why) => {
                    findings.push(Finding::error(&at, &format!("licence `{expression}` cannot be read: {why}")))
                }
            },
        }
    }
    findings
}

/// Packages that are built in more than one version, with those versions.
pub(crate) fn duplicates(metadata: &Metadata) -> BTreeMap<&str, Vec<&str>> {
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for package in metadata.theirs() {
        versions.entry(&package.name).or_default().push(&package.version);
    }
    versions.retain(|_, list| list.len() > 1);
    versions
}
