//! `cargo xtask setup | test | bench | peers`: sets up a fresh machine, then does the work.
//!
//! Linux needs a Vulkan driver; where there is none, Mesa's software driver (lavapipe) is installed through the system's
//! package manager. macOS (Metal) and Windows (DirectX 12) need nothing.

mod peers;

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

const USAGE: &str = "usage: cargo xtask COMMAND

  setup           installs a Vulkan driver if this machine has none
  test [ARGS]     setup, then all tests (ARGS go to `cargo test`)
  bench [ARGS]    setup, then the ResNet-50 benchmark (ARGS go to `wgnorm bench`)
  peers [ARGS]    setup, then the same cases by this crate, burn and PyTorch, and all of them in a table
                  (--python PROGRAM or $PYTHON has torch; other ARGS go to `wgnorm bench`)";

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let Some((command, rest)) = args.split_first() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let done = match command.as_str() {
        "setup" if rest.is_empty() => setup(),
        "test" => setup().and_then(|()| cargo(&["test", "--workspace", "--features", "cli"], rest)),
        "bench" => setup().and_then(|()| {
            cargo(&["run", "--release", "--features", "cli", "--bin", "wgnorm", "--", "bench"], rest)
        }),
        "peers" => setup().and_then(|()| peers::run(rest)),
        "help" | "-h" | "--help" => {
            println!("{USAGE}");
            Ok(())
        }
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure { message, code }) => {
            eprintln!("xtask: {message}");
            ExitCode::from(code)
        }
    }
}

struct Failure {
    message: String,
    code: u8,
}

impl From<String> for Failure {
    fn from(message: String) -> Self {
        Self { message, code: 1 }
    }
}

/// Makes sure that there is an adapter.
fn setup() -> Result<(), Failure> {
    if !cfg!(target_os = "linux") {
        return Ok(());
    }
    let missing = match (find_icd(), find_loader()) {
        (Some(_), Some(_)) => return Ok(()),
        (None, _) => "no Vulkan driver",
        (_, None) => "no Vulkan loader (libvulkan.so.1)",
    };
    println!("{missing} found; installing Mesa's software driver (lavapipe)");
    install()?;
    match (find_icd(), find_loader()) {
        (Some(icd), Some(_)) => {
            println!("installed {}", icd.display());
            Ok(())
        }
        _ => Err("the packages are installed, but there is still no Vulkan driver".to_owned().into()),
    }
}

/// A driver that can work here: its manifest is in a place where the Vulkan loader looks, and it is a software driver or
/// there is a GPU. (Packages bring manifests for hardware that is not there.)
fn find_icd() -> Option<PathBuf> {
    const DEVICES: [&str; 4] = ["/dev/dri/renderD128", "/dev/nvidiactl", "/dev/kfd", "/dev/dxg"];
    let gpu = DEVICES.iter().any(|device| Path::new(device).exists());
    let works = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let software = ["lvp", "swrast", "swiftshader"].iter().any(|driver| name.contains(driver));
        path.extension().is_some_and(|e| e == "json") && (gpu || software)
    };
    for variable in ["VK_DRIVER_FILES", "VK_ICD_FILENAMES", "VK_ADD_DRIVER_FILES"] {
        let listed = env::var_os(variable).unwrap_or_default();
        if let Some(found) = env::split_paths(&listed).find(|path| path.is_file()) {
            return Some(found);
        }
    }
    let home = env::var_os("HOME").map(|home| Path::new(&home).join(".local/share"));
    let mut roots: Vec<PathBuf> =
        ["/usr/share", "/usr/local/share", "/etc", "/usr/local/etc"].iter().map(PathBuf::from).collect();
    roots.extend(home);
    roots.extend(env::split_paths(&env::var_os("XDG_DATA_DIRS").unwrap_or_default()));
    roots.iter().find_map(|root| {
        let manifests = std::fs::read_dir(root.join("vulkan/icd.d")).ok()?;
        manifests.flatten().map(|entry| entry.path()).find(works)
    })
}

/// The loader, as the dynamic linker would find it.
fn find_loader() -> Option<PathBuf> {
    const NAME: &str = "libvulkan.so.1";
    let listed = env::split_paths(&env::var_os("LD_LIBRARY_PATH").unwrap_or_default())
        .map(|directory| directory.join(NAME))
        .find(|path| path.exists());
    let usual = ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib"]
        .iter()
        .map(|directory| Path::new(directory).join(NAME))
        .find(|path| path.exists());
    listed.or(usual).or_else(|| {
        let cache = ["ldconfig", "/sbin/ldconfig", "/usr/sbin/ldconfig"]
            .iter()
            .find_map(|program| Command::new(program).arg("-p").output().ok())?;
        let text = String::from_utf8_lossy(&cache.stdout).into_owned();
        let line = text.lines().find(|line| line.trim_start().starts_with(NAME))?;
        Some(PathBuf::from(line.rsplit(' ').next()?))
    })
}

/// Runs the package manager that this system has.
fn install() -> Result<(), Failure> {
    let managers: [(&str, &[&[&str]]); 5] = [
        (
            "apt-get",
            &[
                &["apt-get", "update"],
                &[
                    "apt-get",
                    "install",
                    "--yes",
                    "--no-install-recommends",
                    "mesa-vulkan-drivers",
                    "libvulkan1",
                ],
            ],
        ),
        ("dnf", &[&["dnf", "install", "--assumeyes", "mesa-vulkan-drivers", "vulkan-loader"]]),
        ("pacman", &[&["pacman", "-Sy", "--noconfirm", "vulkan-swrast", "vulkan-icd-loader"]]),
        ("zypper", &[&["zypper", "--non-interactive", "install", "libvulkan_lvp", "libvulkan1"]]),
        ("apk", &[&["apk", "add", "mesa-vulkan-swrast", "vulkan-loader"]]),
    ];
    let Some((_, commands)) = managers.iter().find(|(manager, _)| on_path(manager)) else {
        return Err(
            "no package manager that is known here; install a Vulkan driver, for example Mesa's lavapipe"
                .to_owned()
                .into(),
        );
    };
    for command in *commands {
        // Package managers want root; containers usually are.
        let words: Vec<&str> =
            if is_root() || !on_path("sudo") { command.to_vec() } else { [&["sudo"], *command].concat() };
        println!("+ {}", words.join(" "));
        let status = Command::new(words[0])
            .args(&words[1..])
            .env("DEBIAN_FRONTEND", "noninteractive")
            .status()
            .map_err(|error| format!("cannot run {}: {error}", words[0]))?;
        if !status.success() {
            return Err(format!("{} failed ({status})", words.join(" ")).into());
        }
    }
    Ok(())
}

fn on_path(program: &str) -> bool {
    env::split_paths(&env::var_os("PATH").unwrap_or_default())
        .any(|directory| directory.join(program).is_file())
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

/// The cargo that runs this.
fn cargo_command() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    if cfg!(target_os = "linux") && env::var_os("XDG_RUNTIME_DIR").is_none() {
        // Mesa's device selection asks Wayland, which complains on every start if this is not set.
        command.env("XDG_RUNTIME_DIR", env::temp_dir());
    }
    command
}

/// Runs cargo with this process's exit code as its own.
fn cargo(args: &[&str], rest: &[String]) -> Result<(), Failure> {
    let mut command = cargo_command();
    command.args(args).args(rest);
    let status = command.status().map_err(|error| format!("cannot run cargo: {error}"))?;
    if status.success() {
        return Ok(());
    }
    let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
    Err(Failure { message: format!("cargo {} ended with {status}", args.join(" ")), code })
}
