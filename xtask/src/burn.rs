//! `cargo xtask burn`: the layers of burn (`integrations/burn`), with fusion and without; `cargo xtask proof`: what is trained with them (`integrations/proof`).

use super::{Failure, cargo};

pub fn run() -> Result<(), Failure> {
    let test = ["test", "--manifest-path", "integrations/burn/Cargo.toml", "--locked"];
    cargo(&test, &[])?;
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

pub fn proof(args: &[String]) -> Result<(), Failure> {
    let manifest = "integrations/proof/Cargo.toml";
    cargo(&["run", "--release", "--locked", "--manifest-path", manifest, "--"], args)
}
