//! The drivers: Mesa with its drm shims, from Debian's packages, unpacked aside. Nothing of the system is changed, and nothing needs root.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Refusal, done};

/// Debian 13 and its backports, which have a Mesa of the year.
const SUITES: &str = "trixie trixie-updates trixie-backports";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// What Debian's Mesa is built for here.
const ARCHITECTURE: &str = "x86_64-linux-gnu";

/// Definitions that Mesa's build finds out about a compiler and a C library: those of GCC on Linux.
const DEFINITIONS: &str = "_GNU_SOURCE NDEBUG HAVE_PTHREAD HAVE_STRUCT_TIMESPEC HAVE_MEMFD_CREATE UTIL_ARCH_LITTLE_ENDIAN=1 UTIL_ARCH_BIG_ENDIAN=0 \
     HAVE_ENDIAN_H HAVE_TIMESPEC_GET HAVE___BUILTIN_FFS HAVE___BUILTIN_FFSLL HAVE___BUILTIN_CLZ HAVE___BUILTIN_CLZLL HAVE_FUNC_ATTRIBUTE_FORMAT \
     USE_GCC_ATOMIC_BUILTINS HAVE_SECURE_GETENV HAVE_PROGRAM_INVOCATION_NAME MESA_DEBUG=0 HAVE___BUILTIN_EXPECT HAVE_STRTOF HAVE_UNISTD_H \
     PACKAGE_VERSION=\"\"";

/// What the shim for Intel is made of, beside its own text.
const UTILITIES: &str = "hash_table set ralloc anon_file u_debug vma simple_mtx futex log u_printf os_misc u_process u_call_once string_buffer rand_xor \
     os_time bitscan os_file half_float u_math";

/// Where drivers, shims and the loader are.
pub struct Drivers {
    /// Libraries, the dynamic linker among them.
    pub libraries: PathBuf,
    /// A manifest for each driver.
    pub manifests: PathBuf,
}

/// Unpacks and builds what is not there yet.
pub fn set_up(root: &Path, intel: &Path) -> Result<Drivers, Refusal> {
    let unpacked = root.join("unpacked");
    let drivers =
        Drivers { libraries: unpacked.join("usr/lib").join(ARCHITECTURE), manifests: root.join("manifests") };
    let ready = root.join("ready");
    if ready.is_file() {
        return Ok(drivers);
    }
    println!("unpacking Mesa's drivers and sources (once; about 110 MB) to {}", root.display());
    for directory in ["lists/partial", "cache/archives/partial", "sources", "manifests", "unpacked"] {
        fs::create_dir_all(root.join(directory))?;
    }
    let apt = Apt::new(root)?;
    apt.run("apt-get", &["-qq", "update"])?;
    let packages = ["mesa-vulkan-drivers", "mesa-drm-shim", "libvulkan1", "libgcc-s1"];
    let install =
        ["-qq", "--yes", "--download-only", "--no-install-recommends", "-t", "trixie-backports", "install"];
    apt.run("apt-get", &[&install[..], &packages].concat())?;
    for package in fs::read_dir(root.join("cache/archives"))? {
        let package = package?.path();
        if package.extension().is_some_and(|extension| extension == "deb") {
            done(Command::new("dpkg-deb").arg("-x").arg(&package).arg(&unpacked))?;
        }
    }
    for manifest in fs::read_dir(unpacked.join("usr/share/vulkan/icd.d"))? {
        let path = manifest?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().replace("_icd.json", ".json");
        let place = format!("\"{}/libvulkan_", drivers.libraries.display());
        let text = fs::read_to_string(&path)?.replace("\"libvulkan_", &place);
        fs::write(drivers.manifests.join(name), text)?;
    }
    apt.run("apt-get", &["-qq", "--download-only", "source", "mesa/trixie"])?;
    apt.run("apt-get", &["-qq", "download", "libdrm-dev"])?;
    build_intel_shim(&root.join("sources"), intel, &drivers.libraries)?;
    fs::write(ready, "")?;
    Ok(drivers)
}

/// apt with sources, lists and a cache of its own.
struct Apt {
    configuration: PathBuf,
    downloads: PathBuf,
}

impl Apt {
    fn new(root: &Path) -> Result<Self, Refusal> {
        if !Path::new(KEYRING).is_file() {
            return Err(format!(
                "the drivers are Debian's, for which apt needs {KEYRING} (package debian-archive-keyring); on systems without apt there is no way here"
            )
            .into());
        }
        let at = root.display();
        let sources = format!(
            "Types: deb deb-src\nURIs: http://deb.debian.org/debian\nSuites: {SUITES}\nComponents: main\nArchitectures: amd64\nSigned-By: {KEYRING}\n"
        );
        fs::write(root.join("debian.sources"), sources)?;
        fs::write(root.join("status"), "")?;
        let configuration = root.join("apt.conf");
        let text = format!(
            "Dir::Etc::sourcelist \"{at}/debian.sources\";\nDir::Etc::sourceparts \"/dev/null\";\nDir::State::lists \"{at}/lists\";\n\
             Dir::Cache \"{at}/cache\";\nDir::State::status \"{at}/status\";\nDebug::NoLocking \"1\";\nAPT::Sandbox::User \"\";\n"
        );
        fs::write(&configuration, text)?;
        Ok(Self { configuration, downloads: root.join("sources") })
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Result<(), Refusal> {
        let mut command = Command::new(program);
        done(command.args(arguments).env("APT_CONFIG", &self.configuration).current_dir(&self.downloads))
    }
}

/// Debian has no shim for Intel. Mesa's sources have one, which is built with what little of the rest it needs (`xtask/gpus/intel`).
fn build_intel_shim(sources: &Path, own: &Path, libraries: &Path) -> Result<(), Refusal> {
    let found = |suffix: &str| -> Result<PathBuf, Refusal> {
        let entries = fs::read_dir(sources)?.flatten().map(|entry| entry.path());
        let mut named = entries.filter(|path| path.to_string_lossy().ends_with(suffix));
        named.next().ok_or_else(|| format!("no {suffix} in {}", sources.display()).into())
    };
    let mesa = sources.join("mesa");
    fs::create_dir_all(&mesa)?;
    let mut unpack = Command::new("tar");
    unpack.arg("-C").arg(&mesa).arg("-xf").arg(found(".orig.tar.xz")?).arg("--strip-components=1");
    done(&mut unpack)?;
    let drm = sources.join("drm");
    done(Command::new("dpkg-deb").arg("-x").arg(found(".deb")?).arg(&drm))?;

    let mut gcc = Command::new("gcc");
    gcc.args(["-shared", "-fPIC", "-O1", "-w", "-std=gnu11", "-Wl,--wrap=drm_shim_bo_init"]);
    gcc.args(DEFINITIONS.split_whitespace().map(|definition| format!("-D{definition}")));
    let includes = ["include", "include/drm-uapi", "src", "src/util"].map(|part| mesa.join(part));
    let own_first = [own.to_owned()].into_iter().chain(includes);
    for include in own_first.chain([drm.join("usr/include"), drm.join("usr/include/libdrm")]) {
        gcc.arg("-I").arg(include);
    }
    gcc.arg(mesa.join("src/intel/tools/intel_noop_drm_shim.c")).arg(own.join("rest.c"));
    gcc.args(
        ["src/drm-shim/device.c", "src/drm-shim/drm_shim.c", "src/c11/impl/threads_posix.c"]
            .map(|part| mesa.join(part)),
    );
    gcc.args(UTILITIES.split_whitespace().map(|name| mesa.join(format!("src/util/{name}.c"))));
    done(gcc.arg("-o").arg(libraries.join("libintel_noop_drm_shim.so")).args(["-ldl", "-lpthread", "-lm"]))?;
    // Only its result is needed from here on.
    fs::remove_dir_all(mesa)?;
    Ok(())
}
