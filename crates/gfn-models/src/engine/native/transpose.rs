//! Transposes of small matrices, eight rows and columns at a time in registers where there are any of
//! that size.

/// Writes `n` rows of `cols` numbers as columns: `out[c · stride + r]` becomes number c of row r. Other
/// numbers of `out` stay as they are.
///
/// # Panics
/// When rows or `out` are too short.
#[inline(always)]
pub fn transpose<'a>(
    out: &mut [f32],
    stride: usize,
    n: usize,
    cols: usize,
    row: impl Fn(usize) -> &'a [f32],
) {
    let (mut whole_rows, mut whole_cols) = (0, 0);
    #[cfg(target_arch = "x86_64")]
    if let Some(simd) = pulp::x86::V3::try_new() {
        (whole_rows, whole_cols) = (n - n % 8, cols - cols % 8);
        squares(simd, out, stride, whole_rows, whole_cols, &row);
    }
    for r in 0..n {
        let first = if r < whole_rows { whole_cols } else { 0 };
        for (c, &value) in (first..cols).zip(&row(r)[first..cols]) {
            out[c * stride + r] = value;
        }
    }
}

/// Squares of eight by eight.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn squares<'a>(
    simd: pulp::x86::V3,
    out: &mut [f32],
    stride: usize,
    rows: usize,
    cols: usize,
    row: &impl Fn(usize) -> &'a [f32],
) {
    simd.vectorize(
        #[inline(always)]
        || {
            for r in (0..rows).step_by(8) {
                let mut of = [&[][..]; 8];
                for (i, of) in of.iter_mut().enumerate() {
                    *of = &row(r + i)[..cols];
                }
                for c in (0..cols).step_by(8) {
                    let mut square = [[0.0; 8]; 8];
                    for (line, of) in square.iter_mut().zip(of) {
                        *line = of[c..].as_chunks::<8>().0[0];
                    }
                    for (i, line) in turned(simd, square).into_iter().enumerate() {
                        out[(c + i) * stride + r..].as_chunks_mut::<8>().0[0] = line;
                    }
                }
            }
        },
    );
}

/// The transpose of a square: pairs of numbers, then of pairs, then of halves of registers change
/// places.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn turned(simd: pulp::x86::V3, square: [[f32; 8]; 8]) -> [[f32; 8]; 8] {
    let avx = simd.avx;
    let [a, b, c, d, e, f, g, h] = square.map(pulp::cast);
    let fours = |a, b, c, d| {
        let (low, high) = (avx._mm256_unpacklo_ps(a, b), avx._mm256_unpackhi_ps(a, b));
        let (low2, high2) = (avx._mm256_unpacklo_ps(c, d), avx._mm256_unpackhi_ps(c, d));
        [
            avx._mm256_shuffle_ps::<0x44>(low, low2),
            avx._mm256_shuffle_ps::<0xee>(low, low2),
            avx._mm256_shuffle_ps::<0x44>(high, high2),
            avx._mm256_shuffle_ps::<0xee>(high, high2),
        ]
    };
    let (top, bottom) = (fours(a, b, c, d), fours(e, f, g, h));
    let mut out = [[0.0; 8]; 8];
    for i in 0..4 {
        out[i] = pulp::cast(avx._mm256_permute2f128_ps::<0x20>(top[i], bottom[i]));
        out[i + 4] = pulp::cast(avx._mm256_permute2f128_ps::<0x31>(top[i], bottom[i]));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_become_columns() {
        for (n, cols) in [(1, 1), (7, 9), (8, 8), (16, 64), (13, 21), (24, 5)] {
            let stride = n + 3;
            let matrix: Vec<f32> = (0..n * cols).map(|i| i as f32).collect();
            let mut out = vec![-1.0; cols * stride];
            transpose(&mut out, stride, n, cols, |r| &matrix[r * cols..]);
            for (i, &x) in out.iter().enumerate() {
                let (c, r) = (i / stride, i % stride);
                let expected = if r < n { matrix[r * cols + c] } else { -1.0 };
                assert_eq!(x, expected, "{n} {cols}: {r} {c}");
            }
        }
    }
}
