//! Files of the crate's, which exist only where their user names a place for them. A file is replaced as a whole, so nobody
//! ever reads half of one.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::base::error::{Error, Result};

fn refused(action: &'static str, path: &Path, error: &std::io::Error) -> Error {
    Error::File { action, path: path.to_owned(), reason: error.to_string() }
}

/// The contents of a file; `None` if there is no such file.
///
/// # Errors
/// [`Error::File`].
pub(crate) fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(refused("read", path, &error)),
    }
}

/// Writes a file beside the one that is wanted and renames it, so that another process finds the old contents or the new.
///
/// # Errors
/// [`Error::File`]; the file is as it was then.
pub(crate) fn replace(path: &Path, contents: &[u8]) -> Result<()> {
    let beside = temporary(path);
    let written = std::fs::write(&beside, contents).and_then(|()| std::fs::rename(&beside, path));
    written.map_err(|error| {
        let _ = std::fs::remove_file(&beside);
        refused("write", path, &error)
    })
}

/// Creates a directory with its parents, if it does not exist.
///
/// # Errors
/// [`Error::File`].
pub(crate) fn create_directory(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path).map_err(|error| refused("create", path, &error))
}

/// A name in the same directory, and so in the same file system, that no other process or thread takes.
fn temporary(path: &Path) -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.{}.tmp", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
    path.with_file_name(name)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An empty directory for a test.
    pub(crate) fn scratch(test: &str) -> PathBuf {
        let directory = std::env::temp_dir().join(format!("wgnorm-{test}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&directory);
        std::fs::create_dir_all(&directory).unwrap();
        directory
    }

    #[test]
    fn files_are_replaced_and_nothing_else_is_left() {
        let directory = scratch("replace");
        let path = directory.join("a file");
        assert_eq!(read(&path), Ok(None));
        for contents in [&b"one"[..], b"", b"three"] {
            replace(&path, contents).unwrap();
            assert_eq!(read(&path).unwrap().as_deref(), Some(contents));
        }
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 1);
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn what_cannot_be_read_or_written_says_so() {
        let directory = scratch("refused");
        let path = directory.join("no such directory").join("a file");
        let error = replace(&path, b"x").unwrap_err();
        assert!(
            error.to_string().contains("cannot write") && error.to_string().contains("a file"),
            "{error}"
        );
        // A directory is no file.
        assert!(matches!(read(&directory), Err(Error::File { action: "read", .. })));
        assert!(matches!(replace(&directory, b"x"), Err(Error::File { action: "write", .. })));
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
