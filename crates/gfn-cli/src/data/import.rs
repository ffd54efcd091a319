//! Files that are at hand.

use std::path::Path;

use super::{
    Convert, DataError, DataErrorKind, DataFile, LARGEST, Outcome, create, differ, install, sha256,
};

/// Copies a file into the data directory: the installed form, or the source, which is converted.
///
/// # Errors
/// When it cannot be read, is not the expected file, or the data directory cannot be written.
pub fn import(entry: &DataFile, file: &Path, dir: &Path) -> Result<Outcome, DataError> {
    let given = read(file)?;
    let content = expected(entry, given).map_err(|reason| {
        let message = format!("`{}` is not `{}`: {reason}", file.display(), entry.name);
        DataError::new(DataErrorKind::Damaged, message).help(entry.remedy())
    })?;
    create(dir)?;
    install(entry, dir, &content)
}

fn read(file: &Path) -> Result<Vec<u8>, DataError> {
    let refuse = |reason: String| {
        let message = format!("cannot import `{}`: {reason}", file.display());
        DataError::new(DataErrorKind::Missing, message).help("name an existing file")
    };
    let length = std::fs::metadata(file).map_err(|error| refuse(error.to_string()))?.len();
    if length > LARGEST {
        return Err(refuse(format!("it has {length} bytes, more than {LARGEST}")));
    }
    std::fs::read(file).map_err(|error| refuse(error.to_string()))
}

/// The content to install.
fn expected(entry: &DataFile, given: Vec<u8>) -> Result<Vec<u8>, String> {
    let found = sha256(&given);
    let Some(expected) = entry.sha256.filter(|&expected| expected != found) else {
        return Ok(given);
    };
    let reason = differ(&found, expected);
    if entry.convert == Convert::AsIs {
        return Err(reason);
    }
    let converted =
        entry.convert.apply(&given).map_err(|why| format!("{reason}; as the source, it {why}"))?;
    match sha256(&converted) {
        found if found == expected => Ok(converted),
        found => Err(format!("{reason}; converted as the source, it has {found}")),
    }
}
