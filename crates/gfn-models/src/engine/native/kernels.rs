//! The arithmetic of native networks on the CPU: matrix products and elementwise loops.
//!
//! All of it runs on the calling thread: batches are cut into parts, one thread each, further up.

use gemm::Parallelism;

use gfn_core::vector::vectorised;

use crate::layers::LEAK;

/// A matrix in a slice, by rows or transposed.
#[derive(Clone, Copy)]
pub struct Mat<'a> {
    data: &'a [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a> Mat<'a> {
    /// `rows` × `cols`, row-major.
    ///
    /// # Panics
    /// When the slice is too short.
    pub fn new(data: &'a [f32], rows: usize, cols: usize) -> Self {
        assert!(data.len() >= rows * cols);
        Self { data, rows, cols, row_stride: cols, col_stride: 1 }
    }

    /// `rows` × `cols`, with `stride` numbers from one row to the next.
    ///
    /// # Panics
    /// When the slice is too short.
    pub fn with_stride(data: &'a [f32], rows: usize, cols: usize, stride: usize) -> Self {
        assert!(rows == 0 || data.len() >= (rows - 1) * stride + cols);
        Self { data, rows, cols, row_stride: stride, col_stride: 1 }
    }

    /// Number of rows.
    pub fn rows(self) -> usize {
        self.rows
    }

    /// Number of columns.
    pub fn cols(self) -> usize {
        self.cols
    }

    /// Row `i` of a matrix that is not transposed.
    ///
    /// # Panics
    /// When the matrix is transposed.
    #[inline(always)]
    pub fn row(self, i: usize) -> &'a [f32] {
        assert_eq!(self.col_stride, 1, "rows lie in one piece");
        &self.data[i * self.row_stride..][..self.cols]
    }

    /// The transpose, without moving anything.
    #[must_use]
    pub fn t(self) -> Self {
        Self {
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
            ..self
        }
    }
}

/// `out = keep · out + a b`, with `out` row-major.
///
/// # Panics
/// When shapes do not match.
#[allow(unsafe_code)]
pub fn matmul(out: &mut [f32], keep: bool, a: Mat<'_>, b: Mat<'_>) {
    let (m, k, n) = (a.rows, a.cols, b.cols);
    assert_eq!(k, b.rows, "inner dimensions agree");
    assert!(out.len() >= m * n, "the output is large enough");
    if m == 0 || n == 0 {
        return;
    }
    // SAFETY: `Mat::new` and the asserts above keep every access inside its slice, and `out` is
    // borrowed mutably, so it overlaps neither operand.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            n as isize,
            keep,
            a.data.as_ptr(),
            a.col_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.col_stride as isize,
            b.row_stride as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

/// Each row of `out` becomes `max(row + bias, 0)`.
pub fn add_bias_relu(out: &mut [f32], bias: &[f32]) {
    vectorised(
        #[inline(always)]
        || {
            for row in out.chunks_exact_mut(bias.len()) {
                for (x, &b) in row.iter_mut().zip(bias) {
                    *x = (*x + b).max(0.0);
                }
            }
        },
    );
}

/// Adds `bias` to each row of `out`.
pub fn add_bias(out: &mut [f32], bias: &[f32]) {
    vectorised(
        #[inline(always)]
        || {
            for row in out.chunks_exact_mut(bias.len()) {
                for (x, &b) in row.iter_mut().zip(bias) {
                    *x += b;
                }
            }
        },
    );
}

/// Sums the rows of `table` that each observation names: `[n, width]` from `[n, n_active]` ids;
/// negative ids name nothing.
pub fn sum_rows(out: &mut [f32], table: &[f32], ids: &[i32], n_active: usize, width: usize) {
    vectorised(
        #[inline(always)]
        || {
            for (row, ids) in out.chunks_exact_mut(width).zip(ids.chunks_exact(n_active)) {
                row.fill(0.0);
                for &id in ids.iter().filter(|&&id| id >= 0) {
                    let source = &table[id as usize * width..][..width];
                    for (x, &value) in row.iter_mut().zip(source) {
                        *x += value;
                    }
                }
            }
        },
    );
}

/// Adds to each row of `out` the row of `table` that is named for it.
pub fn add_rows(out: &mut [f32], table: &[f32], rows: &[i32], width: usize) {
    vectorised(
        #[inline(always)]
        || {
            for (out, &row) in out.chunks_exact_mut(width).zip(rows) {
                let source = &table[row as usize * width..][..width];
                for (x, &value) in out.iter_mut().zip(source) {
                    *x += value;
                }
            }
        },
    );
}

/// The gradient of [`sum_rows`]: adds each row of `gradient` to the rows that its observation
/// names, of those that `table` holds from row `first` on.
pub fn scatter_rows(
    table: &mut [f32],
    first: usize,
    gradient: &[f32],
    ids: &[i32],
    n_active: usize,
    width: usize,
) {
    vectorised(
        #[inline(always)]
        || {
            for (row, ids) in gradient.chunks_exact(width).zip(ids.chunks_exact(n_active)) {
                for &id in ids {
                    // Neither negative ids nor those before `first` are in here.
                    let place = (id as usize).wrapping_sub(first).saturating_mul(width);
                    let Some(target) = table.get_mut(place..place.saturating_add(width)) else {
                        continue;
                    };
                    for (x, &value) in target.iter_mut().zip(row) {
                        *x += value;
                    }
                }
            }
        },
    );
}

/// Zeroes the entries of `gradient` where the activation was not positive.
pub fn relu_gradient(gradient: &mut [f32], activation: &[f32]) {
    vectorised(
        #[inline(always)]
        || {
            for (g, &a) in gradient.iter_mut().zip(activation) {
                *g = if a > 0.0 { *g } else { 0.0 };
            }
        },
    );
}

/// LeakyReLU of all values.
pub fn leaky_relu(values: &mut [f32]) {
    vectorised(
        #[inline(always)]
        || values.iter_mut().for_each(|x| *x = x.max(*x * LEAK as f32)),
    );
}

/// Scales the entries of `gradient` down where the activation, that of [`leaky_relu`], was not positive.
pub fn leaky_relu_gradient(gradient: &mut [f32], activation: &[f32]) {
    vectorised(
        #[inline(always)]
        || {
            for (g, &a) in gradient.iter_mut().zip(activation) {
                *g *= if a > 0.0 { 1.0 } else { LEAK as f32 };
            }
        },
    );
}

/// Adds the sum of all rows of `gradient` to `bias`.
pub fn sum_into_bias(bias: &mut [f32], gradient: &[f32]) {
    vectorised(
        #[inline(always)]
        || {
            for row in gradient.chunks_exact(bias.len()) {
                for (b, &g) in bias.iter_mut().zip(row) {
                    *b += g;
                }
            }
        },
    );
}

/// The sum of squares, in double precision and a fixed order.
pub fn sum_of_squares(values: &[f32]) -> f64 {
    vectorised(
        #[inline(always)]
        || {
            let mut lanes = [0.0f64; 8];
            let chunks = values.chunks_exact(8);
            let rest = chunks.remainder();
            for chunk in chunks {
                for (lane, &x) in lanes.iter_mut().zip(chunk) {
                    *lane += f64::from(x) * f64::from(x);
                }
            }
            lanes.iter().sum::<f64>()
                + rest.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>()
        },
    )
}

/// Adds `other` to `sum`.
pub fn add(sum: &mut [f32], other: &[f32]) {
    vectorised(
        #[inline(always)]
        || {
            for (sum, &x) in sum.iter_mut().zip(other) {
                *sum += x;
            }
        },
    );
}

/// `target = (1 − tau) target + tau online`.
pub fn lerp(target: &mut [f32], online: &[f32], tau: f32) {
    vectorised(
        #[inline(always)]
        || {
            for (t, &o) in target.iter_mut().zip(online) {
                *t = *t * (1.0 - tau) + o * tau;
            }
        },
    );
}

/// The constants of one Adam step.
#[derive(Clone, Copy, Debug)]
pub struct AdamStep {
    /// Learning rate.
    pub lr: f32,
    /// First-moment decay.
    pub beta1: f32,
    /// Second-moment decay.
    pub beta2: f32,
    /// Added to the denominator.
    pub epsilon: f32,
    /// L2 penalty, added to the gradient.
    pub l2: f32,
    /// 1 / (1 − β₁^t).
    pub correction1: f32,
    /// 1 / (1 − β₂^t).
    pub correction2: f32,
    /// Factor on the gradient (for clipping).
    pub scale: f32,
}

/// Moments below this are set to 0. Where a gradient has become exactly 0 its first moment would
/// otherwise decay into numbers that are not normal, on which arithmetic is slow, and stay there.
const TINY: f32 = 1e-37;

/// One Adam step in place, in one pass over value, gradient and moments.
pub fn adam(
    step: AdamStep,
    value: &mut [f32],
    gradient: &[f32],
    moment1: &mut [f32],
    moment2: &mut [f32],
) {
    let AdamStep { lr, beta1, beta2, epsilon, l2, correction1, correction2, scale } = step;
    let (n, gradient) = (value.len(), &gradient[..value.len()]);
    let (moment1, moment2) = (&mut moment1[..n], &mut moment2[..n]);
    vectorised(
        #[inline(always)]
        || {
            for i in 0..n {
                let g = gradient[i] * scale + l2 * value[i];
                let m = moment1[i] * beta1 + g * (1.0 - beta1);
                let v = moment2[i] * beta2 + g * g * (1.0 - beta2);
                let m = if m.abs() < TINY { 0.0 } else { m };
                let v = if v < TINY { 0.0 } else { v };
                moment1[i] = m;
                moment2[i] = v;
                value[i] -= lr * (m * correction1) / ((v * correction2).sqrt() + epsilon);
            }
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(n: usize, seed: f32) -> Vec<f32> {
        (0..n).map(|i| (i as f32 * 0.37 + seed).sin()).collect()
    }

    #[test]
    fn products_equal_their_sums() {
        let sizes = [(5, 7, 3), (1, 7, 3), (1, 5, 300), (2, 9, 161), (3, 2, 1), (8, 4, 58)];
        for (m, k, n) in sizes.into_iter().chain([(9, 7, 10), (20, 5, 33)]) {
            check_products(m, k, n);
        }
    }

    fn check_products(m: usize, k: usize, n: usize) {
        let (a, b, start) = (filled(m * k, 0.1), filled(k * n, 0.5), filled(m * n, 0.9));
        let at = Mat::new(&a, k, m).t();
        let bt = Mat::new(&b, n, k).t();
        let spread: Vec<f32> = a.chunks(k).flat_map(|row| [row, &[7.0, 7.0]].concat()).collect();
        for (left, right) in [
            (Mat::with_stride(&spread, m, k, k + 2), Mat::new(&b, k, n)),
            (Mat::new(&a, m, k), Mat::new(&b, k, n)),
            (at, Mat::new(&b, k, n)),
            (Mat::new(&a, m, k), bt),
        ] {
            for keep in [false, true] {
                let mut out = start.clone();
                matmul(&mut out, keep, left, right);
                for i in 0..m {
                    for j in 0..n {
                        let term = |l: usize| {
                            left.data[i * left.row_stride + l * left.col_stride]
                                * right.data[l * right.row_stride + j * right.col_stride]
                        };
                        let kept = if keep { start[i * n + j] } else { 0.0 };
                        let expected: f32 = kept + (0..k).map(term).sum::<f32>();
                        assert!((out[i * n + j] - expected).abs() < 1e-5);
                    }
                }
            }
        }
    }

    /// Against double precision, and to the end where the gradient stays away: moments become 0
    /// instead of numbers too small to be normal, and the value rests.
    #[test]
    fn adam_follows_its_equations_and_comes_to_rest() {
        let (lr, beta1, beta2, epsilon) = (1e-2, 0.9, 0.99, 1e-8);
        let gradients = |t: i32| if t <= 5 { [0.3 * t as f32, -2.0, 1e-3] } else { [0.0; 3] };
        let mut value = [1.0f32, -1.0, 0.5];
        let (mut first, mut second) = ([0.0f32; 3], [0.0f32; 3]);
        let (mut exact, mut moments) = (value.map(f64::from), [[0.0f64; 2]; 3]);
        for t in 1..=12_000 {
            let step = AdamStep {
                lr: lr as f32,
                beta1: beta1 as f32,
                beta2: beta2 as f32,
                epsilon: epsilon as f32,
                l2: 0.0,
                correction1: (1.0 / (1.0 - f64::powi(beta1, t))) as f32,
                correction2: (1.0 / (1.0 - f64::powi(beta2, t))) as f32,
                scale: 1.0,
            };
            adam(step, &mut value, &gradients(t), &mut first, &mut second);
            for (i, &g) in gradients(t).iter().enumerate() {
                let [m, v] = &mut moments[i];
                *m = beta1 * *m + (1.0 - beta1) * f64::from(g);
                *v = beta2 * *v + (1.0 - beta2) * f64::from(g) * f64::from(g);
                let corrected = (*v / (1.0 - f64::powi(beta2, t))).sqrt();
                exact[i] -= lr * *m / (1.0 - f64::powi(beta1, t)) / (corrected + epsilon);
            }
            for moment in first.iter().chain(&second) {
                assert!(*moment == 0.0 || moment.is_normal(), "{t}: {moment}");
            }
        }
        for (value, exact) in value.iter().zip(exact) {
            assert!((f64::from(*value) - exact).abs() < 1e-5, "{value} {exact}");
        }
        assert_eq!((first, second), ([0.0; 3], [0.0; 3]));
    }

    #[test]
    fn rows_are_summed_and_scattered() {
        let table = filled(4 * 3, 0.0);
        let ids = [0, 2, -1, 3, 3, -1];
        let mut out = vec![9.0; 3 * 3];
        sum_rows(&mut out, &table, &ids, 2, 3);
        for c in 0..3 {
            assert!((out[c] - (table[c] + table[6 + c])).abs() < 1e-6);
            assert!((out[3 + c] - table[9 + c]).abs() < 1e-6);
            assert!((out[6 + c] - table[9 + c]).abs() < 1e-6);
        }
        let gradient = filled(3 * 3, 0.3);
        let mut back = [0.0; 4 * 3];
        scatter_rows(&mut back[..2 * 3], 0, &gradient, &ids, 2, 3);
        scatter_rows(&mut back[2 * 3..], 2, &gradient, &ids, 2, 3);
        for c in 0..3 {
            assert_eq!(back[c], gradient[c]);
            assert_eq!(back[3 + c], 0.0);
            assert!((back[9 + c] - (gradient[3 + c] + gradient[6 + c])).abs() < 1e-6);
        }
    }
}
