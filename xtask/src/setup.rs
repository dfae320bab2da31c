//! What a fresh machine lacks, through its package manager. Linux only: macOS and Windows have an adapter, and tests there
//! use MPI if it is installed.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Failure;

/// Packages by package manager.
struct Packages {
    apt: &'static [&'static str],
    dnf: &'static [&'static str],
    pacman: &'static [&'static str],
    zypper: &'static [&'static str],
    apk: &'static [&'static str],
}

const VULKAN: Packages = Packages {
    apt: &["mesa-vulkan-drivers", "libvulkan1"],
    dnf: &["mesa-vulkan-drivers", "vulkan-loader"],
    pacman: &["vulkan-swrast", "vulkan-icd-loader"],
    zypper: &["libvulkan_lvp", "libvulkan1"],
    apk: &["mesa-vulkan-swrast", "vulkan-loader"],
};

const MPI: Packages = Packages {
    apt: &["libopenmpi-dev", "openmpi-bin", "libclang-dev"],
    dnf: &["openmpi-devel", "clang-devel"],
    pacman: &["openmpi", "clang"],
    zypper: &["openmpi4-devel", "clang-devel"],
    apk: &["openmpi-dev", "openmpi", "clang-dev"],
};

const NODE: Packages = Packages {
    apt: &["nodejs"],
    dnf: &["nodejs"],
    pacman: &["nodejs"],
    zypper: &["nodejs"],
    apk: &["nodejs"],
};

/// Makes sure that there is Node.js, which runs wasm. `false` where it is not and nothing can be installed.
pub fn node() -> Result<bool, Failure> {
    if on_path(if cfg!(windows) { "node.exe" } else { "node" }) {
        return Ok(true);
    }
    if !cfg!(target_os = "linux") {
        println!("no Node.js: the planner for the web is not run");
        return Ok(false);
    }
    println!("no Node.js found; installing it");
    install(&NODE, "Node.js")?;
    Ok(true)
}

/// Makes sure that there is an adapter.
pub fn vulkan() -> Result<(), Failure> {
    if !cfg!(target_os = "linux") {
        return Ok(());
    }
    let missing = match (find_icd(), find_loader()) {
        (Some(_), Some(_)) => return Ok(()),
        (None, _) => "no Vulkan driver",
        (_, None) => "no Vulkan loader (libvulkan.so.1)",
    };
    println!("{missing} found; installing Mesa's software driver (lavapipe)");
    install(&VULKAN, "a Vulkan driver, for example Mesa's lavapipe")?;
    match (find_icd(), find_loader()) {
        (Some(icd), Some(_)) => {
            println!("installed {}", icd.display());
            Ok(())
        }
        _ => Err("the packages are installed, but there is still no Vulkan driver".to_owned().into()),
    }
}

/// Makes sure that the feature `mpi` builds and runs. `false` where it does not and nothing can be installed.
pub fn mpi() -> Result<bool, Failure> {
    let missing = missing_for_mpi();
    if missing.is_empty() {
        return Ok(true);
    }
    if !cfg!(target_os = "linux") {
        println!("no MPI (for want of {}): without its feature and tests", missing.join(", "));
        return Ok(false);
    }
    println!("{} not found; installing Open MPI and libclang", missing.join(", "));
    install(&MPI, "Open MPI with its development files, and libclang").map_err(|failure| Failure {
        message: format!("{}\nwithout MPI: cargo test --workspace --features wgnorm/eval", failure.message),
        ..failure
    })?;
    match missing_for_mpi().as_slice() {
        [] => Ok(true),
        missing => Err(format!(
            "the packages are installed, but {} cannot be found; where MPI is a module, load it first (module load mpi)",
            missing.join(", ")
        )
        .into()),
    }
}

/// What is needed to build with MPI (the compiler's wrapper; libclang, to read its headers) and to run.
fn missing_for_mpi() -> Vec<&'static str> {
    let programs = ["mpicc", "mpirun"].into_iter().filter(|program| !on_path(program));
    let libclang = (cfg!(target_os = "linux") && !has_libclang()).then_some("libclang");
    programs.chain(libclang).collect()
}

/// libclang where bindgen looks for it.
fn has_libclang() -> bool {
    let named = |directory: &Path, matches: &dyn Fn(&str) -> bool| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
        entries
            .filter(|entry| matches(&entry.file_name().to_string_lossy()))
            .map(|entry| entry.path())
            .collect()
    };
    // Not libclang-cpp, which is another library.
    let library = |name: &str| {
        name.strip_prefix("libclang").is_some_and(|rest| rest.contains(".so") && !rest.starts_with("-cpp"))
    };
    let mut directories: Vec<PathBuf> =
        ["/usr/lib", "/usr/lib64", "/usr/local/lib"].iter().map(PathBuf::from).collect();
    directories.extend(named(Path::new("/usr/lib"), &|name| name.ends_with("-linux-gnu")));
    directories.extend(
        named(Path::new("/usr/lib"), &|name| name.starts_with("llvm")).iter().map(|llvm| llvm.join("lib")),
    );
    directories.extend(env::var_os("LIBCLANG_PATH").map(PathBuf::from));
    directories.iter().any(|directory| !named(directory, &library).is_empty())
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
fn install(packages: &Packages, otherwise: &str) -> Result<(), Failure> {
    let managers: [(&str, &[&str], &[&str]); 5] = [
        ("apt-get", &["install", "--yes", "--no-install-recommends"], packages.apt),
        ("dnf", &["install", "--assumeyes"], packages.dnf),
        ("pacman", &["-Sy", "--noconfirm"], packages.pacman),
        ("zypper", &["--non-interactive", "install"], packages.zypper),
        ("apk", &["add"], packages.apk),
    ];
    let Some((manager, arguments, packages)) = managers.iter().find(|(manager, ..)| on_path(manager)) else {
        return Err(format!("no package manager that is known here; install {otherwise}").into());
    };
    if *manager == "apt-get" {
        run_as_root(&["apt-get", "update"])?;
    }
    run_as_root(&[&[*manager], *arguments, *packages].concat())
}

/// Package managers want root; containers usually are.
fn run_as_root(command: &[&str]) -> Result<(), Failure> {
    let words: Vec<&str> =
        if is_root() || !on_path("sudo") { command.to_vec() } else { [&["sudo"], command].concat() };
    println!("+ {}", words.join(" "));
    let status = Command::new(words[0])
        .args(&words[1..])
        .env("DEBIAN_FRONTEND", "noninteractive")
        .status()
        .map_err(|error| format!("cannot run {}: {error}", words[0]))?;
    if status.success() { Ok(()) } else { Err(format!("{} failed ({status})", words.join(" ")).into()) }
}

/// Whether a program is found.
pub fn on_path(program: &str) -> bool {
    env::split_paths(&env::var_os("PATH").unwrap_or_default())
        .any(|directory| directory.join(program).is_file())
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}
