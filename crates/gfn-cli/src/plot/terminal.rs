//! A preview of a figure in a terminal: dots of Braille for curves and points, blocks for bars and
//! shades. Without colours: a letter stands where a curve ends, and for a point.

use super::axis::{Axis, Tick};
use super::figure::{Figure, Mark, Panel};

/// Rows of characters of a panel.
const HEIGHT: usize = 14;
/// Shades of cells, from none to the highest.
const SHADES: [char; 5] = [' ', '░', '▒', '▓', '█'];

/// The figure in lines of at most `width` characters, panel below panel.
pub fn preview(figure: &Figure, width: usize) -> String {
    let width = width.clamp(40, 160);
    let mut out = String::new();
    for panel in &figure.panels {
        let title: Vec<&str> = [&*panel.title, &*panel.row_title]
            .into_iter()
            .filter(|title| !title.is_empty())
            .collect();
        if !title.is_empty() {
            out += &format!("{}\n", title.join(", "));
        }
        out += &match panel.marks.first() {
            Some(Mark::Bar { .. }) => bars(panel, width),
            Some(Mark::Cells { values, highest }) => cells(values, *highest),
            None => "no runs\n".to_owned(),
            _ => dots(panel, width),
        };
        out.push('\n');
    }
    if figure.legend.len() > 1 {
        let entry = |(i, name): (usize, &String)| format!("{} {name}", letter(i));
        let entries: Vec<String> = figure.legend.iter().enumerate().map(entry).collect();
        out += &format!("{}: {}\n", figure.legend_title, entries.join("   "));
    }
    if !figure.caption.is_empty() {
        out += &format!("{}\n", figure.caption);
    }
    out
}

fn letter(series: usize) -> char {
    char::from(b'a' + (series % 26) as u8)
}

/// A grid of characters, each of 2 × 4 dots.
struct Canvas {
    width: usize,
    dots: Vec<u8>,
    letters: Vec<Option<char>>,
}

impl Canvas {
    fn new(width: usize) -> Self {
        Self { width, dots: vec![0; width * HEIGHT], letters: vec![None; width * HEIGHT] }
    }

    /// Places in dots of something between 0 and 1 along both axes.
    fn place(&self, x: f64, y: f64) -> Option<[i64; 2]> {
        let inside = (-1e-9..=1.0 + 1e-9).contains(&x) && (-1e-9..=1.0 + 1e-9).contains(&y);
        let (right, down) = ((self.width * 2 - 1) as f64, (HEIGHT * 4 - 1) as f64);
        inside.then(|| [(x * right).round() as i64, ((1.0 - y) * down).round() as i64])
    }

    fn dot(&mut self, [x, y]: [i64; 2]) {
        // Bits of U+2800 by column and row.
        const BITS: [[u8; 4]; 2] = [[0x01, 0x02, 0x04, 0x40], [0x08, 0x10, 0x20, 0x80]];
        let (x, y) = (x as usize, y as usize);
        if let Some(cell) = self.dots.get_mut(y / 4 * self.width + x / 2) {
            *cell |= BITS[x % 2][y % 4];
        }
    }

    fn line(&mut self, from: [i64; 2], to: [i64; 2]) {
        let steps = (to[0] - from[0]).abs().max((to[1] - from[1]).abs()).max(1);
        for i in 0..=steps {
            let along = |a: i64, b: i64| a + ((b - a) * i + steps / 2).div_euclid(steps);
            self.dot([along(from[0], to[0]), along(from[1], to[1])]);
        }
    }

    /// Puts a letter at a dot, or beside it where another one stands.
    fn letter(&mut self, [x, y]: [i64; 2], letter: char) {
        let (column, row) = (x as usize / 2, y as usize / 4);
        let free = |&column: &usize| self.letters[row * self.width + column].is_none();
        if let Some(column) = (0..=column).rev().find(free) {
            self.letters[row * self.width + column] = Some(letter);
        }
    }

    /// Puts a letter where a point is, or a star for points of several series.
    fn point(&mut self, [x, y]: [i64; 2], letter: char) {
        let here = &mut self.letters[y as usize / 4 * self.width + x as usize / 2];
        *here = Some(here.map_or(letter, |other| if other == letter { letter } else { '*' }));
    }

    fn row(&self, row: usize) -> String {
        let cells = row * self.width..(row + 1) * self.width;
        let character = |i: usize| match (self.letters[i], self.dots[i]) {
            (Some(letter), _) => letter,
            (None, 0) => ' ',
            (None, dots) => char::from_u32(0x2800 + u32::from(dots)).unwrap_or(' '),
        };
        cells.map(character).collect::<String>().trim_end().to_owned()
    }
}

fn dots(panel: &Panel, width: usize) -> String {
    let labelled = |axis: &Axis, target| -> Vec<(f64, String)> {
        let label = |tick: Tick| Some((axis.scale.place(tick.value), tick.label?));
        axis.scale.ticks(target).into_iter().filter_map(label).collect()
    };
    let ticks = labelled(&panel.y, 5);
    let margin = ticks.iter().map(|(_, label)| label.chars().count()).max().unwrap_or(0);
    let mut canvas = Canvas::new(width.saturating_sub(margin + 2).max(20));
    for mark in &panel.marks {
        let (series, points) = match mark {
            Mark::Curve { series, points, .. } | Mark::Points { series, points } => {
                (series, points)
            }
            _ => continue,
        };
        let places: Vec<[i64; 2]> = points
            .iter()
            .filter_map(|&[x, y]| canvas.place(panel.x.scale.place(x), panel.y.scale.place(y)))
            .collect();
        if matches!(mark, Mark::Curve { .. }) {
            places.windows(2).for_each(|ends| canvas.line(ends[0], ends[1]));
            // Where it ends and where it is half-way.
            for place in [places.last(), places.get(places.len() / 2)].into_iter().flatten() {
                canvas.letter(*place, letter(*series));
            }
        } else {
            places.iter().for_each(|&place| canvas.point(place, letter(*series)));
        }
    }
    let mut out = format!("{:>margin$} {}\n", "", panel.y.label);
    for row in 0..HEIGHT {
        let (high, low) =
            (1.0 - row as f64 / HEIGHT as f64, 1.0 - (row + 1) as f64 / HEIGHT as f64);
        let here = |(place, _): &&(f64, String)| {
            (low..high).contains(place)
                || (row == 0 && *place >= high)
                || (row + 1 == HEIGHT && *place <= low)
        };
        let label = ticks.iter().find(here).map_or("", |(_, label)| label);
        let edge = if label.is_empty() { '│' } else { '┤' };
        out += &format!("{label:>margin$} {edge}{}\n", canvas.row(row));
    }
    out += &format!("{:>margin$} └{}\n", "", "─".repeat(canvas.width));
    let mut line = vec![' '; canvas.width + 1];
    let mut free = 0;
    for (place, label) in labelled(&panel.x, 5) {
        let n = label.chars().count();
        let middle = (place * (canvas.width - 1) as f64) as usize + 1;
        let start = middle.saturating_sub(n / 2).min(line.len().saturating_sub(n));
        if start >= free && start + n <= line.len() {
            line.splice(start..start + n, label.chars());
            free = start + n + 1;
        }
    }
    let line: String = line.into_iter().collect();
    let name = &panel.x.label;
    let before = margin + 1 + canvas.width.saturating_sub(name.chars().count()) / 2;
    let (line, empty) = (line.trim_end(), "");
    out + &format!("{empty:>margin$} {line}\n{empty:>before$}{name}\n")
}

fn bars(panel: &Panel, width: usize) -> String {
    let names = &panel.y.categories;
    let margin = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
    let room = width.saturating_sub(margin + 12).max(10);
    let mut out = format!("{}\n", panel.x.label);
    for mark in &panel.marks {
        let Mark::Bar { category, value, interval, .. } = mark else { continue };
        let length = (panel.x.scale.place(*value) * room as f64).round().max(0.0) as usize;
        let range = interval.map(|[a, b]| format!(" [{}, {}]", short(a), short(b)));
        let name = &names[*category];
        let (bar, range) = ("█".repeat(length), range.unwrap_or_default());
        out += &format!("{name:>margin$} {bar} {}{range}\n", short(*value));
    }
    out
}

fn short(value: f64) -> String {
    crate::stats::significant(value, 3)
}

fn cells(values: &[Vec<f64>], highest: f64) -> String {
    let side = values.first().map_or(0, Vec::len);
    let mut out = String::new();
    for j in (0..side).rev() {
        let shade = |column: &Vec<f64>| {
            let share = column[j] / highest * (SHADES.len() - 1) as f64;
            // Something is never shown as nothing.
            let step = if column[j] > 0.0 { share.round().max(1.0) } else { 0.0 };
            let shade = SHADES[(step as usize).min(SHADES.len() - 1)];
            [shade, shade]
        };
        let line: String = values.iter().flat_map(shade).collect();
        out += &format!("│{line}│\n");
    }
    out
}
