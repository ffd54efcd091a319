//! Axes: where values lie, where ticks stand and what they say.

/// An axis of a panel.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Axis {
    /// What is measured.
    pub label: String,
    /// From values to places.
    pub scale: Scale,
    /// Names at 0, 1, … instead of numbers.
    pub categories: Vec<String>,
}

/// A range of values, evenly or by orders of magnitude.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scale {
    /// Whether it is logarithmic.
    pub log: bool,
    /// Lowest value; positive where it is logarithmic.
    pub low: f64,
    /// Highest value, above the lowest.
    pub high: f64,
}

impl Default for Scale {
    fn default() -> Self {
        Self { log: false, low: 0.0, high: 1.0 }
    }
}

/// A tick, with its label unless it is a minor one.
#[derive(Clone, Debug, PartialEq)]
pub struct Tick {
    /// Where.
    pub value: f64,
    /// What it says.
    pub label: Option<String>,
}

impl Scale {
    /// The scale of all values, with a margin on both sides as a share of their span; what cannot lie
    /// on it is left out. None of no values.
    pub fn of(values: impl Iterator<Item = f64>, log: bool, margin: f64) -> Option<Self> {
        let mut span: Option<(f64, f64)> = None;
        for value in values.filter(|&v| v.is_finite() && (!log || v > 0.0)) {
            let (low, high) = span.unwrap_or((value, value));
            span = Some((low.min(value), high.max(value)));
        }
        let (low, high) = span?;
        if log {
            let (a, b) = (low.log10(), high.log10());
            // Points of one value get a tenth of a decade around them.
            let margin = if b - a > 1e-9 { margin * (b - a) } else { 0.1 };
            return Some(Self { log, low: 10f64.powf(a - margin), high: 10f64.powf(b + margin) });
        }
        let distance = high - low;
        let margin = match distance > 1e-12 * high.abs().max(low.abs()) && distance > 0.0 {
            true => margin * distance,
            false => 0.5 * high.abs().max(f64::MIN_POSITIVE.sqrt()),
        };
        // What is never negative is not shown as if it could be.
        let padded = low - margin;
        Some(Self {
            log,
            low: if low >= 0.0 { padded.max(0.0) } else { padded },
            high: high + margin,
        })
    }

    /// Where a value lies: 0 at the lowest, 1 at the highest, outside of them beyond. What a
    /// logarithmic scale cannot show lies far below.
    pub fn place(&self, value: f64) -> f64 {
        const FAR_BELOW: f64 = -10.0;
        match self.log {
            true if value > 0.0 => (value / self.low).log10() / (self.high / self.low).log10(),
            true => FAR_BELOW,
            false => (value - self.low) / (self.high - self.low),
        }
    }

    /// About `target` labelled ticks, and minor ones between the decades of a logarithmic scale.
    pub fn ticks(&self, target: usize) -> Vec<Tick> {
        if self.log { self.log_ticks(target) } else { self.linear_ticks(target) }
    }

    fn linear_ticks(&self, target: usize) -> Vec<Tick> {
        let rough = (self.high - self.low) / target.max(1) as f64;
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|m| m * power);
        let step = step.into_iter().find(|&step| step >= rough * 0.999).unwrap_or(10.0 * power);
        let (first, last) = ((self.low / step - 1e-9).ceil(), (self.high / step + 1e-9).floor());
        let values: Vec<f64> = (0..=(last - first).max(0.0) as usize)
            .map(|i| (first + i as f64) * step)
            .filter(|value| value.is_finite())
            .collect();
        let labels = labels(&values, step);
        values
            .into_iter()
            .zip(labels)
            .map(|(value, label)| Tick { value, label: Some(label) })
            .collect()
    }

    fn log_ticks(&self, target: usize) -> Vec<Tick> {
        let (low, high) = (self.low.log10(), self.high.log10());
        let inside = |value: f64| (self.low * 0.9999..=self.high * 1.0001).contains(&value);
        let decades: Vec<i32> = (low.floor() as i32..=high.ceil() as i32).collect();
        let whole = decades.iter().filter(|&&d| inside(10f64.powi(d))).count();
        // Within a decade or two, 2 and 5 are needed to read values off; within less, a linear scale's
        // ticks are.
        let one_two_five: usize = decades
            .iter()
            .map(|&d| [1.0, 2.0, 5.0].iter().filter(|&&m| inside(m * 10f64.powi(d))).count())
            .sum();
        if one_two_five < 3 {
            return self.linear_ticks(target);
        }
        let every = whole.div_ceil(target.max(1)).max(1) as i32;
        let dense = one_two_five <= target + 2;
        let mut ticks = Vec::new();
        for decade in decades {
            for digit in 1..10 {
                let value = f64::from(digit) * 10f64.powi(decade);
                if !inside(value) {
                    continue;
                }
                let labelled = match digit {
                    1 => decade.rem_euclid(every) == 0,
                    2 | 5 => dense,
                    _ => false,
                };
                if labelled || every == 1 {
                    ticks.push(Tick { value, label: labelled.then(|| log_label(digit, decade)) });
                }
            }
        }
        ticks
    }
}

/// Labels of evenly spaced numbers, all in one notation.
fn labels(values: &[f64], step: f64) -> Vec<String> {
    let largest = values.iter().fold(0.0f64, |largest, value| largest.max(value.abs()));
    let whole = |divisor: f64| ((step / divisor) * 10.0).round() >= 1.0;
    let (divisor, suffix) = match largest {
        l if (1e9..1e12).contains(&l) && whole(1e9) => (1e9, "G"),
        l if (1e6..1e9).contains(&l) && whole(1e6) => (1e6, "M"),
        l if (1e4..1e6).contains(&l) && whole(1e3) => (1e3, "k"),
        _ => (1.0, ""),
    };
    let exponent = largest.log10().floor() as i32;
    if largest > 0.0 && !(-4..12).contains(&exponent) {
        let unit = 10f64.powi(exponent);
        let label = |value: &f64| match *value {
            0.0 => "0".to_owned(),
            value => format!("{}·10{}", trimmed(value / unit, 2), superscript(exponent)),
        };
        return values.iter().map(label).collect();
    }
    let decimals = (-(step / divisor).log10().floor()).clamp(0.0, 9.0) as usize;
    let label = |value: &f64| match trimmed(value / divisor, decimals) {
        zero if zero == "0" => zero,
        number => format!("{number}{suffix}"),
    };
    values.iter().map(label).collect()
}

/// A number with at most so many decimals.
fn trimmed(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$}");
    let text = match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.'),
        false => &text,
    };
    if text == "-0" { "0".to_owned() } else { text.replace('-', "−") }
}

fn log_label(digit: i32, decade: i32) -> String {
    match decade {
        -3..=3 => trimmed(f64::from(digit) * 10f64.powi(decade), (-decade).max(0) as usize),
        _ if digit == 1 => format!("10{}", superscript(decade)),
        _ => format!("{digit}·10{}", superscript(decade)),
    }
}

fn superscript(number: i32) -> String {
    let raised = |c| match c {
        '-' => '⁻',
        '1' => '¹',
        '2' => '²',
        '3' => '³',
        digit => char::from_u32('⁰' as u32 + digit as u32 - '0' as u32).unwrap_or(digit),
    };
    number.to_string().chars().map(raised).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(low: f64, high: f64, log: bool, target: usize) -> String {
        let ticks = Scale { log, low, high }.ticks(target);
        ticks.into_iter().filter_map(|tick| tick.label).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn ticks_are_round_and_say_their_values() {
        assert_eq!(said(0.0, 1.0, false, 5), "0 0.2 0.4 0.6 0.8 1");
        assert_eq!(said(0.0, 0.013, false, 4), "0 0.005 0.01");
        assert_eq!(said(-3.0, 2.0, false, 5), "−3 −2 −1 0 1 2");
        assert_eq!(said(0.0, 32000.0, false, 4), "0 10k 20k 30k");
        assert_eq!(said(0.0, 1e6, false, 4), "0 0.5M 1M");
        assert_eq!(said(99.5, 100.5, false, 4), "99.5 100 100.5");
        assert_eq!(said(0.0, 4e-7, false, 4), "0 1·10⁻⁷ 2·10⁻⁷ 3·10⁻⁷ 4·10⁻⁷");
        assert_eq!(said(0.001, 1.0, true, 5), "0.001 0.01 0.1 1");
        assert_eq!(said(0.02, 0.9, true, 6), "0.02 0.05 0.1 0.2 0.5");
        assert_eq!(said(1e-12, 1.0, true, 4), "10⁻¹² 10⁻⁸ 10⁻⁴ 1");
        assert_eq!(said(2.2, 2.9, true, 4), "2.2 2.4 2.6 2.8");
    }

    #[test]
    fn scales_hold_their_values() {
        let scale = Scale::of([3.0, 1.0, f64::NAN].into_iter(), false, 0.0).unwrap();
        assert_eq!((scale.low, scale.high), (1.0, 3.0));
        assert_eq!((scale.place(1.0), scale.place(2.0), scale.place(3.0)), (0.0, 0.5, 1.0));
        let scale = Scale::of([0.01, 1.0, 0.0].into_iter(), true, 0.0).unwrap();
        assert!((scale.place(0.1) - 0.5).abs() < 1e-12);
        assert!(scale.place(0.0) < -1.0);
        for (value, log) in [(0.0, false), (5.0, false), (-5.0, false), (5.0, true)] {
            let scale = Scale::of(std::iter::once(value), log, 0.05).unwrap();
            assert!(scale.low <= value && value < scale.high, "{scale:?}");
        }
        assert_eq!(Scale::of([-1.0, 0.0].into_iter(), true, 0.0), None);
    }
}
