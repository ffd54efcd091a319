//! The data directory.

use std::ffi::OsString;
use std::path::PathBuf;

/// Where data files lie: `$GFN_DATA`, else `$XDG_DATA_HOME/gfn`, else `~/.local/share/gfn`.
pub fn data_dir() -> PathBuf {
    data_dir_from(|name| std::env::var_os(name), std::env::home_dir())
}

/// The same by a given environment and home directory. Without either: `gfn-data`, here.
pub fn data_dir_from(env: impl Fn(&str) -> Option<OsString>, home: Option<PathBuf>) -> PathBuf {
    let set = |name| env(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(dir) = set("GFN_DATA") {
        return dir;
    }
    // The XDG specification wants relative paths to be ignored.
    if let Some(dir) = set("XDG_DATA_HOME").filter(|dir| dir.is_absolute()) {
        return dir.join("gfn");
    }
    match home.filter(|home| !home.as_os_str().is_empty()) {
        Some(home) => home.join(".local/share/gfn"),
        None => PathBuf::from("gfn-data"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dir(set: &[(&str, &str)], home: Option<&str>) -> PathBuf {
        let env = |name: &str| set.iter().find(|(key, _)| *key == name).map(|(_, v)| v.into());
        data_dir_from(env, home.map(PathBuf::from))
    }

    #[test]
    fn the_first_that_is_set_wins() {
        let (gfn, xdg) = (("GFN_DATA", "here"), ("XDG_DATA_HOME", "/x"));
        assert_eq!(dir(&[gfn, xdg], Some("/h")), PathBuf::from("here"));
        assert_eq!(dir(&[xdg], Some("/h")), PathBuf::from("/x/gfn"));
        assert_eq!(dir(&[], Some("/h")), PathBuf::from("/h/.local/share/gfn"));
        assert_eq!(dir(&[], None), PathBuf::from("gfn-data"));
    }

    #[test]
    fn empty_and_relative_settings_do_not_count() {
        let empty = [("GFN_DATA", ""), ("XDG_DATA_HOME", "x")];
        assert_eq!(dir(&empty, Some("/h")), PathBuf::from("/h/.local/share/gfn"));
        assert_eq!(dir(&empty, Some("")), PathBuf::from("gfn-data"));
    }
}
