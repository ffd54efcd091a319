//! Normal numbers that are the same on every machine.

use rand::RngExt;
use rand::rngs::ChaCha8Rng;

/// A standard normal number, by Marsaglia's polar method.
pub fn normal(rng: &mut ChaCha8Rng) -> f64 {
    loop {
        let [x, y] = [(); 2].map(|()| 2.0 * rng.random::<f64>() - 1.0);
        let square = x * x + y * y;
        if square > 0.0 && square < 1.0 {
            return x * (-2.0 * ln(square) / square).sqrt();
        }
    }
}

/// Natural logarithm of a normal number above 0, from the basic operations alone: their rounding is
/// prescribed, while that of a mathematical library differs between machines.
pub fn ln(x: f64) -> f64 {
    let bits = x.to_bits();
    let mut exponent = (bits >> 52) as i32 - 1023;
    let mut mantissa = f64::from_bits(bits & !(0x7ff << 52) | 1023 << 52);
    if mantissa > std::f64::consts::SQRT_2 {
        mantissa *= 0.5;
        exponent += 1;
    }
    // 2 artanh(s), where |s| < 0.172, so 12 terms suffice.
    let s = (mantissa - 1.0) / (mantissa + 1.0);
    let series = (0..12).rev().fold(0.0, |sum, k| sum * s * s + 1.0 / f64::from(2 * k + 1));
    2.0 * s * series + f64::from(exponent) * std::f64::consts::LN_2
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Purpose, Streams};

    #[test]
    fn logarithms_are_accurate() {
        for x in [1.0, 0.5, 1.5, 1e-300, 3e-10, 0.999_999, 1.000_001, 123.456, 0.707, 1.414_3] {
            let error = (ln(x) - f64::ln(x)).abs();
            assert!(error <= 4e-16 * f64::ln(x).abs().max(1e-6), "{x}: {error}");
        }
    }

    #[test]
    fn normal_numbers_have_their_moments() {
        let mut rng = Streams::new(0).get(Purpose::Test, 0);
        let n = 200_000;
        let mut moments = [0.0; 4];
        for _ in 0..n {
            let x = normal(&mut rng);
            (1..=4).for_each(|k| moments[k as usize - 1] += x.powi(k) / f64::from(n));
        }
        // Standard errors: sqrt of 1, 2, 15 and 96 over n.
        for ((moment, expected), variance) in
            moments.into_iter().zip([0.0, 1.0, 0.0, 3.0]).zip([1.0, 2.0, 15.0, 96.0f64])
        {
            let z = (moment - expected) / (variance / f64::from(n)).sqrt();
            assert!(z.abs() < 4.0, "{moments:?}");
        }
    }
}
