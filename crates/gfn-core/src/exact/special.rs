//! The few special functions that exact evaluation needs, in double precision.

/// log(sum of exp(x)), stable; -infinity for an empty sum.
pub fn log_sum_exp(xs: impl IntoIterator<Item = f64> + Clone) -> f64 {
    let max = xs.clone().into_iter().fold(f64::NEG_INFINITY, f64::max);
    if !max.is_finite() {
        return max;
    }
    max + xs.into_iter().map(|x| (x - max).exp()).sum::<f64>().ln()
}

/// log(exp(a) + exp(b)).
pub fn log_add_exp(a: f64, b: f64) -> f64 {
    let (low, high) = if a < b { (a, b) } else { (b, a) };
    if low == f64::NEG_INFINITY { high } else { high + (low - high).exp().ln_1p() }
}

/// log Γ(x) for x > 0: Stirling's series after shifting the argument above 10.
///
/// Absolute error below 1e-12 relative to max(1, |log Γ|).
pub fn ln_gamma(x: f64) -> f64 {
    let mut shift = 0.0;
    let mut x = x;
    while x < 10.0 {
        shift -= x.ln();
        x += 1.0;
    }
    let inv = 1.0 / x;
    let inv2 = inv * inv;
    let series = inv
        * (1.0 / 12.0
            - inv2 * (1.0 / 360.0 - inv2 * (1.0 / 1260.0 - inv2 * (1.0 / 1680.0 - inv2 / 1188.0))));
    shift + (x - 0.5) * x.ln() - x + 0.5 * (2.0 * std::f64::consts::PI).ln() + series
}

/// E|X/n - p| for X ~ Binomial(n, p): De Moivre's closed form for the mean absolute deviation.
pub fn binomial_mean_deviation(n: u64, p: f64) -> f64 {
    if n == 0 || p <= 0.0 || p >= 1.0 {
        return 0.0;
    }
    let nf = n as f64;
    let m = (nf * p).floor();
    // 2 (m+1) C(n, m+1) p^(m+1) (1-p)^(n-m) / n
    let log_term = (m + 1.0).ln() + ln_gamma(nf + 1.0) - ln_gamma(m + 2.0) - ln_gamma(nf - m)
        + (m + 1.0) * p.ln()
        + (nf - m) * (-p).ln_1p();
    2.0 * log_term.exp() / nf
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ln_gamma_is_log_factorial() {
        let mut log_factorial = 0.0;
        for n in 1..200u32 {
            log_factorial += f64::from(n).ln();
            let got = ln_gamma(f64::from(n) + 1.0);
            assert!((got - log_factorial).abs() < 1e-11 * log_factorial.max(1.0), "{n}");
        }
        assert!((ln_gamma(0.5) - std::f64::consts::PI.sqrt().ln()).abs() < 1e-12);
    }

    #[test]
    fn binomial_deviation_equals_the_sum() {
        for (n, p) in [(1u64, 0.3f64), (7, 0.5), (12, 0.01), (30, 0.97)] {
            let mut expected = 0.0;
            let mut mass = (1.0 - p).powi(n as i32);
            for k in 0..=n {
                expected += mass * (k as f64 / n as f64 - p).abs();
                mass *= (n - k) as f64 / (k + 1) as f64 * p / (1.0 - p);
            }
            assert!((binomial_mean_deviation(n, p) - expected).abs() < 1e-12, "{n} {p}");
        }
    }
}
