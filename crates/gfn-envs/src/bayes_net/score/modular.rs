//! A score with a prior and constraints: the log reward of a graph as a sum over its nodes.

use std::sync::Arc;

use gfn_core::KeyError;

use super::LocalScore;
use super::prior::{EdgePrior, Prior};
use crate::bayes_net::graph::{MAX_NODES, all_nodes, bit, is_acyclic, nodes_of};

/// Which graphs are allowed. Masks of parents, one per node; empty for none.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Constraints {
    /// Edges that every graph has.
    pub required: Vec<u64>,
    /// Edges that no graph has.
    pub forbidden: Vec<u64>,
    /// The most parents a node may have.
    pub max_parents: Option<usize>,
}

impl Constraints {
    /// Forbids edges from a node of a higher tier to one of a lower, as from effects to what
    /// happened before.
    #[must_use]
    pub fn with_tiers(mut self, tiers: &[usize]) -> Self {
        self.forbidden.resize(tiers.len(), 0);
        for (mask, own) in self.forbidden.iter_mut().zip(tiers) {
            let later = (0..tiers.len()).filter(|&j| tiers[j] > *own);
            *mask |= later.fold(0, |mask, j| mask | bit(j));
        }
        self
    }

    /// The masks for `d` nodes, after a check that some graph satisfies them; `names` is what
    /// messages call a node. The keys of errors are `required` and `forbidden`.
    ///
    /// # Errors
    /// When an edge leads out of the network, is both required and forbidden, or lies on a cycle
    /// of required edges; when a node has more required parents than it may have parents.
    pub fn checked(mut self, d: usize, names: impl Fn(usize) -> String) -> Result<Self, KeyError> {
        for (key, masks) in [("required", &mut self.required), ("forbidden", &mut self.forbidden)] {
            if masks.is_empty() {
                masks.resize(d, 0);
            }
            let fits = |(i, mask): (usize, &u64)| mask & !(all_nodes(d) & !bit(i)) == 0;
            if masks.len() != d || !masks.iter().enumerate().all(fits) {
                let message = format!("the edges do not lie between two of {d} nodes");
                return Err(KeyError::new(key, message));
            }
        }
        let limit = self.max_parents.unwrap_or(d);
        for i in 0..d {
            if let Some(j) = nodes_of(self.required[i] & self.forbidden[i]).next() {
                let edge = format!("{} -> {}", names(j), names(i));
                let message = format!("the edge {edge} is both required and forbidden");
                return Err(KeyError::new("required", message).help("drop one of the two"));
            }
            let n = self.required[i].count_ones() as usize;
            if n > limit {
                let message = format!(
                    "{} has {n} required parents, but at most {limit} are allowed",
                    names(i)
                );
                return Err(KeyError::new("required", message).help("raise the limit on parents"));
            }
        }
        if !is_acyclic(&self.required) {
            let message = "the required edges form a cycle";
            return Err(KeyError::new("required", message).help("drop or reverse one of them"));
        }
        Ok(self)
    }
}

/// `beta` (score + log prior), with constraints.
///
/// Cheap to clone; put [`Cached`](super::cache::Cached) around a score that is expensive.
#[derive(Clone)]
pub struct Modular {
    score: Arc<dyn LocalScore>,
    by_size: Vec<f64>,
    edges: Option<EdgePrior>,
    beta: f64,
    constraints: Constraints,
    base_locals: Vec<f64>,
}

impl Modular {
    /// The score alone.
    ///
    /// # Errors
    /// When the score has no nodes or more than 64.
    pub fn of(score: Arc<dyn LocalScore>) -> Result<Self, KeyError> {
        Self::new(score, Prior::Uniform, None, 1.0, Constraints::default())
    }

    /// All parts; `beta` is the inverse temperature of the whole posterior.
    ///
    /// # Errors
    /// When a parameter is out of range, sizes differ, or no graph satisfies the constraints.
    pub fn new(
        score: Arc<dyn LocalScore>,
        prior: Prior,
        edges: Option<EdgePrior>,
        beta: f64,
        constraints: Constraints,
    ) -> Result<Self, KeyError> {
        let d = score.n_nodes();
        if !(1..=MAX_NODES).contains(&d) {
            return Err(KeyError::part(format!("{d} nodes; expected 1 to {MAX_NODES}")));
        }
        if let Some(n) = edges.as_ref().map(EdgePrior::n_nodes).filter(|&n| n != d) {
            let message = format!("the matrix is for {n} nodes, not {d}");
            return Err(KeyError::new("edge_probabilities", message));
        }
        if !(beta > 0.0 && beta.is_finite()) {
            let message = "the inverse temperature must be above 0";
            return Err(KeyError::new("beta", message).help("1 for the posterior itself"));
        }
        let constraints = constraints.checked(d, |i| format!("node {i}"))?;
        let by_size = prior.by_size(d)?;
        let base_locals = Vec::new();
        let mut modular = Self { score, by_size, edges, beta, constraints, base_locals };
        modular.base_locals = (0..d)
            .map(|i| modular.local(i, modular.constraints.required[i]))
            .map(|local| if local.is_finite() { local } else { 0.0 })
            .collect();
        Ok(modular)
    }

    /// Number of nodes.
    pub fn n_nodes(&self) -> usize {
        self.by_size.len()
    }

    /// The graph with the required edges only, whose log reward is 0: the empty graph if there
    /// are none.
    pub fn base(&self) -> &[u64] {
        &self.constraints.required
    }

    /// The constraints, with all masks filled in.
    pub fn constraints(&self) -> &Constraints {
        &self.constraints
    }

    /// The most parents a node may have, by the constraints and the score.
    pub fn max_parents(&self) -> usize {
        let most = self.n_nodes() - 1;
        let limits = [self.constraints.max_parents, self.score.max_parents()];
        limits.into_iter().flatten().fold(most, usize::min)
    }

    /// The edges into `node` that some graph may have.
    pub fn allowed(&self, node: usize) -> u64 {
        all_nodes(self.n_nodes()) & !bit(node) & !self.constraints.forbidden[node]
    }

    /// The term of a node with these parents; -infinity where they are not allowed.
    pub fn local(&self, node: usize, parents: u64) -> f64 {
        let n = parents.count_ones() as usize;
        let required = self.constraints.required[node];
        if required & !parents != 0
            || parents & self.constraints.forbidden[node] != 0
            || n > self.constraints.max_parents.unwrap_or(n)
        {
            return f64::NEG_INFINITY;
        }
        let edges = self.edges.as_ref().map_or(0.0, |edges| edges.log(node, parents));
        if edges == f64::NEG_INFINITY {
            return edges;
        }
        self.beta * (self.score.score(node, parents) + self.by_size[n] + edges)
    }

    /// [`local`](Self::local) relative to the node's parents in the [base graph](Self::base); as
    /// it stands where the score rules those out.
    pub fn relative(&self, node: usize, parents: u64) -> f64 {
        self.local(node, parents) - self.base_locals[node]
    }

    /// log R(G) relative to the [base graph](Self::base); the graph has to be acyclic.
    pub fn log_reward(&self, parents: &[u64]) -> f64 {
        parents.iter().enumerate().map(|(node, &parents)| self.relative(node, parents)).sum()
    }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "terms without rounding")]
mod tests {
    use super::*;
    use crate::bayes_net::graph::for_each_dag;

    struct Sums;

    impl LocalScore for Sums {
        fn n_nodes(&self) -> usize {
            4
        }

        fn score(&self, node: usize, parents: u64) -> f64 {
            if parents == 0b1000 {
                f64::NEG_INFINITY
            } else {
                -100.0 + (node as u64 * parents) as f64
            }
        }
    }

    fn modular(constraints: Constraints) -> Result<Modular, KeyError> {
        Modular::new(Arc::new(Sums), Prior::Uniform, None, 1.0, constraints)
    }

    #[test]
    fn parts_add_up() {
        let mut probabilities = vec![vec![0.5; 4]; 4];
        probabilities[0][2] = 0.9;
        probabilities[3][2] = 0.0;
        let edges = EdgePrior::new(&probabilities).unwrap();
        let prior = Prior::EdgePenalty { beta: 0.1 };
        let constraints = Constraints::default();
        let modular = Modular::new(Arc::new(Sums), prior, Some(edges), 0.5, constraints).unwrap();
        let expected = 0.5 * (-100.0 + 6.0 + 2.0 * 0.1f64.ln() + 9f64.ln());
        assert!((modular.local(2, 0b0011) - expected).abs() < 1e-12);
        assert!((modular.relative(2, 0b0011) - expected - 50.0).abs() < 1e-12);
        assert_eq!(modular.local(2, 0b1001), f64::NEG_INFINITY);
        assert_eq!(modular.log_reward(&[0; 4]), 0.0);
        assert!(
            (modular.log_reward(&[0, 1, 3, 0]) - 0.5 * (1.0 + 6.0 + 3.0 * 0.1f64.ln() + 9f64.ln()))
                .abs()
                < 1e-12
        );
    }

    #[test]
    fn exactly_the_allowed_graphs_have_a_reward() {
        let constraints = Constraints {
            required: vec![0, 0b0001, 0, 0],
            forbidden: vec![0, 0, 0b0010, 0],
            max_parents: Some(2),
        };
        let modular = modular(constraints.with_tiers(&[0, 0, 0, 1])).unwrap();
        assert_eq!(modular.base(), [0, 1, 0, 0]);
        assert_eq!((modular.max_parents(), modular.allowed(2)), (2, 0b0001));
        let mut n = 0;
        for_each_dag(4, |dag| {
            let edge = |j: usize, i: usize| dag[i] >> j & 1 == 1;
            let allowed = edge(0, 1)
                && !edge(1, 2)
                && (0..3).all(|i| !edge(3, i))
                && dag.iter().all(|mask| mask.count_ones() <= 2);
            assert_eq!(modular.log_reward(dag).is_finite(), allowed, "{dag:?}");
            n += usize::from(allowed);
        });
        assert!(n > 10);
    }

    #[test]
    fn impossible_constraints_are_refused() {
        let refused = |constraints, text: &str| {
            let error = modular(constraints).err().unwrap();
            assert!(error.message.contains(text), "{error}");
        };
        let required = |required: [u64; 4]| Constraints {
            required: required.to_vec(),
            ..Constraints::default()
        };
        refused(required([2, 1, 0, 0]), "cycle");
        refused(required([1, 0, 0, 0]), "between two of 4 nodes");
        refused(required([16, 0, 0, 0]), "between two of 4 nodes");
        let full = Constraints { max_parents: Some(1), ..required([0, 0, 3, 0]) };
        refused(full, "node 2 has 2 required parents");
        refused(required([0, 8, 0, 0]).with_tiers(&[0, 0, 0, 1]), "node 3 -> node 1 is both");
        let beta =
            |beta| Modular::new(Arc::new(Sums), Prior::Uniform, None, beta, Constraints::default());
        assert!(beta(0.0).is_err() && beta(f64::INFINITY).is_err() && beta(2.0).is_ok());
    }
}
