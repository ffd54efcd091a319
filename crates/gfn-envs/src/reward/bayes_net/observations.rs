//! Where observations come from, and which column belongs to which node.

use std::path::Path;

use gfn_core::KeyError;
use gfn_core::registry::RewardContext;

use crate::bayes_net::data::{DataKind, Table};
use crate::bayes_net::generate::node_names;
use crate::dag::{Dag, lists_scores};
use crate::reward::modes::is_empty;
use crate::reward::objects::plain_lines;

/// The keys that say where observations are.
pub(super) struct Given<'a> {
    pub(super) data: &'a Path,
    pub(super) interventions: &'a str,
    pub(super) kind: DataKind,
    /// Whether the spec says how to generate some.
    pub(super) says_generate: bool,
}

impl Given<'_> {
    /// The observations in a file, with columns in the order of the nodes; none if there is no file,
    /// neither of the reward nor of the environment.
    pub(super) fn read(
        &self,
        context: RewardContext<'_>,
        dag: &Dag,
    ) -> Result<Option<Table>, KeyError> {
        let own = Some(self.interventions).filter(|name| !name.is_empty());
        let (path, interventions) = match (is_empty(self.data), dag.source()) {
            (false, _) => (self.data, own),
            (true, Some(source)) if lists_scores(&source.path) => {
                let message = "env.data lists local scores, and this reward needs observations";
                return Err(KeyError::new("data", message)
                    .help("choose reward.kind = \"local_scores\", or name a file: reward.data"));
            }
            (true, Some(source)) => {
                let of_env = source.interventions.as_deref();
                if own.is_some_and(|own| Some(own) != of_env) {
                    let message =
                        "the file is that of env.data, whose column env.interventions says";
                    return Err(KeyError::new("interventions", message)
                        .help("set env.interventions instead"));
                }
                (source.path.as_path(), of_env)
            }
            (true, None) => {
                if own.is_some() {
                    let message = "interventions are a column of a file, and none is given";
                    return Err(KeyError::new("interventions", message)
                        .help("name the file of observations: env.data = \"file.csv\""));
                }
                return Ok(None);
            }
        };
        if self.says_generate {
            let path = path.display();
            let note =
                format!("reward.generate is not used: the observations are those of `{path}`");
            context.files.note(&note);
        }
        let bytes = plain_lines(context.files.read_for("data", path)?);
        let table = Table::parse(&bytes, self.kind, interventions)
            .map_err(|error| error.for_key("data", path))?;
        check_names("data", path, "column", &table.names, dag.names())?;
        Ok(Some(table.in_order(dag.names())))
    }
}

/// Every node has its column, and every column its node.
pub(super) fn check_names(
    key: &str,
    path: &Path,
    what: &str,
    found: &[String],
    nodes: &[String],
) -> Result<(), KeyError> {
    let shown = path.display();
    let missing = nodes.iter().find(|&name| !found.contains(name));
    let foreign = found.iter().find(|&name| !nodes.contains(name));
    let message = match (missing, foreign) {
        (None, None) => return Ok(()),
        (Some(node), _) => format!("`{shown}` has no {what} for the node `{node}`"),
        (None, Some(name)) => format!("`{shown}` has the {what} `{name}`, which is no node"),
    };
    let names = format!("; it has {}", found.join(", "));
    let help = match nodes == node_names(nodes.len()) {
        true => {
            format!("name the nodes after the file: env.data = \"{shown}\" instead of env.nodes")
        }
        false => "they are matched by name: correct env.names, or name the nodes after the file \
                  by env.data"
            .to_owned(),
    };
    Err(KeyError::new(key, message + &names).help(help))
}
