//! The checks on manifests, each with a fixture that breaks exactly one rule.

use serde_json::{Value, json};

use super::{check_lints, layers};

/// Two crates of ours, `core/model` and `cli`, and one of others.
fn fixture() -> Value {
    let ours = |name: &str, folder: &str, dependencies: Value| {
        json!({
            "id": format!("path+{folder}"), "name": name, "version": "0.1.0", "license": "Apache-2.0", "source": null,
            "manifest_path": format!("/r/{folder}/Cargo.toml"), "dependencies": dependencies,
        })
    };
    json!({
        "packages": [
            ours("muster-model", "core/model", json!([{"name": "thiserror", "kind": null, "path": null}])),
            ours("muster-cli", "cli", json!([
                {"name": "muster-model", "kind": null, "path": "/r/core/model"},
                {"name": "proptest", "kind": "dev", "path": null},
            ])),
            {
                "id": "thiserror-2", "name": "thiserror", "version": "2.0.0", "license": "MIT OR Apache-2.0",
                "source": "registry+https://example.org/index", "manifest_path": "/x/Cargo.toml", "dependencies": [],
            },
        ],
        "workspace_members": ["path+core/model", "path+cli"],
        "workspace_root": "/r",
        "resolve": {"nodes": [{"id": "path+core/model"}, {"id": "path+cli"}, {"id": "thiserror-2"}]},
        "metadata": {
            "layout": {
                "core/model": {"ours": [], "theirs": ["thiserror"]},
                "cli": {"ours": ["core/model"], "theirs": []},
            },
            "tidy": {"dev": ["proptest"], "licences": ["MIT"], "refused": ["chrono"], "contract-words-in": []},
        },
    })
}

fn findings(change: impl FnOnce(&mut Value)) -> Vec<String> {
    let mut value = fixture();
    change(&mut value);
    let metadata: layers::Metadata = serde_json::from_value(value).unwrap();
    let tables = metadata.metadata.as_ref().unwrap();
    let mut findings = layers::check_arrows(&metadata, tables);
    findings.extend(layers::check_origin(&metadata, tables));
    findings.into_iter().map(|finding| finding.to_string()).collect()
}

#[test]
fn the_fixture_itself_is_tidy() {
    assert_eq!(findings(|_| {}), Vec::<String>::new());
}

#[test]
fn each_broken_rule_is_found_and_named() {
    type Change = fn(&mut Value);
    let cases: [(&str, Change, &str); 10] = [
        ("new arrow", |v| v["metadata"]["layout"]["cli"]["ours"] = json!([]), "new arrow cli -> core/model"),
        (
            "foreign dependency",
            |v| v["metadata"]["layout"]["core/model"]["theirs"] = json!([]),
            "`thiserror` is not among",
        ),
        ("dev-dependency", |v| v["metadata"]["tidy"]["dev"] = json!([]), "`proptest` is not among"),
        ("dev only for dev", |v| v["packages"][1]["dependencies"][1]["kind"] = Value::Null, "`proptest` is not among"),
        ("refused", |v| v["packages"][0]["dependencies"][0]["name"] = json!("chrono"), "`chrono` is refused"),
        (
            "no row",
            |v| drop(v["metadata"]["layout"].as_object_mut().unwrap().remove("cli")),
            "cli/Cargo.toml: has no row",
        ),
        ("stale row", |v| v["metadata"]["layout"]["ui"] = json!({"ours": [], "theirs": []}), "a row for ui"),
        ("git source", |v| v["packages"][2]["source"] = json!("git+https://example.org/x"), "only registry releases"),
        ("no licence", |v| v["packages"][2]["license"] = Value::Null, "names no licence"),
        ("other licence", |v| v["packages"][2]["license"] = json!("GPL-3.0"), "licence `GPL-3.0` is not allowed"),
    ];
    for (name, change, wanted) in cases {
        let found = findings(change);
        assert!(found.len() == 1 && found[0].contains(wanted), "case: {name}: {found:?}");
    }
}

#[test]
fn nothing_may_depend_on_the_tests() {
    let found = findings(|v| {
        v["packages"][0]["manifest_path"] = json!("/r/tests/Cargo.toml");
        v["packages"][1]["dependencies"][0]["path"] = json!("/r/tests");
        v["metadata"]["layout"] =
            json!({"tests": {"ours": [], "theirs": ["thiserror"]}, "cli": {"ours": ["*"], "theirs": []}});
    });
    assert!(found.len() == 1 && found[0].contains("nothing may depend on tests"), "{found:?}");
}

#[test]
fn packages_for_other_platforms_do_not_count() {
    assert_eq!(
        findings(|v| {
            v["packages"][2]["license"] = json!("GPL-3.0");
            v["resolve"]["nodes"].as_array_mut().unwrap().pop();
        }),
        Vec::<String>::new()
    );
}

#[test]
fn duplicates_are_listed_with_their_versions() {
    let mut value = fixture();
    let mut other = value["packages"][2].clone();
    other["id"] = json!("thiserror-1");
    other["version"] = json!("1.0.0");
    value["packages"].as_array_mut().unwrap().push(other);
    value["resolve"]["nodes"].as_array_mut().unwrap().push(json!({"id": "thiserror-1"}));
    let metadata: layers::Metadata = serde_json::from_value(value).unwrap();
    assert_eq!(layers::duplicates(&metadata).into_iter().collect::<Vec<_>>(), [("thiserror", vec!["2.0.0", "1.0.0"])]);
}

#[test]
fn every_crate_inherits_the_lints() {
    assert_eq!(check_lints("a/Cargo.toml", "[lints]\nworkspace = true\n"), []);
    for manifest in ["", "[lints]\nworkspace = false\n", "[lints.rust]\nunsafe_code = \"deny\"\n", "not toml ["] {
        assert_eq!(check_lints("a/Cargo.toml", manifest).len(), 1, "case: {manifest:?}");
    }
}
