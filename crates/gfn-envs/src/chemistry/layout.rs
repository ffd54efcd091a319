//! Places for the atoms of a structural formula.
//!
//! Each pair of atoms has a distance that it should have in a formula: 1 if bonded; within a ring that
//! of a regular polygon; that of angles of 120° (180° at triple bonds) two bonds apart; that of a zigzag
//! chain further off. Stress majorisation (Gansner, Koren, North 2005) comes close to all of them, near
//! ones first, from several starts, of which the one with the fewest crossings and collisions stays.
//! Fused rings come out regular, since their distances agree; bridged and strained ones as a compromise.

use std::f64::consts::PI;

use super::molecule::Molecule;

/// A place; y points up.
pub(super) type Point = [f64; 2];

/// A wish: two atoms, their distance, and how much it counts.
struct Wish {
    a: usize,
    b: usize,
    distance: f64,
    weight: f64,
    /// How much it counts once distances further off are dropped.
    late: f64,
    /// Whether it is about the shape near by.
    near: bool,
}

const N_STARTS: u64 = 24;

/// Places with bonds of about length 1, around the origin, the longest extent horizontal.
///
/// `rings`: atoms of the smallest rings, in order.
pub(super) fn layout(molecule: &Molecule, rings: &[Vec<usize>]) -> Vec<Point> {
    let n = molecule.atoms.len();
    let wishes = wishes(molecule, rings);
    let start = |seed| {
        let mut places = initial(n, seed);
        // All distances alike, so that chains unfold before near ones hold them.
        majorize(&mut places, &wishes, 60, |wish| (wish.distance, wish.distance.powi(-2)));
        majorize(&mut places, &wishes, 120, |wish| (wish.distance, wish.weight));
        // Crowding of what is not bonded bends less than it did, shapes near by stand.
        for _ in 0..4 {
            let settled = places.clone();
            let crowded = |wish: &Wish| {
                let now = distance(settled[wish.a], settled[wish.b]);
                match wish.near {
                    true => (wish.distance, wish.late),
                    false if now < 0.7 => (1.2, 4.0),
                    false if now < 1.2 => (1.4, 0.6),
                    false => (now.max(wish.distance.min(2.0)), wish.late),
                }
            };
            majorize(&mut places, &wishes, 60, crowded);
        }
        let penalty = penalty(molecule, &wishes, &places);
        (penalty, places)
    };
    let best = (0..N_STARTS).map(start).min_by(|a, b| a.0.total_cmp(&b.0));
    let mut places = best.map_or_else(Vec::new, |(_, places)| places);
    turn(molecule, &mut places);
    places
}

fn distance(a: Point, b: Point) -> f64 {
    let [x, y] = [a[0] - b[0], a[1] - b[1]];
    // Lengths of bonds neither overflow nor vanish; `hypot` takes a third of the time of a layout.
    (x * x + y * y).sqrt()
}

fn wishes(molecule: &Molecule, rings: &[Vec<usize>]) -> Vec<Wish> {
    let n = molecule.atoms.len();
    let neighbors = molecule.neighbors();
    // Bonds between, by breadth-first search.
    let mut steps = vec![vec![usize::MAX; n]; n];
    for (from, steps) in steps.iter_mut().enumerate() {
        steps[from] = 0;
        let mut queue = std::collections::VecDeque::from([from]);
        while let Some(atom) = queue.pop_front() {
            for &(other, _) in &neighbors[atom] {
                if steps[other] == usize::MAX {
                    steps[other] = steps[atom] + 1;
                    queue.push_back(other);
                }
            }
        }
    }
    // Of the angles at each atom, rings take theirs first; the rest is shared.
    let mut in_rings = vec![vec![0_usize; 0]; n];
    for ring in rings {
        ring.iter().for_each(|&atom| in_rings[atom].push(ring.len()));
    }
    let same_ring = |a: usize, b: usize| {
        let of_both = |ring: &&Vec<usize>| ring.contains(&a) && ring.contains(&b);
        rings.iter().filter(of_both).min_by_key(|ring| ring.len())
    };
    let caged = caged(molecule, rings);
    let mut wishes = Vec::new();
    for a in 0..n {
        for b in a + 1..n {
            let k = steps[a][b];
            if k == usize::MAX {
                wishes.push(Wish { a, b, distance: 3.0, weight: 0.02, late: 0.004, near: false });
                continue;
            }
            let zigzag = (k as f64 * 0.866).hypot(if k % 2 == 1 { 0.5 } else { 0.0 });
            if k == 1 {
                let weight = if caged[a] && caged[b] { 6.0 } else { 20.0 };
                wishes.push(Wish { a, b, distance: 1.0, weight, late: weight, near: true });
            } else if let Some(ring) = same_ring(a, b) {
                let place = |atom| ring.iter().position(|&member| member == atom).unwrap_or(0);
                let apart = place(a).abs_diff(place(b)) as f64;
                let size = ring.len() as f64;
                let distance = (PI * apart / size).sin() / (PI / size).sin();
                let (near, weight) = if ring.iter().any(|&atom| caged[atom]) {
                    (false, 1.0)
                } else {
                    (true, 10.0 / (distance * distance))
                };
                wishes.push(Wish { a, b, distance, weight, late: 0.5 * weight, near });
            } else if k == 2 {
                let between = neighbors[a].iter().find(|&&(atom, _)| steps[atom][b] == 1);
                let Some(&(middle, _)) = between else { continue };
                let bonds =
                    || neighbors[middle].iter().map(|&(_, bond)| molecule.bonds[bond].order);
                let degree = neighbors[middle].len();
                let straight = degree == 2 && (bonds().any(|o| o == 3) || bonds().all(|o| o == 2));
                let (angle, weight) = match in_rings[middle][..] {
                    _ if straight => (PI, 8.0),
                    [] if degree <= 3 => (2.0 * PI / 3.0, 6.0),
                    [size] if degree == 3 => {
                        let inside = PI - 2.0 * PI / size as f64;
                        ((2.0 * PI - inside) / 2.0, 5.0)
                    }
                    // With four neighbours some pairs are at right angles, some opposite.
                    _ => (0.6 * PI, 0.4),
                };
                let distance = 2.0 * (angle / 2.0).sin();
                let near = weight > 1.0;
                let late = if near { weight } else { 0.004 };
                wishes.push(Wish { a, b, distance, weight, late, near });
            } else {
                let weight = 1.0 / (k * k) as f64;
                wishes.push(Wish { a, b, distance: zigzag, weight, late: 0.004, near: false });
            }
        }
    }
    wishes
}

/// Atoms of cages, which no plane drawing can give regular rings: of rings that share more than a bond
/// with another, and those that rings close around with angles that do not add up to 360°.
fn caged(molecule: &Molecule, rings: &[Vec<usize>]) -> Vec<bool> {
    let mut caged = vec![false; molecule.atoms.len()];
    for (index, one) in rings.iter().enumerate() {
        for other in &rings[..index] {
            if one.iter().filter(|atom| other.contains(atom)).count() > 2 {
                one.iter().chain(other).for_each(|&atom| caged[atom] = true);
            }
        }
    }
    for (atom, neighbors) in molecule.neighbors().iter().enumerate() {
        let around = rings.iter().filter(|ring| ring.contains(&atom));
        let angles: Vec<f64> = around.map(|ring| PI - 2.0 * PI / ring.len() as f64).collect();
        let off = (angles.iter().sum::<f64>() - 2.0 * PI).abs();
        caged[atom] |= neighbors.len() > 2 && angles.len() >= neighbors.len() && off > 0.5;
    }
    caged
}

/// Atoms in the order of their numbers on a circle that is drawn in different ways.
fn initial(n: usize, seed: u64) -> Vec<Point> {
    // Numbers between 0 and 1 from a linear congruential generator (Knuth's MMIX constants).
    let mut state = seed;
    let mut next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64 / (1_u64 << 53) as f64
    };
    let radius = 0.5 * (n as f64).sqrt() + 0.5;
    (0..n)
        .map(|atom| {
            if seed == 0 {
                let angle = 2.0 * PI * atom as f64 / n as f64;
                [2.0 * radius * angle.cos(), 2.0 * radius * angle.sin()]
            } else {
                [radius * (2.0 * next() - 1.0) * 1.5, radius * (2.0 * next() - 1.0)]
            }
        })
        .collect()
}

/// Rounds of moving each atom to the mean of where its wishes want it.
fn majorize(
    places: &mut [Point],
    wishes: &[Wish],
    rounds: usize,
    wanted: impl Fn(&Wish) -> (f64, f64),
) {
    let n = places.len();
    let mut of_atom = vec![Vec::new(); n];
    for wish in wishes {
        let (distance, weight) = wanted(wish);
        of_atom[wish.a].push((wish.b, distance, weight));
        of_atom[wish.b].push((wish.a, distance, weight));
    }
    for _ in 0..rounds {
        for atom in 0..n {
            let (mut sum, mut total) = ([0.0; 2], 0.0);
            for &(other, wanted, weight) in &of_atom[atom] {
                let [x, y] = places[other];
                let apart = distance(places[atom], places[other]).max(1e-6);
                for (axis, from) in [x, y].into_iter().enumerate() {
                    let direction = (places[atom][axis] - from) / apart;
                    sum[axis] += weight * (from + wanted * direction);
                }
                total += weight;
            }
            if total > 0.0 {
                places[atom] = sum.map(|sum| sum / total);
            }
        }
    }
}

/// How bad a drawing is: wishes near by that are not met, atoms that touch, bonds that cross.
fn penalty(molecule: &Molecule, wishes: &[Wish], places: &[Point]) -> f64 {
    let mut penalty = 0.0;
    for wish in wishes {
        let now = distance(places[wish.a], places[wish.b]);
        if wish.near {
            penalty += wish.weight * (now - wish.distance).powi(2);
        } else {
            penalty += 0.08 * (now - wish.distance).powi(2);
            penalty += 20.0 * (0.9 - now).max(0.0).powi(2);
        }
    }
    for (index, one) in molecule.bonds.iter().enumerate() {
        for other in &molecule.bonds[index + 1..] {
            if one.ends.iter().all(|end| !other.ends.contains(end)) {
                let [a, b] = one.ends.map(|end| places[end]);
                let [c, d] = other.ends.map(|end| places[end]);
                if crosses(a, b, c, d) {
                    penalty += 3.0;
                }
            }
        }
        // An atom on a bond looks as if it were bonded.
        for (atom, &place) in places.iter().enumerate() {
            if !one.ends.contains(&atom) {
                let [a, b] = one.ends.map(|end| places[end]);
                penalty += 8.0 * (0.4 - from_segment(place, a, b)).max(0.0);
            }
        }
    }
    penalty
}

fn side(a: Point, b: Point, p: Point) -> f64 {
    (b[0] - a[0]) * (p[1] - a[1]) - (b[1] - a[1]) * (p[0] - a[0])
}

fn crosses(a: Point, b: Point, c: Point, d: Point) -> bool {
    side(a, b, c) * side(a, b, d) < 0.0 && side(c, d, a) * side(c, d, b) < 0.0
}

fn from_segment(p: Point, a: Point, b: Point) -> f64 {
    let along = [b[0] - a[0], b[1] - a[1]];
    let length = (along[0] * along[0] + along[1] * along[1]).max(1e-9);
    let t = ((p[0] - a[0]) * along[0] + (p[1] - a[1]) * along[1]) / length;
    let t = t.clamp(0.0, 1.0);
    distance(p, [a[0] + t * along[0], a[1] + t * along[1]])
}

/// Moves the middle to the origin, and turns so that most bonds lie at multiples of 30° and the
/// drawing is as wide as it can then be.
fn turn(molecule: &Molecule, places: &mut [Point]) {
    let n = places.len().max(1) as f64;
    let mean = [0, 1].map(|axis| places.iter().map(|place| place[axis]).sum::<f64>() / n);
    places.iter_mut().for_each(|place| *place = [place[0] - mean[0], place[1] - mean[1]]);
    let mut best = (f64::INFINITY, 0.0);
    for step in 0..180 {
        let angle = PI * f64::from(step) / 180.0;
        let askew: f64 = molecule
            .bonds
            .iter()
            .map(|bond| {
                let [a, b] = bond.ends.map(|end| places[end]);
                let direction = (b[1] - a[1]).atan2(b[0] - a[0]) + angle;
                // Vertical is a multiple of 30°, horizontal chains lie at ±30°.
                (6.0 * (direction - PI / 6.0)).cos()
            })
            .sum();
        let height = |place: &Point| (angle.sin() * place[0] + angle.cos() * place[1]).powi(2);
        let flat: f64 = places.iter().map(height).sum::<f64>() / n;
        // A chain along an axis has all its bonds at 30° to it.
        let value = flat - 0.6 * askew / molecule.bonds.len().max(1) as f64;
        if value < best.0 {
            best = (value, angle);
        }
    }
    let (sin, cos) = best.1.sin_cos();
    for place in places {
        *place = [cos * place[0] - sin * place[1], sin * place[0] + cos * place[1]];
    }
}
