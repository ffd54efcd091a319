//! The BDeu score of discrete data: multinomials with Dirichlet priors that share a sample size.

use std::collections::HashMap;

use gfn_core::KeyError;
use gfn_core::special::ln_gamma;

use super::{LocalScore, wrong_kind};
use crate::bayes_net::data::{Columns, Table};
use crate::bayes_net::graph::nodes_of;

/// Buntine (1991), Heckerman et al. (1995): every configuration of q parents' states has the prior
/// count ess / q, every state of r in it ess / (q r). Equal for all DAGs of a Markov class where no
/// node was intervened on.
pub struct Bde {
    ess: f64,
    /// Number of states and state per row of each node.
    columns: Vec<(usize, Vec<u32>)>,
    /// Rows that tell about a node; one list per node if there are interventions, else one.
    rows: Vec<Vec<usize>>,
}

impl Bde {
    /// The score of `table` with the equivalent sample size `ess` (customary: 1).
    ///
    /// # Errors
    /// When the table is continuous, or `ess` not above 0.
    pub fn new(table: &Table, ess: f64) -> Result<Self, KeyError> {
        let Columns::Discrete(columns) = &table.columns else {
            return Err(wrong_kind("bde", "discrete"));
        };
        if !(ess > 0.0 && ess.is_finite()) {
            let message = "the equivalent sample size must be above 0";
            return Err(KeyError::new("ess", message).help("customary: 1"));
        }
        let all = if table.intervened_nodes() == 0 { 1 } else { table.n_nodes() };
        let columns =
            columns.iter().map(|column| (column.states.len(), column.values.clone())).collect();
        Ok(Self { ess, columns, rows: (0..all).map(|i| table.rows_for(i)).collect() })
    }
}

impl LocalScore for Bde {
    fn n_nodes(&self) -> usize {
        self.columns.len()
    }

    fn score(&self, node: usize, parents: u64) -> f64 {
        let rows = self.rows.get(node).unwrap_or(&self.rows[0]);
        let mut codes = vec![0u64; rows.len()];
        // As a number, q overflows; only the configurations that occur are ever counted.
        let (mut q, mut n_codes) = (1.0, 1);
        for parent in nodes_of(parents) {
            let (r, values) = &self.columns[parent];
            q *= *r as f64;
            n_codes *= *r as u64;
            for (code, &row) in codes.iter_mut().zip(rows) {
                *code = *code * *r as u64 + u64::from(values[row]);
            }
            if n_codes > 4 * rows.len() as u64 {
                n_codes = renumber(&mut codes);
            }
        }
        let (r, values) = &self.columns[node];
        // No more than rows times states, whatever the number of configurations.
        if n_codes > rows.len() as u64 {
            n_codes = renumber(&mut codes);
        }
        let mut counts = vec![0u32; n_codes as usize * r];
        for (&code, &row) in codes.iter().zip(rows) {
            counts[code as usize * r + values[row] as usize] += 1;
        }
        let (alpha, beta) = (self.ess / q, self.ess / (q * *r as f64));
        let (log_alpha, log_beta) = (ln_gamma(alpha), ln_gamma(beta));
        let mut total = 0.0;
        for counts in counts.chunks_exact(*r) {
            let n: u32 = counts.iter().sum();
            if n > 0 {
                total += log_alpha - ln_gamma(f64::from(n) + alpha);
                let some = counts.iter().filter(|&&n| n > 0);
                total += some.map(|&n| ln_gamma(f64::from(n) + beta) - log_beta).sum::<f64>();
            }
        }
        total
    }
}

/// Numbers the distinct codes from 0 in the order of their appearance; returns how many there are.
fn renumber(codes: &mut [u64]) -> u64 {
    let mut numbers = HashMap::new();
    for code in codes {
        let next = numbers.len() as u64;
        *code = *numbers.entry(*code).or_insert(next);
    }
    numbers.len() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bayes_net::data::DataKind;

    const ROWS: &str = "A,B,C,D,INT\nx,0,u,0,0\ny,1,v,1,0\nx,2,u,1,3\nx,0,v,0,0\ny,2,u,1,0\n\
                        x,0,u,0,C\ny,1,v,0,0\nx,1,u,1,0\n";

    fn table() -> Table {
        Table::parse(ROWS.as_bytes(), DataKind::Discrete, Some("INT")).unwrap()
    }

    /// The product over rows of the predictive probability given the rows before.
    fn sequential(table: &Table, ess: f64, node: usize, parents: u64) -> f64 {
        let Columns::Discrete(columns) = &table.columns else { panic!("discrete") };
        let q: usize = nodes_of(parents).map(|j| columns[j].states.len()).product();
        let r = columns[node].states.len();
        let configuration = |row: usize| -> Vec<u32> {
            nodes_of(parents).map(|j| columns[j].values[row]).collect()
        };
        let (mut total, rows) = (0.0, table.rows_for(node));
        for (k, &row) in rows.iter().enumerate() {
            let alike: Vec<usize> = rows[..k]
                .iter()
                .copied()
                .filter(|&before| configuration(before) == configuration(row))
                .collect();
            let same =
                |&&before: &&usize| columns[node].values[before] == columns[node].values[row];
            let hits = alike.iter().filter(same).count() as f64;
            total += ((hits + ess / (q * r) as f64) / (alike.len() as f64 + ess / q as f64)).ln();
        }
        total
    }

    #[test]
    fn scores_are_products_of_predictive_probabilities() {
        let table = table();
        for ess in [1.0, 0.01, 10.0] {
            let bde = Bde::new(&table, ess).unwrap();
            for node in 0..4 {
                for parents in (0..16).filter(|mask| mask >> node & 1 == 0) {
                    let expected = sequential(&table, ess, node, parents);
                    let got = bde.score(node, parents);
                    assert!((got - expected).abs() < 1e-10, "{node} {parents}: {got} {expected}");
                }
            }
        }
    }

    /// Sixty parents have more configurations than 64 bits number.
    #[test]
    fn many_parents_are_counted_by_what_occurs() {
        let names: Vec<String> = (0..61).map(|i| format!("X{i}")).collect();
        let row = |state: char| vec![state.to_string(); 61].join(",");
        let rows = ['a', 'b', 'a', 'c'].map(row).join("\n");
        let text = format!("{}\n{rows}\n", names.join(","));
        let table = Table::parse(text.as_bytes(), DataKind::Discrete, None).unwrap();
        let bde = Bde::new(&table, 1.0).unwrap();
        // Three new configurations predict 1/3 each; the repeated one is certain by then.
        let got = bde.score(60, (1 << 60) - 1);
        assert!((got + 3.0 * 3f64.ln()).abs() < 1e-9, "{got}");
    }

    #[test]
    fn settings_out_of_range_are_refused() {
        assert_eq!(Bde::new(&table(), 0.0).err().unwrap().key.unwrap(), "ess");
        let numbers = Table::parse(b"A,B\n1,2\n2,3\n", DataKind::Continuous, None).unwrap();
        assert!(Bde::new(&numbers, 1.0).err().unwrap().message.contains("discrete"));
    }
}
