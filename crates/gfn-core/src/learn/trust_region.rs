//! Steps of P_F in a trust region (Schulman et al. 2015, arXiv:1502.05477): natural gradients without second
//! derivatives of the engine.

use std::sync::OnceLock;

use super::batch::{Batch, End};
use super::differentiated::{Differentiated, Made};
use super::expr::Var;
use super::head::{Head, TRUNK};
use super::view::{BatchView, Loss};

/// The copy of the policy that an iteration has begun with: where the region has its centre.
pub(super) const OLD_POLICY: &str = "old_policy";

/// How far and how a step goes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TrustRegion {
    /// Bound on the mean over states of KL(P_old(·|s) ‖ P_F(·|s)), in nats.
    pub delta: f64,
    /// Multiple of the identity that is added to the second derivatives of that.
    pub damping: f64,
    /// Steps of the conjugate gradient method.
    pub iterations: usize,
    /// How often a step may be halved before it is given up.
    pub backtracks: usize,
}

/// The mean over the states of transitions of KL(P_old(·|s) ‖ P_F(·|s)), over all actions.
#[derive(Default)]
struct Divergence {
    /// log P_old of all actions, once it is known.
    old: OnceLock<Vec<f64>>,
}

impl Loss for Divergence {
    fn loss<'t>(&self, batch: &BatchView<'_, 't>) -> Var<'t> {
        let of_old = || batch.copy(OLD_POLICY).log_pf_of_all(End::From).value().to_vec();
        let old = batch.constant(self.old.get_or_init(of_old).clone());
        let new = batch.log_pf_of_all(End::From);
        (old.exp() * (old - new)).sum() * (1.0 / batch.batch.len() as f64)
    }
}

/// The parameters of P_F, as one vector.
struct Policy<'a, 'e> {
    of: &'a mut Differentiated<'e>,
    batch: &'a Batch,
    divergence: Divergence,
    /// Which parameters of the model, with their lengths.
    params: Vec<(usize, usize)>,
}

const GROUPS: [&str; 2] = [TRUNK, Head::FORWARD.name];

impl Policy<'_, '_> {
    fn values(&self) -> Vec<f64> {
        let engine = &*self.of.engine;
        self.params.iter().flat_map(|&(i, _)| engine.value(i)).map(f64::from).collect()
    }

    fn set(&mut self, values: &[f64]) {
        let mut rest = values;
        for &(i, n) in &self.params {
            let (own, after) = rest.split_at(n);
            self.of.engine.set_value(i, own.iter().map(|&value| value as f32).collect());
            rest = after;
        }
    }

    /// The gradient that stays with the engine.
    fn gradient(&self) -> Vec<f64> {
        let of =
            |&(i, n): &(usize, usize)| self.of.engine.gradient(i).unwrap_or_else(|| vec![0.0; n]);
        self.params.iter().flat_map(of).map(f64::from).collect()
    }

    fn gradient_of_divergence(&mut self, at: &[f64]) -> Vec<f64> {
        self.set(at);
        self.of.gradients(&self.divergence, self.batch, &GROUPS, None);
        self.gradient()
    }

    /// H v at `center`, by a central difference of the divergence's gradient: exact up to third derivatives, on
    /// any engine. The parameters move by a thousandth of their norm, where numbers in single precision
    /// still tell gradients apart.
    fn curvature_times(&mut self, center: &[f64], v: &[f64]) -> Vec<f64> {
        let h = 1e-3 * norm(center).max(1.0) / norm(v);
        let [above, below] = [h, -h].map(|h| self.gradient_of_divergence(&moved(center, v, h)));
        above.iter().zip(below).map(|(above, below)| (above - below) / (2.0 * h)).collect()
    }

    /// x with (H + damping) x = g, by conjugate gradients from 0.
    fn solve(&mut self, region: TrustRegion, center: &[f64], g: &[f64]) -> Vec<f64> {
        let (mut x, mut residual) = (vec![0.0; g.len()], g.to_vec());
        let mut direction = residual.clone();
        let mut squared = dot(&residual, &residual);
        let enough = 1e-10 * squared;
        for _ in 0..region.iterations {
            if squared <= enough {
                break;
            }
            let mut image = self.curvature_times(center, &direction);
            add(&mut image, &direction, region.damping);
            let curvature = dot(&direction, &image);
            // Rounding may leave none in a direction that the policy does not depend on.
            if !(curvature > 0.0 && curvature.is_finite()) {
                break;
            }
            let length = squared / curvature;
            add(&mut x, &direction, length);
            add(&mut residual, &image, -length);
            let next = dot(&residual, &residual);
            direction.iter_mut().zip(&residual).for_each(|(d, r)| *d = r + next / squared * *d);
            squared = next;
        }
        x
    }
}

impl TrustRegion {
    /// A region in which steps are as much shorter as a rate of learning has become smaller: a step has the
    /// same length however small its gradient is.
    pub(super) fn shrunk(self, factor: f64) -> Self {
        Self { delta: self.delta * factor * factor, ..self }
    }

    /// Makes a step against the gradient of a loss, or none where no length of it stays within the region and
    /// lowers the loss. Leaves the gradient's norm and the loss before it.
    pub(super) fn step(
        self,
        of: &mut Differentiated<'_>,
        (loss, groups): (&dyn Loss, &[&'static str]),
        batch: &Batch,
    ) -> Made {
        let made = of.gradients(loss, batch, groups, None);
        let infos = of.engine.params().iter().enumerate();
        let policy = infos.filter(|(_, info)| GROUPS.contains(&&*info.group));
        let params = policy.map(|(i, info)| (i, info.shape[0] * info.shape[1])).collect();
        let mut policy = Policy { of, batch, divergence: Divergence::default(), params };
        let (center, g) = (policy.values(), policy.gradient());
        if !(made.loss.is_finite() && norm(&g) > 0.0 && norm(&g).is_finite()) {
            return made;
        }
        let x = policy.solve(self, &center, &g);
        // x g = x (H + damping) x, and half of that is the divergence of a step x.
        let steepness = dot(&x, &g);
        let length = (2.0 * self.delta / steepness).sqrt();
        let mut accepted = false;
        if steepness > 0.0 && length.is_finite() {
            for halvings in 0..=self.backtracks {
                let length = length * 0.5f64.powi(halvings as i32);
                policy.set(&moved(&center, &x, -length));
                let divergence = policy.of.value(&policy.divergence, batch);
                // False for what is not a number.
                if divergence <= self.delta && policy.of.value(loss, batch) < made.loss {
                    accepted = true;
                    break;
                }
            }
        }
        if !accepted {
            policy.set(&center);
        }
        made
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn norm(a: &[f64]) -> f64 {
    dot(a, a).sqrt()
}

fn add(to: &mut [f64], what: &[f64], factor: f64) {
    to.iter_mut().zip(what).for_each(|(to, what)| *to += factor * what);
}

fn moved(from: &[f64], by: &[f64], factor: f64) -> Vec<f64> {
    let mut to = from.to_vec();
    add(&mut to, by, factor);
    to
}
