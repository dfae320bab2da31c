//! Shader modules in WESL's syntax, and the linker that makes WGSL of those that a kernel needs.
//!
//! A file of `shaders/` is a [module](module) that names what it uses: `import package::walk::segments::{Tile, Cursor};`. Which activation,
//! walk or element type a kernel has is a [`Choice`]: it puts another module in the place of the one that is imported, or an instance of it
//! with values and a name of its own, and says which features hold. [`Package::link`] follows the names from the entry point and writes
//! what it finds, once, and nothing else.
//!
//! Modules are parsed once; linking copies text. No part of this knows a device.

mod condition;
#[cfg(feature = "eval")]
mod instantiate;
mod lexer;
mod link;
mod module;
mod parser;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

pub(crate) use link::Linked;
use module::Module;

/// A module that cannot be read or linked, which is a fault of the module or of the choice.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{module}, line {line}: {what}")]
pub(crate) struct Error {
    pub module: String,
    pub line: usize,
    pub what: String,
}

pub(crate) type Result<T> = std::result::Result<T, Error>;

impl Error {
    fn of(module: &str, text: &str, at: usize, what: &str) -> Self {
        let line = 1 + text[..at.min(text.len())].matches('\n').count();
        Self { module: module.to_owned(), line, what: what.to_owned() }
    }
}

/// Modules by their paths, such as `walk/segments`.
#[derive(Clone, Default)]
pub(crate) struct Package {
    modules: HashMap<String, Arc<Module>>,
}

impl fmt::Debug for Package {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Package").field("modules", &self.modules.len()).finish()
    }
}

impl Package {
    /// Reads modules, each given as path and text.
    pub fn parse<'t>(files: impl IntoIterator<Item = (&'t str, &'t str)>) -> Result<Self> {
        let mut package = Self::default();
        for (path, text) in files {
            package.add("", path, text)?;
        }
        Ok(package)
    }

    /// Reads a module of a package that uses this one, whose modules are in a folder `home`.
    pub fn add(&mut self, home: &str, path: &str, text: &str) -> Result<()> {
        let module = Module::parse(home, path, text)?;
        let path = if home.is_empty() { path.to_owned() } else { format!("{home}/{path}") };
        self.modules.insert(path, Arc::new(module));
        Ok(())
    }

    /// Whether a module declares a name.
    pub fn declares(&self, module: &str, name: &str) -> bool {
        self.modules.get(module).is_some_and(|module| module.declares(name))
    }

    /// The value of a constant of a module that is a number.
    pub fn constant(&self, module: &str, name: &str) -> Option<u32> {
        self.modules.get(module)?.constant(name)
    }
}

/// What differs between the kernels that modules can make.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Choice {
    /// What takes the place of a module, by the path that imports give.
    pub modules: BTreeMap<String, Instance>,
    /// What `@if` asks for.
    pub features: BTreeSet<String>,
}

impl Choice {
    /// Puts a module in the place of another.
    pub fn replace(&mut self, path: &str, by: impl Into<Instance>) {
        self.modules.insert(path.to_owned(), by.into());
    }

    pub fn feature(&mut self, name: &str, holds: bool) {
        if holds {
            self.features.insert(name.to_owned());
        }
    }
}

/// A module as it is linked: once, or several times under names of their own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Instance {
    module: String,
    /// What its declarations are called by: `x_at` for `at` of the instance `x`.
    name: Option<String>,
    /// Values of its constants.
    values: Vec<(String, String)>,
    /// Which paths its own imports mean.
    imports: Vec<(String, String)>,
}

impl From<&str> for Instance {
    fn from(module: &str) -> Self {
        Self { module: module.to_owned(), ..Self::default() }
    }
}

impl Instance {
    pub fn named(self, name: &str) -> Self {
        Self { name: Some(name.to_owned()), ..self }
    }

    pub fn with(mut self, constant: &str, value: impl ToString) -> Self {
        self.values.push((constant.to_owned(), value.to_string()));
        self
    }

    pub fn importing(mut self, path: &str, from: &str) -> Self {
        self.imports.push((path.to_owned(), from.to_owned()));
        self
    }
}
