//! Structural formulas as pictures: a grid of molecules with captions, as SVG.
//!
//! Carbon is a corner; other elements, charges and radicals are written, with hydrogens on the side
//! where there is room. Chirality is a wedge (towards the reader) or a hashed bond (away).

use std::fmt::Write;

use rayon::prelude::*;

use super::kekule::spare_valence;
use super::layout::{Point, layout};
use super::molecule::{Chirality, Molecule};
use crate::dag::drawing::xml;

/// Pixels of a cell, its margin, its caption and the longest bond.
const WIDTH: f64 = 190.0;
const HEIGHT: f64 = 160.0;
const MARGIN: f64 = 18.0;
const CAPTION: f64 = 20.0;
const BOND: f64 = 27.0;
/// Letters, in units of bonds of the usual length.
const FONT: f64 = 13.0;

/// A picture of molecules with captions, row by row; readable up to some 16 heavy atoms each.
///
/// # Panics
///
/// As [`Molecule::canonical_smiles`].
pub fn svg_grid(molecules: &[(Molecule, String)], columns: usize) -> String {
    let columns = columns.max(1).min(molecules.len().max(1));
    let rows = molecules.len().div_ceil(columns);
    let (width, height) = (WIDTH * columns as f64, (HEIGHT + CAPTION) * rows as f64);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" \
         viewBox=\"0 0 {width:.0} {height:.0}\" font-family=\"sans-serif\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
    );
    let drawings: Vec<Drawing<'_>> =
        molecules.par_iter().map(|(molecule, _)| Drawing::new(molecule)).collect();
    for (index, (drawing, (_, caption))) in drawings.into_iter().zip(molecules).enumerate() {
        let x = WIDTH * (index % columns) as f64;
        let y = (HEIGHT + CAPTION) * (index / columns) as f64;
        let _ = writeln!(svg, "<g transform=\"translate({x:.0} {y:.0})\">");
        drawing.draw(&mut svg);
        let _ = writeln!(
            svg,
            "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"middle\" font-size=\"11\" \
             fill=\"#333\">{}</text>\n</g>",
            0.5 * WIDTH,
            HEIGHT + 6.0,
            xml(caption)
        );
    }
    svg + "</svg>\n"
}

/// A molecule with places in pixels, y downwards.
struct Drawing<'a> {
    molecule: &'a Molecule,
    neighbors: Vec<Vec<(usize, usize)>>,
    rings: Vec<Vec<usize>>,
    places: Vec<Point>,
    /// Pixels of a bond.
    scale: f64,
    labels: Vec<Option<Label>>,
}

/// Which way the hydrogens of an atom are written.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    Right,
    Left,
    Up,
    Down,
}

struct Label {
    hydrogens: u8,
    /// Charge and dots of radicals.
    raised: String,
    way: Way,
}

impl<'a> Drawing<'a> {
    fn new(molecule: &'a Molecule) -> Self {
        let rings = molecule.smallest_rings();
        let mut places = layout(molecule, &rings);
        let range = |axis: usize| {
            let values = places.iter().map(|place| place[axis]);
            let low = values.clone().fold(f64::INFINITY, f64::min);
            (low, values.fold(f64::NEG_INFINITY, f64::max))
        };
        let ((left, right), (bottom, top)) = (range(0), range(1));
        let room = [WIDTH - 2.0 * MARGIN - 10.0, HEIGHT - 2.0 * MARGIN];
        let scale =
            BOND.min(room[0] / (right - left).max(1e-3)).min(room[1] / (top - bottom).max(1e-3));
        for place in &mut places {
            *place = [
                0.5 * WIDTH + scale * (place[0] - 0.5 * (left + right)),
                0.5 * HEIGHT - scale * (place[1] - 0.5 * (bottom + top)),
            ];
        }
        let neighbors = molecule.neighbors();
        let mut drawing = Self { molecule, neighbors, rings, places, scale, labels: Vec::new() };
        drawing.labels = (0..molecule.atoms.len()).map(|atom| drawing.label(atom)).collect();
        drawing
    }

    fn label(&self, index: usize) -> Option<Label> {
        let atom = &self.molecule.atoms[index];
        let bonds = &self.neighbors[index];
        let used: u8 = bonds.iter().map(|&(_, bond)| self.molecule.bonds[bond].order).sum();
        let spare = spare_valence(atom.element, atom.charge, used + atom.hydrogens).unwrap_or(0);
        // Carbon in the middle of a straight line would not be seen.
        let straight =
            bonds.len() == 2 && bonds.iter().all(|&(_, bond)| self.molecule.bonds[bond].order == 2);
        if atom.element == 6 && atom.charge == 0 && spare == 0 && !bonds.is_empty() && !straight {
            return None;
        }
        let mut raised = match atom.charge {
            0 => String::new(),
            1 => "+".to_owned(),
            -1 => "−".to_owned(),
            charge if charge > 0 => format!("{charge}+"),
            charge => format!("{}−", charge.unsigned_abs()),
        };
        raised.extend(std::iter::repeat_n('•', usize::from(spare.min(4))));
        // The direction that is furthest from all bonds; sideways if in doubt.
        let ways = [
            (Way::Right, [1.0, 0.0], 0.0),
            (Way::Left, [-1.0, 0.0], 0.05),
            (Way::Down, [0.0, 1.0], 0.3),
            (Way::Up, [0.0, -1.0], 0.3),
        ];
        let crowding = |(_, direction, handicap): &(Way, Point, f64)| {
            let toward = bonds.iter().map(|&(other, _)| {
                let way = self.direction(index, other);
                way[0] * direction[0] + way[1] * direction[1]
            });
            toward.fold(-1.0, f64::max) + handicap
        };
        let best = ways.iter().min_by(|a, b| crowding(a).total_cmp(&crowding(b)));
        let mut way = best.map_or(Way::Right, |best| best.0);
        // Water is H2O, and hydrogen fluoride HF.
        if bonds.is_empty() && matches!(atom.element, 8 | 9 | 16 | 17 | 35 | 53) {
            way = Way::Left;
        }
        Some(Label { hydrogens: atom.hydrogens, raised, way })
    }

    /// The unit vector from an atom to another.
    fn direction(&self, from: usize, to: usize) -> Point {
        let [a, b] = [self.places[from], self.places[to]];
        let length = (b[0] - a[0]).hypot(b[1] - a[1]).max(1e-6);
        [(b[0] - a[0]) / length, (b[1] - a[1]) / length]
    }

    fn draw(&self, svg: &mut String) {
        let _ = writeln!(svg, "<g stroke=\"#111\" stroke-width=\"1.4\" stroke-linecap=\"round\">");
        let wedges = self.wedges();
        for (bond, &wedge) in wedges.iter().enumerate() {
            self.draw_bond(bond, wedge, svg);
        }
        let _ = writeln!(svg, "</g>");
        for (atom, label) in self.labels.iter().enumerate() {
            if let Some(label) = label {
                self.draw_label(atom, label, svg);
            }
        }
    }

    /// Where a bond meets an atom: off its letters.
    fn end(&self, atom: usize, toward: Point) -> Point {
        let Some(label) = &self.labels[atom] else { return self.places[atom] };
        // An ellipse about one letter; hydrogens stand where no bond is, as far as there is room.
        let (mut wide, mut high) = (7.5, 8.0);
        if label.hydrogens > 0 {
            match label.way {
                Way::Right if toward[0] > 0.6 => wide = 16.0,
                Way::Left if toward[0] < -0.6 => wide = 16.0,
                Way::Down if toward[1] > 0.6 => high = 18.0,
                Way::Up if toward[1] < -0.6 => high = 18.0,
                _ => {}
            }
        }
        let off = 1.0 / (toward[0] / wide).hypot(toward[1] / high);
        let off = off.min(0.45 * self.scale);
        let [x, y] = self.places[atom];
        [x + off * toward[0], y + off * toward[1]]
    }

    fn draw_bond(&self, index: usize, wedge: Option<(usize, bool)>, svg: &mut String) {
        let bond = &self.molecule.bonds[index];
        let [mut a, mut b] = bond.ends;
        if wedge.is_some_and(|(from, _)| from == b) {
            (a, b) = (b, a);
        }
        let way = self.direction(a, b);
        let normal = [-way[1], way[0]];
        let start = self.end(a, way);
        let stop = self.end(b, [-way[0], -way[1]]);
        if let Some((_, towards)) = wedge {
            draw_wedge(start, stop, normal, towards, svg);
            return;
        }
        // The second line of a double bond lies inside the ring, or where most neighbours are.
        let side = |atom: usize| {
            let [x, y] = self.places[atom];
            let dot = (x - start[0]) * normal[0] + (y - start[1]) * normal[1];
            if dot.abs() < 1.0 { 0.0 } else { dot.signum() }
        };
        let ring = self
            .rings
            .iter()
            .filter(|ring| ring.contains(&a) && ring.contains(&b))
            .min_by_key(|ring| (ring.len() != 6, ring.len()));
        let lean: f64 = match ring {
            Some(ring) => ring.iter().map(|&atom| side(atom)).sum(),
            None => {
                let ends = [a, b];
                let beside = |&end: &usize| self.neighbors[end].iter().map(|&(other, _)| other);
                let beside = ends.iter().flat_map(beside).filter(|other| !ends.contains(other));
                // Between two groups of equal size, and at the end of a chain, on both sides.
                let terminal = ends.iter().any(|&end| self.neighbors[end].len() == 1);
                if terminal { 0.0 } else { beside.map(side).sum() }
            }
        };
        let gap = 0.14 * self.scale;
        let offsets: &[(f64, f64)] = match bond.order {
            2 if lean.abs() < 0.5 => &[(-0.5, 0.0), (0.5, 0.0)],
            2 => &[(0.0, 0.0), (1.0, 0.13)],
            3 => &[(0.0, 0.0), (-1.0, 0.08), (1.0, 0.08)],
            _ => &[(0.0, 0.0)],
        };
        for &(offset, short) in offsets {
            let offset = gap * offset * if lean < 0.0 { -1.0 } else { 1.0 };
            let point = |[x, y]: Point, along: f64| {
                [x + offset * normal[0] + along * way[0], y + offset * normal[1] + along * way[1]]
            };
            // Letters have made the bond shorter already.
            let cut = |atom: usize| {
                if self.labels[atom].is_some() { 0.0 } else { short * self.scale }
            };
            let (from, to) = (point(start, cut(a)), point(stop, -cut(b)));
            line(from, to, svg);
        }
    }

    fn draw_label(&self, index: usize, label: &Label, svg: &mut String) {
        let [x, y] = self.places[index];
        let symbol = self.molecule.atoms[index].symbol();
        let colour = match self.molecule.atoms[index].element {
            7 => "#1f45c4",
            8 => "#c81e1e",
            9 | 17 => "#1b7f2a",
            16 => "#8a6d00",
            35 | 53 => "#7a2b20",
            _ => "#111",
        };
        let small = 0.72 * FONT;
        let mut text = |x: f64, y: f64, size: f64, anchor: &str, content: &str| {
            let _ = writeln!(
                svg,
                "<text x=\"{x:.1}\" y=\"{y:.1}\" font-size=\"{size:.1}\" text-anchor=\"{anchor}\" \
                 fill=\"{colour}\">{content}</text>"
            );
        };
        let baseline = y + 0.36 * FONT;
        text(x, baseline, FONT, "middle", symbol);
        let half = 0.36 * FONT * symbol.len() as f64;
        let hydrogen = 0.72 * FONT;
        let number = if label.hydrogens > 1 { label.hydrogens.to_string() } else { String::new() };
        let digits = 0.58 * small * number.len() as f64;
        let mut right = x + half;
        if label.hydrogens > 0 {
            let (left, line) = match label.way {
                Way::Right => {
                    right += hydrogen + digits;
                    (x + half, baseline)
                }
                Way::Left => (x - half - hydrogen - digits, baseline),
                Way::Down => (x - 0.5 * hydrogen, baseline + 0.95 * FONT),
                Way::Up => (x - 0.5 * hydrogen, baseline - 0.95 * FONT),
            };
            text(left, line, FONT, "start", "H");
            if !number.is_empty() {
                text(left + hydrogen, line + 0.25 * FONT, small, "start", &number);
            }
        }
        if !label.raised.is_empty() {
            text(right, baseline - 0.5 * FONT, small, "start", &label.raised);
        }
    }

    /// For each bond, where it is a wedge: the centre that it begins at, and whether it leads towards
    /// the reader.
    fn wedges(&self) -> Vec<Option<(usize, bool)>> {
        let mut wedges = vec![None; self.molecule.bonds.len()];
        let in_ring = self.molecule.ring_bonds();
        let center = |atom: usize| self.molecule.atoms[atom].chirality != Chirality::None;
        for (atom, neighbors) in self.neighbors.iter().enumerate() {
            let hydrogens = usize::from(self.molecule.atoms[atom].hydrogens);
            if !center(atom) || neighbors.len() + hydrogens != 4 || hydrogens > 1 {
                continue;
            }
            // Best a bond to something that ends there and is no centre itself.
            let rank = |&&(other, bond): &&(usize, usize)| {
                let size = self.neighbors[other].len();
                (wedges[bond].is_some(), in_ring[bond], center(other), size, other)
            };
            let Some(&(toward, bond)) = neighbors.iter().min_by_key(rank) else { continue };
            if wedges[bond].is_some() {
                continue;
            }
            // In space, y upwards, the neighbour on the bond raised, a hydrogen opposite to the rest.
            let mut arms: Vec<[f64; 3]> = neighbors
                .iter()
                .map(|&(other, _)| {
                    let [x, y] = self.direction(atom, other);
                    [x, -y, if other == toward { 1.0 } else { 0.0 }]
                })
                .collect();
            if hydrogens == 1 {
                let opposite = [0, 1, 2].map(|axis| -arms.iter().map(|arm| arm[axis]).sum::<f64>());
                arms.insert(0, opposite);
            }
            let edge = |k: usize| [0, 1, 2].map(|axis| arms[k][axis] - arms[0][axis]);
            let [a, b, c] = [edge(1), edge(2), edge(3)];
            let volume = a[0] * (b[1] * c[2] - b[2] * c[1]) - a[1] * (b[0] * c[2] - b[2] * c[0])
                + a[2] * (b[0] * c[1] - b[1] * c[0]);
            // Seen from the first, counterclockwise arms span a negative volume.
            let counterclockwise = volume < 0.0;
            let wanted = self.molecule.atoms[atom].chirality == Chirality::Counterclockwise;
            wedges[bond] = Some((atom, counterclockwise == wanted));
        }
        wedges
    }
}

fn draw_wedge(start: Point, stop: Point, normal: Point, towards: bool, svg: &mut String) {
    let at = |t: f64, across: f64| {
        [0, 1].map(|axis| start[axis] + t * (stop[axis] - start[axis]) + across * normal[axis])
    };
    const HALF: f64 = 3.2;
    if towards {
        let [[x0, y0], [x1, y1], [x2, y2]] = [start, at(1.0, HALF), at(1.0, -HALF)];
        let _ = writeln!(
            svg,
            "<path d=\"M{x0:.1} {y0:.1} {x1:.1} {y1:.1} {x2:.1} {y2:.1}z\" fill=\"#111\" \
             stroke-width=\"0.5\"/>"
        );
    } else {
        for step in 1..=6 {
            let t = f64::from(step) / 6.0;
            line(at(t, t * HALF), at(t, -t * HALF), svg);
        }
    }
}

fn line([x0, y0]: Point, [x1, y1]: Point, svg: &mut String) {
    let _ = writeln!(svg, "<path d=\"M{x0:.1} {y0:.1} {x1:.1} {y1:.1}\" fill=\"none\"/>");
}

#[cfg(test)]
mod tests {
    use std::f64::consts::PI;

    use super::*;

    fn drawing(smiles: &str, check: impl Fn(&Drawing<'_>)) {
        let molecule = Molecule::from_smiles(smiles).unwrap();
        check(&Drawing::new(&molecule));
    }

    #[test]
    fn bonds_have_one_length_and_atoms_keep_apart() {
        for smiles in [
            "CCCCCCCCC",
            "c1ccccc1",
            "c1ccc2ccccc2c1",
            "CC(C)(C)C",
            "C#CC#N",
            "O=C(O)c1ccccc1",
            "C1CC1C1CCC1",
            "C1CCCCC1C1CCCC1",
            "CC(=O)NC1CCN(C)CC1",
            "C1=CC=CC=CC=C1",
            "N#CC=C=O",
        ] {
            drawing(smiles, |drawing| {
                for bond in &drawing.molecule.bonds {
                    let [a, b] = bond.ends.map(|end| drawing.places[end]);
                    let length = (a[0] - b[0]).hypot(a[1] - b[1]) / drawing.scale;
                    assert!((length - 1.0).abs() < 0.12, "{smiles}: {length}");
                }
                for (index, a) in drawing.places.iter().enumerate() {
                    for b in &drawing.places[..index] {
                        let apart = (a[0] - b[0]).hypot(a[1] - b[1]) / drawing.scale;
                        assert!(apart > 0.8, "{smiles}: {apart}");
                    }
                }
            });
        }
    }

    /// Chirality read back from wedges by the rule of the eye: seen with the hydrogen behind.
    #[test]
    fn wedges_say_the_chirality() {
        for (smiles, clockwise) in [("F[C@H](Cl)Br", false), ("F[C@@H](Cl)Br", true)] {
            drawing(smiles, |drawing| {
                let (bond, (_, towards)) = drawing
                    .wedges()
                    .into_iter()
                    .enumerate()
                    .find_map(|(b, w)| Some((b, w?)))
                    .unwrap();
                assert!(drawing.molecule.bonds[bond].ends.contains(&1));
                // From fluorine: @ says hydrogen, chlorine, bromine counterclockwise; so from the side
                // opposite to hydrogen: fluorine, chlorine, bromine are seen clockwise for @@ …
                let angle = |atom: usize| {
                    let [x, y] = drawing.direction(1, atom);
                    (-y).atan2(x)
                };
                let turn = |a: f64, b: f64| (b - a).rem_euclid(2.0 * PI);
                let seen_clockwise = turn(angle(0), angle(2)) > turn(angle(0), angle(3));
                // … if the wedge leads towards the reader, so that hydrogen is behind.
                assert_eq!(seen_clockwise == towards, clockwise, "{smiles}");
            });
        }
    }

    #[test]
    fn captions_are_escaped_and_labels_written() {
        let molecule = Molecule::from_smiles("C[NH3+]").unwrap();
        let svg = svg_grid(&[(molecule.clone(), "a<b".to_owned()), (molecule, String::new())], 2);
        assert!(svg.contains(">a&lt;b</text>") && svg.contains(">N</text>"));
        assert!(svg.contains(">3</text>") && svg.contains(">+</text>"));
        assert!(svg_grid(&[], 3).contains("<svg"));
    }
}
