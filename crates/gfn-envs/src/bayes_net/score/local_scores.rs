//! Files of local scores, as GOBNILP, Gadget and BiDAG exchange them (`.jkl`).

use std::collections::HashMap;
use std::str::FromStr;

use super::LocalScore;
use crate::bayes_net::file_error::FileError;
use crate::bayes_net::graph::{MAX_NODES, bit, nodes_of};

/// Scores that a file lists; sets it does not list are ruled out.
///
/// The file has the number of nodes; then for each node a line `name n_sets` and `n_sets` lines
/// `score n_parents parent …`. Parents go by name, or, where that is no name, by number from 0 in
/// the order of the file. Empty lines and those that start with `#` or `META` are skipped.
#[derive(Debug)]
pub struct LocalScores {
    names: Vec<String>,
    sets: Vec<HashMap<u64, f64>>,
    max_parents: usize,
}

/// A set as it stands in the file, before all names are known.
struct Set<'a> {
    line: u64,
    score: f64,
    parents: Vec<&'a str>,
}

const FORMAT: &str = "write the number of nodes; per node `name n_sets`, then one line \
                      `score n_parents parent ...` per set";

/// The lines that count, with their numbers and fields.
struct Lines<'a, I: Iterator<Item = (u64, &'a str)>> {
    lines: I,
    last: u64,
}

impl<'a, I: Iterator<Item = (u64, &'a str)>> Lines<'a, I> {
    fn next(&mut self, expected: &str) -> Result<(u64, Vec<&'a str>), FileError> {
        let cut = format!("ends after line {}, where {expected} is expected", self.last);
        let (line, text) = self.lines.next().ok_or_else(|| FileError::new(cut, FORMAT))?;
        self.last = line;
        Ok((line, text.split_whitespace().collect()))
    }
}

fn parse<T: FromStr>(text: Option<&&str>, what: &str, line: u64) -> Result<T, FileError> {
    text.and_then(|text| text.parse().ok()).ok_or_else(|| {
        let found = text.map_or("nothing".to_owned(), |text| format!("`{text}`"));
        FileError::new(format!("has {found} where {what} is expected"), FORMAT).on(line)
    })
}

/// What GOBNILP says about a file, and no node whose name begins so.
fn is_meta(line: &str) -> bool {
    line.split_whitespace().next() == Some("META")
}

impl LocalScores {
    /// Reads the text of a file.
    ///
    /// # Errors
    /// With its line: a file that ends early or goes on after its end, fields that are no numbers,
    /// parents that are no nodes, names or sets that occur twice, nodes without any set.
    pub fn parse(text: &str) -> Result<Self, FileError> {
        let text = text.trim_start_matches('\u{feff}');
        let counts = |line: &str| !(line.is_empty() || line.starts_with('#') || is_meta(line));
        let lines = (1..).zip(text.lines().map(str::trim)).filter(|(_, line)| counts(line));
        let mut lines = Lines { lines, last: 0 };
        let (line, fields) = lines.next("the number of nodes")?;
        let d: usize = parse(fields.first(), "the number of nodes", line)?;
        if !(1..=MAX_NODES).contains(&d) {
            let message = format!("has {d} nodes; expected 1 to {MAX_NODES}");
            return Err(FileError::new(message, "choose a smaller network").on(line));
        }
        let (mut names, mut listed) = (Vec::<String>::new(), Vec::new());
        for _ in 0..d {
            let (name, sets) = node(&mut lines)?;
            if names.contains(&name) {
                let message = format!("has two nodes named `{name}`");
                return Err(FileError::new(message, "name nodes apart").of(&name).on(lines.last));
            }
            names.push(name);
            listed.push(sets);
        }
        if let Some((line, _)) = lines.lines.next() {
            let message = format!("goes on after its {d} nodes");
            return Err(FileError::new(message, "correct the numbers of nodes and sets").on(line));
        }
        let sets = listed.iter().enumerate().map(|(i, sets)| resolve(i, sets, &names));
        let sets = sets.collect::<Result<Vec<_>, _>>()?;
        let sizes = listed.iter().flatten().map(|set| set.parents.len());
        Ok(Self { max_parents: sizes.max().unwrap_or(0), names, sets })
    }

    /// The same scores with the nodes in the order of `names`, which are all of them.
    ///
    /// # Panics
    /// When a name is not that of a node.
    #[must_use]
    pub fn in_order(mut self, names: &[String]) -> Self {
        let place = |name: &String| names.iter().position(|other| other == name);
        let places: Vec<usize> =
            self.names.iter().map(|name| place(name).expect("a node")).collect();
        let moved = |mask: u64| nodes_of(mask).fold(0, |all, node| all | bit(places[node]));
        let mut sets = vec![HashMap::new(); names.len()];
        for (old, &new) in self.sets.drain(..).zip(&places) {
            sets[new] = old.into_iter().map(|(mask, score)| (moved(mask), score)).collect();
        }
        Self { sets, names: names.to_vec(), max_parents: self.max_parents }
    }

    /// Names of the nodes, in the order of the file.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Number of sets that are listed for a node.
    pub fn n_sets(&self, node: usize) -> usize {
        self.sets[node].len()
    }

    /// The nodes that must have parents, because their empty set is not listed: then the empty
    /// graph is ruled out, which is worth telling.
    pub fn without_empty_set(&self) -> Vec<&str> {
        let without = |&i: &usize| !self.sets[i].contains_key(&0);
        (0..self.names.len()).filter(without).map(|i| self.names[i].as_str()).collect()
    }
}

/// One node's line and its sets.
fn node<'a>(
    lines: &mut Lines<'a, impl Iterator<Item = (u64, &'a str)>>,
) -> Result<(String, Vec<Set<'a>>), FileError> {
    let (line, fields) = lines.next("a node")?;
    let name = fields[0].to_owned();
    let n: usize = parse(fields.get(1), "the number of sets", line)?;
    if fields.len() > 2 {
        let message = format!("has `{}` after a node and its number of sets", fields[2]);
        return Err(FileError::new(message, FORMAT).of(&name).on(line));
    }
    if n == 0 {
        let message = format!("lists no set for the node `{name}`");
        return Err(FileError::new(message, "every node needs a set").of(&name).on(line));
    }
    let mut sets = Vec::new();
    for k in 1..=n {
        let (line, fields) = lines.next(&format!("set {k} of {n} of the node `{name}`"))?;
        let score: f64 = parse(fields.first(), "a score", line).map_err(|error| error.of(&name))?;
        if !score.is_finite() {
            let message = format!("has the score {score} for the node `{name}`");
            return Err(FileError::new(message, "leave impossible sets out").of(&name).on(line));
        }
        let n_parents: usize = parse(fields.get(1), "the number of parents", line)?;
        if fields.len() - 2 != n_parents {
            let found = fields.len() - 2;
            let message = format!("announces {n_parents} parents but lists {found}");
            return Err(FileError::new(message, FORMAT).of(&name).on(line));
        }
        sets.push(Set { line, score, parents: fields[2..].to_vec() });
    }
    Ok((name, sets))
}

/// The sets of node `i` as masks.
fn resolve(i: usize, sets: &[Set<'_>], names: &[String]) -> Result<HashMap<u64, f64>, FileError> {
    let mut scores = HashMap::with_capacity(sets.len());
    let own = &names[i];
    for set in sets {
        let wrong =
            |message: String, help: &str| Err(FileError::new(message, help).of(own).on(set.line));
        let mut mask = 0;
        for &parent in &set.parents {
            let by_name = names.iter().position(|name| name == parent);
            let number = || parent.parse().ok().filter(|&number| number < names.len());
            let Some(j) = by_name.or_else(number) else {
                let message = format!("has `{parent}` as a parent of `{own}`, which is no node");
                return wrong(message, &format!("the nodes are {}", names.join(", ")));
            };
            if j == i {
                return wrong(format!("has `{own}` as its own parent"), "take it out of the set");
            }
            if mask & bit(j) != 0 {
                return wrong(format!("has `{parent}` twice in a set"), "list parents once");
            }
            mask |= bit(j);
        }
        if scores.insert(mask, set.score).is_some() {
            let message = format!("lists a set of parents of `{own}` for the second time");
            return wrong(message, "keep one score per set");
        }
    }
    Ok(scores)
}

impl LocalScore for LocalScores {
    fn n_nodes(&self) -> usize {
        self.names.len()
    }

    fn score(&self, node: usize, parents: u64) -> f64 {
        self.sets[node].get(&parents).copied().unwrap_or(f64::NEG_INFINITY)
    }

    fn max_parents(&self) -> Option<usize> {
        Some(self.max_parents)
    }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "scores pass through unchanged")]
mod tests {
    use super::*;

    const FILE: &str = "# made by hand\r\nMETA score = BDeu\n3\nrain 2\n-10.5 0\n-9 1 wet\n\n\
                        sun 1\n-1e1 2 2 rain\nwet 3\n-7 0\n  -5.25\t2 rain sun\n-6 1 1\n";

    #[test]
    fn names_numbers_comments() {
        let scores = LocalScores::parse(FILE).unwrap();
        assert_eq!(scores.names(), ["rain", "sun", "wet"]);
        assert_eq!(scores.max_parents(), Some(2));
        assert_eq!(scores.without_empty_set(), ["sun"]);
        let expected = [
            (0, 0, -10.5),
            (0, 0b100, -9.0),
            (1, 0b101, -10.0),
            (2, 0, -7.0),
            (2, 0b011, -5.25),
            (2, 0b010, -6.0),
        ];
        for (node, parents, score) in expected {
            assert_eq!(scores.score(node, parents), score);
        }
        let scores = &scores;
        let listed = |node: usize| (0..8).filter(move |&set| scores.score(node, set).is_finite());
        let n: usize = (0..3).map(|node| listed(node).count()).sum();
        assert_eq!(n, expected.len());
        assert_eq!(scores.n_sets(2), 3);
    }

    /// In files of GOBNILP numbers are names.
    #[test]
    fn a_number_that_is_a_name_is_the_name() {
        let scores = LocalScores::parse("2\n1 1\n-1 0\n0 2\n-1 0\n-2 1 1\n").unwrap();
        assert_eq!(scores.score(1, 0b01), -2.0);
    }

    #[test]
    fn every_cut_is_noticed() {
        let lines: Vec<&str> = FILE.lines().collect();
        for n in 0..lines.len() {
            let error = LocalScores::parse(&lines[..n].join("\n")).unwrap_err();
            assert!(error.message.contains("ends after line"), "{n}: {error}");
        }
    }

    #[test]
    fn refusals_name_the_line() {
        let cases = [
            ("2\na 1\n-1 0\nb 1\n-1 1 c\n", 5, "`c` as a parent"),
            ("2\na 1\n-1 0\nb 1\n-1 1 b\n", 5, "its own parent"),
            ("2\na 1\n-1 0\nb 2\n-1 0\n-2 0\n", 6, "second time"),
            ("3\na 1\n-1 0\nc 1\n-1 0\nb 1\n-1 2 a a\n", 7, "twice in a set"),
            ("2\na 1\n-1 0\na 1\n-1 0\n", 5, "two nodes named `a`"),
            ("2\na 1\nx 0\nb 1\n-1 0\n", 3, "`x` where a score"),
            ("2\na 1\n-inf 0\nb 1\n-1 0\n", 3, "score -inf"),
            ("2\na 1\n-1 1\nb 1\n-1 0\n", 3, "announces 1 parents but lists 0"),
            ("2\na 1\n-1\nb 1\n-1 0\n", 3, "nothing where the number of parents"),
            ("2\na\n-1 0\n", 2, "nothing where the number of sets"),
            ("2\na 0\nb 1\n-1 0\n", 2, "no set for the node `a`"),
            ("1\na 1\n-1 0\nb 1\n-1 0\n", 4, "goes on after its 1 nodes"),
            ("nodes\n", 1, "`nodes` where the number of nodes"),
            ("65\n", 1, "65 nodes"),
        ];
        for (text, line, message) in cases {
            let error = LocalScores::parse(text).unwrap_err();
            assert_eq!(error.line, Some(line), "{error}");
            assert!(error.message.contains(message), "{error}");
        }
    }
}
