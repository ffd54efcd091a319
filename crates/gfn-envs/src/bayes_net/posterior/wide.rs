//! Numbers with the mantissa of a double and an exponent of 32 bits.

use std::f64::consts::{LN_2, LOG2_E};
use std::iter::Sum;
use std::ops::{Add, Mul, Sub};

/// `mantissa` 2^`exponent`: ratios of marginal likelihoods leave the range of doubles, while sums
/// of both signs rule out logarithms.
///
/// The mantissa's magnitude lies in [1, 2), or it is 0. Results are rounded like those of doubles.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Wide {
    mantissa: f64,
    exponent: i32,
}

/// That of zero: below all others, and far enough from the limits of an `i32` to be added to.
const LOWEST: i32 = i32::MIN / 4;

/// 2^`exponent`, or 0 where that is no normal double. Not for exponents above 1023.
#[inline]
pub(super) fn power_of_two(exponent: i32) -> f64 {
    f64::from_bits(((exponent + 1023).max(0) as u64) << 52)
}

impl Wide {
    /// 0.
    pub const ZERO: Self = Self { mantissa: 0.0, exponent: LOWEST };
    /// 1.
    pub const ONE: Self = Self { mantissa: 1.0, exponent: 0 };

    /// `mantissa` 2^`exponent`, for any double but subnormal ones, which become 0.
    #[inline]
    pub fn new(mantissa: f64, exponent: i32) -> Self {
        let bits = mantissa.to_bits();
        let own = (bits >> 52 & 0x7ff) as i32;
        if own == 0 {
            return Self::ZERO;
        }
        let mantissa = f64::from_bits(bits & !(0x7ff << 52) | 1023 << 52);
        Self { mantissa, exponent: exponent + own - 1023 }
    }

    /// exp(`x`); 0 for -infinity.
    pub fn exp(x: f64) -> Self {
        if x == f64::NEG_INFINITY {
            return Self::ZERO;
        }
        let exponent = (x * LOG2_E).round();
        // ln 2 in two parts: the first has 20 zero bits at its end, so its multiples are exact.
        let high = f64::from_bits(LN_2.to_bits() & !0xf_ffff);
        let low = LN_2 - high + LN_2_TAIL;
        Self::new((x - exponent * high - exponent * low).exp(), exponent as i32)
    }

    /// Natural logarithm; -infinity for 0, NaN below.
    pub fn ln(self) -> f64 {
        if self.mantissa == 0.0 {
            return f64::NEG_INFINITY;
        }
        self.mantissa.ln() + f64::from(self.exponent) * LN_2
    }

    /// The mantissa, in [1, 2) up to sign, or 0.
    #[inline]
    pub(super) fn mantissa(self) -> f64 {
        self.mantissa
    }

    /// The exponent; far below all others for 0.
    #[inline]
    pub(super) fn exponent(self) -> i32 {
        self.exponent
    }

    /// Whether this is above 0.
    pub fn is_positive(self) -> bool {
        self.mantissa > 0.0
    }

    /// `self / other` as a double, which may become infinite or 0. `other` is not 0.
    #[inline]
    pub fn ratio(self, other: Self) -> f64 {
        let exponent = self.exponent - other.exponent;
        let mantissa = self.mantissa / other.mantissa;
        if exponent > 1022 { mantissa * f64::INFINITY } else { mantissa * power_of_two(exponent) }
    }
}

/// What the double ln 2 lacks.
const LN_2_TAIL: f64 = 2.319_046_813_846_299_6e-17;

impl Add for Wide {
    type Output = Self;
    #[inline]
    fn add(self, other: Self) -> Self {
        let (high, low) =
            if self.exponent >= other.exponent { (self, other) } else { (other, self) };
        let low = low.mantissa * power_of_two(low.exponent - high.exponent);
        Self::new(high.mantissa + low, high.exponent)
    }
}

impl Sub for Wide {
    type Output = Self;
    #[inline]
    fn sub(self, other: Self) -> Self {
        self + Self { mantissa: -other.mantissa, exponent: other.exponent }
    }
}

impl Mul for Wide {
    type Output = Self;
    #[inline]
    fn mul(self, other: Self) -> Self {
        Self::new(self.mantissa * other.mantissa, self.exponent + other.exponent)
    }
}

impl Sum for Wide {
    fn sum<I: Iterator<Item = Self>>(numbers: I) -> Self {
        numbers.fold(Self::ZERO, Add::add)
    }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "rounding is that of doubles, to the last bit")]
mod tests {
    use super::*;

    fn wide(x: f64) -> Wide {
        Wide::new(x, 0)
    }

    fn double(x: Wide) -> f64 {
        x.ratio(Wide::ONE)
    }

    #[test]
    fn arithmetic_is_that_of_doubles() {
        let numbers = [0.0, 1.0, -1.0, 0.1, 3.0, -1e10, 7e-12, 1.0 + f64::EPSILON, 1e200, -2e-200];
        for a in numbers {
            assert_eq!(double(wide(a)), a);
            for b in numbers {
                assert_eq!(double(wide(a) + wide(b)), a + b, "{a} + {b}");
                assert_eq!(double(wide(a) - wide(b)), a - b, "{a} - {b}");
                if (a * b).is_normal() || a * b == 0.0 {
                    assert_eq!(double(wide(a) * wide(b)), a * b, "{a} * {b}");
                }
                if b != 0.0 && (a / b).is_normal() {
                    assert_eq!(wide(a).ratio(wide(b)), a / b, "{a} / {b}");
                }
            }
        }
    }

    #[test]
    fn exponents_go_far() {
        let tiny = Wide::exp(-1e6);
        assert!((tiny.ln() + 1e6).abs() < 1e-9);
        let product = tiny * Wide::exp(999_999.0);
        assert!((double(product) - (-1f64).exp()).abs() < 1e-15);
        assert_eq!(tiny + Wide::ONE, Wide::ONE);
        assert_eq!(tiny - tiny, Wide::ZERO);
        assert_eq!(double(Wide::exp(-2000.0)), 0.0);
        assert_eq!(double(Wide::exp(2000.0)), f64::INFINITY);
        assert_eq!((tiny + tiny).ratio(tiny), 2.0);
    }

    #[test]
    fn exp_keeps_its_digits() {
        // exp(n ln 2 + r) against 2^n exp(r): the double n ln 2 is known to its last bit.
        for n in [1, 10, 1000, 12345] {
            let x = f64::from(n) * LN_2;
            let residue = (f64::from(n)).mul_add(LN_2, -x) + f64::from(n) * LN_2_TAIL;
            let got = Wide::exp(x).ratio(Wide::new(1.0, n));
            assert!((got - (-residue).exp()).abs() < 1e-15, "{n}: {got}");
        }
        assert_eq!(Wide::exp(f64::NEG_INFINITY), Wide::ZERO);
        assert_eq!(Wide::ZERO.ln(), f64::NEG_INFINITY);
        assert!(!Wide::ZERO.is_positive() && Wide::ONE.is_positive());
    }

    #[test]
    fn zero_is_neutral_and_absorbs() {
        let x = Wide::exp(-5e5);
        assert_eq!(x + Wide::ZERO, x);
        assert_eq!(Wide::ZERO + x, x);
        assert_eq!(x * Wide::ZERO, Wide::ZERO);
        assert_eq!(Wide::ZERO * Wide::ZERO + Wide::ZERO, Wide::ZERO);
        let sum: Wide = [x, x, x].into_iter().sum();
        assert!((sum.ratio(x) - 3.0).abs() < 1e-15);
    }
}
