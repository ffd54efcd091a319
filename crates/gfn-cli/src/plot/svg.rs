//! Figures as SVG: plain elements with attributes, the same bytes for the same figure.

use std::fmt::Write;

use super::axis::{Axis, Tick};
use super::figure::{Figure, Mark, Panel};
use super::style::{colour, dashes, marker, shade};

const FONT: f64 = 11.0;
const TICK_FONT: f64 = 10.0;
/// Width of a character as a share of its font's size, on the safe side.
const CHARACTER: f64 = 0.6;
const GAP: f64 = 14.0;
const EDGE: f64 = 10.0;
/// Markers per curve.
const MARKERS: usize = 6;

fn width_of(text: &str, size: f64) -> f64 {
    text.chars().count() as f64 * size * CHARACTER
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Where a panel lies, and which of its axes say what they are.
struct Frame {
    left: f64,
    top: f64,
    width: f64,
    height: f64,
    says_x: bool,
    /// Where the name of the y axis stands, if it is said.
    says_y: Option<f64>,
}

impl Frame {
    fn x(&self, axis: &Axis, value: f64) -> f64 {
        self.left + self.width * axis.scale.place(value)
    }

    fn y(&self, axis: &Axis, value: f64) -> f64 {
        self.top + self.height * (1.0 - axis.scale.place(value))
    }
}

/// A document that grows.
#[derive(Default)]
struct Document(String);

impl Document {
    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Memory can always be written.
        let _ = writeln!(self.0, "{line}");
    }

    fn text(&mut self, [x, y]: [f64; 2], more: &str, text: &str) {
        self.line(format_args!(r#"<text x="{x:.2}" y="{y:.2}"{more}>{}</text>"#, escaped(text)));
    }
}

/// Inner width and height of panels.
fn panel_size(figure: &Figure) -> (f64, f64) {
    let bars = figure.panels.iter().map(|panel| panel.y.categories.len()).max().unwrap_or(0);
    if figure.shades.is_some() {
        return (170.0, 170.0);
    }
    let (width, height) = match figure.columns {
        1 => (400.0, 250.0),
        2 => (300.0, 200.0),
        3 => (240.0, 170.0),
        _ => (200.0, 150.0),
    };
    if bars > 0 { (width, 18.0 * bars as f64 + 8.0) } else { (width, height) }
}

/// Ticks that fit: labels must not run into each other.
fn ticks_x(axis: &Axis, width: f64) -> Vec<Tick> {
    let most = (width / 55.0).round() as usize;
    (1..=most.max(2))
        .rev()
        .map(|target| axis.scale.ticks(target))
        .find(|ticks| {
            let mut end = f64::NEG_INFINITY;
            ticks.iter().filter(|tick| tick.label.is_some()).all(|tick| {
                let half =
                    tick.label.as_ref().map_or(0.0, |label| width_of(label, TICK_FONT)) / 2.0;
                let at = width * axis.scale.place(tick.value);
                let fits = at - half > end + 4.0;
                end = at + half;
                fits
            })
        })
        .unwrap_or_else(|| axis.scale.ticks(1))
}

fn ticks_y(axis: &Axis, height: f64) -> Vec<Tick> {
    if axis.categories.is_empty() {
        return axis.scale.ticks((height / 36.0).round().max(2.0) as usize);
    }
    let tick = |(i, name): (usize, &String)| Tick { value: i as f64, label: Some(name.clone()) };
    axis.categories.iter().enumerate().map(tick).collect()
}

/// The figure as an SVG document.
pub fn svg(figure: &Figure) -> String {
    let columns = figure.columns.max(1);
    let rows = figure.panels.len().div_ceil(columns);
    let (width, height) = panel_size(figure);

    // What each panel says, and the room that it takes.
    let says = |i: usize| {
        let panel = &figure.panels[i];
        let says_x =
            figure.free || figure.panels.get(i + columns).is_none_or(|below| below.x != panel.x);
        let says_y = figure.free || i.is_multiple_of(columns) || figure.panels[i - 1].y != panel.y;
        (says_x, says_y)
    };
    let mut left = vec![GAP; columns];
    let mut numbers = vec![0.0f64; columns];
    let mut top = vec![4.0; rows];
    let mut bottom = vec![GAP; rows];
    let mut right = 4.0f64;
    for (i, panel) in figure.panels.iter().enumerate() {
        let (row, column) = (i / columns, i % columns);
        let (says_x, says_y) = says(i);
        if says_y {
            let labels = ticks_y(&panel.y, height).into_iter().filter_map(|tick| tick.label);
            let widest = labels.map(|label| width_of(&label, TICK_FONT)).fold(0.0, f64::max);
            numbers[column] = numbers[column].max(widest + 14.0);
            let name = if panel.y.label.is_empty() { 0.0 } else { 12.0 };
            let gap = if column > 0 { GAP } else { 0.0 };
            left[column] = left[column].max(numbers[column] + name + gap);
        }
        if says_x {
            bottom[row] = bottom[row].max(if panel.x.label.is_empty() { 26.0 } else { 40.0 });
        }
        if !panel.title.is_empty() {
            top[row] = 20.0;
        }
        if !panel.row_title.is_empty() {
            right = 20.0;
        }
    }
    if figure.shades.is_some() {
        right = 70.0;
    }
    let across: f64 = left.iter().sum::<f64>() + width * columns as f64 + right;
    let legend = Legend::of(figure, across, left[0]);
    let total_width = across.max(legend.width) + 2.0 * EDGE;
    let down: f64 = top.iter().sum::<f64>() + bottom.iter().sum::<f64>() + height * rows as f64;
    let total_height = down + legend.height + 2.0 * EDGE;

    let mut out = Document::default();
    out.line(format_args!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" width="{total_width:.0}" height="{total_height:.0}" viewBox="0 0 {total_width:.0} {total_height:.0}" font-family="Helvetica, Arial, 'DejaVu Sans', sans-serif" font-size="{FONT}">"#
    ));
    out.line(format_args!(r#"<rect width="100%" height="100%" fill="white"/>"#));
    let mut frames = Vec::new();
    for i in 0..figure.panels.len() {
        let (row, column) = (i / columns, i % columns);
        let (says_x, says_y) = says(i);
        frames.push(Frame {
            left: EDGE + left[..=column].iter().sum::<f64>() + width * column as f64,
            top: EDGE
                + top[..=row].iter().sum::<f64>()
                + bottom[..row].iter().sum::<f64>()
                + height * row as f64,
            width,
            height,
            says_x,
            says_y: says_y.then_some(numbers[column]),
        });
    }
    for (i, (panel, frame)) in figure.panels.iter().zip(&frames).enumerate() {
        draw_panel(&mut out, i, panel, frame, figure);
    }
    if let (Some((highest, name)), Some(frame)) = (&figure.shades, frames.first()) {
        draw_shades(&mut out, *highest, name, EDGE + across - right + GAP, frame);
    }
    legend.draw(&mut out, figure, EDGE + left[0], EDGE + down);
    out.0 += "</svg>\n";
    out.0
}

fn draw_panel(out: &mut Document, i: usize, panel: &Panel, frame: &Frame, figure: &Figure) {
    let Frame { left, top, width, height, .. } = *frame;
    let (right, bottom) = (left + width, top + height);
    out.line(format_args!(r#"<g class="panel">"#));
    out.line(format_args!(
        r#"<clipPath id="panel-{i}"><rect x="{left:.2}" y="{top:.2}" width="{width:.2}" height="{height:.2}"/></clipPath>"#
    ));
    let grid = figure.shades.is_none();
    for tick in ticks_x(&panel.x, width) {
        let x = frame.x(&panel.x, tick.value);
        if !(left - 0.01..=right + 0.01).contains(&x) {
            continue;
        }
        let long = tick.label.is_some();
        if grid && long {
            out.line(format_args!(
                r##"<path d="M{x:.2} {top:.2}V{bottom:.2}" stroke="#e4e4e4" stroke-width="0.7"/>"##
            ));
        }
        let length = if long { 4.0 } else { 2.0 };
        out.line(format_args!(
            r#"<path d="M{x:.2} {bottom:.2}v{length}" stroke="black" stroke-width="0.7"/>"#
        ));
        if let (Some(label), true) = (&tick.label, frame.says_x) {
            let style = format!(r#" class="tick-x" font-size="{TICK_FONT}" text-anchor="middle""#);
            out.text([x, bottom + 15.0], &style, label);
        }
    }
    for tick in ticks_y(&panel.y, height) {
        let y = frame.y(&panel.y, tick.value);
        if !(top - 0.01..=bottom + 0.01).contains(&y) {
            continue;
        }
        let long = tick.label.is_some();
        if grid && long && panel.y.categories.is_empty() {
            out.line(format_args!(
                r##"<path d="M{left:.2} {y:.2}H{right:.2}" stroke="#e4e4e4" stroke-width="0.7"/>"##
            ));
        }
        let length = if long { 4.0 } else { 2.0 };
        out.line(format_args!(
            r#"<path d="M{left:.2} {y:.2}h-{length}" stroke="black" stroke-width="0.7"/>"#
        ));
        if let (Some(label), true) = (&tick.label, frame.says_y.is_some()) {
            let style = format!(r#" class="tick-y" font-size="{TICK_FONT}" text-anchor="end""#);
            out.text([left - 7.0, y + 3.5], &style, label);
        }
    }
    out.line(format_args!(r#"<g clip-path="url(#panel-{i})">"#));
    for mark in &panel.marks {
        draw_mark(out, mark, panel, frame, figure);
    }
    out.line(format_args!("</g>"));
    if panel.marks.is_empty() {
        let style = r##" fill="#777777" text-anchor="middle""##;
        out.text([left + width / 2.0, top + height / 2.0], style, "no runs");
    }
    out.line(format_args!(
        r#"<rect x="{left:.2}" y="{top:.2}" width="{width:.2}" height="{height:.2}" fill="none" stroke="black" stroke-width="0.8"/>"#
    ));
    if !panel.title.is_empty() {
        out.text(
            [left + width / 2.0, top - 6.0],
            r#" class="title" text-anchor="middle""#,
            &panel.title,
        );
    }
    if !panel.row_title.is_empty() {
        let (x, y) = (right + 6.0, top + height / 2.0);
        let turned = format!(r#" text-anchor="middle" transform="rotate(90 {x:.2} {y:.2})""#);
        out.text([x, y], &turned, &panel.row_title);
    }
    if frame.says_x && !panel.x.label.is_empty() {
        out.text([left + width / 2.0, bottom + 31.0], r#" text-anchor="middle""#, &panel.x.label);
    }
    if let (Some(numbers), false) = (frame.says_y, panel.y.label.is_empty()) {
        let (x, y) = (left - numbers, top + height / 2.0);
        let turned = format!(r#" text-anchor="middle" transform="rotate(-90 {x:.2} {y:.2})""#);
        out.text([x, y], &turned, &panel.y.label);
    }
    out.line(format_args!("</g>"));
}

fn draw_mark(out: &mut Document, mark: &Mark, panel: &Panel, frame: &Frame, figure: &Figure) {
    let place = |x: f64, y: f64| [frame.x(&panel.x, x), frame.y(&panel.y, y)];
    let path = |points: &mut dyn Iterator<Item = [f64; 2]>| {
        let points: Vec<String> = points.map(|[x, y]| format!("{x:.2} {y:.2}")).collect();
        format!("M{}", points.join("L"))
    };
    let name = |series: usize| escaped(figure.legend.get(series).map_or("", |name| name));
    match mark {
        Mark::Curve { series, points, band } => {
            let colour = colour(*series);
            if !band.is_empty() {
                let upper = band.iter().map(|&[x, _, high]| place(x, high));
                let lower = band.iter().rev().map(|&[x, low, _]| place(x, low));
                let path = path(&mut upper.chain(lower));
                out.line(format_args!(
                    r#"<path class="band" data-series="{}" d="{path}Z" fill="{colour}" fill-opacity="0.18"/>"#,
                    name(*series)
                ));
            }
            if points.is_empty() {
                return;
            }
            out.line(format_args!(
                r#"<path class="curve" data-series="{}" d="{}" fill="none" stroke="{colour}" stroke-width="1.6" stroke-linejoin="round" stroke-dasharray="{}"/>"#,
                name(*series),
                path(&mut points.iter().map(|&[x, y]| place(x, y))),
                dashes(*series)
            ));
            // Markers of different curves stand at different places.
            let every = points.len().div_ceil(MARKERS).max(1);
            let shapes: String = points
                .iter()
                .skip(series % every)
                .step_by(every)
                .map(|&[x, y]| {
                    let [x, y] = place(x, y);
                    marker(*series, x, y)
                })
                .collect();
            out.line(format_args!(
                r#"<path class="markers" d="{shapes}" fill="{colour}" stroke="white" stroke-width="0.5"/>"#
            ));
        }
        Mark::Points { series, points } => {
            let shapes: String = points
                .iter()
                .map(|&[x, y]| {
                    let [x, y] = place(x, y);
                    marker(*series, x, y)
                })
                .collect();
            if !shapes.is_empty() {
                out.line(format_args!(
                    r#"<path class="points" data-series="{}" d="{shapes}" fill="{}" fill-opacity="0.7" stroke="white" stroke-width="0.4"/>"#,
                    name(*series),
                    colour(*series)
                ));
            }
        }
        Mark::Reference { ends } => {
            let path = path(&mut ends.iter().map(|&[x, y]| place(x, y)));
            out.line(format_args!(
                r##"<path class="reference" d="{path}" fill="none" stroke="#555555" stroke-width="1" stroke-dasharray="4 3"/>"##
            ));
        }
        Mark::Bar { category, value, interval } => {
            // Their names stand beside them: all have one colour.
            let colour = colour(0);
            let [end, y] = place(*value, *category as f64);
            // A logarithmic axis has no 0 for bars to start from: only their ends are drawn.
            if panel.x.scale.log {
                let shape = marker(0, end, y);
                out.line(format_args!(r#"<path class="bar" d="{shape}" fill="{colour}"/>"#));
            } else {
                let start = frame.x(&panel.x, 0.0);
                let (low, length) = (start.min(end), (end - start).abs());
                out.line(format_args!(
                    r#"<rect class="bar" x="{low:.2}" y="{:.2}" width="{length:.2}" height="12" fill="{colour}" fill-opacity="0.75"/>"#,
                    y - 6.0
                ));
            }
            if let Some([low, high]) = interval {
                let (low, high) = (frame.x(&panel.x, *low), frame.x(&panel.x, *high));
                out.line(format_args!(
                    r#"<path class="interval" d="M{low:.2} {y:.2}H{high:.2}M{low:.2} {0:.2}v6M{high:.2} {0:.2}v6" stroke="black" stroke-width="1"/>"#,
                    y - 3.0
                ));
            }
        }
        Mark::Cells { values, highest } => {
            for (i, column) in values.iter().enumerate() {
                for (j, value) in column.iter().enumerate() {
                    let [x0, y0] = place(i as f64 - 0.5, j as f64 + 0.5);
                    let [x1, y1] = place(i as f64 + 0.5, j as f64 - 0.5);
                    out.line(format_args!(
                        r#"<rect class="cell" x="{x0:.2}" y="{y0:.2}" width="{:.2}" height="{:.2}" fill="{}" shape-rendering="crispEdges"/>"#,
                        x1 - x0,
                        y1 - y0,
                        shade(value / highest)
                    ));
                }
            }
        }
    }
}

/// The scale of shades, beside the first panel.
fn draw_shades(out: &mut Document, highest: f64, name: &str, left: f64, frame: &Frame) {
    const STEPS: usize = 50;
    let height = frame.height / STEPS as f64;
    for i in 0..STEPS {
        let share = (i as f64 + 0.5) / STEPS as f64;
        let y = frame.top + frame.height - (i + 1) as f64 * height;
        // A little higher than a step: no seams.
        out.line(format_args!(
            r#"<rect x="{left:.2}" y="{y:.2}" width="10" height="{:.2}" fill="{}"/>"#,
            height + 0.3,
            shade(share)
        ));
    }
    let axis = Axis {
        scale: super::axis::Scale { log: false, low: 0.0, high: highest },
        ..Axis::default()
    };
    for tick in axis.scale.ticks(4) {
        let y = frame.y(&axis, tick.value);
        let label = tick.label.unwrap_or_default();
        out.text([left + 14.0, y + 3.5], &format!(r#" font-size="{TICK_FONT}""#), &label);
    }
    out.text([left - 4.0, frame.top - 6.0], r#" text-anchor="start""#, name);
}

/// Names of the series and the caption, below the panels.
struct Legend {
    /// Lines of entries: number of the series and place along the line.
    lines: Vec<Vec<(usize, f64)>>,
    caption: Vec<String>,
    title: f64,
    width: f64,
    height: f64,
}

impl Legend {
    const SAMPLE: f64 = 30.0;
    const LINE: f64 = 17.0;

    fn of(figure: &Figure, room: f64, left: f64) -> Self {
        let title = match figure.legend.len() {
            0 | 1 => 0.0,
            _ => width_of(&figure.legend_title, FONT) + 12.0,
        };
        let mut lines: Vec<Vec<(usize, f64)>> = Vec::new();
        let mut at = title;
        let mut width = 0.0f64;
        if figure.legend.len() > 1 {
            lines.push(Vec::new());
            let widest = figure.legend.iter().map(|name| width_of(name, FONT)).fold(0.0, f64::max);
            let takes = Self::SAMPLE + widest + 12.0;
            for series in 0..figure.legend.len() {
                let first = lines.last().is_none_or(Vec::is_empty);
                if !first && at + takes > room - left {
                    lines.push(Vec::new());
                    at = title;
                }
                if let Some(line) = lines.last_mut() {
                    line.push((series, at));
                }
                at += takes;
                width = width.max(at + left);
            }
        }
        let mut caption: Vec<String> = Vec::new();
        for word in figure.caption.split_whitespace() {
            match caption.last_mut() {
                Some(line)
                    if width_of(line, TICK_FONT) + width_of(word, TICK_FONT) < room - left =>
                {
                    line.push(' ');
                    line.push_str(word);
                }
                _ => caption.push(word.to_owned()),
            }
        }
        let height = Self::LINE * lines.len() as f64
            + 14.0 * caption.len() as f64
            + if lines.is_empty() && caption.is_empty() { 0.0 } else { 6.0 };
        Self { lines, caption, title, width, height }
    }

    fn draw(&self, out: &mut Document, figure: &Figure, left: f64, top: f64) {
        let mut y = top + 12.0;
        if self.title > 0.0 {
            let style = r##" fill="#444444" font-style="italic""##;
            out.text([left, y + 4.0], style, &figure.legend_title);
        }
        let curves = figure
            .panels
            .iter()
            .flat_map(|panel| &panel.marks)
            .any(|mark| matches!(mark, Mark::Curve { .. }));
        for line in &self.lines {
            for &(series, at) in line {
                let (x, colour) = (left + at, colour(series));
                if curves {
                    out.line(format_args!(
                        r#"<path d="M{x:.2} {y:.2}h24" stroke="{colour}" stroke-width="1.6" stroke-dasharray="{}"/>"#,
                        dashes(series)
                    ));
                }
                let shape = marker(series, x + 12.0, y);
                out.line(format_args!(
                    r#"<path d="{shape}" fill="{colour}" stroke="white" stroke-width="0.5"/>"#
                ));
                let name = &figure.legend[series];
                out.text([x + Self::SAMPLE, y + 4.0], r#" class="legend""#, name);
            }
            y += Self::LINE;
        }
        for line in &self.caption {
            let style = format!(r##" fill="#444444" font-size="{TICK_FONT}""##);
            out.text([left, y + 4.0], &style, line);
            y += 14.0;
        }
    }
}
