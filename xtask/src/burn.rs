//! `cargo xtask burn`: the layers of burn (`integrations/burn`), with fusion and without; `cargo xtask proof`: what is trained with them (`integrations/proof`).

use super::{Failure, cargo, setup};

pub fn run() -> Result<(), Failure> {
    let test = ["test", "--manifest-path", "integrations/burn/Cargo.toml", "--locked"];
    // The program that trains with them too.
    cargo(&[&test[..], &["--workspace"]].concat(), &[])?;
    // Lints of what most build, and of what is trained with them.
    cargo(
        &[
            "clippy",
            "--manifest-path",
            "integrations/burn/Cargo.toml",
            "--locked",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ],
        &[],
    )?;
    cargo(&[&test[..], &["--no-default-features"]].concat(), &[])
}

/// With ranks in processes too where there is MPI.
pub fn proof(args: &[String]) -> Result<(), Failure> {
    let mpi = !args.iter().any(|arg| arg == "--list")
        && setup::mpi().unwrap_or_else(|failure| {
            println!("{}\nwithout MPI: ranks are threads alone", failure.message);
            false
        });
    let features: &[&str] = if mpi { &["--features", "mpi"] } else { &[] };
    let manifest = "integrations/proof/Cargo.toml";
    cargo(&[&["run", "--release", "--locked", "--manifest-path", manifest], features, &["--"]].concat(), args)
}
