//! The contract of a proposal: how a Markov chain of objects picks where to go next.

use rand::rngs::ChaCha8Rng;

use super::environment::Environment;

/// A way to draw an object x′ near a given one, x, with probability q(x′ | x).
///
/// It must be able to go back: where q(x′ | x) is positive, so is q(x | x′). An object may be drawn
/// along several ways, each with a ratio of its own, if every way is paired with one that leads back:
/// the ratio is then that of the probabilities of the two.
pub trait Proposal: Send + Sync {
    /// Draws an object near `object` into `proposed`, both terminal rows of `env`, and returns
    /// log q(x | x′) − log q(x′ | x); none for staying, which leaves anything in `proposed`.
    fn propose(
        &self,
        env: &dyn Environment,
        object: &[i32],
        rng: &mut ChaCha8Rng,
        proposed: &mut [i32],
    ) -> Option<f64>;
}
