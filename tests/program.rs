//! The program as scripts see it: exit codes, JSON fields, conformance.
#![cfg(feature = "cli")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/conformance");

fn wgnorm(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_wgnorm")).args(args).output().unwrap()
}

fn code(args: &[&str]) -> i32 {
    let output = wgnorm(args);
    output.status.code().unwrap_or_else(|| panic!("{args:?} was killed: {output:?}"))
}

/// A directory of its own for a test.
fn scratch(test: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(test);
    std::fs::create_dir_all(&directory).unwrap();
    directory
}

/// Runs with `--json` and returns exit code and report.
fn report(test: &str, args: &[&str]) -> (i32, Value) {
    let path = scratch(test).join("report.json");
    let _ = std::fs::remove_file(&path);
    let code = code(&[args, &["--json", path.to_str().unwrap()]].concat());
    (code, serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap())
}

#[test]
fn stored_pytorch_results_hold() {
    let (code, report) = report("fixtures", &["check", "--cases", FIXTURES]);
    assert_eq!(code, 0);
    assert_eq!(report["failed"], 0);
    assert_eq!(report["passed"], 30);
    assert_eq!(report["skipped"], 27);
    for case in report["cases"].as_array().unwrap() {
        let covered = ["batch_norm_train", "batch_norm_eval", "batch_norm_sequence"]
            .contains(&case["op"].as_str().unwrap())
            && case["dtype"] == "float32"
            && !case["name"].as_str().unwrap().contains("relu");
        assert_eq!(case["status"], if covered { "passed" } else { "skipped" }, "{}", case["name"]);
        assert_eq!(case["reason"].is_string(), !covered);
        for run in case["runs"].as_array().unwrap() {
            assert_eq!(run["layout"], "channels_first");
            for output in run["outputs"].as_array().unwrap() {
                assert!(output["gate_ratio"].as_f64().unwrap() <= 1.0, "{output}");
                assert!(output["strict_ratio"].is_f64() && output["max_abs_err"].is_f64());
            }
        }
        // Both passes, in every variant.
        let passes: Vec<_> = case["runs"].as_array().unwrap().iter().map(|run| &run["pass"]).collect();
        assert!(!covered || passes.len() >= 5, "{}", case["name"]);
    }
}

#[test]
fn the_built_in_matrix_holds() {
    let (code, report) = report("builtin", &["check"]);
    assert_eq!((code, &report["failed"], &report["skipped"]), (0, &0.into(), &0.into()), "{report}");
    for field in ["name", "backend", "driver", "device_type"] {
        assert!(report["adapter"][field].is_string(), "{field}");
    }
    let names: Vec<_> =
        report["cases"].as_array().unwrap().iter().map(|case| case["name"].as_str().unwrap()).collect();
    for wanted in ["overflow_in_one", "empty", "first_zero", "large", "single_value", "cumulative"] {
        assert!(names.iter().any(|name| name.contains(wanted)), "{wanted}");
    }
}

#[test]
fn a_wrong_expectation_fails_and_says_where() {
    // A copy of the fixtures with one expected value of one case moved by 1 %.
    let directory = scratch("perturbed");
    let manifest = std::fs::read_to_string(Path::new(FIXTURES).join("manifest.json")).unwrap();
    std::fs::write(directory.join("manifest.json"), &manifest).unwrap();
    let mut bytes = std::fs::read(Path::new(FIXTURES).join("torch_bn_train.safetensors")).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let index: Value = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
    let name = "bn_train.003.normal.3x4x7x5";
    let start =
        8 + header + index[format!("{name}/exp/dx")]["data_offsets"][0].as_u64().unwrap() as usize + 8 * 5;
    let value = f64::from_le_bytes(bytes[start..start + 8].try_into().unwrap());
    bytes[start..start + 8].copy_from_slice(&(value * 1.01).to_le_bytes());
    std::fs::write(directory.join("torch_bn_train.safetensors"), bytes).unwrap();

    let output = wgnorm(&["check", "--cases", directory.to_str().unwrap(), "--filter", name]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{text}");
    for part in [name, "dx", "index 5:", "got", "expected", "bound", "map_backward f32x1"] {
        assert!(text.contains(part), "{part:?} is missing in {text}");
    }
}

#[test]
fn exit_codes_tell_failure_from_misuse() {
    assert_eq!(code(&["check", "--filter", "builtin.train.normal.6x3"]), 0);
    let skipped = ["check", "--cases", FIXTURES, "--filter", "bn_sync"];
    assert_eq!(code(&skipped), 0);
    assert_eq!(code(&[&skipped[..], &["--deny-skips"]].concat()), 1);
    assert_eq!(code(&["check", "--filter", "no such case"]), 2);
    assert_eq!(code(&["check", "--cases", "no such directory"]), 2);
    assert_eq!(code(&["check", "--adapter", "no such adapter", "--filter", "6x3"]), 2);
    assert_eq!(code(&["bench", "--shape", "8"]), 2);
    assert_eq!(code(&["bench", "--suite", "no such file"]), 2);
    assert_eq!(code(&["bench", "--dtype", "float8"]), 2);
    assert_eq!(code(&["no such command"]), 2);
    assert_eq!(code(&["info"]), 0);
}

#[test]
fn the_benchmark_reports_what_scripts_rely_on() {
    let (code, report) =
        report("bench", &["bench", "--shape", "2,8,14,14", "--shape", "2,6,7,7", "--samples", "3"]);
    assert_eq!(code, 0);
    assert!(report["date"].is_string());
    let cases = report["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 8);
    for case in cases {
        assert_eq!(case["checked"], true);
        assert_eq!((&case["layout"], &case["dtype"]), (&"channels_first".into(), &"float32".into()));
        assert_eq!((&case["activation"], &case["residual"]), (&"none".into(), &false.into()));
        let bytes: u64 =
            4 * case["shape"].as_array().unwrap().iter().map(|d| d.as_u64().unwrap()).product::<u64>();
        let (floor, plan) = match case["op"].as_str().unwrap() {
            "train_forward" => (2, 3),
            "train_backward" => (3, 5),
            "inference" => (2, 2),
            "frozen_backward" => (3, 3),
            other => panic!("unknown op {other}"),
        };
        assert_eq!(
            (&case["floor_bytes"], &case["plan_bytes"]),
            (&(floor * bytes).into(), &(plan * bytes).into())
        );
        for times in [&case["wall_ns"], &case["device_ns"]] {
            let at = |key: &str| times[key].as_f64().unwrap();
            if times.is_object() {
                assert!(0.0 < at("min") && at("min") <= at("median") && at("median") <= at("p90"), "{times}");
            }
        }
        let ns = case["device_ns"]["median"].as_f64().or(case["wall_ns"]["median"].as_f64()).unwrap();
        let fraction = (plan * bytes) as f64 / ns / case["copy_gbps"].as_f64().unwrap();
        assert!((case["plan_fraction"].as_f64().unwrap() / fraction - 1.0).abs() < 1e-9);
    }
    assert_eq!(report["total"].as_array().unwrap().len(), 4);
}
