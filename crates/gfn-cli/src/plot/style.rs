//! Colours, dashes, markers and shades that can be told apart in print and by the colour-blind.

/// Okabe and Ito 2008, without yellow, which is pale on white.
const COLOURS: [&str; 7] =
    ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"];
/// Dash patterns; their number has no factor in common with that of the colours.
const DASHES: [&str; 5] = ["", "6 2.5", "2 2", "8 2.5 2 2.5", "11 3"];

/// The colour of a series.
pub fn colour(series: usize) -> &'static str {
    COLOURS[series % COLOURS.len()]
}

/// The dashes of a series; empty for a solid line.
pub fn dashes(series: usize) -> &'static str {
    DASHES[series % DASHES.len()]
}

/// A marker of a series around a point, as an SVG path.
pub fn marker(series: usize, x: f64, y: f64) -> String {
    match series % 6 {
        0 => format!("M{:.2} {y:.2}a2.6 2.6 0 1 0 5.2 0a2.6 2.6 0 1 0 -5.2 0Z", x - 2.6),
        1 => format!("M{:.2} {:.2}h4.8v4.8h-4.8Z", x - 2.4, y - 2.4),
        2 => format!("M{x:.2} {:.2}l3 5.2h-6Z", y - 3.2),
        3 => format!("M{x:.2} {:.2}l3.3 3.3l-3.3 3.3l-3.3 -3.3Z", y - 3.3),
        4 => format!("M{x:.2} {:.2}l3 -5.2h-6Z", y + 3.2),
        _ => format!("M{:.2} {:.2}h2v2h2v2h-2v2h-2v-2h-2v-2h2Z", x - 1.0, y - 3.0),
    }
}

/// YlGnBu of ColorBrewer (Brewer 2003), without its lightest, which is hardly not white.
const SHADES: [[f64; 3]; 8] = [
    [237.0, 248.0, 177.0],
    [199.0, 233.0, 180.0],
    [127.0, 205.0, 187.0],
    [65.0, 182.0, 196.0],
    [29.0, 145.0, 192.0],
    [34.0, 94.0, 168.0],
    [37.0, 52.0, 148.0],
    [8.0, 29.0, 88.0],
];

/// The shade of a share between 0 (white) and 1 (dark): white stands for nothing at all.
pub fn shade(share: f64) -> String {
    if share <= 0.0 {
        return "#ffffff".to_owned();
    }
    let place = share.min(1.0) * (SHADES.len() - 1) as f64;
    let below = (place as usize).min(SHADES.len() - 2);
    let mixed = |i: usize| {
        SHADES[below][i] + (place - below as f64) * (SHADES[below + 1][i] - SHADES[below][i])
    };
    let [r, g, b] = [mixed(0), mixed(1), mixed(2)].map(|c| c.round() as u8);
    format!("#{r:02x}{g:02x}{b:02x}")
}
