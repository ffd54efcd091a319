//! Multi-head self-attention over short sequences by hand.
//!
//! Sequences have tens of tokens and heads have few features, so each head of each sequence is a
//! handful of products too small for a matrix product: sums are held in registers, for several
//! tokens at a time. Weights lie by keys, one lane per query: the softmax over keys and its gradient
//! are then sums of registers, and nothing is summed within one.
//!
//! What tokens are to each other enters like further keys: each relation's row has a score with every
//! query, which the keys of that relation add to theirs; and the weights of those keys add up to that of
//! the relation's row among the values.

use super::super::transpose::transpose;
use crate::network::edge;
use gfn_core::vector::{exp_of, store};
use pulp::{Arch, Simd, WithSimd};

/// Queries are padded to a multiple of this, the widest register.
const LANES: usize = 16;

/// Sizes of an attention layer.
#[derive(Clone, Copy)]
pub(super) struct Attention {
    /// Tokens per sequence.
    pub(super) t: usize,
    /// Number of heads.
    pub(super) heads: usize,
    /// Features per head.
    pub(super) size: usize,
    /// What tokens can be to each other; 0 if nothing is known of that.
    pub(super) relations: usize,
}

/// The rows of relations, `[relations, width]`, for keys and for values, and which relation each token
/// of a sequence (query) has to each other one (key): `[t, t]`.
#[derive(Clone, Copy, Default)]
pub(super) struct Related<'a> {
    pub(super) keys: &'a [f32],
    pub(super) values: &'a [f32],
    pub(super) codes: &'a [i32],
    /// Whether rows are those of edges, and tokens attend to their neighbours alone: see
    /// [`Layer::Neighbours`](crate::layers::Layer::Neighbours).
    pub(super) edges: bool,
}

impl<'a> Related<'a> {
    /// The same for a sequence.
    pub(super) fn with(self, codes: &'a [i32]) -> Self {
        Self { codes, ..self }
    }
}

/// The tokens of a sequence that attend, ascending: each entry less `base`.
#[derive(Clone, Copy)]
pub(super) struct Queries<'a> {
    pub(super) rows: &'a [i32],
    pub(super) base: i32,
}

impl Queries<'_> {
    #[inline(always)]
    fn token(self, i: usize) -> usize {
        (self.rows[i] - self.base) as usize
    }
}

impl Attention {
    fn width(self) -> usize {
        self.heads * self.size
    }

    /// Numbers that the weights of one sequence take, at most.
    pub(super) fn per_sequence(self) -> usize {
        self.heads * (self.t + self.relations) * self.t.next_multiple_of(LANES)
    }

    /// Mixes the values of a sequence, in `qkv`, `[t, 3 width]`, for every query into `out`,
    /// `[queries, width]`, and keeps the attention weights.
    pub(super) fn forward(
        self,
        out: &mut [f32],
        weights: &mut [f32],
        qkv: &[f32],
        queries: Queries<'_>,
        related: Related<'_>,
        scratch: &mut Vec<f32>,
    ) {
        Arch::new().dispatch(Forward { sizes: self, out, weights, qkv, queries, related, scratch });
    }

    /// The gradient of `qkv`, from that of the output and the weights that were kept. Adds those of the
    /// rows of relations to `of_related`, keys then values.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn backward(
        self,
        of_qkv: &mut [f32],
        gradient: &[f32],
        weights: &[f32],
        qkv: &[f32],
        queries: Queries<'_>,
        related: Related<'_>,
        of_related: [&mut [f32]; 2],
        scratch: &mut Vec<f32>,
    ) {
        let sizes = self;
        Arch::new().dispatch(Backward {
            sizes,
            of_qkv,
            gradient,
            weights,
            qkv,
            queries,
            related,
            of_related,
            scratch,
        });
    }
}

/// `size` numbers of a row of `stride`, from `first` on.
#[inline(always)]
fn part(data: &[f32], stride: usize, row: usize, first: usize, size: usize) -> &[f32] {
    &data[row * stride + first..][..size]
}

/// Calls a method for `$n` rows, `$most` (8 or 4) at a time, then fewer; some of the last ones twice,
/// where that is less work than one by one.
macro_rules! in_tiles {
    (@of 8, $n:expr, $i:ident, $rows:ident => $call:expr) => {
        while $n - $i >= 8 {
            const $rows: usize = 8;
            $call;
            $i += 8;
        }
    };
    (@of 4, $n:expr, $i:ident, $rows:ident => $call:expr) => {};
    ($most:tt, $n:expr, $i:ident, $rows:ident => $call:expr) => {{
        let mut $i = 0;
        in_tiles!(@of $most, $n, $i, $rows => $call);
        while $n - $i >= 4 {
            const $rows: usize = 4;
            $call;
            $i += 4;
        }
        if $n >= 4 && $i < $n {
            const $rows: usize = 4;
            $i = $n - 4;
            $call;
            $i = $n;
        }
        while $n - $i >= 1 {
            const $rows: usize = 1;
            $call;
            $i += 1;
        }
    }};
}

/// `out[i][j] = Σ_c rows[i][c] · columns[c][j]` for `R` rows from `first` on and all padded j.
#[inline(always)]
fn products<'a, S: Simd, const R: usize>(
    simd: S,
    out: &mut [f32],
    of: impl Fn(usize) -> &'a [f32],
    columns: &[f32],
    (padded, size): (usize, usize),
    first: usize,
) {
    match padded / S::F32_LANES % 2 {
        1 => products_of::<S, R, 1>(simd, out, of, columns, (padded, size), first),
        _ => products_of::<S, R, 2>(simd, out, of, columns, (padded, size), first),
    }
}

/// The same, `V` registers of every row at a time.
#[inline(always)]
fn products_of<'a, S: Simd, const R: usize, const V: usize>(
    simd: S,
    out: &mut [f32],
    of: impl Fn(usize) -> &'a [f32],
    columns: &[f32],
    (padded, size): (usize, usize),
    first: usize,
) {
    let per_row = padded / S::F32_LANES;
    let columns = S::as_simd_f32s(columns).0;
    let out = &mut S::as_mut_simd_f32s(out).0[first * per_row..][..R * per_row];
    let mut rows = [&[][..]; R];
    for (r, row) in rows.iter_mut().enumerate() {
        *row = &of(first + r)[..size];
    }
    for j in (0..per_row).step_by(V) {
        let mut sums = [[simd.splat_f32s(0.0); V]; R];
        for c in 0..size {
            let column = &columns[c * per_row + j..].as_chunks::<V>().0[0];
            for r in 0..R {
                let x = simd.splat_f32s(rows[r][c]);
                for v in 0..V {
                    sums[r][v] = simd.mul_add_e_f32s(x, column[v], sums[r][v]);
                }
            }
        }
        for (r, sums) in sums.into_iter().enumerate() {
            out[r * per_row + j..].as_chunks_mut::<V>().0[0] = sums;
        }
    }
}

/// `out(r) = Σ_j factor(r, j) · value(j)` over `n` values, for `R` rows: `factors` gives those of all
/// rows for one value. `out` takes the sums of a row.
#[inline(always)]
fn mix<'a, S: Simd, const R: usize>(
    simd: S,
    n: usize,
    size: usize,
    factors: impl Fn(usize) -> [f32; R],
    value: impl Fn(usize) -> &'a [f32],
    mut out: impl FnMut(usize, usize, S::f32s),
) {
    let lanes = S::F32_LANES;
    for c in (0..size).step_by(lanes) {
        let mut sums = [simd.splat_f32s(0.0); R];
        if size - c >= lanes {
            for j in 0..n {
                let value = S::as_simd_f32s(&value(j)[c..c + lanes]).0[0];
                let factors = factors(j);
                for r in 0..R {
                    sums[r] = simd.mul_add_e_f32s(simd.splat_f32s(factors[r]), value, sums[r]);
                }
            }
        } else {
            for j in 0..n {
                let value = simd.partial_load_f32s(&value(j)[c..size]);
                let factors = factors(j);
                for r in 0..R {
                    sums[r] = simd.mul_add_e_f32s(simd.splat_f32s(factors[r]), value, sums[r]);
                }
            }
        }
        for (r, sum) in sums.into_iter().enumerate() {
            out(r, c, sum);
        }
    }
}

/// Factors of `R` rows for value `j`, along the rows.
#[inline(always)]
fn along<const R: usize>(rows: [&[f32]; R], j: usize) -> [f32; R] {
    let mut factors = [0.0; R];
    for r in 0..R {
        factors[r] = rows[r][j];
    }
    factors
}

/// `R` rows of weights from `first` on, the first `n` of each.
#[inline(always)]
fn rows_of<const R: usize>(weights: &[f32], first: usize, padded: usize, n: usize) -> [&[f32]; R] {
    let mut rows = [&[][..]; R];
    for (r, row) in rows.iter_mut().enumerate() {
        *row = &weights[(first + r) * padded..][..n];
    }
    rows
}

/// The softmax over keys, which are rows, of weights times `scale`, which is positive.
#[inline(always)]
fn soften<S: Simd>(simd: S, weights: &mut [f32], padded: usize, scale: f32) {
    let per_row = padded / S::F32_LANES;
    let (rows, scale) = (S::as_mut_simd_f32s(weights).0, simd.splat_f32s(scale));
    // One register of every row at a time: the exponential's constants fill the others.
    for lane in 0..per_row {
        let mut max = rows[lane];
        let mut at = lane;
        while let Some(&x) = rows.get(at) {
            max = simd.max_f32s(max, x);
            at += per_row;
        }
        let mut sum = simd.splat_f32s(0.0);
        let mut at = lane;
        while let Some(x) = rows.get_mut(at) {
            *x = exp_of(simd, simd.mul_f32s(simd.sub_f32s(*x, max), scale));
            sum = simd.add_f32s(sum, *x);
            at += per_row;
        }
        let factor = simd.div_f32s(simd.splat_f32s(1.0), sum);
        let mut at = lane;
        while let Some(x) = rows.get_mut(at) {
            *x = simd.mul_f32s(*x, factor);
            at += per_row;
        }
    }
}

/// Replaces `gradient`, that of the weights w, by that of what they are the softmax of:
/// scale · w (d − Σ w d), with d the gradient of w and the sum over keys.
#[inline(always)]
fn soften_backward<S: Simd>(
    simd: S,
    gradient: &mut [f32],
    weights: &[f32],
    padded: usize,
    scale: f32,
) {
    let per_row = padded / S::F32_LANES;
    let (gradient, scale) = (S::as_mut_simd_f32s(gradient).0, simd.splat_f32s(scale));
    let weights = &S::as_simd_f32s(weights).0[..gradient.len()];
    for lane in 0..per_row {
        let mut mean = simd.splat_f32s(0.0);
        let mut at = lane;
        while at < gradient.len() {
            mean = simd.mul_add_e_f32s(gradient[at], weights[at], mean);
            at += per_row;
        }
        let mut at = lane;
        while at < gradient.len() {
            let apart = simd.sub_f32s(gradient[at], mean);
            gradient[at] = simd.mul_f32s(simd.mul_f32s(weights[at], scale), apart);
            at += per_row;
        }
    }
}

struct Forward<'a> {
    sizes: Attention,
    out: &'a mut [f32],
    weights: &'a mut [f32],
    qkv: &'a [f32],
    queries: Queries<'a>,
    related: Related<'a>,
    scratch: &'a mut Vec<f32>,
}

impl WithSimd for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { sizes, out, weights, qkv, queries, related, scratch } = self;
        let Attention { t, size, heads, relations } = sizes;
        let all = t + relations;
        let (width, n) = (sizes.width(), queries.rows.len());
        let padded = n.next_multiple_of(S::F32_LANES);
        let scale = 1.0 / (size as f32).sqrt();
        scratch.clear();
        scratch.resize(width * padded, 0.0);
        transpose(scratch, padded, n, width, |i| part(qkv, 3 * width, queries.token(i), 0, width));
        for head in 0..heads {
            let by_features = &scratch[head * size * padded..][..size * padded];
            let weights = &mut weights[head * all * padded..][..all * padded];
            let first = head * size;
            let key = |j: usize| part(qkv, 3 * width, j, width + first, size);
            let value = |j: usize| part(qkv, 3 * width, j, 2 * width + first, size);
            in_tiles!(4, t, j, R => {
                products::<S, R>(simd, weights, key, by_features, (padded, size), j)
            });
            if relations == 0 {
                soften(simd, weights, padded, scale);
                in_tiles!(8, n, i, R => {
                    let down = |j: usize| weights[j * padded + i..].as_chunks::<R>().0[0];
                    mix::<S, R>(simd, t, size, down, value, |r, c, sum| {
                        let out = &mut out[(i + r) * width + first..][..size];
                        store_part(simd, &mut out[c..], sum);
                    })
                });
                continue;
            }
            let (of_keys, of_relations) = weights.split_at_mut(t * padded);
            let row = |r: usize| part(related.keys, width, r, first, size);
            in_tiles!(4, relations, r, R => {
                products::<S, R>(simd, of_relations, row, by_features, (padded, size), r)
            });
            let places = Places { t, relations, padded, queries, codes: related.codes };
            places.spread(related.edges, of_keys, of_relations);
            if related.edges {
                places.hide(of_keys, -FAR);
            }
            soften(simd, of_keys, padded, scale);
            if related.edges {
                places.hide(of_keys, 0.0);
            }
            places.gather(related.edges, of_keys, of_relations);
            let any = |j: usize| match j.checked_sub(t) {
                None => value(j),
                Some(r) => part(related.values, width, r, first, size),
            };
            in_tiles!(8, n, i, R => {
                let down = |j: usize| weights[j * padded + i..].as_chunks::<R>().0[0];
                mix::<S, R>(simd, all, size, down, any, |r, c, sum| {
                    let out = &mut out[(i + r) * width + first..][..size];
                    store_part(simd, &mut out[c..], sum);
                })
            });
        }
    }
}

/// Far below any score.
const FAR: f32 = 1e30;

/// Where the weights of a head of a sequence lie that belong together: those of keys and of the rows of
/// relations.
#[derive(Clone, Copy)]
struct Places<'a> {
    t: usize,
    relations: usize,
    padded: usize,
    queries: Queries<'a>,
    codes: &'a [i32],
}

impl Places<'_> {
    /// Adds to the score of every key that of its relation's row.
    #[inline(always)]
    fn spread(self, edges: bool, of_keys: &mut [f32], of_relations: &[f32]) {
        match edges {
            false => self.by_relation(|key, relation| of_keys[key] += of_relations[relation]),
            true => self.by_edge(|key, relation, part| {
                of_keys[key] += part * of_relations[relation];
            }),
        }
    }

    /// The weight of every relation's row: that of the keys that have it.
    #[inline(always)]
    fn gather(self, edges: bool, of_keys: &[f32], of_relations: &mut [f32]) {
        of_relations.fill(0.0);
        match edges {
            false => self.by_relation(|key, relation| of_relations[relation] += of_keys[key]),
            true => self.by_edge(|key, relation, part| {
                of_relations[relation] += part * of_keys[key];
            }),
        }
    }

    /// Calls `each` with the places of every key and of its relation's row, for every query.
    #[inline(always)]
    fn by_relation(self, mut each: impl FnMut(usize, usize)) {
        let Self { t, padded, queries, codes, .. } = self;
        for i in 0..queries.rows.len() {
            let codes = &codes[queries.token(i) * t..][..t];
            for (j, &code) in codes.iter().enumerate() {
                each(j * padded + i, code as usize * padded + i);
            }
        }
    }

    /// Calls `each` with the places of every neighbour and of its edge's row and with 1, for every query;
    /// and with the same row for the query itself, and its part in the mean row of all edges.
    #[inline(always)]
    fn by_edge(self, mut each: impl FnMut(usize, usize, f32)) {
        let Self { t, relations, padded, queries, codes } = self;
        for i in 0..queries.rows.len() {
            let own = queries.token(i);
            let joined = neighbours(own, &codes[own * t..][..t], relations);
            let part = 1.0 / joined.clone().count() as f32;
            for (j, kind) in joined {
                each(j * padded + i, kind * padded + i, 1.0);
                each(own * padded + i, kind * padded + i, part);
            }
        }
    }

    /// Sets the weights of keys that are no neighbours.
    #[inline(always)]
    fn hide(self, of_keys: &mut [f32], weight: f32) {
        let Self { t, relations, padded, queries, codes } = self;
        for i in 0..queries.rows.len() {
            let own = queries.token(i);
            for (j, &code) in codes[own * t..][..t].iter().enumerate() {
                if j != own && edge(code, relations).is_none() {
                    of_keys[j * padded + i] = weight;
                }
            }
        }
    }
}

/// The other tokens that a token is joined to, and the kinds of their edges, by what it is to each.
#[inline(always)]
pub(super) fn neighbours(
    own: usize,
    codes: &[i32],
    kinds: usize,
) -> impl Iterator<Item = (usize, usize)> + Clone + '_ {
    let others = codes.iter().enumerate().filter(move |&(j, _)| j != own);
    others.filter_map(move |(j, &code)| Some((j, edge(code, kinds)?)))
}

/// Writes as much of a register as there is room for.
#[inline(always)]
fn store_part<S: Simd>(simd: S, to: &mut [f32], values: S::f32s) {
    let n = to.len().min(S::F32_LANES);
    store(simd, &mut to[..n], values);
}

/// Adds as much of a register as there is room for.
#[inline(always)]
fn add_part<S: Simd>(simd: S, to: &mut [f32], values: S::f32s) {
    let n = to.len().min(S::F32_LANES);
    let before = simd.partial_load_f32s(&to[..n]);
    store(simd, &mut to[..n], simd.add_f32s(before, values));
}

struct Backward<'a> {
    sizes: Attention,
    of_qkv: &'a mut [f32],
    gradient: &'a [f32],
    weights: &'a [f32],
    qkv: &'a [f32],
    queries: Queries<'a>,
    related: Related<'a>,
    of_related: [&'a mut [f32]; 2],
    scratch: &'a mut Vec<f32>,
}

impl WithSimd for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { sizes, of_qkv, gradient, weights, qkv, queries, related, of_related, scratch } =
            self;
        let Attention { t, size, heads, relations } = sizes;
        let (width, n, all) = (sizes.width(), queries.rows.len(), t + relations);
        let padded = n.next_multiple_of(S::F32_LANES);
        let scale = 1.0 / (size as f32).sqrt();
        scratch.clear();
        scratch.resize((width + all) * padded, 0.0);
        let (columns, of_scores) = scratch.split_at_mut(width * padded);
        transpose(columns, padded, n, width, |i| part(gradient, width, i, 0, width));
        if n < t {
            // No gradient comes from queries that there are none of.
            for row in of_qkv.chunks_exact_mut(3 * width) {
                row[..width].fill(0.0);
            }
        }
        let [of_key_rows, of_value_rows] = of_related;
        let places = Places { t, relations, padded, queries, codes: related.codes };
        for head in 0..heads {
            let weights = &weights[head * all * padded..][..all * padded];
            let first = head * size;
            let query = |i: usize| part(qkv, 3 * width, queries.token(i), first, size);
            let key = |j: usize| part(qkv, 3 * width, j, width + first, size);
            let value = |j: usize| part(qkv, 3 * width, j, 2 * width + first, size);
            let columns = &columns[head * size * padded..][..size * padded];
            let upstream = |i: usize| part(gradient, width, i, first, size);
            let (of_keys, of_relations) = of_scores.split_at_mut(t * padded);
            in_tiles!(4, t, j, R => {
                products::<S, R>(simd, of_keys, value, columns, (padded, size), j)
            });
            if relations > 0 {
                let row = |r: usize| part(related.values, width, r, first, size);
                in_tiles!(4, relations, r, R => {
                    products::<S, R>(simd, of_relations, row, columns, (padded, size), r)
                });
                places.spread(related.edges, of_keys, of_relations);
            }
            soften_backward(simd, of_keys, weights, padded, scale);
            if relations == 0 {
                in_tiles!(8, n, i, R => {
                    let down = |j: usize| of_keys[j * padded + i..].as_chunks::<R>().0[0];
                    mix::<S, R>(simd, t, size, down, key, |r, c, sum| {
                        let row = &mut of_qkv[queries.token(i + r) * 3 * width + first..][..size];
                        store_part(simd, &mut row[c..], sum);
                    })
                });
            } else {
                places.gather(related.edges, of_keys, of_relations);
                let any = |j: usize| match j.checked_sub(t) {
                    None => key(j),
                    Some(r) => part(related.keys, width, r, first, size),
                };
                in_tiles!(8, n, i, R => {
                    let down = |j: usize| of_scores[j * padded + i..].as_chunks::<R>().0[0];
                    mix::<S, R>(simd, all, size, down, any, |r, c, sum| {
                        let row = &mut of_qkv[queries.token(i + r) * 3 * width + first..][..size];
                        store_part(simd, &mut row[c..], sum);
                    })
                });
                // One by one: what is added up must not be done twice.
                for r in 0..relations {
                    let rows = rows_of::<1>(of_scores, t + r, padded, n);
                    let to = &mut of_key_rows[r * width + first..][..size];
                    mix::<S, 1>(
                        simd,
                        n,
                        size,
                        |i| along(rows, i),
                        query,
                        |_, c, sum| {
                            add_part(simd, &mut to[c..], sum);
                        },
                    );
                    let rows = rows_of::<1>(weights, t + r, padded, n);
                    let to = &mut of_value_rows[r * width + first..][..size];
                    mix::<S, 1>(
                        simd,
                        n,
                        size,
                        |i| along(rows, i),
                        upstream,
                        |_, c, sum| {
                            add_part(simd, &mut to[c..], sum);
                        },
                    );
                }
            }
            in_tiles!(4, t, j, R => {
                let rows = rows_of::<R>(of_scores, j, padded, n);
                mix::<S, R>(simd, n, size, |i| along(rows, i), query, |r, c, sum| {
                    let row = &mut of_qkv[(j + r) * 3 * width + width + first..][..size];
                    store_part(simd, &mut row[c..], sum);
                })
            });
            in_tiles!(4, t, j, R => {
                let rows = rows_of::<R>(weights, j, padded, n);
                mix::<S, R>(simd, n, size, |i| along(rows, i), upstream, |r, c, sum| {
                    let row = &mut of_qkv[(j + r) * 3 * width + 2 * width + first..][..size];
                    store_part(simd, &mut row[c..], sum);
                })
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(n: usize, seed: f32) -> Vec<f32> {
        (0..n).map(|i| (i as f32 * 0.73 + seed).sin()).collect()
    }

    /// Σ over outputs of upstream · output, in double precision, by the definition. `numbers` are the
    /// queries, keys and values of all tokens, then the rows of relations for keys and for values.
    fn by_definition(
        sizes: Attention,
        numbers: &[f64],
        (codes, edges): (&[i32], bool),
        queries: &[i32],
        upstream: &[f32],
    ) -> f64 {
        let Attention { t, heads, size, relations } = sizes;
        let width = sizes.width();
        let (qkv, rows) = numbers.split_at(3 * t * width);
        let at = |token: usize, part: usize, c: usize| qkv[(token * 3 + part) * width + c];
        let code = |i: i32, j: usize| codes[i as usize * t + j];
        let of_kind =
            |kind: usize, values: usize, c: usize| rows[(values * relations + kind) * width + c];
        let joined = |i: i32| {
            let others = (0..t).filter(move |&j| j != i as usize);
            others.filter_map(move |j| edge(code(i, j), relations)).collect::<Vec<_>>()
        };
        let row = |i: i32, j: usize, values: usize, c: usize| match (relations, edges) {
            (0, _) => 0.0,
            (_, false) => of_kind(code(i, j) as usize, values, c),
            (_, true) if j == i as usize => {
                let rows = joined(i).into_iter().map(|kind| of_kind(kind, values, c));
                rows.sum::<f64>() / joined(i).len().max(1) as f64
            }
            (_, true) => of_kind(edge(code(i, j), relations).unwrap(), values, c),
        };
        let counts =
            |i: i32, j: usize| !edges || j == i as usize || edge(code(i, j), relations).is_some();
        let mut total = 0.0;
        for (head, (place, &i)) in
            (0..heads).flat_map(|head| queries.iter().enumerate().map(move |query| (head, query)))
        {
            let features = head * size..(head + 1) * size;
            let key = |j, c| at(j, 1, c) + row(i, j, 0, c);
            let score = |j| features.clone().map(|c| at(i as usize, 0, c) * key(j, c)).sum();
            let power = |j: usize| -> f64 {
                let score: f64 = score(j);
                (score / (size as f64).sqrt()).exp()
            };
            let power: Vec<f64> =
                (0..t).map(|j| if counts(i, j) { power(j) } else { 0.0 }).collect();
            let sum: f64 = power.iter().sum();
            for c in features.clone() {
                let value = |j| at(j, 2, c) + row(i, j, 1, c);
                let attended = (0..t).filter(|&j| counts(i, j));
                let mixed: f64 = attended.map(|j| power[j] / sum * value(j)).sum();
                total += f64::from(upstream[place * width + c]) * mixed;
            }
        }
        total
    }

    /// Every way of cutting tokens into tiles and of padding tokens and features; all tokens attend,
    /// or some; with and without relations; to all tokens, or to neighbours.
    #[test]
    fn passes_agree_with_the_definition() {
        for (t, heads, size, relations, edges) in [
            (1, 1, 1, 0, false),
            (5, 3, 8, 0, false),
            (16, 2, 8, 0, false),
            (20, 1, 3, 0, false),
            (9, 2, 16, 0, false),
            (33, 1, 20, 0, false),
            (6, 2, 8, 6, false),
            (18, 3, 3, 9, false),
            (1, 1, 4, 3, false),
            (1, 2, 8, 3, true),
            (7, 2, 8, 5, true),
            (19, 1, 3, 2, true),
        ] {
            let sizes = Attention { t, heads, size, relations };
            let (base, width) = (40, sizes.width());
            let numbers = filled((3 * t + 2 * relations) * width, 0.1);
            let (qkv, rows) = numbers.split_at(3 * t * width);
            let (keys, values) = rows.split_at(relations * width);
            // Besides what edges are there may be none, and relations of a token to itself and the first.
            let kinds = if edges { relations + 3 } else { relations.max(1) };
            let codes: Vec<i32> = (0..t * t).map(|k| (k * 7 % 11 % kinds) as i32).collect();
            let related = Related { keys, values, codes: &codes, edges };
            let all: Vec<i32> = (0..t as i32).collect();
            let some: Vec<i32> = all.iter().copied().filter(|i| i % 3 != 1).collect();
            for queries in [&all, &some, &vec![t as i32 - 1]] {
                let what = format!("{t} {heads} {size} {relations}, {} queries", queries.len());
                let n = queries.len();
                let numbered: Vec<i32> = queries.iter().map(|i| i + base).collect();
                let attend = Queries { rows: &numbered, base };
                let upstream = filled(n * width, 0.5);
                let mut scratch = vec![9.0; 5];
                let mut out = vec![7.0; n * width];
                let mut weights = vec![7.0; sizes.per_sequence()];
                sizes.forward(&mut out, &mut weights, qkv, attend, related, &mut scratch);
                let wide: Vec<f64> = numbers.iter().map(|&x| f64::from(x)).collect();
                let total: f64 = out.iter().zip(&upstream).map(|(x, up)| f64::from(x * up)).sum();
                let codes = (&codes[..], edges);
                let expected = by_definition(sizes, &wide, codes, queries, &upstream);
                assert!((total - expected).abs() < 1e-4, "{what}: {total} {expected}");
                let mut back = vec![7.0; qkv.len()];
                back.resize(numbers.len(), 0.0);
                let (of_qkv, of_rows) = back.split_at_mut(qkv.len());
                let (of_keys, of_values) = of_rows.split_at_mut(keys.len());
                let of_related = [of_keys, of_values];
                sizes.backward(
                    of_qkv,
                    &upstream,
                    &weights,
                    qkv,
                    attend,
                    related,
                    of_related,
                    &mut scratch,
                );
                // Every 5th input, by differences.
                for i in (0..numbers.len()).step_by(5) {
                    let h = 1e-5;
                    let at = |sign: f64| {
                        let mut moved = wide.clone();
                        moved[i] += sign * h;
                        by_definition(sizes, &moved, codes, queries, &upstream)
                    };
                    let slope = (at(1.0) - at(-1.0)) / (2.0 * h);
                    assert!((f64::from(back[i]) - slope).abs() < 1e-5, "{what} {i}");
                }
            }
        }
    }
}
