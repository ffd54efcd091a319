//! Runs told apart by columns and keys.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use super::run::{Run, column_of_key, number};
use crate::error::{Failure, closest};
use crate::run::metrics::{budget_columns, identity_columns};

/// Runs that agree in the keys that they are grouped by.
#[derive(Clone, Debug)]
pub struct Group<'a> {
    /// Their values, in the order of the keys; empty where a run has none.
    pub values: Vec<String>,
    /// The runs.
    pub runs: Vec<&'a Run>,
}

impl Group<'_> {
    /// The values as one text.
    pub fn label(&self) -> String {
        let shown: Vec<&str> =
            self.values.iter().map(|value| if value.is_empty() { "–" } else { value }).collect();
        shown.join(", ")
    }
}

/// Groups runs, in the order of their values: numbers by size, words by the alphabet.
pub fn group<'a>(runs: &[&'a Run], keys: &[String]) -> Vec<Group<'a>> {
    let mut groups: Vec<Group<'a>> = Vec::new();
    let mut places = BTreeMap::new();
    for &run in runs {
        let values: Vec<String> =
            keys.iter().map(|key| run.value(key).unwrap_or_default().to_owned()).collect();
        let place = *places.entry(values.clone()).or_insert(groups.len());
        match groups.get_mut(place) {
            Some(group) => group.runs.push(run),
            None => groups.push(Group { values, runs: vec![run] }),
        }
    }
    groups.sort_by(|a, b| compare(&a.values, &b.values));
    groups
}

/// Orders lists of values.
pub fn compare(a: &[String], b: &[String]) -> Ordering {
    let pairs = a.iter().zip(b).map(|(a, b)| match (number(a), number(b)) {
        (Some(x), Some(y)) => x.total_cmp(&y).then_with(|| a.cmp(b)),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => a.cmp(b),
    });
    pairs.fold(Ordering::Equal, Ordering::then)
}

/// Refuses a key that no run has.
///
/// # Errors
/// With a suggestion, or what there is.
pub fn check_key(runs: &[Run], key: &str) -> Result<(), Failure> {
    let column = column_of_key(key).unwrap_or(key);
    let known = |run: &Run| run.names().any(|name| name == key || name == column);
    if runs.iter().any(known) {
        return Ok(());
    }
    let mut names: Vec<&str> = runs.iter().flat_map(Run::names).collect();
    names.sort_unstable();
    names.dedup();
    let mut failure = Failure::usage(format!("no run has a column or spec key `{key}`"));
    if let Some(meant) = closest(key, names.iter().copied()) {
        failure = failure.help(format!("did you mean `{meant}`?"));
    } else {
        failure = failure.help(format!("there are: {}", names.join(", ")));
    }
    Err(failure)
}

/// The keys that tell methods apart where nobody says which: all that differ but for the seed, or
/// the name alone where it tells as much.
pub fn telling_keys(runs: &[Run]) -> Vec<String> {
    let all: Vec<&Run> = runs.iter().collect();
    let varying: Vec<String> = varying_keys(runs)
        .into_iter()
        .filter(|key| !["seed", "device"].contains(&&**key))
        .collect();
    let name = vec!["name".to_owned()];
    let by_name = group(&all, &name).len();
    if varying.is_empty() || by_name == group(&all, &varying).len() {
        return name;
    }
    varying
}

/// Identity columns and keys of specs of which two runs that have them have different values.
pub fn varying_keys(runs: &[Run]) -> Vec<String> {
    let mut names: Vec<String> = identity_columns().map(str::to_owned).collect();
    let leading = runs.iter().flat_map(|run| {
        let budgets = |name: &String| budget_columns().any(|budget| budget == name);
        let until = run.header.iter().position(budgets).unwrap_or(0);
        run.header[..until].iter().chain(run.keys.iter().map(|(name, _)| name))
    });
    let mut seen: BTreeSet<String> = names.iter().cloned().collect();
    for name in leading.filter(|name| column_of_key(name).is_none()) {
        if seen.insert(name.clone()) {
            names.push(name.clone());
        }
    }
    let differs = |name: &String| {
        let mut values = runs.iter().filter_map(|run| run.value(name));
        values.next().is_some_and(|first| values.any(|value| value != first))
    };
    names.retain(differs);
    names
}
