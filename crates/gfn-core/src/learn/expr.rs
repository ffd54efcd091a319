//! Losses as expressions: a reverse tape over vectors in double precision, on the host.
//!
//! A loss reads a few vectors (log-probabilities, flows) off the networks and combines them; its
//! derivatives by these follow from the expression. That takes microseconds beside the networks'
//! own passes, whatever engine or device computes those.

use std::cell::RefCell;
use std::ops::{Add, Mul, Neg, Range, Sub};
use std::rc::Rc;

/// Records operations as they are computed. One tape serves one loss.
#[derive(Debug, Default)]
pub struct Tape {
    nodes: RefCell<Vec<Node>>,
}

/// A vector on a tape. Operations on two vectors need equal lengths, or one of length 1, which
/// stands for a constant vector.
#[derive(Clone, Copy, Debug)]
pub struct Var<'t> {
    tape: &'t Tape,
    id: usize,
}

#[derive(Debug)]
struct Node {
    value: Rc<[f64]>,
    op: Op,
    /// Whether a derivative may reach a leaf through it.
    tracked: bool,
}

#[derive(Debug)]
enum Op {
    /// A leaf, or what has been cut off.
    Given,
    /// a + sign · b.
    Sum(usize, usize, f64),
    Product(usize, usize),
    /// Entry by entry, with the derivative of each.
    Map(usize, Vec<f64>),
    /// Entries of a vector, or 0.
    Gather(usize, Rc<[Option<u32>]>),
    /// The sum of each segment.
    Segments(usize, Rc<[u32]>),
    /// log Σ exp of each segment.
    LogSumExp(usize, Rc<[u32]>),
    /// The first where the mask says so, else the second.
    Select(Rc<[bool]>, usize, usize),
    /// A number, with its derivatives by the entries of some vectors.
    Custom(Vec<(usize, Vec<f64>)>),
}

/// Derivatives of a loss by everything on its tape.
#[derive(Debug)]
pub struct Derivatives(Vec<Vec<f64>>);

impl Derivatives {
    /// By the entries of a vector, if the loss depends on it.
    pub fn of(&self, var: Var<'_>) -> Option<&[f64]> {
        Some(&self.0[var.id][..]).filter(|derivative| !derivative.is_empty())
    }
}

/// The segments `offsets[i]..offsets[i + 1]`.
fn ranges(offsets: &[u32]) -> impl Iterator<Item = Range<usize>> + '_ {
    offsets.windows(2).map(|pair| pair[0] as usize..pair[1] as usize)
}

impl Tape {
    /// An empty tape.
    pub fn new() -> Self {
        Self::default()
    }

    /// Values that derivatives are wanted by.
    pub fn leaf(&self, value: Vec<f64>) -> Var<'_> {
        self.push(value, Op::Given, true)
    }

    /// Values without derivatives.
    pub fn constant(&self, value: Vec<f64>) -> Var<'_> {
        self.push(value, Op::Given, false)
    }

    /// A number whose derivatives by the entries of `inputs` are known.
    ///
    /// # Panics
    /// When a derivative has another length than its input.
    pub fn custom<'t>(&'t self, value: f64, inputs: Vec<(Var<'t>, Vec<f64>)>) -> Var<'t> {
        let tracked = inputs.iter().any(|(input, _)| self.nodes.borrow()[input.id].tracked);
        for (input, derivative) in &inputs {
            assert_eq!(input.len(), derivative.len(), "one derivative per entry");
        }
        let inputs = inputs.into_iter().map(|(input, derivative)| (input.id, derivative));
        self.push(vec![value], Op::Custom(inputs.collect()), tracked)
    }

    fn push(&self, value: Vec<f64>, op: Op, tracked: bool) -> Var<'_> {
        let mut nodes = self.nodes.borrow_mut();
        nodes.push(Node { value: value.into(), op, tracked });
        Var { tape: self, id: nodes.len() - 1 }
    }

    /// Derivatives of a vector of length 1 by everything that it depends on.
    ///
    /// # Panics
    /// When `loss` has another length.
    pub fn derivatives(&self, loss: Var<'_>) -> Derivatives {
        let nodes = self.nodes.borrow();
        assert_eq!(nodes[loss.id].value.len(), 1, "a loss is a number");
        let mut all: Vec<Vec<f64>> = vec![Vec::new(); nodes.len()];
        all[loss.id] = vec![1.0];
        for id in (0..=loss.id).rev() {
            let node = &nodes[id];
            if !node.tracked || all[id].is_empty() || matches!(node.op, Op::Given) {
                continue;
            }
            let upstream = std::mem::take(&mut all[id]);
            // Adds `term(i)` for each entry i of the result, at entry 0 of a vector of length 1.
            let mut add = |input: usize, term: &dyn Fn(usize) -> f64| {
                if !nodes[input].tracked {
                    return;
                }
                let n = nodes[input].value.len();
                let derivative = &mut all[input];
                derivative.resize(n, 0.0);
                if n == 1 {
                    derivative[0] += (0..upstream.len()).map(term).sum::<f64>();
                } else {
                    derivative.iter_mut().enumerate().for_each(|(i, d)| *d += term(i));
                }
            };
            let at = |input: usize, i: usize| {
                let value = &nodes[input].value;
                if value.len() == 1 { value[0] } else { value[i] }
            };
            match &node.op {
                Op::Given => {}
                Op::Sum(a, b, sign) => {
                    add(*a, &|i| upstream[i]);
                    add(*b, &|i| sign * upstream[i]);
                }
                Op::Product(a, b) => {
                    add(*a, &|i| upstream[i] * at(*b, i));
                    add(*b, &|i| upstream[i] * at(*a, i));
                }
                Op::Map(a, slope) => add(*a, &|i| upstream[i] * slope[i]),
                Op::Select(mask, a, b) => {
                    add(*a, &|i| if mask[i] { upstream[i] } else { 0.0 });
                    add(*b, &|i| if mask[i] { 0.0 } else { upstream[i] });
                }
                Op::Gather(a, indices) => {
                    all[*a].resize(nodes[*a].value.len(), 0.0);
                    for (index, upstream) in indices.iter().zip(&upstream) {
                        if let Some(index) = index {
                            all[*a][*index as usize] += upstream;
                        }
                    }
                }
                Op::Segments(a, offsets) => {
                    all[*a].resize(nodes[*a].value.len(), 0.0);
                    for (range, upstream) in ranges(offsets).zip(&upstream) {
                        all[*a][range].iter_mut().for_each(|d| *d += upstream);
                    }
                }
                Op::LogSumExp(a, offsets) => {
                    let value = &nodes[*a].value;
                    all[*a].resize(value.len(), 0.0);
                    for (s, range) in ranges(offsets).enumerate() {
                        for i in range {
                            all[*a][i] += upstream[s] * (value[i] - node.value[s]).exp();
                        }
                    }
                }
                Op::Custom(inputs) => {
                    for (input, slope) in inputs {
                        // All entries belong to the one number.
                        all[*input].resize(slope.len(), 0.0);
                        for (d, slope) in all[*input].iter_mut().zip(slope) {
                            *d += upstream[0] * slope;
                        }
                    }
                }
            }
            all[id] = upstream;
        }
        Derivatives(all)
    }
}

impl<'t> Var<'t> {
    /// The values.
    pub fn value(self) -> Rc<[f64]> {
        self.tape.nodes.borrow()[self.id].value.clone()
    }

    /// The value of a vector of length 1.
    ///
    /// # Panics
    /// When it has another length.
    pub fn number(self) -> f64 {
        let value = self.value();
        assert_eq!(value.len(), 1, "not a number");
        value[0]
    }

    /// Number of entries.
    pub fn len(self) -> usize {
        self.tape.nodes.borrow()[self.id].value.len()
    }

    /// Whether there are no entries.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    fn tracked(self) -> bool {
        self.tape.nodes.borrow()[self.id].tracked
    }

    /// The same values, cut off from their derivatives.
    #[must_use]
    pub fn detach(self) -> Self {
        self.tape.push(self.value().to_vec(), Op::Given, false)
    }

    /// A function of every entry, given as its value and its derivative.
    #[must_use]
    pub fn map(self, f: impl Fn(f64) -> (f64, f64)) -> Self {
        let (value, slope) = self.value().iter().map(|&x| f(x)).unzip();
        self.tape.push(value, Op::Map(self.id, slope), self.tracked())
    }

    /// e^x.
    #[must_use]
    pub fn exp(self) -> Self {
        self.map(|x| (x.exp(), x.exp()))
    }

    /// log x.
    #[must_use]
    pub fn log(self) -> Self {
        self.map(|x| (x.ln(), x.recip()))
    }

    /// Every entry, raised or lowered into a range; no derivative outside of it.
    #[must_use]
    pub fn clamp(self, min: f64, max: f64) -> Self {
        self.map(|x| (x.clamp(min, max), if x < min || x > max { 0.0 } else { 1.0 }))
    }

    /// The entries with these numbers; 0 for none.
    #[must_use]
    pub fn gather(self, indices: impl Into<Rc<[Option<u32>]>>) -> Self {
        let (indices, value) = (indices.into(), self.value());
        let pick = |index: &Option<u32>| index.map_or(0.0, |index| value[index as usize]);
        let gathered = indices.iter().map(pick).collect();
        self.tape.push(gathered, Op::Gather(self.id, indices), self.tracked())
    }

    /// The sums of the segments `offsets[i]..offsets[i + 1]`.
    #[must_use]
    pub fn sum_segments(self, offsets: impl Into<Rc<[u32]>>) -> Self {
        let (offsets, value) = (offsets.into(), self.value());
        let sums = ranges(&offsets).map(|range| value[range].iter().sum()).collect();
        self.tape.push(sums, Op::Segments(self.id, offsets), self.tracked())
    }

    /// log Σ exp over the segments `offsets[i]..offsets[i + 1]`.
    #[must_use]
    pub fn log_sum_exp_segments(self, offsets: impl Into<Rc<[u32]>>) -> Self {
        let (offsets, value) = (offsets.into(), self.value());
        let of = |range: Range<usize>| crate::special::log_sum_exp(value[range].iter().copied());
        let sums = ranges(&offsets).map(of).collect();
        self.tape.push(sums, Op::LogSumExp(self.id, offsets), self.tracked())
    }

    /// The sum of all entries.
    #[must_use]
    pub fn sum(self) -> Self {
        self.sum_segments([0, self.len() as u32])
    }

    /// The mean of all entries.
    #[must_use]
    pub fn mean(self) -> Self {
        self.sum() * (1.0 / self.len() as f64)
    }

    /// These entries where `mask` is true, else those of `other`.
    #[must_use]
    pub fn or_where_not(self, mask: impl Into<Rc<[bool]>>, other: Self) -> Self {
        let (mask, a, b) = (mask.into(), self.value(), other.value());
        let pick = |i: usize, from: &[f64]| if from.len() == 1 { from[0] } else { from[i] };
        let value =
            mask.iter().enumerate().map(|(i, &yes)| pick(i, if yes { &a } else { &b })).collect();
        let tracked = self.tracked() || other.tracked();
        self.tape.push(value, Op::Select(mask, self.id, other.id), tracked)
    }

    fn with(self, other: Self, op: Op, f: impl Fn(f64, f64) -> f64) -> Self {
        let (a, b) = (self.value(), other.value());
        let value = match (a.len(), b.len()) {
            (n, 1) if n != 1 => a.iter().map(|&a| f(a, b[0])).collect(),
            (1, n) if n != 1 => b.iter().map(|&b| f(a[0], b)).collect(),
            (n, m) => {
                assert_eq!(n, m, "vectors of different lengths");
                a.iter().zip(b.iter()).map(|(&a, &b)| f(a, b)).collect()
            }
        };
        self.tape.push(value, op, self.tracked() || other.tracked())
    }
}

impl Add for Var<'_> {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        self.with(other, Op::Sum(self.id, other.id, 1.0), |a, b| a + b)
    }
}

impl Sub for Var<'_> {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        self.with(other, Op::Sum(self.id, other.id, -1.0), |a, b| a - b)
    }
}

impl Mul for Var<'_> {
    type Output = Self;
    fn mul(self, other: Self) -> Self {
        self.with(other, Op::Product(self.id, other.id), |a, b| a * b)
    }
}

impl Add<f64> for Var<'_> {
    type Output = Self;
    fn add(self, other: f64) -> Self {
        self.map(|x| (x + other, 1.0))
    }
}

impl Sub<f64> for Var<'_> {
    type Output = Self;
    fn sub(self, other: f64) -> Self {
        self + -other
    }
}

impl Mul<f64> for Var<'_> {
    type Output = Self;
    fn mul(self, other: f64) -> Self {
        self.map(|x| (x * other, other))
    }
}

impl<'t> Mul<Var<'t>> for f64 {
    type Output = Var<'t>;
    fn mul(self, other: Var<'t>) -> Var<'t> {
        other * self
    }
}

impl Neg for Var<'_> {
    type Output = Self;
    fn neg(self) -> Self {
        self * -1.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const X: [f64; 5] = [0.3, -1.2, 0.8, 2.1, -0.4];
    const Y: [f64; 5] = [1.1, 0.2, -0.7, 0.5, 1.9];
    const C: [f64; 1] = [0.6];

    type Build = for<'t> fn(&'t Tape, Var<'t>, Var<'t>, Var<'t>) -> Var<'t>;

    /// Every operation with several uses of one input, vectors of length 1, and segments that
    /// are empty.
    const EXPRESSIONS: [(&str, Build); 12] = [
        ("sum, difference, product", |_, x, y, c| ((x + y) * (x - y) * y + c * x - c).sum()),
        ("numbers", |_, x, _, c| (2.0 * x - 0.5 + -c).mean()),
        ("map", |_, x, y, _| (x.exp() * y).sum() + (x * x + 1.0).log().mean()),
        ("clamp", |_, x, y, _| (x.clamp(-0.5, 1.0) * y).sum()),
        ("gather", |_, x, y, _| {
            let twice = x.gather([Some(3), None, Some(0), Some(3), Some(1)]);
            (twice * twice * y).sum()
        }),
        ("segments", |_, x, y, _| {
            let sums = (x * y).sum_segments([0, 2, 2, 5]);
            (sums * sums).mean()
        }),
        ("log sum exp", |_, x, y, _| {
            let logs = (x * 3.0 + y).log_sum_exp_segments([0, 1, 3, 5]);
            (logs * logs).sum()
        }),
        ("select", |_, x, y, c| {
            let chosen = (x * y).or_where_not([true, false, true, false, true], c);
            (chosen * chosen).sum()
        }),
        ("a constant", |tape, x, _, c| {
            (tape.constant(Y.to_vec()) * x * c).sum() + tape.constant(vec![3.0])
        }),
        ("custom", |tape, x, y, _| {
            let (x_values, y_values) = (x.value(), y.value());
            let value = x_values.iter().zip(y_values.iter()).map(|(x, y)| x * x * y).sum();
            let by_x = x_values.iter().zip(y_values.iter()).map(|(x, y)| 2.0 * x * y).collect();
            let by_y = x_values.iter().map(|x| x * x).collect();
            let custom = tape.custom(value, vec![(x, by_x), (y, by_y)]);
            custom * custom
        }),
        ("custom of a number", |tape, x, _, c| {
            let value = c.number().powi(3);
            tape.custom(value, vec![(c, vec![3.0 * c.number().powi(2)])]) * x.sum()
        }),
        ("numbers alone", |_, _, _, c| c * c - c),
    ];

    #[test]
    fn derivatives_are_those_of_finite_differences() {
        for (what, build) in EXPRESSIONS {
            let at = |x: &[f64], y: &[f64], c: &[f64]| {
                let tape = Tape::new();
                let [x, y, c] = [x, y, c].map(|values| tape.leaf(values.to_vec()));
                let loss = build(&tape, x, y, c);
                let derivatives = tape.derivatives(loss);
                let of = |var: Var<'_>| {
                    derivatives.of(var).map_or(vec![0.0; var.len()], <[f64]>::to_vec)
                };
                (loss.number(), [of(x), of(y), of(c)])
            };
            let (_, exact) = at(&X, &Y, &C);
            let mut varied = 0;
            for (which, exact) in exact.iter().enumerate() {
                for (i, exact) in exact.iter().enumerate() {
                    let moved = |h: f64| {
                        let mut inputs = [X.to_vec(), Y.to_vec(), C.to_vec()];
                        inputs[which][i] += h;
                        at(&inputs[0], &inputs[1], &inputs[2]).0
                    };
                    let numeric = (moved(1e-6) - moved(-1e-6)) / 2e-6;
                    let error = (numeric - exact).abs();
                    assert!(error < 1e-7 * (1.0 + exact.abs()), "{what}: {exact} {numeric}");
                    varied += usize::from(exact.abs() > 1e-3);
                }
            }
            assert!(varied > 0, "{what} depends on something");
        }
    }

    #[test]
    fn nothing_passes_what_is_cut_off() {
        let tape = Tape::new();
        let x = tape.leaf(X.to_vec());
        let loss = (x.detach() * x).sum();
        assert_eq!(tape.derivatives(loss).of(x), Some(&X[..]), "by the second factor alone");
        let loss = x.detach().sum();
        assert_eq!(tape.derivatives(loss).of(x), None);
    }
}
