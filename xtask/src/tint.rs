//! `cargo xtask tint`: every text that a kernel can have through Tint, the compiler of Chrome and Edge, of Dawn in Node.js.

use std::process::Command;

use super::web::{self, command};
use super::{Failure, cargo_command, root, target};

pub fn run() -> Result<(), Failure> {
    web::install()?;
    let directory = target()?.join("tint");
    let _ = std::fs::remove_dir_all(&directory);
    // The test that validates them by naga writes them out.
    let test = ["test", "--package", "wgnorm", "--lib", "--features", "eval,safetensors,serde", "--"];
    let name = "every_variant_is_valid_and_binds_what_it_says";
    command(cargo_command().args(test).arg(name).env("WGNORM_WRITE_WGSL", &directory))?;
    command(Command::new("node").arg("tint.mjs").arg(&directory).current_dir(root().join("web")))
}
