//! Writes the JavaScript beside a wasm module: wasm-bindgen, whose version must be that of the library that the module is linked with. As a package of this
//! workspace it is that of the lock file, and nobody has to install the program.
//!
//! ```text
//! wgnorm-web-bindgen MODULE.wasm DIRECTORY
//! ```

use std::process::ExitCode;

use wasm_bindgen_cli_support::Bindgen;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [module, directory] = args.as_slice() else {
        eprintln!("expected a wasm module and a directory, got {args:?}");
        return ExitCode::from(2);
    };
    let made = Bindgen::new()
        .input_path(module)
        .web(true)
        .and_then(|bindgen| bindgen.typescript(true).omit_default_module_path(false).generate(directory));
    match made {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{module}: {error:#}");
            ExitCode::FAILURE
        }
    }
}
