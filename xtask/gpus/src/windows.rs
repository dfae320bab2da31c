//! `--windows`: what Windows makes of the kernels. naga writes HLSL as wgpu has it do for DirectX 12, and FXC compiles that, the compiler that every Windows has and
//! that wgpu takes where it finds no DXC: the real one, under Wine.
//!
//! Not among the other targets, because it takes long: FXC unrolls what it can.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use naga::back::{hlsl, pipeline_constants};
use naga::valid::{Capabilities, ValidationFlags, Validator};
use serde::Deserialize;

use crate::{Refusal, done};

/// A kernel that takes longer is given up, and what it takes is not known.
const LIMIT: Duration = Duration::from_secs(120);
/// What a kernel may take, in seconds.
const GOAL: f64 = 20.0;
/// The wheel of a Chromium for Windows brings FXC along.
const WHEEL: &str = "cefpython3==66.1";
const LIBRARY: &str = "cefpython3/d3dcompiler_47.dll";

#[derive(Deserialize)]
struct Listed {
    kernels: Vec<Kernel>,
}

#[derive(Deserialize)]
struct Kernel {
    name: String,
    entry_point: String,
    constants: Vec<(String, f64)>,
    bindings: Vec<(u32, String)>,
}

/// What came of a kernel.
struct Compiled {
    seconds: f64,
    bytes: u64,
    temporaries: u64,
    indexed: u64,
    /// Why not, if it was not compiled.
    error: Option<String>,
}

/// Compiles all kernels that the policy chooses under DirectX 12, and writes the table.
pub fn run(wgnorm: &Path, work: &Path, args: &[String], table: &Path) -> Result<(), Refusal> {
    let directory = work.join("windows");
    let text = directory.join("text");
    fs::create_dir_all(&text)?;
    let compiler = Compiler::set_up(&directory)?;
    let listing = text.join("kernels.json");
    let mut list = Command::new(wgnorm);
    list.args(["kernels", "--limits", "dx12", "--text"]).arg(&text).arg("--json").arg(&listing).args(args);
    done(list.stdout(Stdio::null()))?;
    let Listed { kernels } = serde_json::from_slice(&fs::read(&listing)?)?;
    let entries = kernels.iter().enumerate().map(|(number, kernel)| {
        let written = fs::read_to_string(text.join(format!("{number:04}.wgsl")))?;
        let (hlsl, entry) = hlsl_of(&written, kernel).map_err(|error| format!("{}: {error}", kernel.name))?;
        let path = text.join(format!("{number:04}.hlsl"));
        fs::write(&path, hlsl)?;
        Ok((path, entry))
    });
    let entries: Vec<(PathBuf, String)> = entries.collect::<Result<_, Refusal>>()?;
    let compiled = compile_all(&compiler, &kernels, &entries)?;
    let mut lines = "kernel\tseconds\tbytes\ttemporaries\tindexed\terror\n".to_owned();
    for (kernel, compiled) in kernels.iter().zip(&compiled) {
        let Compiled { seconds, bytes, temporaries, indexed, error } = compiled;
        let error = error.as_deref().unwrap_or_default();
        let _ = writeln!(lines, "{}\t{seconds:.1}\t{bytes}\t{temporaries}\t{indexed}\t{error}", kernel.name);
    }
    crate::write(table, &lines)?;
    let failed = compiled.iter().filter(|compiled| compiled.error.is_some()).count();
    let slow = compiled.iter().filter(|compiled| compiled.seconds > GOAL).count();
    let longest = compiled.iter().map(|compiled| compiled.seconds).fold(0.0, f64::max);
    println!(
        "FXC: {} kernels, {failed} not compiled, {slow} in more than {GOAL} s, the longest {longest:.1} s",
        compiled.len()
    );
    Ok(())
}

/// A kernel's text as wgpu gives it to a compiler of DirectX 12, and its entry point there.
fn hlsl_of(wgsl: &str, kernel: &Kernel) -> Result<(String, String), Refusal> {
    let module = naga::front::wgsl::parse_str(wgsl)?;
    let mut validator = Validator::new(ValidationFlags::all(), Capabilities::all());
    let info = validator.validate(&module)?;
    let stage = (naga::ShaderStage::Compute, kernel.entry_point.clone());
    let constants: HashMap<String, f64> = kernel.constants.iter().cloned().collect();
    let constants = constants.into_iter().collect();
    let of_stage = Some((stage.0, stage.1.as_str()));
    let (module, info) = pipeline_constants::process_overrides(&module, &info, of_stage, &constants)?;
    // Registers in the order of bindings, of each class its own; modules are trusted, as the crate's are.
    let mut options = hlsl::Options {
        shader_model: hlsl::ShaderModel::V5_1,
        fake_missing_bindings: false,
        zero_initialize_workgroup_memory: false,
        restrict_indexing: false,
        force_loop_bounding: false,
        ..Default::default()
    };
    let mut registers: HashMap<&str, u32> = HashMap::new();
    for (binding, class) in &kernel.bindings {
        let register = registers.entry(class).or_default();
        let target = hlsl::BindTarget { register: *register, ..Default::default() };
        *register += 1;
        options.binding_map.insert(naga::ResourceBinding { group: 0, binding: *binding }, target);
    }
    let register = registers.get("uniform").copied().unwrap_or(0);
    options.special_constants_binding = Some(hlsl::BindTarget { register, ..Default::default() });
    let (mut text, pipeline) = (String::new(), hlsl::PipelineOptions { entry_point: Some(stage) });
    let written = hlsl::Writer::new(&mut text, &options, &pipeline).write(&module, &info, None)?;
    let entry = written.entry_point_names.into_iter().next().ok_or("no entry point")??;
    Ok((text, entry))
}

/// Several at a time, each in a process of its own, which can be ended.
fn compile_all(
    compiler: &Compiler,
    kernels: &[Kernel],
    entries: &[(PathBuf, String)],
) -> Result<Vec<Compiled>, Refusal> {
    let (next, results) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some((path, entry)) = entries.get(number) else { break };
                    let compiled = compiler.compile(path, entry);
                    let seconds = compiled.as_ref().map_or(0.0, |compiled| compiled.seconds);
                    println!("{} of {}: {seconds:.1} s  {}", number + 1, entries.len(), kernels[number].name);
                    results.lock().expect("nobody panics with it").push((number, compiled));
                }
            });
        }
    });
    let mut results = results.into_inner()?;
    results.sort_by_key(|(number, _)| *number);
    results.into_iter().map(|(_, compiled)| compiled.map_err(Refusal::from)).collect()
}

/// What Wine is called, and where Debian has it.
const WINES: [&str; 3] = ["wine64", "/usr/lib/wine/wine64", "wine"];
const MINGW: &str = "x86_64-w64-mingw32-gcc";
const PYTHON: &str = "python3";

/// FXC, and the program that calls it.
struct Compiler {
    wine: &'static str,
    program: PathBuf,
    library: PathBuf,
    prefix: PathBuf,
}

impl Compiler {
    /// Fetches and builds what is not there yet.
    fn set_up(directory: &Path) -> Result<Self, Refusal> {
        let (program, library) = (directory.join("fxc.exe"), directory.join(LIBRARY));
        let is_there = |tool: &&str| Command::new(tool).arg("--version").output().is_ok();
        let wine = WINES.into_iter().find(is_there);
        let (Some(wine), true) = (wine, [MINGW, PYTHON].iter().all(is_there)) else {
            let packages = "wine64 gcc-mingw-w64-x86-64-win32 python3-pip";
            let needed = format!("needs Wine, {MINGW} and {PYTHON}");
            return Err(format!("{needed}: apt-get install --no-install-recommends {packages}").into());
        };
        if !library.is_file() {
            let pip = ["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"];
            let of = ["--platform", "win_amd64", "--python-version", "3.9", "--dest"];
            done(Command::new(PYTHON).args(pip).args(of).arg(directory).arg(WHEEL))?;
            let wheel = fs::read_dir(directory)?
                .filter_map(|entry| Some(entry.ok()?.path()))
                .find(|path| path.extension().is_some_and(|extension| extension == "whl"));
            let wheel = wheel.ok_or("pip has left no wheel")?;
            done(Command::new(PYTHON).args(["-m", "zipfile", "--extract"]).arg(&wheel).arg(directory))?;
        }
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("windows/fxc.c");
        done(Command::new(MINGW).args(["-O1", "-Wall", "-o"]).arg(&program).arg(source))?;
        let compiler = Self { wine, program, library, prefix: directory.join("wine") };
        // The first start sets Wine's own files up, which several at a time would get in each other's way with.
        done(compiler.wine().args(["wineboot", "--init"]).stdout(Stdio::null()).stderr(Stdio::null()))?;
        Ok(compiler)
    }

    fn wine(&self) -> Command {
        let mut wine = Command::new(self.wine);
        wine.env("WINEPREFIX", &self.prefix).env("WINEDEBUG", "-all").env_remove("DISPLAY");
        wine
    }

    fn compile(&self, path: &Path, entry: &str) -> Result<Compiled, String> {
        let said = path.with_extension("txt");
        let output = fs::File::create(&said).map_err(|error| format!("{}: {error}", said.display()))?;
        let mut wine = self.wine();
        wine.arg(&self.program).arg(&self.library).arg(path).arg(entry);
        let started = Instant::now();
        let child = wine.stdin(Stdio::null()).stdout(output).stderr(Stdio::null()).spawn();
        let ended = within(&mut child.map_err(|error| format!("Wine: {error}"))?)?;
        let said = fs::read_to_string(&said).map_err(|error| error.to_string())?;
        Ok(match ended {
            true => parsed(&said),
            false => Compiled {
                seconds: started.elapsed().as_secs_f64(),
                error: Some(format!("no end after {} s", LIMIT.as_secs())),
                ..parsed("")
            },
        })
    }
}

/// Whether a process ends within the limit; else it is ended.
fn within(child: &mut Child) -> Result<bool, String> {
    let started = Instant::now();
    while started.elapsed() < LIMIT {
        if child.try_wait().map_err(|error| error.to_string())?.is_some() {
            return Ok(true);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill().and_then(|()| child.wait()).map_err(|error| error.to_string())?;
    Ok(false)
}

/// What `fxc.exe` has printed.
fn parsed(said: &str) -> Compiled {
    let mut lines = said.lines();
    let numbers: Vec<&str> = lines.next().unwrap_or_default().split(' ').collect();
    let number =
        |place: usize| numbers.get(place).and_then(|number| number.trim().parse().ok()).unwrap_or(0.0);
    let says = lines.find(|line| line.contains("error")).map(|line| line.trim().replace('\t', " "));
    let result = numbers.first().filter(|result| numbers.len() == 5 && **result == "0");
    Compiled {
        seconds: number(1) / 1e3,
        bytes: number(2) as u64,
        temporaries: number(3) as u64,
        indexed: number(4) as u64,
        error: match result {
            Some(_) => None,
            None => Some(says.unwrap_or_else(|| format!("it ended with {:?}", numbers.join(" ")))),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_compiler_says_is_read() {
        let right = parsed("0 1234 5678 9 2\r\nwarning X1: something\n");
        assert_eq!((right.seconds, right.bytes, right.temporaries, right.indexed), (1.234, 5678, 9, 2));
        assert!(right.error.is_none());
        let wrong = parsed("80004005 10 0 0 0\nfile(3,4): error X3511: unable to unroll\n");
        assert!(wrong.error.is_some_and(|error| error.contains("X3511")));
        assert!(parsed("").error.is_some());
    }

    #[test]
    fn a_kernel_becomes_hlsl() {
        let wgsl = "override N: u32 = 1u; @group(0) @binding(0) var<uniform> a: vec4<f32>; \
                    @group(0) @binding(3) var<storage, read_write> b: array<vec4<f32>>; \
                    @compute @workgroup_size(N) fn f(@builtin(global_invocation_id) i: vec3<u32>) { b[i.x] = a; }";
        let kernel = Kernel {
            name: "f".to_owned(),
            entry_point: "f".to_owned(),
            constants: vec![("N".to_owned(), 32.0)],
            bindings: vec![(0, "uniform".to_owned()), (3, "read_write".to_owned())],
        };
        let (text, entry) = hlsl_of(wgsl, &kernel).unwrap();
        assert!(
            text.contains("numthreads(32") && text.contains("register(u0)") && text.contains(&entry),
            "{text}"
        );
    }
}
