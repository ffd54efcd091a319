//! Two small worlds, and what a network says of one of their states at a time, for tests that compute losses
//! by plain loops.

use gfn_cli::Experiment;
use gfn_core::learn::engine::{Ask, Readout, Rows, Values};
use gfn_core::learn::head::Head;
use gfn_core::{Environment, States};

pub const GRID: &str = "[env]\nkind = 'hypergrid'\ndim = 2\nside = 4\n";

/// Strings that grow at both ends: objects have several parents.
pub fn strings(dir: &std::path::Path) -> String {
    let path = dir.join("table.csv");
    let objects = "AAA,1\nAAC,.01\nACA,3\nACC,.4\nCAA,2\nCAC,.02\nCCA,.05\nCCC,4\n";
    std::fs::write(&path, format!("object,value\n{objects}")).unwrap();
    format!(
        "[env]\nkind = 'sequence'\nlength = 3\nsymbols = ['A', 'C']\nbuild = 'prepend_append'\n\
         [reward]\nkind = 'table'\npath = '{}'\n",
        path.display()
    )
}

pub fn log_sum_exp(xs: impl Iterator<Item = f64> + Clone) -> f64 {
    let max = xs.clone().fold(f64::NEG_INFINITY, f64::max);
    max + xs.map(|x| (x - max).exp()).sum::<f64>().ln()
}

pub fn one(row: &[i32]) -> States {
    let mut states = States::new(row.len());
    states.push(row);
    states
}

/// Which actions are legal, forwards or, for P_B, backwards.
pub fn mask(env: &dyn Environment, head: Head, row: &[i32]) -> Vec<bool> {
    let (space, backward) = (env.space(), head == Head::BACKWARD);
    let mut mask = vec![false; if backward { space.n_back_actions } else { space.n_actions }];
    if backward {
        env.legal_back(row, &mut mask)
    } else {
        env.legal(row, &mut mask)
    }
    mask
}

pub fn logits(e: &Experiment, head: Head, values: Values, row: &[i32]) -> Vec<f64> {
    let mut out = vec![0.0f32; mask(&*e.env, head, row).len()];
    let ask = Ask { values, head, record: None };
    e.trainer.engine().logits(ask, &*e.env, &one(row), &mut out);
    out.into_iter().map(f64::from).collect()
}

/// log Σ exp over the legal ones.
pub fn log_norm(logits: &[f64], mask: &[bool]) -> f64 {
    log_sum_exp(logits.iter().zip(mask).filter(|(_, legal)| **legal).map(|(logit, _)| *logit))
}

pub fn log_prob(e: &Experiment, head: Head, values: Values, row: &[i32], action: u32) -> f64 {
    let logits = logits(e, head, values, row);
    logits[action as usize] - log_norm(&logits, &mask(&*e.env, head, row))
}

/// A scalar of a state; NaN if the model has no such head.
pub fn scalar(e: &mut Experiment, head: Head, values: Values, row: &[i32]) -> f64 {
    if !e.trainer.parts().plan.heads.contains(&head) {
        return f64::NAN;
    }
    let env = e.env.clone();
    let engine = e.trainer.engine_mut();
    let pass = engine.evaluate(&*env, &Rows::new(one(row)), &[head], values, None);
    let value = engine.read(pass, head, &Readout::Scalar)[0];
    engine.forget();
    value
}
