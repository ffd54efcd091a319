//! Many graphs in one: how often each edge occurs, as tables and as the graph of the frequent ones.

use std::fmt::Write;

use gfn_core::States;

use super::drawing::{self, Arc};
use super::{Dag, bits};
use crate::bayes_net::graph::{add_to_ancestors, closes_cycle};

/// Pairs of nodes that are joined more often than this make the averaged graph.
const THRESHOLD: f64 = 0.5;

/// Frequencies of edges among graphs, by their nodes' names.
pub(super) struct Summary<'a> {
    names: &'a [String],
    /// Row i, column j: i -> j.
    edges: Vec<Vec<f64>>,
}

impl<'a> Summary<'a> {
    pub(super) fn new(dag: &'a Dag, objects: &States) -> Self {
        let d = dag.n_nodes();
        let mut counts = vec![vec![0u64; d]; d];
        for row in objects.rows() {
            for (j, parents) in dag.parents_of(row).enumerate() {
                bits(parents).for_each(|i| counts[i][j] += 1);
            }
        }
        let n = objects.len().max(1) as f64;
        let edges = counts.iter().map(|row| row.iter().map(|&count| count as f64 / n).collect());
        Self { names: dag.names(), edges: edges.collect() }
    }

    /// Names and texts of all files.
    pub(super) fn files(&self) -> Vec<(&'static str, String)> {
        let (arcs, left_out) = self.averaged();
        vec![
            ("edges.csv", self.matrix()),
            ("arcs.csv", self.arcs()),
            ("graph.dot", self.dot(&arcs, &left_out)),
            ("graph.svg", drawing::svg(self.names, &arcs)),
        ]
    }

    /// P(i -> j) with names in the header and in the first column.
    fn matrix(&self) -> String {
        let mut text = String::new();
        self.names.iter().for_each(|name| write!(text, ",{}", csv(name)).expect("memory"));
        for (name, row) in self.names.iter().zip(&self.edges) {
            write!(text, "\n{}", csv(name)).expect("memory");
            row.iter().for_each(|p| write!(text, ",{p}").expect("memory"));
        }
        text + "\n"
    }

    fn strength(&self, i: usize, j: usize) -> f64 {
        self.edges[i][j] + self.edges[j][i]
    }

    /// All ordered pairs as bnlearn has them: strength P(edge in either direction), direction P(this
    /// way | edge).
    fn arcs(&self) -> String {
        let mut text = "from,to,strength,direction\n".to_owned();
        for (i, from) in self.names.iter().enumerate() {
            for (j, to) in self.names.iter().enumerate().filter(|&(j, _)| j != i) {
                let strength = self.strength(i, j);
                let direction = if strength > 0.0 { self.edges[i][j] / strength } else { 0.0 };
                let (from, to) = (csv(from), csv(to));
                writeln!(text, "{from},{to},{strength},{direction}").expect("memory");
            }
        }
        text
    }

    /// The averaged graph: pairs above the threshold in the direction that is more frequent, the
    /// strongest first; and those left out, since they would close a cycle.
    fn averaged(&self) -> (Vec<Arc>, Vec<Arc>) {
        let d = self.names.len();
        let pairs = (0..d).flat_map(|i| (i + 1..d).map(move |j| (i, j)));
        let mut arcs: Vec<Arc> = pairs
            .map(|(i, j)| {
                let (from, to) = if self.edges[j][i] > self.edges[i][j] { (j, i) } else { (i, j) };
                Arc { from, to, strength: self.strength(i, j) }
            })
            .filter(|arc| arc.strength > THRESHOLD)
            .collect();
        // Of pairs of one strength, those whose direction is clearer come first.
        let clear = |arc: &Arc| self.edges[arc.from][arc.to];
        arcs.sort_by(|a, b| b.strength.total_cmp(&a.strength).then(clear(b).total_cmp(&clear(a))));
        let mut ancestors = vec![0; d];
        arcs.into_iter().partition(|arc| {
            let fits = !closes_cycle(&ancestors, arc.from, arc.to);
            if fits {
                add_to_ancestors(&mut ancestors, arc.from, arc.to);
            }
            fits
        })
    }

    fn dot(&self, arcs: &[Arc], left_out: &[Arc]) -> String {
        let name = |node: usize| dot(&self.names[node]);
        let mut text = format!(
            "// Pairs joined in more than {THRESHOLD} of the samples, each in its more frequent \
             direction.\ndigraph {{\n"
        );
        for node in 0..self.names.len() {
            writeln!(text, "  {};", name(node)).expect("memory");
        }
        for arc in arcs {
            let Arc { from, to, strength } = *arc;
            let width = 1.0 + 2.0 * strength;
            writeln!(
                text,
                "  {} -> {} [label=\"{strength:.2}\", penwidth={width:.2}];",
                name(from),
                name(to)
            )
            .expect("memory");
        }
        for Arc { from, to, strength } in left_out {
            let (from, to) = (name(*from), name(*to));
            writeln!(text, "  // left out, would close a cycle: {from} -> {to}, {strength:.2}")
                .expect("memory");
        }
        text + "}\n"
    }
}

/// A field of a CSV file. Names have no commas and no white space.
fn csv(name: &str) -> String {
    if name.contains('"') { format!("\"{}\"", name.replace('"', "\"\"")) } else { name.to_owned() }
}

/// A quoted string of DOT.
fn dot(name: &str) -> String {
    format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(names: &str, graphs: &[(&str, usize)]) -> Vec<(&'static str, String)> {
        let dag = Dag::new(&toml::from_str(names).unwrap()).unwrap();
        let mut objects = States::new(gfn_core::Environment::space(&dag).width);
        for (graph, count) in graphs {
            let row = gfn_core::Environment::parse(&dag, graph).unwrap();
            (0..*count).for_each(|_| objects.push(&row));
        }
        Summary::new(&dag, &objects).files()
    }

    fn file<'a>(files: &'a [(&str, String)], name: &str) -> &'a str {
        &files.iter().find(|file| file.0 == name).unwrap().1
    }

    #[test]
    fn tables_by_hand() {
        let graphs = [("A->B B->C", 2), ("B->A", 1), ("-", 1)];
        let files = summary("nodes = 3", &graphs);
        assert_eq!(file(&files, "edges.csv"), ",A,B,C\nA,0,0.5,0\nB,0.25,0,0.5\nC,0,0,0\n");
        assert_eq!(
            file(&files, "arcs.csv"),
            "from,to,strength,direction\nA,B,0.75,0.6666666666666666\nA,C,0,0\n\
             B,A,0.75,0.3333333333333333\nB,C,0.5,1\nC,A,0,0\nC,B,0.5,0\n"
        );
        let dot = file(&files, "graph.dot");
        assert!(dot.contains("  \"A\" -> \"B\" [label=\"0.75\", penwidth=2.50];\n"), "{dot}");
        assert!(!dot.contains("\"C\" ["), "half is not above the threshold: {dot}");
    }

    /// Each of three graphs has two edges of a cycle: all three pairs are frequent.
    #[test]
    fn averages_of_acyclic_graphs_are_acyclic() {
        let graphs = [("A->B B->C", 3), ("B->C C->A", 2), ("C->A A->B", 2)];
        let files = summary("nodes = 3", &graphs);
        let dot = file(&files, "graph.dot");
        for line in ["\"A\" -> \"B\" [", "\"B\" -> \"C\" [", "cycle: \"C\" -> \"A\", 0.57"] {
            assert!(dot.contains(line), "{line}: {dot}");
        }
        assert!(!dot.contains("\"C\" -> \"A\" ["));
    }

    #[test]
    fn names_are_escaped() {
        let files = summary("names = ['a\"b', 'c\\d', '<e&f>']", &[("a\"b->c\\d a\"b-><e&f>", 1)]);
        assert!(
            file(&files, "edges.csv").starts_with(",\"a\"\"b\",c\\d,<e&f>\n\"a\"\"b\",0,1,1\n")
        );
        assert!(file(&files, "arcs.csv").contains("\n\"a\"\"b\",c\\d,1,1\n"));
        assert!(file(&files, "graph.dot").contains("  \"a\\\"b\" -> \"c\\\\d\" ["));
        let svg = file(&files, "graph.svg");
        assert!(
            svg.contains(">&lt;e&amp;f&gt;</text>") && svg.contains(">a&quot;b</text>"),
            "{svg}"
        );
    }
}
