//! Layers over the graph of a state by hand: its normalisation, messages along its edges, its summary.

use gfn_core::vector::vectorised;

use super::super::kernels::add;
use super::EPSILON;
use super::attention::neighbours;
use crate::layers::MESSAGE_FLOOR;

/// Σ of what `of` gives for every number, in lanes of a fixed order.
#[inline(always)]
fn sum(n: usize, of: impl Fn(usize) -> f32) -> f32 {
    let mut lanes = [0.0f32; 16];
    let whole = n - n % 16;
    for start in (0..whole).step_by(16) {
        for (lane, sum) in lanes.iter_mut().enumerate() {
            *sum += of(start + lane);
        }
    }
    lanes.iter().sum::<f32>() + (whole..n).map(of).sum::<f32>()
}

/// All numbers of a state less their mean, by √(variance + ε), in place. Gives 1 / √(variance + ε).
pub(super) fn standardise(x: &mut [f32]) -> f32 {
    vectorised(
        #[inline(always)]
        || {
            let n = x.len() as f32;
            let mean = sum(x.len(), |i| x[i]) / n;
            let variance = sum(x.len(), |i| (x[i] - mean) * (x[i] - mean)) / n;
            let scale = 1.0 / (variance + EPSILON).sqrt();
            x.iter_mut().for_each(|x| *x = (*x - mean) * scale);
            scale
        },
    )
}

/// Replaces `gradient`, that of the standardised numbers `normal`, by that of what they were.
pub(super) fn standardise_backward(gradient: &mut [f32], normal: &[f32], scale: f32) {
    vectorised(
        #[inline(always)]
        || {
            let n = normal.len();
            let gradient = &mut gradient[..n];
            let mean = sum(n, |i| gradient[i]) / n as f32;
            let along = sum(n, |i| gradient[i] * normal[i]) / n as f32;
            for (dy, x) in gradient.iter_mut().zip(normal) {
                *dy = scale * (*dy - mean - x * along);
            }
        },
    );
}

/// What the tokens of a state are to each other, and the rows of edges, of `size` features.
#[derive(Clone, Copy)]
pub(super) struct Graph<'a> {
    pub(super) codes: &'a [i32],
    pub(super) edges: &'a [f32],
    pub(super) size: usize,
}

impl Graph<'_> {
    fn row(&self, kind: usize) -> &[f32] {
        &self.edges[kind * self.size..][..self.size]
    }

    /// The neighbours of each token, with the kinds of their edges, by the number of its row.
    fn each(&self) -> impl Iterator<Item = (usize, impl Iterator<Item = (usize, usize)> + Clone)> {
        let t = self.codes.len().isqrt();
        let kinds = self.edges.len() / self.size;
        self.codes
            .chunks_exact(t)
            .enumerate()
            .map(move |(i, codes)| (i, neighbours(i, codes, kinds)))
    }

    /// The mean row of some edges, 0 without any, in `mean`.
    fn mean(&self, kinds: impl Iterator<Item = usize> + Clone, mean: &mut Vec<f32>) {
        mean.clear();
        mean.resize(self.size, 0.0);
        let part = 1.0 / kinds.clone().count() as f32;
        kinds.for_each(|kind| add(mean, self.row(kind)));
        if part.is_finite() {
            mean.iter_mut().for_each(|x| *x *= part);
        }
    }

    /// See [`Layer::Messages`](crate::layers::Layer::Messages).
    pub(super) fn messages(&self, out: &mut [f32], x: &[f32], mean: &mut Vec<f32>) {
        let size = self.size;
        let of = |i: usize| &x[i * size..][..size];
        for (i, joined) in self.each() {
            let out = &mut out[i * size..][..size];
            out.copy_from_slice(of(i));
            self.mean(joined.clone().map(|(_, kind)| kind), mean);
            receive(out, of(i), mean);
            joined.for_each(|(j, kind)| receive(out, of(j), self.row(kind)));
        }
    }

    /// Adds the gradients of `x` and of the rows of edges, given that of what tokens have received.
    pub(super) fn messages_backward(
        &self,
        of_x: &mut [f32],
        of_edges: &mut [f32],
        gradient: &[f32],
        x: &[f32],
        [mean, of_mean]: [&mut Vec<f32>; 2],
    ) {
        let size = self.size;
        let of = |i: usize| &x[i * size..][..size];
        for (i, joined) in self.each() {
            let dy = &gradient[i * size..][..size];
            add(&mut of_x[i * size..][..size], dy);
            self.mean(joined.clone().map(|(_, kind)| kind), mean);
            of_mean.clear();
            of_mean.resize(size, 0.0);
            receive_backward(&mut of_x[i * size..][..size], of_mean, dy, of(i), mean);
            let part = 1.0 / joined.clone().count() as f32;
            of_mean.iter_mut().for_each(|x| *x *= part);
            for (j, kind) in joined {
                let of_edge = &mut of_edges[kind * size..][..size];
                add(of_edge, of_mean);
                let of_x = &mut of_x[j * size..][..size];
                receive_backward(of_x, of_edge, dy, of(j), self.row(kind));
            }
        }
    }
}

/// Adds max(x + e, 0) + 1e-7.
fn receive(out: &mut [f32], x: &[f32], e: &[f32]) {
    vectorised(
        #[inline(always)]
        || {
            for ((out, &x), &e) in out.iter_mut().zip(x).zip(e) {
                *out += (x + e).max(0.0) + MESSAGE_FLOOR as f32;
            }
        },
    );
}

/// Adds the gradient of that to those of x and e.
fn receive_backward(of_x: &mut [f32], of_e: &mut [f32], dy: &[f32], x: &[f32], e: &[f32]) {
    vectorised(
        #[inline(always)]
        || {
            let n = dy.len();
            let (of_x, of_e, x, e) = (&mut of_x[..n], &mut of_e[..n], &x[..n], &e[..n]);
            for i in 0..n {
                let dy = if x[i] + e[i] > 0.0 { dy[i] } else { 0.0 };
                of_x[i] += dy;
                of_e[i] += dy;
            }
        },
    );
}

/// The mean of all rows but the first one, of a state, then the first one.
pub(super) fn summarise(out: &mut [f32], x: &[f32]) {
    let (mean, first) = out.split_at_mut(out.len() / 2);
    let mut rows = x.chunks_exact(first.len());
    first.copy_from_slice(rows.next().expect("there always is a first token"));
    let n = rows.len().max(1) as f32;
    mean.fill(0.0);
    rows.for_each(|row| add(mean, row));
    mean.iter_mut().for_each(|x| *x /= n);
}

/// Adds the gradient of the rows.
pub(super) fn summarise_backward(of_x: &mut [f32], gradient: &mut [f32]) {
    let (of_mean, of_first) = gradient.split_at_mut(gradient.len() / 2);
    let mut rows = of_x.chunks_exact_mut(of_first.len());
    add(rows.next().expect("there always is a first token"), of_first);
    let n = rows.len().max(1) as f32;
    of_mean.iter_mut().for_each(|x| *x /= n);
    rows.for_each(|row| add(row, of_mean));
}
