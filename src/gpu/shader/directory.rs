//! Shaders from a directory instead of those that were built in: whoever works on a kernel edits and runs again without a build.

use std::collections::HashMap;
use std::path::Path;
use std::sync::OnceLock;

use super::NAMES;
use crate::error::{Error, Result};

static TEXTS: OnceLock<HashMap<&'static str, &'static str>> = OnceLock::new();

/// What the directory has under a name, if there is one.
pub fn text(name: &str) -> Option<&'static str> {
    TEXTS.get()?.get(name).copied()
}

/// Reads all shader files; kernels that are compiled from now on are made of them.
///
/// # Errors
/// [`Error::File`] if one cannot be read, or a directory was read before; nothing changes then.
pub fn read(directory: &Path) -> Result<()> {
    let mut texts = HashMap::new();
    for &name in NAMES {
        let path = directory.join(name);
        let text = std::fs::read_to_string(&path).map_err(|error| Error::File {
            action: "read",
            path: path.clone(),
            reason: error.to_string(),
        })?;
        // They last as long as the process, as those that are built in do.
        texts.insert(name, &*Box::leak(text.into_boxed_str()));
    }
    TEXTS.set(texts).map_err(|_| Error::File {
        action: "read",
        path: directory.to_owned(),
        reason: "shaders were read from a directory before".to_owned(),
    })
}
