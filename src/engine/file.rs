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

    /// What a child process of a test is to do, on which file.
    const CHILD: &str = "WGNORM_TEST_CHILD";

    /// This test program again, for one test, with something to do; the shell command limits it first.
    #[cfg(unix)]
    fn child(limits: &str, test: &str, path: &Path) -> std::process::Command {
        let mut shell = std::process::Command::new("sh");
        let program = std::env::current_exe().unwrap();
        shell.args(["-c", &format!("{limits} exec \"$0\" --exact engine::file::tests::{test}")]).arg(program);
        shell.env(CHILD, path).stdout(std::process::Stdio::null());
        shell
    }

    /// A limit of files' sizes does what a full disk does: a write ends in the middle.
    #[test]
    #[cfg(unix)]
    fn what_does_not_fit_on_the_disk_leaves_the_file_as_it_was() {
        if let Some(path) = std::env::var_os(CHILD) {
            let error = replace(Path::new(&path), &[7; 1 << 20]).unwrap_err();
            assert!(matches!(error, Error::File { action: "write", .. }), "{error}");
            return;
        }
        let directory = scratch("full");
        let path = directory.join("a file");
        replace(&path, b"before").unwrap();
        let test = "what_does_not_fit_on_the_disk_leaves_the_file_as_it_was";
        let limited = child("trap '' XFSZ; ulimit -f 100;", test, &path).status().unwrap();
        assert!(limited.success());
        assert_eq!(read(&path).unwrap().as_deref(), Some(&b"before"[..]));
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 1);
        std::fs::remove_dir_all(&directory).unwrap();
    }

    /// Two processes write one file, and a third reads it meanwhile.
    #[test]
    #[cfg(unix)]
    fn of_two_who_write_each_is_read_as_a_whole() {
        let all = |byte: u8| vec![byte; 100_000];
        if let Some(path) = std::env::var_os(CHILD) {
            for _ in 0..200 {
                replace(Path::new(&path), &all(std::process::id() as u8)).unwrap();
            }
            return;
        }
        let directory = scratch("two");
        let path = directory.join("a file");
        replace(&path, &all(0)).unwrap();
        let test = "of_two_who_write_each_is_read_as_a_whole";
        let mut writers = [0; 2].map(|_| child("", test, &path).spawn().unwrap());
        let mut seen = std::collections::BTreeSet::new();
        while writers.iter_mut().any(|writer| writer.try_wait().unwrap().is_none()) {
            let contents = read(&path).unwrap().unwrap();
            assert!(contents.len() == 100_000 && contents.iter().all(|byte| *byte == contents[0]));
            seen.insert(contents[0]);
        }
        assert!(writers.iter_mut().all(|writer| writer.wait().unwrap().success()));
        assert!(seen.len() > 1, "nobody wrote while somebody read");
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 1);
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
