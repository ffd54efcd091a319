//! What graphs may look like: names, and which parents each node must, may and cannot have.

use std::path::PathBuf;

use gfn_core::registry::{EnvAxis, EnvContext, Kind};
use gfn_core::{Environment, KeyError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ARROW, Dag, MAX_NODES, bits};
use crate::reward::modes::is_empty;

/// Nodes where neither their number nor their names are given.
const DEFAULT_NODES: usize = 5;

/// Settings of [`Dag`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DagSpec {
    /// Number of nodes, from 2 to 64. Default: as many as `names`, or 5.
    pub nodes: usize,
    /// Names of the nodes, in the order of their numbers; all different, without white space, commas
    /// and `->`. Default: A to Z, or X1, X2, … where there are more than 26.
    pub names: Vec<String>,
    /// A file that names the nodes instead: observations, as CSV with a header, or local scores
    /// (`.jkl`). Rewards read the rest of it where they name no file themselves.
    #[serde(skip_serializing_if = "is_empty")]
    pub data: PathBuf,
    /// The column of `data` that is no node, but says which node was intervened on in each row: by its
    /// name, or by its number counting from 1; 0 or nothing for none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub interventions: String,
    /// The most parents of a node, at least 1. Default: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_parents: Option<usize>,
    /// Edges that every graph has, as `"A -> B"`.
    pub required: Vec<String>,
    /// Edges that no graph has, as `"A -> B"`.
    pub forbidden: Vec<String>,
    /// Nodes by the time when they come about: those of a later tier cannot cause those of an earlier
    /// one. Nodes that are not listed are free.
    pub tiers: Vec<Vec<String>>,
}

/// Which sets of parents a node may have, as words with a bit per node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParentSets {
    /// Parents that it always has.
    pub required: u64,
    /// Parents that it may have, the required ones among them.
    pub allowed: u64,
    /// The most parents.
    pub most: usize,
}

impl ParentSets {
    /// Whether a set is one of them.
    pub fn admit(&self, parents: u64) -> bool {
        parents & !self.allowed == 0
            && self.required & !parents == 0
            && parents.count_ones() as usize <= self.most
    }
}

impl Kind<EnvAxis> for DagSpec {
    const NAME: &'static str = "dag";
    const SUMMARY: &'static str = "directed acyclic graphs on named nodes, edge by edge";
    const PAPER: Option<&'static str> = Some("arXiv:2202.13903");
    const NEUTRAL_KEYS: &'static [&'static str] = &["data"];

    fn build(&self, context: EnvContext<'_>) -> Result<Box<dyn Environment>, KeyError> {
        let (named, source) = self.with_names(context.files)?;
        let dag = Dag::new(&named)?;
        Ok(Box::new(Dag { source, ..dag }))
    }

    fn resolve(&self) -> toml::Table {
        let table = |spec: &Self| toml::Table::try_from(spec).expect("settings serialise to TOML");
        if self.data.as_os_str().is_empty() {
            let names = self.resolved_names();
            return table(&Self { nodes: names.len(), names, ..self.clone() });
        }
        let mut resolved = table(self);
        if self.names.is_empty() && self.nodes == 0 {
            // The file says them.
            ["nodes", "names"].iter().for_each(|&key| drop(resolved.remove(key)));
        }
        resolved
    }
}

impl DagSpec {
    fn resolved_names(&self) -> Vec<String> {
        if !self.names.is_empty() {
            return self.names.clone();
        }
        match self.nodes {
            0 => Self { nodes: DEFAULT_NODES, ..self.clone() }.resolved_names(),
            n @ ..=26 => ('A'..='Z').take(n).map(String::from).collect(),
            n => (1..=n).map(|i| format!("X{i}")).collect(),
        }
    }

    /// The names, checked.
    pub(super) fn checked_names(&self) -> Result<Vec<String>, KeyError> {
        let n = if self.names.is_empty() { self.nodes } else { self.names.len() };
        let key = if self.names.is_empty() { "nodes" } else { "names" };
        if n > MAX_NODES || n == 1 {
            let message = format!("a graph has from 2 to {MAX_NODES} nodes, not {n}");
            let help = match n {
                1 => "a network needs two variables",
                _ => "sets of nodes are words of 64 bits; leave variables out, or group them",
            };
            return Err(KeyError::new(key, message).help(help));
        }
        if self.nodes != 0 && self.nodes != n {
            let message = format!("there are {n} names for {} nodes", self.nodes);
            return Err(KeyError::new("nodes", message)
                .help("leave env.nodes out where env.names is given"));
        }
        for (i, name) in self.names.iter().enumerate() {
            let number = i + 1;
            let breaks = |c: char| c.is_whitespace() || c == ',';
            if name.is_empty() || name.contains(breaks) || name.contains(ARROW) {
                let message = format!(
                    "name {number}, `{name}`, is empty, or contains white space, a comma or `->`"
                );
                return Err(KeyError::new("names", message)
                    .help("names stand in edges, `A->B`, and in tables separated by commas"));
            }
            if self.names[..i].contains(name) {
                return Err(KeyError::new("names", format!("the name `{name}` occurs twice"))
                    .help("every node needs a name of its own"));
            }
        }
        Ok(self.resolved_names())
    }

    /// What the parents of each node may be, checked to leave at least one graph.
    pub(super) fn parent_sets(&self, names: &[String]) -> Result<Vec<ParentSets>, KeyError> {
        let d = names.len();
        if self.max_parents == Some(0) {
            return Err(KeyError::new("max_parents", "must be at least 1, not 0")
                .help("leave it out for no limit"));
        }
        let all = !0 >> (64 - d);
        let most = self.max_parents.map_or(d - 1, |most| most.min(d - 1));
        let of_node = |j: usize| ParentSets { required: 0, allowed: all & !(1 << j), most };
        let mut sets: Vec<ParentSets> = (0..d).map(of_node).collect();
        for text in &self.forbidden {
            let (i, j) = edge(names, "forbidden", text)?;
            sets[j].allowed &= !(1 << i);
        }
        let tier = self.tier_of_each(names)?;
        for (j, set) in sets.iter_mut().enumerate() {
            for i in (0..d).filter(|&i| tier[i].zip(tier[j]).is_some_and(|(i, j)| i > j)) {
                set.allowed &= !(1 << i);
            }
        }
        for text in &self.required {
            let (i, j) = edge(names, "required", text)?;
            if sets[j].allowed >> i & 1 == 0 {
                let (from, to) = (&names[i], &names[j]);
                let (why, remedy) = match tier[i].zip(tier[j]).is_some_and(|(i, j)| i > j) {
                    true => (format!("`{from}` stands in a later tier than `{to}`"), "env.tiers"),
                    false => ("it is forbidden as well".to_owned(), "env.forbidden"),
                };
                let message = format!("the edge `{from} -> {to}` is required, but {why}");
                return Err(KeyError::new("required", message)
                    .help(format!("take it out of env.required, or change {remedy}")));
            }
            sets[j].required |= 1 << i;
        }
        if let Some(cycle) = cycle(&sets) {
            let path: Vec<&str> = cycle.iter().map(|&i| names[i].as_str()).collect();
            let message = format!("required edges form a cycle: {}", path.join(" -> "));
            return Err(KeyError::new("required", message).help("leave out one of them"));
        }
        for (set, name) in sets.iter().zip(names) {
            let n = set.required.count_ones() as usize;
            if n > most {
                let message = format!("`{name}` has {n} required parents, more than {most}");
                return Err(KeyError::new("max_parents", message)
                    .help("raise env.max_parents, or require fewer edges"));
            }
        }
        Ok(sets)
    }

    /// The tier of every node that is listed in one.
    fn tier_of_each(&self, names: &[String]) -> Result<Vec<Option<usize>>, KeyError> {
        let mut tier_of = vec![None; names.len()];
        for (tier, nodes) in self.tiers.iter().enumerate() {
            for name in nodes {
                let i = node(names, "tiers", name)?;
                if tier_of[i].replace(tier).is_some() {
                    return Err(KeyError::new("tiers", format!("`{name}` is listed twice"))
                        .help("a node stands in one tier, or in none"));
                }
            }
        }
        Ok(tier_of)
    }
}

/// The number of the node with a name.
fn node(names: &[String], key: &str, name: &str) -> Result<usize, KeyError> {
    names.iter().position(|known| known == name).ok_or_else(|| {
        KeyError::new(key, format!("no node is called `{name}`"))
            .help(format!("the nodes are {}", names.join(", ")))
    })
}

/// The two ends of an edge of a list, written `A -> B`.
pub(crate) fn edge(names: &[String], key: &str, text: &str) -> Result<(usize, usize), KeyError> {
    let Some((from, to)) = text.split_once(ARROW) else {
        return Err(KeyError::new(key, format!("`{text}` is no edge"))
            .help("an edge is written \"A -> B\", from cause to effect"));
    };
    let (i, j) = (node(names, key, from.trim())?, node(names, key, to.trim())?);
    if i == j {
        return Err(KeyError::new(key, format!("`{text}` is a loop, which no graph has"))
            .help("an edge joins two different nodes"));
    }
    Ok((i, j))
}

/// The nodes along a cycle of required edges, the first one again at the end.
fn cycle(sets: &[ParentSets]) -> Option<Vec<usize>> {
    let mut left: u64 = !0 >> (64 - sets.len());
    while let Some(root) = bits(left).find(|&j| sets[j].required & left == 0) {
        left &= !(1 << root);
    }
    // Every node that is left has a parent that is left: going up comes round.
    let mut path = vec![bits(left).next()?];
    loop {
        let child = path[path.len() - 1];
        let parent = bits(sets[child].required & left).next()?;
        path.push(parent);
        if let Some(first) = path[..path.len() - 1].iter().position(|&node| node == parent) {
            path.drain(..first);
            path.reverse();
            return Some(path);
        }
    }
}
