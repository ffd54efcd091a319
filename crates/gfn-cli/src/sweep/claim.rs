//! Who runs a trial: at most one process at a time, on any machine that shares the file system.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::process::Stdio;

use crate::error::Failure;

/// The right to run a trial.
///
/// It is a lock on a file, which the kernel takes back when its last holder is gone: nothing goes
/// stale. The child process that runs the trial holds it, too (as its stdin), so that a trial whose
/// runner was killed is not started again before it has ended. Where locks do not pass to children
/// (NFS), the run directory's own lock, which the child takes, has the same effect.
#[derive(Debug)]
pub struct Claim {
    file: File,
}

impl Claim {
    /// Claims a trial; `None` if somebody else runs it.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn take(claim: &Path, run: &Path) -> Result<Option<Self>, Failure> {
        let open = || {
            if let Some(parent) = claim.parent() {
                std::fs::create_dir_all(parent)?;
            }
            File::options().create(true).truncate(false).read(true).write(true).open(claim)
        };
        let file = open().map_err(|error| {
            Failure::usage(format!("cannot write `{}`: {error}", claim.display()))
                .help("a sweep keeps its state in its own directory: make it writable")
        })?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => {
                return Err(Failure::usage(format!(
                    "`{}` cannot be locked: {error}",
                    claim.display()
                ))
                .help("a sweep needs a file system with locks (flock), such as NFSv4"));
            }
        }
        // A trainer that nobody of the sweep has started, or whose claim did not pass to it.
        if is_locked(&run.join(".lock")) {
            return Ok(None);
        }
        Ok(Some(Self { file }))
    }

    /// The stdin of the child process: it reads nothing, and holds the claim.
    ///
    /// # Errors
    /// When there are too many open files.
    pub fn share(&self) -> std::io::Result<Stdio> {
        Ok(self.file.try_clone()?.into())
    }

    /// Whether somebody runs a trial, by its claim.
    pub fn is_held(claim: &Path) -> bool {
        is_locked(claim)
    }
}

fn is_locked(path: &Path) -> bool {
    let Ok(file) = File::open(path) else { return false };
    matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_claim_is_held_until_its_last_holder_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let (path, run) = (dir.path().join(".claims/3"), dir.path().join("run"));
        assert!(!Claim::is_held(&path));
        let claim = Claim::take(&path, &run).unwrap().unwrap();
        assert!(Claim::is_held(&path));
        assert!(Claim::take(&path, &run).unwrap().is_none());
        let mut child =
            Command::new("sleep").arg("60").stdin(claim.share().unwrap()).spawn().unwrap();
        drop(claim);
        assert!(Claim::take(&path, &run).unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!Claim::is_held(&path));
        assert!(Claim::take(&path, &run).unwrap().is_some());
    }

    #[test]
    fn a_run_directory_in_use_is_not_claimed() {
        let dir = tempfile::tempdir().unwrap();
        let (path, run) = (dir.path().join(".claims/3"), dir.path().join("run"));
        std::fs::create_dir(&run).unwrap();
        let lock = File::create(run.join(".lock")).unwrap();
        lock.try_lock().unwrap();
        assert!(Claim::take(&path, &run).unwrap().is_none());
        drop(lock);
        assert!(Claim::take(&path, &run).unwrap().is_some());
    }
}
