//! Networks in plain Rust for the CPU: what training and rollouts run on where a network offers
//! it. The Burn version of the same network is the reference that it is tested against.

/// What a forward pass leaves for the backward pass. Buffers are kept from pass to pass.
#[derive(Debug, Default)]
pub struct Tape {
    /// The outputs, `[n, width]`: logits of P_F, logits of P_B, log F.
    pub output: Vec<f32>,
    /// Activations of the hidden layers, in the network's own order.
    pub hidden: Vec<Vec<f32>>,
    /// Scratch of the backward pass.
    pub scratch: [Vec<f32>; 2],
    /// Scratch of both passes: output weights side by side.
    pub merged: Vec<f32>,
}

/// A network whose passes are written by hand.
pub trait NativeNetwork: Send + Sync {
    /// Columns of the output: `n_actions + n_back_actions + 1`.
    fn width(&self) -> usize;

    /// Evaluates `n` observations of `n_active` ids each (negative: no token).
    ///
    /// `params` are the values of the network's parameters, row-major, in the order in which it
    /// declares them.
    fn forward(&self, params: &[Vec<f32>], ids: &[i32], n: usize, tape: &mut Tape);

    /// Adds the gradients of the parameters to `gradients`, given that of the output `[n, width]`
    /// for the pass that `tape` holds.
    fn backward(
        &self,
        params: &[Vec<f32>],
        ids: &[i32],
        n: usize,
        tape: &mut Tape,
        output_gradient: &[f32],
        gradients: &mut [Vec<f32>],
    );
}
