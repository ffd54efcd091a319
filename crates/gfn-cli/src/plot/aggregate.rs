//! Curves of several seeds as one: matched by their x, with a band.

use clap::ValueEnum;

use crate::collect::Run;
use crate::stats::{Statistic, bootstrap, std};

/// Places of an aggregated curve; more are thinned out evenly.
const MOST_PLACES: usize = 400;
/// Of bootstrap intervals.
pub const LEVEL: f64 = 0.95;

/// What is drawn around a statistic of several seeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Band {
    /// The 95 % percentile bootstrap interval of the statistic.
    Ci,
    /// One standard deviation up and down.
    Std,
    /// From the lowest to the highest.
    Minmax,
    /// Nothing.
    None,
}

impl Band {
    /// The band around a statistic of values; none of a single one.
    pub fn around(self, values: &[f64], statistic: Statistic, value: f64) -> Option<[f64; 2]> {
        match self {
            Self::None => None,
            _ if values.len() < 2 => None,
            Self::Ci => bootstrap(values, statistic, LEVEL),
            Self::Std => std(values).map(|std| [value - std, value + std]),
            Self::Minmax => {
                let low = values.iter().copied().fold(f64::INFINITY, f64::min);
                Some([low, values.iter().copied().fold(f64::NEG_INFINITY, f64::max)])
            }
        }
    }

    /// Its name in captions.
    pub fn name(self) -> Option<&'static str> {
        match self {
            Self::Ci => Some("95 % bootstrap interval"),
            Self::Std => Some("± one standard deviation"),
            Self::Minmax => Some("lowest to highest"),
            Self::None => None,
        }
    }
}

/// x and y of a run's rows that have both, in the order of x; the last of equal ones.
pub fn curve(run: &Run, x: &str, y: &str) -> Vec<[f64; 2]> {
    let (Some(x), Some(y)) = (run.column(x), run.column(y)) else { return Vec::new() };
    let mut points: Vec<[f64; 2]> = (0..run.rows.len())
        .filter_map(|row| Some([run.number(row, x)?, run.number(row, y)?]))
        .collect();
    points.sort_by(|a, b| a[0].total_cmp(&b[0]));
    points.reverse();
    points.dedup_by(|later, kept| later[0].total_cmp(&kept[0]).is_eq());
    points.reverse();
    points
}

/// A curve of several.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Aggregate {
    /// x and the statistic there.
    pub points: Vec<[f64; 2]>,
    /// x, lowest and highest of the band, where there is one.
    pub band: Vec<[f64; 3]>,
    /// How many curves go into it.
    pub n: usize,
    /// Where the shortest and the longest curve end, if not at the same x.
    pub ends: Option<(f64, f64)>,
    /// Whether values were repeated at an x, not curves.
    pub repeated: bool,
}

/// The statistic of all points at the same x.
pub fn at_equal_x(points: Vec<[f64; 2]>, statistic: Statistic, band: Band) -> Aggregate {
    let mut points = points;
    points.sort_by(|a, b| a[0].total_cmp(&b[0]));
    let mut out = Aggregate { repeated: true, ..Aggregate::default() };
    for same in points.chunk_by(|a, b| a[0].total_cmp(&b[0]).is_eq()) {
        out.n = out.n.max(same.len());
        out.add(same[0][0], same.iter().map(|p| p[1]).collect(), statistic, band);
    }
    out
}

impl Aggregate {
    fn add(&mut self, x: f64, values: Vec<f64>, statistic: Statistic, band: Band) {
        let value = statistic.of(&mut values.clone());
        self.points.push([x, value]);
        self.band.extend(band.around(&values, statistic, value).map(|[low, high]| [x, low, high]));
    }
}

/// The statistic of curves at every x of any of them. Between its points a curve is a straight line;
/// it is never drawn on beyond its ends. Where not all curves reach, there is nothing, or with
/// `partial` the statistic of those that do.
pub fn aggregate(
    curves: &[Vec<[f64; 2]>],
    statistic: Statistic,
    band: Band,
    partial: bool,
) -> Aggregate {
    let curves: Vec<&Vec<[f64; 2]>> = curves.iter().filter(|curve| !curve.is_empty()).collect();
    let firsts = curves.iter().map(|curve| curve[0][0]);
    let lasts = || curves.iter().map(|curve| curve[curve.len() - 1][0]);
    let (shortest, longest) =
        (lasts().fold(f64::INFINITY, f64::min), lasts().fold(f64::NEG_INFINITY, f64::max));
    let start = firsts.fold(f64::NEG_INFINITY, f64::max);
    let mut grid: Vec<f64> = curves.iter().flat_map(|curve| curve.iter().map(|p| p[0])).collect();
    grid.sort_by(f64::total_cmp);
    grid.dedup_by(|a, b| a.total_cmp(b).is_eq());
    if !partial {
        grid.retain(|&x| (start..=shortest).contains(&x));
    }
    let mut out = Aggregate { n: curves.len(), ..Aggregate::default() };
    out.ends = (shortest < longest).then_some((shortest, longest));
    for x in thinned(&grid) {
        let values = curves.iter().filter_map(|curve| at(curve, x)).collect();
        out.add(x, values, statistic, band);
    }
    out
}

/// At most so many of the places, with the first and the last.
fn thinned(grid: &[f64]) -> Vec<f64> {
    if grid.len() <= MOST_PLACES {
        return grid.to_vec();
    }
    let last = grid.len() - 1;
    (0..MOST_PLACES).map(|i| grid[i * last / (MOST_PLACES - 1)]).collect()
}

/// The height of a curve at x, if x is not beyond its ends.
fn at(curve: &[[f64; 2]], x: f64) -> Option<f64> {
    let above = curve.partition_point(|p| p[0] < x);
    let [x1, y1] = *curve.get(above)?;
    if x1 <= x {
        return Some(y1);
    }
    let [x0, y0] = *curve.get(above.checked_sub(1)?)?;
    Some(y0 + (y1 - y0) * (x - x0) / (x1 - x0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mean_of(curves: &[Vec<[f64; 2]>], partial: bool) -> Aggregate {
        aggregate(curves, Statistic::Mean, Band::Minmax, partial)
    }

    #[test]
    fn curves_are_matched_by_x() {
        let curves = [vec![[0.0, 1.0], [10.0, 3.0]], vec![[0.0, 3.0], [10.0, 7.0]]];
        let mean = mean_of(&curves, false);
        assert_eq!(mean.points, [[0.0, 2.0], [10.0, 5.0]]);
        assert_eq!(mean.band, [[0.0, 1.0, 3.0], [10.0, 3.0, 7.0]]);
        assert_eq!((mean.n, mean.ends), (2, None));
    }

    #[test]
    fn other_places_are_interpolated_and_never_extrapolated() {
        let curves = [vec![[0.0, 0.0], [10.0, 10.0]], vec![[5.0, 1.0], [20.0, 1.0]]];
        let mean = mean_of(&curves, false);
        assert_eq!(mean.points, [[5.0, 3.0], [10.0, 5.5]]);
        assert_eq!(mean.ends, Some((10.0, 20.0)));
        let all = mean_of(&curves, true);
        assert_eq!(all.points, [[0.0, 0.0], [5.0, 3.0], [10.0, 5.5], [20.0, 1.0]]);
        assert_eq!(all.band, [[5.0, 1.0, 5.0], [10.0, 1.0, 10.0]], "one curve has no band");
    }

    #[test]
    fn many_places_are_thinned_with_both_ends() {
        let grid: Vec<f64> = (0..10_000).map(f64::from).collect();
        let thin = thinned(&grid);
        assert_eq!((thin.len(), thin[0], thin[MOST_PLACES - 1]), (MOST_PLACES, 0.0, 9999.0));
    }
}
