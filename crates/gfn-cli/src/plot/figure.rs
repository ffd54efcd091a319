//! What a figure consists of, in data coordinates; how it looks is up to who writes it.

use super::axis::Axis;

/// Panels in rows, with one legend.
#[derive(Clone, Debug, Default)]
pub struct Figure {
    /// Row by row.
    pub panels: Vec<Panel>,
    /// Panels per row.
    pub columns: usize,
    /// What the names in the legend are values of.
    pub legend_title: String,
    /// Names of the series, by their number.
    pub legend: Vec<String>,
    /// What is shown: statistic, band, number of runs.
    pub caption: String,
    /// Whether panels have axes of their own.
    pub free: bool,
    /// The value of the darkest shade of cells, and what shades stand for.
    pub shades: Option<(f64, String)>,
}

/// Two axes and what is drawn between them.
#[derive(Clone, Debug)]
pub struct Panel {
    /// Above it.
    pub title: String,
    /// On its right, of a whole row.
    pub row_title: String,
    /// Along.
    pub x: Axis,
    /// Upwards.
    pub y: Axis,
    /// From the back to the front.
    pub marks: Vec<Mark>,
}

/// Something drawn.
#[derive(Clone, Debug)]
pub enum Mark {
    /// A curve with its band.
    Curve {
        /// Number of its series.
        series: usize,
        /// x and y, in the order of x.
        points: Vec<[f64; 2]>,
        /// x, lowest and highest y.
        band: Vec<[f64; 3]>,
    },
    /// Points.
    Points {
        /// Number of their series.
        series: usize,
        /// x and y.
        points: Vec<[f64; 2]>,
    },
    /// A line that data are compared with.
    Reference {
        /// Its two ends.
        ends: [[f64; 2]; 2],
    },
    /// A horizontal bar.
    Bar {
        /// Which of the categories of the y axis.
        category: usize,
        /// Its end.
        value: f64,
        /// Lowest and highest x of its interval.
        interval: Option<[f64; 2]>,
    },
    /// A matrix of shades; cell (i, j) spans i - ½ to i + ½ along x and j - ½ to j + ½ along y.
    Cells {
        /// Values by column, then row.
        values: Vec<Vec<f64>>,
        /// The value of the darkest shade.
        highest: f64,
    },
}

impl Mark {
    /// The x and y of everything that has to be visible. A bar lies along its metric, which counts as y.
    pub fn extent(&self) -> (Vec<f64>, Vec<f64>) {
        match self {
            Self::Curve { points, band, .. } => {
                let x = points.iter().map(|p| p[0]).collect();
                let edges = band.iter().flat_map(|b| [b[1], b[2]]);
                (x, points.iter().map(|p| p[1]).chain(edges).collect())
            }
            Self::Points { points, .. } => {
                (points.iter().map(|p| p[0]).collect(), points.iter().map(|p| p[1]).collect())
            }
            Self::Bar { value, interval, .. } => {
                let edges = interval.iter().flatten().copied();
                (vec![0.0], std::iter::once(*value).chain(edges).collect())
            }
            Self::Reference { .. } | Self::Cells { .. } => (vec![], vec![]),
        }
    }
}
