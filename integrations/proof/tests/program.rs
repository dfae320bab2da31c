//! The program, run as anyone runs it: the smallest experiment from the beginning to the end.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

fn proof(keep: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_wgnorm-proof")).args(args).arg("--keep").arg(keep).output().unwrap()
}

/// Of each norm, the mean of a column of the figures.
fn means(csv: &str, column: usize) -> HashMap<&str, f64> {
    let mut sums: HashMap<&str, (f64, f64)> = HashMap::new();
    for row in csv.lines().skip(1) {
        let fields: Vec<&str> = row.split(',').collect();
        let (sum, count) = sums.entry(fields[0]).or_default();
        *sum += fields[column].parse::<f64>().unwrap();
        *count += 1.0;
    }
    sums.into_iter().map(|(norm, (sum, count))| (norm, sum / count)).collect()
}

#[test]
fn the_smallest_experiment_comes_to_its_numbers_and_keeps_them() {
    let keep = Path::new(env!("CARGO_TARGET_TMPDIR")).join("proof");
    let _ = fs::remove_dir_all(&keep);
    let first = proof(&keep, &["smoothness", "--quick"]);
    assert!(first.status.success(), "{}", String::from_utf8_lossy(&first.stderr));
    let docs = keep.join("quick/docs");
    let csv = fs::read_to_string(docs.join("proof/smoothness.csv")).unwrap();
    // Two norms, a seed, two looks in twenty steps.
    assert_eq!(csv.lines().count(), 1 + 2 * 2, "{csv}");
    let (ranges, changes) = (means(&csv, 3), means(&csv, 4));
    assert!((0.3..2.0).contains(&ranges["batch norm"]), "{csv}");
    assert!((0.9..1.6).contains(&changes["batch norm"]), "{csv}");
    assert!(ranges["no norm"] > 2.0 && changes["no norm"] > 2.0, "{csv}");
    let page = fs::read_to_string(docs.join("PROOF.md")).unwrap();
    assert!(page.contains("| `smoothness` |") && page.contains("proof/smoothness.svg"), "{page}");
    let svg = fs::read_to_string(docs.join("proof/smoothness.svg")).unwrap();
    assert!(svg.starts_with("<svg") && svg.contains("batch norm"), "{svg}");

    // What is finished is not run again: it is read, and what is changed stays.
    let kept = keep.join("quick/smoothness/batch norm-0.json");
    let json = fs::read_to_string(&kept).unwrap();
    let marked = json.replacen("\"step\":0", "\"step\":5", 1);
    assert_ne!(marked, json);
    fs::write(&kept, marked).unwrap();
    assert!(proof(&keep, &["smoothness", "--quick"]).status.success());
    let again = fs::read_to_string(docs.join("proof/smoothness.csv")).unwrap();
    assert_eq!(again, csv.replacen("batch norm,0,0,", "batch norm,0,5,", 1));
}

#[test]
fn what_there_is_is_told() {
    let keep = Path::new(env!("CARGO_TARGET_TMPDIR")).join("nothing");
    let list = String::from_utf8(proof(&keep, &["--list"]).stdout).unwrap();
    assert_eq!(list.lines().count(), 15, "{list}");
    let unknown = proof(&keep, &["stpes"]);
    let message = String::from_utf8(unknown.stderr).unwrap();
    assert!(
        !unknown.status.success() && message.contains("no experiment \"stpes\"; there are steps, "),
        "{message}"
    );
    assert!(!keep.exists());
}
