//! The file that names the nodes: observations, or local scores.

use std::path::{Path, PathBuf};

use gfn_core::KeyError;
use gfn_core::registry::Files;

use super::spec::DagSpec;
use crate::bayes_net::data::Table;
use crate::bayes_net::score::local_scores::LocalScores;
use crate::reward::objects::plain_lines;

/// Where the names of nodes come from, so that rewards can read the rest of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The file.
    pub path: PathBuf,
    /// The column that says which node was intervened on, if there is one.
    pub interventions: Option<String>,
}

/// Whether a path is that of a file of local scores.
pub fn lists_scores(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("jkl"))
}

impl Source {
    /// The names in the header of a CSV file, or of the nodes of a `.jkl` file.
    fn names(&self, files: &dyn Files) -> Result<Vec<String>, KeyError> {
        let bytes = plain_lines(files.read_for("data", &self.path)?);
        let names = match lists_scores(&self.path) {
            true => {
                let scores = LocalScores::parse(&String::from_utf8_lossy(&bytes));
                scores.map(|scores| scores.names().to_vec())
            }
            false => Table::names_of(&bytes, self.interventions.as_deref()),
        };
        names.map_err(|error| error.for_key("data", &self.path))
    }
}

impl DagSpec {
    /// These settings with the names that the file of data has, and the file; as they are if there is
    /// no file.
    pub(super) fn with_names(&self, files: &dyn Files) -> Result<(Self, Option<Source>), KeyError> {
        if self.data.as_os_str().is_empty() {
            if !self.interventions.is_empty() {
                let message = "interventions are a column of env.data, which is not given";
                return Err(KeyError::new("interventions", message)
                    .help("name the file of observations: env.data = \"file.csv\""));
            }
            return Ok((self.clone(), None));
        }
        if !self.names.is_empty() || self.nodes != 0 {
            let key = if self.names.is_empty() { "nodes" } else { "names" };
            let message =
                format!("the nodes are those of env.data, and env.{key} is given as well");
            return Err(KeyError::new(key, message).help(format!("leave env.{key} out")));
        }
        let interventions = Some(self.interventions.clone()).filter(|name| !name.is_empty());
        let source = Source { path: self.data.clone(), interventions };
        let names = source.names(files)?;
        let named = Self { names, ..self.clone() };
        named.checked_names().map_err(|error| {
            let message = format!("`{}`: {}", self.data.display(), error.message);
            KeyError { help: error.help, ..KeyError::data("data", message) }
        })?;
        Ok((named, Some(source)))
    }
}
