//! Folders of `src/` import in one direction: that of docs/ARCHITECTURE.md, from its last to its first.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Folders, and files beside them, each of which imports from those before it alone.
const ORDER: [&str; 26] = [
    "base",
    "wesl",
    "plan",
    "engine",
    "ops",
    "statistics",
    "collective",
    "pass",
    "norm",
    "family",
    "curve",
    "spectral",
    "switchable",
    "reference",
    "absorb",
    "drift",
    "recalibration",
    "diagnostics",
    "state",
    "program",
    "wgsl",
    "spec",
    "recipe",
    "tuning",
    "warm",
    "eval",
];

/// What each imports from, by the names after `crate::`.
fn imports(directory: &Path, of: &str, found: &mut BTreeMap<String, Vec<String>>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let of = if of.is_empty() { name.clone() } else { of.to_owned() };
        if path.is_dir() {
            imports(&path, &of, found);
        } else if path.extension().is_some_and(|end| end == "rs") && name != "tests" && of != "lib" {
            let text = fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
            for line in code.lines().map(str::trim_start).filter(|line| !line.starts_with("//")) {
                for after in line.split("crate::").skip(1) {
                    let name =
                        after.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default();
                    if name != of && ORDER.contains(&name) {
                        let place = format!("{name} in {}: {line}", path.display());
                        found.entry(of.clone()).or_default().push(place);
                    }
                }
            }
        }
    }
}

#[test]
fn folders_import_in_one_direction() {
    let mut found = BTreeMap::new();
    imports(&super::root().join("src"), "", &mut found);
    let place = |name: &str| ORDER.iter().position(|of| *of == name);
    assert!(found.len() > 10, "{found:#?}");
    for (of, imports) in &found {
        let own = place(of).unwrap_or_else(|| panic!("{of} has no place in the order"));
        for import in imports {
            let name = import.split(' ').next().unwrap_or_default();
            assert!(place(name) < Some(own), "{of} imports {import}");
        }
    }
}
