//! The program as scripts see it: exit codes, JSON fields, conformance.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, PoisonError};

use serde_json::Value;

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/conformance");

fn wgnorm(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_wgnorm")).args(args).output().unwrap()
}

fn code(args: &[&str]) -> i32 {
    let output = wgnorm(args);
    output.status.code().unwrap_or_else(|| panic!("{args:?} was killed: {output:?}"))
}

/// A check of many cases uses all cores, and the next finds kernels in the driver's cache: one at a time.
static ALL_CORES: Mutex<()> = Mutex::new(());

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

/// The manifest of the fixtures.
fn manifest() -> Value {
    serde_json::from_slice(&std::fs::read(format!("{FIXTURES}/manifest.json")).unwrap()).unwrap()
}

/// The manifest's entry of a case.
fn case_of(name: &str) -> Value {
    manifest()["cases"].as_array().unwrap().iter().find(|case| case["name"] == name).unwrap().clone()
}

/// The layouts that the manifest wants a case to be run in.
fn layouts_of(name: &str) -> Vec<String> {
    let case = case_of(name);
    match case["attrs"]["run_layouts"].as_array() {
        Some(layouts) => layouts.iter().map(|layout| layout.as_str().unwrap().to_owned()).collect(),
        None => vec![case["attrs"]["layout"].as_str().unwrap().to_owned()],
    }
}

/// How many outputs the manifest expects of a case.
fn outputs_of(name: &str) -> usize {
    case_of(name)["expected"].as_object().unwrap().len()
}

#[test]
fn stored_pytorch_results_hold() {
    let _alone = ALL_CORES.lock().unwrap_or_else(PoisonError::into_inner);
    let (code, report) = report("fixtures", &["check", "--cases", FIXTURES]);
    assert_eq!(code, 0);
    assert_eq!(report["failed"], 0);
    assert_eq!((&report["passed"], &report["skipped"]), (&57.into(), &0.into()));
    for case in report["cases"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        assert_eq!((&case["status"], &case["reason"]), (&"passed".into(), &Value::Null), "{name}");
        let activation = if name.contains("relu") { "relu" } else { "none" };
        assert_eq!(case["activation"], activation, "{name}");
        assert_eq!(case["residual"], name.contains("addrelu"), "{name}");
        assert_eq!((&case["parameters"], &case["in_place"]), (&"float32".into(), &false.into()));
        let layouts = layouts_of(name);
        for layout in &layouts {
            let held = case["runs"].as_array().unwrap().iter().any(|run| run["layout"] == *layout);
            assert!(held, "{name} in {layout}");
        }
        for run in case["runs"].as_array().unwrap() {
            assert!(layouts.iter().any(|layout| run["layout"] == *layout), "{}: {run}", case["name"]);
            for output in run["outputs"].as_array().unwrap() {
                assert!(output["gate_ratio"].as_f64().unwrap() <= 1.0, "{output}");
                assert!(output["strict_ratio"].is_f64() && output["max_abs_err"].is_f64());
            }
        }
        // Both passes, in every variant; of large cases in that of the policy, twice.
        let least = if name.starts_with("big") { 4 } else { 5 };
        assert!(case["runs"].as_array().unwrap().len() >= least, "{name}");
        // All outputs that the case has, in each of them.
        for layout in &layouts {
            let of_policy = |run: &&Value| run["variant"] == "policy" && run["layout"] == **layout;
            let runs = case["runs"].as_array().unwrap().iter().filter(of_policy);
            let held: usize = runs.map(|run| run["outputs"].as_array().unwrap().len()).sum();
            assert_eq!(held, outputs_of(name), "{name} in {layout}");
        }
    }
}

#[test]
fn the_built_in_matrix_holds() {
    let _alone = ALL_CORES.lock().unwrap_or_else(PoisonError::into_inner);
    let (code, report) = report("builtin", &["check"]);
    assert_eq!((code, &report["failed"], &report["skipped"]), (0, &0.into(), &0.into()), "{report}");
    for field in ["name", "backend", "driver", "device_type"] {
        assert!(report["adapter"][field].is_string(), "{field}");
    }
    let names: Vec<_> =
        report["cases"].as_array().unwrap().iter().map(|case| case["name"].as_str().unwrap()).collect();
    for wanted in [
        "train",
        "eval",
        "layer_norm",
        "rms_norm",
        "group_norm",
        "instance_norm",
        "mvn",
        "l2_norm",
        "scale_norm",
        "weight_norm",
        "weight_standardization",
    ] {
        let of = |name: &&str| name.starts_with(&format!("builtin.{wanted}."));
        assert!(
            names.iter().copied().filter(|name| of(name)).any(|name| name.contains("matrix")),
            "{wanted}"
        );
    }
    for wanted in ["overflow_in_one", "empty", "first_zero", "large", "single_value", "cumulative", "tracked"]
    {
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
    for part in [name, "dx", "index 5:", "got", "expected", "bound", "map_backward<gradients> segments"] {
        assert!(text.contains(part), "{part:?} is missing in {text}");
    }
}

#[test]
fn generated_inputs_are_rounded_to_their_type() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/procedural16");
    let (code, report) = report("procedural16", &["check", "--cases", directory]);
    assert_eq!((code, &report["passed"], &report["skipped"]), (0, &3.into(), &0.into()), "{report}");
}

#[test]
fn a_line_is_a_case() {
    let line = "layer 12x40 bf16 relu sum backward splits=2";
    let (code, report) = report("line", &["check", "--case", line]);
    assert_eq!(
        (code, &report["cases"][0]["name"], &report["cases"][0]["op"]),
        (0, &line.into(), &"layer_norm".into())
    );
    assert!(!report["cases"][0]["runs"].as_array().unwrap().is_empty());
    for wrong in ["layer 12x40 bf17", "group:3 2x8", "batch 4x5 data=blue"] {
        assert_eq!(self::code(&["check", "--case", wrong]), 2, "{wrong}");
    }
}

#[test]
fn a_failure_prints_the_line_that_repeats_it() {
    // A copy of the shaders in which the map subtracts beta.
    let shaders = concat!(env!("CARGO_MANIFEST_DIR"), "/../shaders");
    let wrong = scratch("wrong_shaders");
    copy_directory(Path::new(shaders), &wrong);
    let changed = change_all(&wrong, "gamma_at(at, s), beta_at(at, s)", "gamma_at(at, s), -beta_at(at, s)");
    assert!(changed > 0, "no shader adds beta");
    let line = "frozen 3x4x7x5 backward data=drift seed=5";
    let run = |line: &str| wgnorm(&["check", "--shaders", wrong.to_str().unwrap(), "--case", line]);
    let output = run(line);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{text}");
    let repeat = text.lines().find_map(|line| line.trim().strip_prefix("wgnorm check --case '")).unwrap();
    assert_eq!(repeat.trim_end_matches('\''), line);
    assert_eq!(code(&["check", "--case", line]), 0);
    let fingerprints = ["one", "two"].map(|name| {
        let path = scratch("fingerprints").join(name);
        assert_eq!(code(&["check", "--case", line, "--fingerprint", path.to_str().unwrap()]), 0);
        std::fs::read_to_string(path).unwrap()
    });
    assert!(fingerprints[0].lines().count() > 3 && fingerprints[0] == fingerprints[1], "{}", fingerprints[0]);
}

fn copy_directory(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy_directory(&entry.path(), &to),
            false => drop(std::fs::copy(entry.path(), to).unwrap()),
        }
    }
}

/// Replaces a text in all files of a directory, and says in how many it was.
fn change_all(directory: &Path, from: &str, to: &str) -> usize {
    let change = |entry: std::io::Result<std::fs::DirEntry>| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            return change_all(&path, from, to);
        }
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace(from, to)).unwrap();
        usize::from(text.contains(from))
    };
    std::fs::read_dir(directory).unwrap().map(change).sum()
}

/// A directory with one case of the fixtures, whose entry is changed.
fn case_as(test: &str, name: &str, change: impl FnOnce(&mut Value)) -> String {
    let directory = scratch(test);
    let (mut manifest, mut case) = (manifest(), case_of(name));
    let file = case["file"].as_str().unwrap().to_owned();
    std::fs::copy(Path::new(FIXTURES).join(&file), directory.join(&file)).unwrap();
    change(&mut case);
    manifest["cases"] = vec![case].into();
    std::fs::write(directory.join("manifest.json"), manifest.to_string()).unwrap();
    directory.to_str().unwrap().to_owned()
}

#[test]
fn cases_that_cannot_run_say_why() {
    let alternating = |case: &mut Value| {
        case["op"] = "mvn".into();
        case["attrs"]["axes"] = vec![0, -2].into();
    };
    let outside = |case: &mut Value| {
        case["op"] = "mvn".into();
        case["attrs"]["axes"] = vec![4].into();
    };
    let groups = |case: &mut Value| case["attrs"]["num_groups"] = 3.into();
    for (test, change, status, reason) in [
        ("alternating", &alternating as &dyn Fn(&mut Value), "skipped", "axes [0, 2] that alternate"),
        ("outside", &outside, "failed", "axis 4 is outside of [2, 8, 5, 3]"),
        ("groups", &groups, "failed", "3 groups do not divide 8 channels"),
    ] {
        let directory = case_as(test, "norms.000.normal.2x8x5x3.g1", change);
        let (_, report) = report(test, &["check", "--cases", &directory]);
        let case = &report["cases"][0];
        assert_eq!(case["status"], status, "{test}: {case}");
        assert!(case["reason"].as_str().unwrap().contains(reason), "{test}: {case}");
    }
}

#[test]
fn norms_that_the_fixtures_lack_run() {
    // Over all axes but those of samples, mean-variance normalization differs from group norm with one group in where eps goes, and in parameters.
    let whole = |case: &mut Value| {
        case["op"] = "mvn".into();
        case["attrs"]["axes"] = vec![1, 2, 3].into();
        case["attrs"]["eps"] = 1e-9.into();
        case["passes"] = vec!["forward"].into();
        case["inputs"].as_object_mut().unwrap().retain(|name, _| name == "x");
        case["expected"].as_object_mut().unwrap().retain(|name, _| name == "save_mean");
    };
    // Instance norm with given statistics is frozen batch norm.
    let given = |case: &mut Value| case["op"] = "instance_norm_eval".into();
    for (test, name, change) in [
        ("mvn", "norms.000.normal.2x8x5x3.g1", &whole as &dyn Fn(&mut Value)),
        ("instance_norm_eval", "bn_eval.001.normal.3x4x7x5.eval", &given),
    ] {
        let directory = case_as(test, name, change);
        let (code, report) = report(test, &["check", "--cases", &directory]);
        assert_eq!((code, &report["passed"]), (0, &1.into()), "{report}");
        assert_eq!(report["cases"][0]["op"], test);
        assert!(report["cases"][0]["runs"].as_array().unwrap().len() >= 5);
    }
}

#[test]
fn kernels_of_models_are_listed() {
    let filter = "layer 8192x1024";
    let (code, report) = report("kernels", &["kernels", "--limits", "dx12", "--filter", filter]);
    assert_eq!((code, &report["adapter"]), (0, &Value::Null));
    let operations = report["operations"].as_array().unwrap();
    // Three element types, and both passes.
    assert_eq!(operations.len(), 6);
    for operation in operations {
        assert!(operation["problem"].as_str().unwrap().starts_with(filter), "{operation}");
        for dispatch in operation["dispatches"].as_array().unwrap() {
            let kernel = &report["kernels"][dispatch["kernel"].as_u64().unwrap() as usize];
            assert!(kernel["workgroup_size"].as_u64().unwrap() >= 32, "{kernel}");
        }
    }
    let directory = scratch("kernels").join("text");
    let line = "rms 64x256 backward";
    let args = ["kernels", "--problem", line, "--text", directory.to_str().unwrap()];
    assert_eq!(self::code(&args), 0);
    let text = std::fs::read_to_string(directory.join("0000.wgsl")).unwrap();
    assert!(text.contains("@compute"), "{text}");
    assert_eq!(self::code(&["kernels", "--limits", "dx12", "--filter", "no such text"]), 2);
}

#[test]
fn a_report_is_one_folder_whatever_its_time_is_enough_for() {
    let dir = scratch("folder");
    std::fs::write(dir.join("two.txt"), "4,3,3\n8,2,2 x3\n").unwrap();
    let [suite, out] = ["two.txt", "out"].map(|name| dir.join(name).display().to_string());
    let args = ["report", &out, "--suite", &suite, "--batch", "2", "--dtype", "float32"];
    let few = ["--check", "normal.1x2x4", "--minutes", "3", "--python", "no such program"];
    assert_eq!(code(&[&args[..], &few].concat()), 0);
    let file = |name: &str| std::fs::read_to_string(Path::new(&out).join(name));
    let page = file("report.md").unwrap();
    let says = [
        "# wgnorm on ",
        "## Check\n\n2 passed, 0 failed",
        "## Two, batch 2\n",
        "| two, batch 2: autotuned | ",
    ];
    says.iter().for_each(|text| assert!(page.contains(text), "{text}: {page}"));
    assert!(serde_json::from_str::<Value>(&file("two-2.json").unwrap()).unwrap()["cases"].is_array());
    assert!(file("pytorch.py").is_err());
    // What there is no time for is said, and is no result.
    let none = ["--check", "normal.1x2x4", "--minutes", "0.001", "--python", "no such program"];
    assert_eq!(code(&[&args[..], &none].concat()), 0);
    let page = file("report.md").unwrap();
    assert!(page.contains("not begun: the time is over") && !page.contains(" passed, "), "{page}");
    assert!(file("two-2.json").is_err());
    assert_eq!(code(&["report", &out, "--minutes", "0"]), 2);
}

#[test]
fn exit_codes_tell_failure_from_misuse() {
    assert_eq!(code(&["check", "--filter", "builtin.train.normal.6x3"]), 0);
    let unknown =
        case_as("unknown_op", "norms.000.normal.2x8x5x3.g1", |case| case["op"] = "spectral_norm".into());
    let skipped = ["check", "--cases", &unknown];
    assert_eq!(code(&skipped), 0);
    assert_eq!(code(&[&skipped[..], &["--deny-skips"]].concat()), 1);
    assert_eq!(code(&["check", "--filter", "no such case"]), 2);
    assert_eq!(code(&["check", "--cases", "no such directory"]), 2);
    assert_eq!(code(&["check", "--adapter", "no such adapter", "--filter", "6x3"]), 2);
    assert_eq!(code(&["bench", "--shape", "8"]), 2);
    assert_eq!(code(&["bench", "--suite", "no such file"]), 2);
    assert_eq!(code(&["bench", "--dtype", "float8"]), 2);
    assert_eq!(code(&["bench", "--layout", "diagonal"]), 2);
    assert_eq!(code(&["bench", "--cache", "lukewarm"]), 2);
    assert_eq!(code(&["bench", "--cold-bytes", "0"]), 2);
    assert_eq!(code(&["bench", "--plot", "no such directory/out.svg"]), 2);
    assert_eq!(code(&["compare", "no such file", "nor this"]), 2);
    assert_eq!(code(&["no such command"]), 2);
    assert_eq!(code(&["info"]), 0);
}

#[test]
fn the_benchmark_reports_what_scripts_rely_on() {
    let shapes = ["--shape", "2,8,14,14", "--shape", "2,6,7,7"];
    let args = ["bench", "--layout", "channels_first", "--samples", "3"];
    let (code, report) = report("bench", &[&args[..], &shapes].concat());
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
        // The baseline by the same clock.
        assert_eq!((&case["cache"], &case["sets"]), (&"warm".into(), &1.into()));
        let speedup = case["naive_ns"]["median"].as_f64().unwrap() / ns;
        assert!((case["speedup"].as_f64().unwrap() / speedup - 1.0).abs() < 1e-9);
    }
    let totals = report["total"].as_array().unwrap();
    assert_eq!(totals.len(), 4);
    for total in totals {
        assert_eq!((&total["layout"], &total["cache"]), (&"channels_first".into(), &"warm".into()));
        let ns = total["device_ns"].as_f64().or(total["wall_ns"].as_f64()).unwrap();
        let speedup = total["naive_ns"].as_f64().unwrap() / ns;
        assert!((total["speedup"].as_f64().unwrap() / speedup - 1.0).abs() < 1e-9);
    }
}

#[test]
fn the_benchmark_covers_element_types_activations_and_residuals() {
    let types = ["--dtype", "float16", "--dtype", "bfloat16", "--dtype", "float32", "--residual"];
    let activations = ["--activation", "relu", "--activation", "leaky_relu"];
    let (code, report) = report("variants", &[&QUICK[..], &types, &activations].concat());
    assert_eq!(code, 0, "{report}");
    let cases = report["cases"].as_array().unwrap();
    let named = |case: &Value| (case["dtype"].as_str().unwrap().to_owned(), case["activation"].clone());
    let wanted = ["float16", "bfloat16", "float32"].iter().flat_map(|dtype| {
        let with = |activation: &str| vec![((*dtype).to_owned(), Value::from(activation)); 4];
        [with("relu"), with("leaky_relu")].concat()
    });
    assert_eq!(cases.iter().map(named).collect::<Vec<_>>(), wanted.collect::<Vec<_>>());
    for case in cases {
        assert_eq!(
            (&case["checked"], &case["residual"], &case["in_place"]),
            (&true.into(), &true.into(), &false.into())
        );
        let f32 = case["dtype"] == "float32";
        let bytes = 2 * 8 * 14 * 14 * if f32 { 4 } else { 2 };
        let forward = ["train_forward", "inference"].contains(&case["op"].as_str().unwrap());
        // x, residual and y; x, residual, dy, dx and d_residual.
        let tensors = if forward { 3 } else { 5 };
        assert_eq!(case["tensor_bytes"], tensors * bytes, "{case}");
        assert_eq!(case["floor_bytes"], tensors * bytes, "{case}");
        assert!(case["check_ratio"].as_f64().unwrap() <= 1.0 && case["naive_ns"].is_null(), "{case}");
        let separate = f32 && case["activation"] == "relu";
        assert_eq!(case["separate_ns"].is_object(), separate, "{case}");
        assert_eq!(case["separate_speedup"].is_f64(), separate, "{case}");
    }
    let totals = report["total"].as_array().unwrap();
    assert_eq!(totals.len(), 6 * 4);
    let mut distinct: Vec<_> = totals.iter().map(|total| (named(total), total["op"].as_str())).collect();
    distinct.dedup();
    assert_eq!(distinct.len(), 6 * 4);
    assert!(totals.iter().all(|total| total["residual"] == true && total["in_place"] == false));
}

#[test]
fn in_place_is_measured_where_it_is_possible() {
    let activations = ["--activation", "none", "--activation", "leaky_relu", "--in-place"];
    let types = ["--dtype", "float32", "--dtype", "bfloat16"];
    let (code, report) = report("in_place", &[&QUICK[..], &activations, &types].concat());
    assert_eq!(code, 0, "{report}");
    let cases = report["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 16);
    for case in cases {
        let bytes = 2 * 8 * 14 * 14 * if case["dtype"] == "float32" { 4 } else { 2 };
        let forward = ["train_forward", "inference"].contains(&case["op"].as_str().unwrap());
        assert_eq!(case["tensor_bytes"], if forward { 1 } else { 2 } * bytes, "{case}");
        assert_eq!(
            (&case["checked"], &case["in_place"], &case["naive_ns"]),
            (&true.into(), &true.into(), &Value::Null)
        );
    }

    let output = wgnorm(&[&QUICK[..], &["--in-place", "--activation", "relu"]].concat());
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("train_forward") && text.contains("relu") && text.contains("--op"), "{text}");
    // Backward keeps x where it cannot recover it.
    let backward = ["--in-place", "--activation", "relu", "--op", "train_backward", "--op", "inference"];
    assert_eq!(self::code(&[&QUICK[..], &backward].concat()), 0);
}

#[test]
fn a_plan_explains_itself_and_can_be_forced() {
    let forced = ["--workgroup-size", "32", "--team-size", "8", "--splits", "2", "--width", "1"];
    let forced = [&forced[..], &["--subgroups", "false"]].concat();
    let columns = ["--rows", "2", "--strip", "2", "--layout", "channels_last", "--explain"];
    let args = ["bench", "--shape", "2,6,5,5", "--samples", "1", "--op", "train_forward"];
    let output = wgnorm(&[&args[..], &forced, &columns].concat());
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    for part in [
        "plan      columns f32x1",
        "wg32 team8 slices 6 (2 rows as one) x splits 2",
        "dispatch  reduce_moments columns f32x1",
        "dispatch  map_forward<batch> columns f32x1",
        "moves     0.00 MiB",
        "because   workgroup: 32 forced",
        "because   splits: 2 forced",
    ] {
        assert!(text.contains(part), "{part:?} is missing:\n{text}");
    }
    for wrong in [["--team-size", "3"], ["--strip", "17"], ["--width", "2"], ["--splits", "0"]] {
        let (code, report) =
            report("forced_wrong", &[&args[..], &["--workgroup-size", "8"], &wrong].concat());
        assert_eq!(code, 1, "{wrong:?}");
        assert!(report["cases"][0]["error"].is_string(), "{report}");
    }
}

/// One shape, few samples.
const QUICK: [&str; 7] = ["bench", "--shape", "2,8,14,14", "--samples", "2", "--layout", "channels_first"];

#[test]
fn a_cold_cache_rotates_over_sets_of_tensors() {
    let states = ["--cache", "cold", "--cache", "warm", "--cold-bytes", "100KiB"];
    let (code, report) = report("cold", &[&QUICK[..], &states].concat());
    assert_eq!(code, 0, "{report}");
    let cases = report["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 8);
    for case in cases {
        // Two tensors of 12544 bytes in each of the others: five of them are more than 100 KiB.
        let cold = case["cache"] == "cold";
        assert_eq!(case["sets"], if cold { 6 } else { 1 }, "{case}");
        assert!(case["naive_ns"].is_object() && case["checked"] == true, "{case}");
    }
    let totals: Vec<_> = report["total"].as_array().unwrap().iter().map(|total| &total["cache"]).collect();
    assert_eq!(totals, ["cold", "cold", "cold", "cold", "warm", "warm", "warm", "warm"]);
}

#[test]
fn a_cache_that_cannot_be_made_cold_fails_with_the_reason() {
    let (code, report) =
        report("cold_fails", &[&QUICK[..], &["--cache", "cold", "--op", "inference"]].concat());
    assert_eq!(code, 1);
    let case = &report["cases"][0];
    assert_eq!((&case["checked"], &case["wall_ns"]), (&false.into(), &Value::Null));
    assert!(case["error"].as_str().unwrap().contains("--cold-bytes"), "{case}");
    assert!(report["total"].as_array().unwrap().is_empty());
}

#[test]
fn a_case_too_long_for_the_baseline_has_none() {
    // 60000 runs of nine values: 64 invocations take 15000 turns, with two passes too many for lavapipe.
    let shapes = ["--shape", "2,1,9,9", "--shape", "60000,1,3,3"];
    let args = ["bench", "--samples", "1", "--op", "train_forward", "--op", "inference"];
    let (code, report) = report("long", &[&args[..], &shapes, &["--layout", "channels_first"]].concat());
    assert_eq!(code, 0, "{report}");
    let cpu = report["adapter"]["device_type"] == "Cpu";
    for (case, has_none) in report["cases"].as_array().unwrap().iter().zip([false, false, cpu, false]) {
        assert_eq!((case["naive_ns"].is_null(), case["speedup"].is_null()), (has_none, has_none), "{case}");
    }
    for (total, has_none) in report["total"].as_array().unwrap().iter().zip([cpu, false]) {
        assert_eq!(
            (total["naive_ns"].is_null(), total["speedup"].is_null()),
            (has_none, has_none),
            "{total}"
        );
    }
}

#[test]
fn results_are_written_as_csv_and_drawn() {
    let (csv, svg) = (scratch("files").join("out.csv"), scratch("files").join("out.svg"));
    for file in [&csv, &svg] {
        let _ = std::fs::remove_file(file);
    }
    let files = ["--csv", csv.to_str().unwrap(), "--plot", svg.to_str().unwrap()];
    // A second shape that fails: it has a row, and does not keep the first from being drawn.
    let (code, report) = report("files", &[&QUICK[..], &["--shape", "1,1,99999,99999"], &files].concat());
    assert_eq!(code, 1);

    let text = std::fs::read_to_string(csv).unwrap();
    let header: Vec<_> = text.lines().next().unwrap().split(',').collect();
    let (case, scalars) = (report["cases"][0].as_object().unwrap(), ["shape", "reasons", "kernels"]);
    for (name, value) in case {
        match value {
            Value::Object(spread) => {
                for part in spread.keys() {
                    assert!(header.contains(&format!("{name}_{part}").as_str()), "{name}_{part}");
                }
            }
            Value::Array(_) => assert!(scalars.contains(&name.as_str()), "{name}"),
            // Times that a case lacks.
            Value::Null if name.ends_with("_ns") => {
                assert!(header.contains(&format!("{name}_median").as_str()), "{name}");
            }
            _ => assert!(header.contains(&name.as_str()), "{name}"),
        }
    }
    assert_eq!(text.lines().count(), 1 + report["cases"].as_array().unwrap().len());

    let svg = std::fs::read_to_string(svg).unwrap();
    assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
    for part in
        [report["adapter"]["name"].as_str().unwrap(), "channels first, warm cache", "14×14", "GB/s", "failed"]
    {
        assert!(svg.contains(part), "{part}");
    }
}

#[test]
fn runs_are_compared() {
    let (_, report) =
        report("compare", &[&QUICK[..], &["--op", "train_forward", "--op", "inference"]].concat());
    let path = |name: &str| scratch("compare").join(name).to_str().unwrap().to_owned();
    let write = |name: &str, report: &Value| std::fs::write(path(name), report.to_string()).unwrap();
    let compare = |new: &str, args: &[&str]| {
        let output = wgnorm(&[&["compare", &path("report.json"), &path(new)], args].concat());
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
    };

    let (code, text) = compare("report.json", &["--fail-above", "0"]);
    assert_eq!(code, 0, "{text}");
    assert_eq!(text.matches(" 1.000 ").count(), 2 * 2 + 2 * 3, "{text}");
    assert!(!text.contains("only in"), "{text}");

    // Another machine, of half the speed; and one operation whose kernel became slower by half.
    let mut slower = report.clone();
    slower["adapter"]["name"] = "another".into();
    for case in slower["cases"].as_array_mut().unwrap() {
        let factor = if case["op"] == "inference" { 3.0 } else { 2.0 };
        case["copy_gbps"] = (case["copy_gbps"].as_f64().unwrap() / 2.0).into();
        for clock in ["device_ns", "wall_ns"] {
            if let Some(median) = case[clock]["median"].as_f64() {
                case[clock]["median"] = (factor * median).into();
            }
        }
    }
    write("slower.json", &slower);
    let (code, text) = compare("slower.json", &["--fail-above", "49"]);
    assert_eq!(code, 1, "{text}");
    for part in ["ADAPTERS DIFFER", " 2.000 ", " 3.000 ", " 1.500 ", "SLOWER by 50.0 %"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(compare("slower.json", &["--fail-above", "51"]).0, 0);
    assert_eq!(compare("slower.json", &[]).0, 0);

    // Half of the cases; nothing in common; no report at all; no sensible limit.
    let mut other = report.clone();
    other["cases"].as_array_mut().unwrap().remove(0);
    write("half.json", &other);
    let (code, text) = compare("half.json", &[]);
    assert!(code == 0 && text.contains("only in the old file: train_forward.2x8x14x14"), "{text}");
    other["cases"][0]["cache"] = "cold".into();
    write("other.json", &other);
    assert_eq!(compare("other.json", &[]).0, 2);
    std::fs::write(path("broken.json"), "{").unwrap();
    assert_eq!(compare("broken.json", &[]).0, 2);
    assert_eq!(compare("report.json", &["--fail-above", "-1"]).0, 2);
}

#[test]
fn the_time_to_a_first_result_is_reported() {
    let (code, report) = report(
        "first_use",
        &["bench", "--first-use", "--shape", "2,8,14,14", "--shape", "2,6,7,7", "--samples", "1"],
    );
    assert_eq!(code, 0, "{report}");
    assert_eq!((&report["cases"], &report["total"]), (&Value::Array(vec![]), &Value::Array(vec![])));
    let measured = report["first_use"].as_array().unwrap();
    let named = |entry: &Value| (entry["layout"].clone(), entry["state"].clone());
    let states = ["cold", "pipeline_cache", "driver_cache"];
    let wanted = ["channels_first", "channels_last"]
        .into_iter()
        .flat_map(|layout| states.map(|state| (Value::from(layout), Value::from(state))));
    assert_eq!(measured.iter().map(named).collect::<Vec<_>>(), wanted.collect::<Vec<_>>());
    for entry in measured {
        let at = |key: &str| entry[key]["median"].as_f64().unwrap();
        assert!(
            0.0 < at("open_ns") && at("open_ns") < at("first_ns") && at("first_ns") < at("all_ns"),
            "{entry}"
        );
        assert_eq!((&entry["layers"], &entry["runs"]), (&2.into(), &1.into()));
        assert!(entry["kernels"].as_u64().unwrap() >= 2, "{entry}");
        let cache = entry["pipeline_cache"].as_str().unwrap();
        let wanted = match entry["state"].as_str().unwrap() {
            "cold" => "new",
            "pipeline_cache" => "loaded",
            _ => "off",
        };
        assert!(cache.starts_with(wanted) || wanted != "off" && cache.starts_with("unsupported"), "{entry}");
    }
    assert_eq!(self::code(&["bench", "--first-use", "--op", "inference"]), 2);
    assert_eq!(self::code(&["bench", "--first-use", "--adapter", "no such adapter"]), 2);
}

#[test]
fn plans_are_measured_and_pinned_by_a_file() {
    let file = scratch("tuning").join("wgnorm.tunings");
    let _ = std::fs::remove_file(&file);
    let path = file.to_str().unwrap();
    let (code, measured) = report("autotune", &[&QUICK[..], &["--autotune", "--tuning-file", path]].concat());
    assert_eq!(code, 0, "{measured}");
    let text = std::fs::read_to_string(&file).unwrap();
    for op in ["train_forward", "train_backward", "inference", "frozen_backward"] {
        assert!(text.contains(&format!("{op} f32 channels_first 2x8x196 = ")), "{text}");
    }
    assert_eq!(measured["tunings"].as_array().unwrap().len(), 4);

    // The next run has the plans of the file.
    let (code, pinned) = report("autotune", &[&QUICK[..], &["--tuning-file", path]].concat());
    assert_eq!(code, 0, "{pinned}");
    let pairs = measured["cases"].as_array().unwrap().iter().zip(pinned["cases"].as_array().unwrap());
    for (measured, pinned) in pairs {
        assert_eq!((&pinned["checked"], &pinned["plan"]), (&true.into(), &measured["plan"]));
        assert!(pinned["reasons"].to_string().contains("pinned by a file"), "{pinned}");
    }
    assert_eq!(std::fs::read_to_string(&file).unwrap(), text);

    let shape = "train_forward f32 channels_first 8x64x3136 = splits 3\n";
    std::fs::write(&file, text.replace("train_forward f32", "inference f32") + shape).unwrap();
    let output = wgnorm(&["info", "--tuning-file", path]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && said.contains("tuning: splits 3, pinned by a file"), "{said}");

    assert_eq!(self::code(&[&QUICK[..], &["--autotune", "--splits", "2"]].concat()), 2);
    assert_eq!(self::code(&["info", "--tuning-file", "no such file"]), 2);
    std::fs::write(&file, "precious").unwrap();
    assert_eq!(self::code(&[&QUICK[..], &["--autotune", "--tuning-file", path]].concat()), 2);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
}

/// A file as `bench` or a peer writes it: cases of (operation, shape, ns, whether checked).
fn results(adapter: [&str; 2], peer: Option<&str>, cases: &[(&str, [usize; 3], f64, bool)]) -> Value {
    let case = |(op, shape, ns, checked): &(&str, [usize; 3], f64, bool)| {
        serde_json::json!({
            "name": format!("{op}.{shape:?}"), "op": op, "shape": shape, "layout": "channels_first",
            "dtype": "float32", "activation": "none", "residual": false, "in_place": false, "cache": "warm",
            "multiplicity": 2, "floor_bytes": 1e6, "checked": checked, "device_ns": null,
            "wall_ns": { "median": ns, "min": ns, "p90": ns }, "copy_gbps": 1.0,
        })
    };
    let [name, device_type] = adapter;
    serde_json::json!({
        "adapter": { "name": name, "backend": "b", "driver": "d", "device_type": device_type },
        "git": null, "date": "today",
        "peer": peer.map(|name| serde_json::json!({ "name": name, "version": "1.2", "variant": "v" })),
        "cases": cases.iter().map(case).collect::<Vec<_>>(),
    })
}

#[test]
fn peers_are_set_side_by_side() {
    let path = |name: &str| scratch("peers").join(name).to_str().unwrap().to_owned();
    let write = |name: &str, value: &Value| std::fs::write(path(name), value.to_string()).unwrap();
    let (shape, cpu) = ([2, 3, 4], ["llvmpipe", "Cpu"]);
    let ours = [("train_forward", shape, 1e6, true), ("train_backward", shape, 3e6, true)];
    write("ours.json", &results(cpu, None, &ours));
    let step = [("train_forward", shape, 5e6, true), ("train_step", shape, 40e6, false)];
    write("a.json", &results(cpu, Some("alpha"), &step));
    let parts = [("train_forward", shape, 2e6, true), ("train_backward", shape, 4e6, true)];
    write("b.json", &results(["a CPU", "Cpu"], Some("beta"), &parts));
    write("gpu.json", &results(["a GPU", "DiscreteGpu"], Some("gamma"), &parts));
    write("batch.json", &results(cpu, Some("delta"), &[("train_forward", [4, 3, 4], 1e6, true)]));
    let peers = |files: &[&str], args: &[&str]| {
        let files: Vec<_> = files.iter().map(|file| path(file)).collect();
        let files: Vec<_> = files.iter().map(String::as_str).collect();
        let output = wgnorm(&[&["peers"], &files[..], args].concat());
        let [out, err] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
        (output.status.code().unwrap(), out, err)
    };

    let (json, markdown) = (path("table.json"), path("table.md"));
    let to = ["--json", json.as_str(), "--markdown", markdown.as_str()];
    let (code, text, err) = peers(&["ours.json", "a.json", "b.json"], &to);
    assert_eq!(code, 0, "{err}");
    for part in
        ["alpha 1.2 (v)", "beta", "train_step", "40.000!", "not right", "all layers", "smallest ratio"]
    {
        assert!(text.contains(part), "{part:?} is missing:\n{text}");
    }
    let table: Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    let groups = table["groups"].as_array().unwrap();
    let ops: Vec<_> = groups.iter().map(|group| group["op"].as_str().unwrap()).collect();
    assert_eq!(ops, ["train_forward", "train_backward", "train_step"]);
    assert_eq!(groups[1]["rows"][0]["peers"][0], Value::Null);
    let step = &groups[2]["total"];
    assert_eq!((&step["layers"], &step["wgnorm_ns"]), (&2.into(), &8e6.into()));
    assert_eq!(step["peers"][0]["sum"]["ratio"], 10.0);
    assert_eq!(step["peers"][0]["sum"]["checked"], false);
    assert_eq!(
        (&step["peers"][1]["sum"]["ns"], &step["peers"][1]["smallest_ratio"]),
        (&12e6.into(), &1.5.into())
    );
    let markdown = std::fs::read_to_string(markdown).unwrap();
    assert!(markdown.contains("| train_step | channels_first | float32 | 2 |"), "{markdown}");

    // Another adapter is refused, or marked where it is wanted.
    let (code, _, err) = peers(&["ours.json", "gpu.json"], &[]);
    assert!(code == 2 && err.contains("--other-adapters") && err.contains("a GPU"), "{err}");
    let (code, text, _) = peers(&["ours.json", "gpu.json"], &["--other-adapters"]);
    assert!(code == 0 && text.contains("ANOTHER ADAPTER"), "{text}");
    // Another batch, no peers, files in the wrong order, no file.
    let (code, _, err) = peers(&["ours.json", "batch.json"], &[]);
    assert!(code == 2 && err.contains("batch"), "{err}");
    assert_eq!(peers(&["ours.json"], &[]).0, 2);
    assert_eq!(peers(&["a.json", "b.json"], &[]).0, 2);
    assert_eq!(peers(&["ours.json", "no such file"], &[]).0, 2);
}
