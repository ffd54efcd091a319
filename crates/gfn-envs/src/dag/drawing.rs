//! Drawings of graphs in layers, as SVG: parents above children, arrows that cross no label (Sugiyama,
//! Tagawa and Toda, 1981).

use std::fmt::Write;

use super::bits;

/// Pixels of a character in the font of the labels, and between a label and the border of its box.
const CHARACTER: f64 = 8.0;
const PADDING: f64 = 10.0;
const HALF_HEIGHT: f64 = 15.0;
/// Between boxes of a layer, between layers, and around everything.
const GAP: f64 = 24.0;
const LAYER: f64 = 92.0;
const MARGIN: f64 = 16.0;
/// Boxes of nodes without edges are wrapped at this width, or that of the layers.
const WRAP: f64 = 640.0;
/// Width that an arrow takes where it passes a layer.
const LANE: f64 = 8.0;
/// Rounds of ordering and of straightening.
const ROUNDS: usize = 12;

/// An arc of the graph that is drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Arc {
    pub(super) from: usize,
    pub(super) to: usize,
    /// How often the two are joined, whatever the direction.
    pub(super) strength: f64,
}

/// What stands in a layer: a node, or an arrow that passes.
#[derive(Clone, Debug)]
struct Item {
    node: Option<usize>,
    width: f64,
    x: f64,
    /// Items of the layer above that it is joined to, and of the layer below.
    above: Vec<usize>,
    below: Vec<usize>,
}

/// Where everything stands.
struct Layout {
    items: Vec<Item>,
    /// Items from left to right, from the top layer to the bottom one.
    layers: Vec<Vec<usize>>,
    /// For every arc, the items from its parent to its child.
    routes: Vec<Vec<usize>>,
}

/// A drawing of the nodes and the arcs, which are acyclic; arrows are the wider and the darker the
/// stronger.
pub(super) fn svg(names: &[String], arcs: &[Arc]) -> String {
    let mut layout = Layout::new(names, arcs);
    layout.order();
    layout.straighten();
    layout.wrap_isolated(names, arcs);
    layout.draw(names, arcs)
}

fn width_of(name: &str) -> f64 {
    // From Hangul on, most characters are twice as wide.
    let columns: usize = name.chars().map(|c| if c < '\u{1100}' { 1 } else { 2 }).sum();
    columns as f64 * CHARACTER + 2.0 * PADDING
}

/// The length of the longest path to each node.
fn depths(d: usize, arcs: &[Arc]) -> Vec<usize> {
    let mut depths = vec![0; d];
    for _ in 0..d {
        for arc in arcs {
            depths[arc.to] = depths[arc.to].max(depths[arc.from] + 1);
        }
    }
    depths
}

impl Layout {
    /// Layers by the longest path, arrows over several layers cut into pieces; nodes without edges
    /// are left for later.
    fn new(names: &[String], arcs: &[Arc]) -> Self {
        let depth = depths(names.len(), arcs);
        let joined = arcs.iter().fold(0u64, |set, arc| set | 1 << arc.from | 1 << arc.to);
        let n_layers = bits(joined).map(|node| depth[node] + 1).max().unwrap_or(0);
        let mut layout =
            Self { items: Vec::new(), layers: vec![Vec::new(); n_layers], routes: vec![] };
        let mut item_of = vec![usize::MAX; names.len()];
        for node in bits(joined) {
            item_of[node] = layout.add(depth[node], Some(node), width_of(&names[node]));
        }
        for arc in arcs {
            let mut route = vec![item_of[arc.from]];
            for layer in depth[arc.from] + 1..depth[arc.to] {
                route.push(layout.add(layer, None, LANE));
            }
            route.push(item_of[arc.to]);
            for ends in route.windows(2) {
                layout.items[ends[0]].below.push(ends[1]);
                layout.items[ends[1]].above.push(ends[0]);
            }
            layout.routes.push(route);
        }
        layout
    }

    fn add(&mut self, layer: usize, node: Option<usize>, width: f64) -> usize {
        let item = Item { node, width, x: 0.0, above: Vec::new(), below: Vec::new() };
        self.items.push(item);
        self.layers[layer].push(self.items.len() - 1);
        self.items.len() - 1
    }

    /// Orders every layer by the mean place of its neighbours, up and down, and keeps the order with
    /// the fewest crossings.
    fn order(&mut self) {
        let mut best = (usize::MAX, self.layers.clone());
        for round in 0..2 * ROUNDS {
            let crossings = self.crossings();
            if crossings < best.0 {
                best = (crossings, self.layers.clone());
            }
            let mut sequence: Vec<usize> = (0..self.layers.len()).collect();
            if round % 2 == 1 {
                sequence.reverse();
            }
            for layer in sequence {
                let places = self.places();
                let items = &self.items;
                let mean = |&item: &usize| {
                    let of = if round % 2 == 0 { &items[item].above } else { &items[item].below };
                    match of.len() {
                        0 => places[item] as f64,
                        n => of.iter().map(|&other| places[other] as f64).sum::<f64>() / n as f64,
                    }
                };
                let mut keyed: Vec<(f64, usize)> =
                    self.layers[layer].iter().map(|item| (mean(item), *item)).collect();
                keyed.sort_by(|a, b| a.0.total_cmp(&b.0));
                self.layers[layer] = keyed.into_iter().map(|(_, item)| item).collect();
            }
        }
        self.layers = best.1;
    }

    /// The place of every item in its layer.
    fn places(&self) -> Vec<usize> {
        let mut places = vec![0; self.items.len()];
        for layer in &self.layers {
            layer.iter().enumerate().for_each(|(place, &item)| places[item] = place);
        }
        places
    }

    fn crossings(&self) -> usize {
        let places = self.places();
        let mut crossings = 0;
        for layer in &self.layers {
            let lines = layer
                .iter()
                .flat_map(|&item| self.items[item].below.iter().map(move |&other| (item, other)));
            let lines: Vec<(usize, usize)> =
                lines.map(|(top, bottom)| (places[top], places[bottom])).collect();
            for (i, a) in lines.iter().enumerate() {
                let crossed =
                    |b: &&(usize, usize)| (a.0 < b.0 && a.1 > b.1) || (a.0 > b.0 && a.1 < b.1);
                crossings += lines[..i].iter().filter(crossed).count();
            }
        }
        crossings
    }

    /// Moves items towards their neighbours as far as the order of their layers and the room between
    /// them allow.
    fn straighten(&mut self) {
        for layer in 0..self.layers.len() {
            self.place(layer, |_, _| None);
        }
        for round in 0..2 * ROUNDS {
            let mut sequence: Vec<usize> = (0..self.layers.len()).collect();
            if round % 2 == 1 {
                sequence.reverse();
            }
            for layer in sequence {
                self.place(layer, |items, item| {
                    let near: Vec<usize> =
                        items[item].above.iter().chain(&items[item].below).copied().collect();
                    let sum: f64 = near.iter().map(|&other| items[other].x).sum();
                    (!near.is_empty()).then(|| sum / near.len() as f64)
                });
            }
        }
    }

    /// Places a layer as near to where its items want to be as distances allow: with these taken off,
    /// places may only grow, and neighbours that want to pass each other share the mean.
    fn place(&mut self, layer: usize, wish: impl Fn(&[Item], usize) -> Option<f64>) {
        let order = &self.layers[layer];
        let (mut offset, mut offsets) = (0.0, Vec::with_capacity(order.len()));
        // Sum of wishes and number of members of each group.
        let mut groups: Vec<(f64, usize)> = Vec::new();
        for (k, &item) in order.iter().enumerate() {
            if k > 0 {
                let widths = self.items[order[k - 1]].width + self.items[item].width;
                offset += 0.5 * widths + GAP;
            }
            offsets.push(offset);
            let wish = wish(&self.items, item).unwrap_or(self.items[item].x.max(offset));
            groups.push((wish - offset, 1));
            while let [.., a, b] = groups[..]
                && a.0 / a.1 as f64 > b.0 / b.1 as f64
            {
                groups.truncate(groups.len() - 2);
                groups.push((a.0 + b.0, a.1 + b.1));
            }
        }
        let means = groups.iter().flat_map(|&(sum, n)| std::iter::repeat_n(sum / n as f64, n));
        for ((&item, mean), offset) in self.layers[layer].iter().zip(means).zip(offsets) {
            self.items[item].x = mean + offset;
        }
    }

    /// Shifts everything to the margin, and puts nodes without edges below, side by side.
    fn wrap_isolated(&mut self, names: &[String], arcs: &[Arc]) {
        let left = self.items.iter().map(|item| item.x - 0.5 * item.width).fold(f64::MAX, f64::min);
        self.items.iter_mut().for_each(|item| item.x += MARGIN - left);
        let right = self.items.iter().map(|item| item.x + 0.5 * item.width);
        let limit = right.fold(WRAP, f64::max);
        let isolated = |node: &usize| !arcs.iter().any(|arc| arc.from == *node || arc.to == *node);
        let mut x = f64::MAX;
        for node in (0..names.len()).filter(isolated) {
            let width = width_of(&names[node]);
            if x + width > limit {
                self.layers.push(Vec::new());
                x = MARGIN;
            }
            let item = self.add(self.layers.len() - 1, Some(node), width);
            self.items[item].x = x + 0.5 * width;
            x += width + GAP;
        }
    }

    fn draw(&self, names: &[String], arcs: &[Arc]) -> String {
        let mut y = vec![0.0; self.items.len()];
        for (k, layer) in self.layers.iter().enumerate() {
            layer.iter().for_each(|&item| y[item] = MARGIN + HALF_HEIGHT + k as f64 * LAYER);
        }
        let right = self.items.iter().map(|item| item.x + 0.5 * item.width).fold(0.0, f64::max);
        let bottom = y.iter().copied().fold(0.0, f64::max) + HALF_HEIGHT;
        let (width, height) = (right + MARGIN, bottom + MARGIN);
        let mut text = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" \
             viewBox=\"0 0 {width:.0} {height:.0}\" font-family=\"ui-monospace, monospace\" \
             font-size=\"13\">\n<desc>Pairs of nodes joined in most samples, each in its more frequent \
             direction; wider and darker where more of them.</desc>\n\
             <defs><marker id=\"tip\" viewBox=\"0 0 10 10\" refX=\"10\" refY=\"5\" markerWidth=\"11\" \
             markerHeight=\"11\" markerUnits=\"userSpaceOnUse\" orient=\"auto\"><path d=\"M0 1 10 5 0 9z\" \
             fill=\"#1d3557\"/></marker></defs>\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
        );
        for (arc, route) in arcs.iter().zip(&self.routes) {
            let strength = arc.strength.min(1.0);
            let path = self.path(route, &y);
            let (from, to) = (xml(&names[arc.from]), xml(&names[arc.to]));
            writeln!(
                text,
                "<path d=\"{path}\" fill=\"none\" stroke=\"#1d3557\" stroke-width=\"{:.2}\" \
                 opacity=\"{:.2}\" marker-end=\"url(#tip)\"><title>{from} -&gt; {to}: {strength:.3}\
                 </title></path>",
                0.5 + 2.0 * strength,
                0.25 + 0.75 * strength
            )
            .expect("memory");
        }
        for (item, y) in self.items.iter().zip(&y) {
            let Some(node) = item.node else { continue };
            let (x, width, name) = (item.x, item.width, xml(&names[node]));
            writeln!(
                text,
                "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"{:.1}\" rx=\"7\" \
                 fill=\"#eef3fa\" stroke=\"#1d3557\"/>\n<text x=\"{x:.1}\" y=\"{:.1}\" \
                 text-anchor=\"middle\" fill=\"#111\">{name}</text>",
                x - 0.5 * width,
                y - HALF_HEIGHT,
                2.0 * HALF_HEIGHT,
                y + 4.5
            )
            .expect("memory");
        }
        text + "</svg>\n"
    }

    /// A curve from box to box that is vertical where it passes a layer.
    fn path(&self, route: &[usize], y: &[f64]) -> String {
        let mut text = String::new();
        for ends in route.windows(2) {
            let (a, b) = (ends[0], ends[1]);
            let (x0, y0) = (self.items[a].x, y[a] + HALF_HEIGHT);
            let (x1, y1) = (self.items[b].x, y[b] - HALF_HEIGHT);
            let start = if text.is_empty() { "M" } else { " L" };
            let middle = 0.5 * (y0 + y1);
            write!(
                text,
                "{start}{x0:.1} {y0:.1} C{x0:.1} {middle:.1} {x1:.1} {middle:.1} {x1:.1} {y1:.1}"
            )
            .expect("memory");
        }
        text
    }
}

/// Text in XML, which has no place for control characters.
pub(crate) fn xml(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for c in name.chars() {
        match c {
            '&' => text += "&amp;",
            '<' => text += "&lt;",
            '>' => text += "&gt;",
            '"' => text += "&quot;",
            c if c.is_control() => text.push('\u{fffd}'),
            c => text.push(c),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use gfn_core::rng::{Purpose, Streams};
    use rand::RngExt;

    use super::*;

    /// Random graphs with long names and long edges: boxes keep apart, arrows lead down, and pass no
    /// layer within a box.
    #[test]
    fn nothing_overlaps() {
        for case in 0..40 {
            let mut rng = Streams::new(case).get(Purpose::Test, 0);
            let d = rng.random_range(1..=30usize);
            let name = |i: usize| format!("{}{i}", "n".repeat(rng.random_range(1..20usize)));
            let names: Vec<String> = (0..d).map(name).collect();
            let mut arcs = Vec::new();
            for to in 0..d {
                for from in 0..to {
                    if rng.random::<f64>() < 2.0 / d as f64 {
                        arcs.push(Arc { from, to, strength: 0.8 });
                    }
                }
            }
            let mut layout = Layout::new(&names, &arcs);
            let before = layout.crossings();
            layout.order();
            assert!(layout.crossings() <= before);
            layout.straighten();
            layout.wrap_isolated(&names, &arcs);
            let nodes = layout.items.iter().filter_map(|item| item.node);
            assert_eq!(nodes.fold(0u64, |set, node| set | 1 << node).count_ones() as usize, d);
            for layer in &layout.layers {
                for pair in layer.windows(2) {
                    let [a, b] = [&layout.items[pair[0]], &layout.items[pair[1]]];
                    let room = b.x - 0.5 * b.width - a.x - 0.5 * a.width;
                    assert!(room > GAP - 1e-6, "{case}: {room}");
                }
            }
            assert!(layout.items.iter().all(|item| item.x - 0.5 * item.width > MARGIN - 1e-6));
            let layer_of = |item| layout.layers.iter().position(|layer| layer.contains(&item));
            for route in &layout.routes {
                let layers: Vec<usize> =
                    route.iter().map(|&item| layer_of(item).unwrap()).collect();
                assert!(layers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{case}: {layers:?}");
            }
        }
    }
}
