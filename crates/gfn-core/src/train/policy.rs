//! A model as the policy that samplers and exact evaluation ask for logits.

use burn::tensor::{Device, Tensor};

use crate::backward::{BackwardStrategy, Source};
use crate::network::{Network, Outputs, Tokens};
use crate::policy::{Direction, Policy};
use crate::{Environment, States};

/// P_F of the network, and the P_B that the objective reads (fixed, online or target).
pub struct ModelPolicy<'a> {
    network: &'a dyn Network,
    backward: &'a dyn BackwardStrategy,
    online: Vec<Tensor<2>>,
    target: Option<Vec<Tensor<2>>>,
    device: &'a Device,
}

impl<'a> ModelPolicy<'a> {
    /// A policy of parameter values without autodiff (without log Z).
    pub fn new(
        network: &'a dyn Network,
        backward: &'a dyn BackwardStrategy,
        online: Vec<Tensor<2>>,
        target: Option<Vec<Tensor<2>>>,
        device: &'a Device,
    ) -> Self {
        Self { network, backward, online, target, device }
    }

    /// The network's outputs for given states, with the online parameters.
    pub fn outputs(&self, env: &dyn Environment, states: &States) -> Outputs {
        let tokens = Tokens::observe(env, states, self.device);
        self.network.forward(&self.online, &tokens)
    }
}

impl Policy for ModelPolicy<'_> {
    fn logits(
        &self,
        env: &dyn Environment,
        direction: Direction,
        states: &States,
        out: &mut [f32],
    ) {
        if states.is_empty() {
            return;
        }
        let logits = match (direction, self.backward.source()) {
            (Direction::Forward, _) => self.outputs(env, states).forward,
            (Direction::Backward, Source::Fixed) => {
                let n = env.layout().n_back_actions;
                let mut legal = vec![false; n];
                for (row, out) in states.rows().zip(out.chunks_exact_mut(n)) {
                    env.legal_back(row, &mut legal);
                    self.backward.fixed_logits(env, row, &legal, out);
                }
                return;
            }
            (Direction::Backward, Source::Online | Source::Target) => {
                let params = self.target.as_ref().unwrap_or(&self.online);
                let tokens = Tokens::observe(env, states, self.device);
                self.network.forward(params, &tokens).backward
            }
        };
        let data = logits.into_data().convert::<f32>();
        out.copy_from_slice(data.as_slice().expect("converted to f32 above"));
    }
}
