//! The world of molecules against independent counts, other drawings of the same molecules, and
//! chemistry.

use std::collections::{HashMap, HashSet};

use gfn_core::policy::UniformPolicy;
use gfn_core::rng::{Purpose, Streams};
use gfn_core::sampler::{Draw, Exploration, Sampler};
use gfn_core::{Environment, NO_TOKEN, StateGraph};
use gfn_envs::chemistry::{Bond, Chirality, Molecule};
use gfn_envs::molecule::{ActionSet, MoleculeSpec, MoleculeWorld, Symmetry};
use rand::rngs::ChaCha8Rng;
use rand::seq::SliceRandom;

fn world(max_atoms: usize, actions: ActionSet) -> MoleculeWorld {
    MoleculeWorld::new(&MoleculeSpec { max_atoms, actions, ..MoleculeSpec::default() }).unwrap()
}

fn rng(seed: u64) -> ChaCha8Rng {
    Streams::new(seed).get(Purpose::Test, 0)
}

/// The finished rows of a world that is small.
fn objects(world: &MoleculeWorld) -> Vec<Vec<i32>> {
    let graph = StateGraph::explore(world, 1_000_000).unwrap();
    let mut mask = vec![false; world.space().n_actions];
    let is_finished = |row: &&[i32]| {
        world.legal(row, &mut mask);
        !mask.contains(&true)
    };
    graph.states().rows().filter(is_finished).map(<[i32]>::to_vec).collect()
}

/// Random molecules that uniform policies end in.
fn sampled(world: &MoleculeWorld, n: usize, seed: u64) -> Vec<Vec<i32>> {
    let draw = Draw { streams: Streams::new(seed), purpose: Purpose::Test, step: 0 };
    let walks = Sampler::default().forward(world, &UniformPolicy, Exploration::NONE, draw, n);
    walks.terminals().rows().map(<[i32]>::to_vec).collect()
}

/// Against `scripts/reference/count_molecules.py`, which tries everything with RDKit.
#[test]
fn molecules_are_counted() {
    for (max_atoms, count) in [(1, 4), (2, 23), (3, 117), (4, 738), (5, 5_453)] {
        assert_eq!(world(max_atoms, ActionSet::AtomsBonds).n_objects(), Some(count as u64));
        let objects = objects(&world(max_atoms, ActionSet::AtomsBonds));
        let smiles: HashSet<String> =
            objects.iter().map(|row| world(max_atoms, ActionSet::AtomsBonds).render(row)).collect();
        assert_eq!(smiles.len(), objects.len(), "names are unique");
        assert_eq!(objects.len(), count, "up to {max_atoms} atoms");
    }
}

/// Atoms in another order; a stereocentre's neighbours are in another order, too.
fn redrawn(molecule: &Molecule, rng: &mut ChaCha8Rng) -> Molecule {
    let n = molecule.atoms.len();
    let mut order: Vec<usize> = (0..n).collect();
    order.shuffle(rng);
    let place = |v: usize| order.iter().position(|&old| old == v).unwrap();
    let neighbours = molecule.neighbors();
    let atoms = order.iter().map(|&old| {
        let mut atom = molecule.atoms[old];
        let places: Vec<usize> = neighbours[old].iter().map(|&(w, _)| place(w)).collect();
        let inversions = (0..places.len())
            .map(|k| places[..k].iter().filter(|&&before| before > places[k]).count());
        if inversions.sum::<usize>() % 2 == 1 {
            atom.chirality = match atom.chirality {
                Chirality::None => Chirality::None,
                Chirality::Clockwise => Chirality::Counterclockwise,
                Chirality::Counterclockwise => Chirality::Clockwise,
            };
        }
        atom
    });
    let mut bonds: Vec<Bond> = molecule
        .bonds
        .iter()
        .map(|bond| Bond { ends: bond.ends.map(place), order: bond.order })
        .collect();
    bonds.shuffle(rng);
    Molecule { atoms: atoms.collect(), bonds }
}

#[test]
fn equal_molecules_are_equal_rows() {
    let mut rng = rng(1);
    for actions in [ActionSet::AtomsBonds, ActionSet::Full] {
        let world = world(9, actions);
        let mut named: HashMap<String, Vec<i32>> = HashMap::new();
        for row in sampled(&world, 3_000, 2) {
            let molecule = world.molecule(&row);
            for _ in 0..5 {
                let again = world.row_of(&redrawn(&molecule, &mut rng)).unwrap();
                assert_eq!(again, row, "{}", world.render(&row));
            }
            let smiles = world.render(&row);
            assert_eq!(world.parse(&smiles).as_ref(), Some(&row), "{smiles}");
            let known = named.entry(smiles.clone()).or_insert_with(|| row.clone());
            assert_eq!(*known, row, "{smiles} is one molecule");
        }
        assert!(named.len() > 1_000);
    }
}

/// One row for all Kekulé structures of a molecule, one backward action for each.
#[test]
fn lewis_structures_of_one_molecule_are_one_object() {
    let world = world(10, ActionSet::AtomsBonds);
    let known = [
        // Benzene's two look alike, those of o-xylene and pyridine's derivative do not.
        (&["C1=CC=CC=C1", "c1ccccc1"][..], 1),
        (&["CC1=CC=CC=C1C", "CC1=C(C)C=CC=C1", "Cc1ccccc1C"], 2),
        (&["CC1=CC=CC=N1", "CC1=NC=CC=C1"], 2),
        (&["C1=CC=C2C=CC=CC2=C1", "c1ccc2ccccc2c1"], 2),
        (&["c1ccc2[nH]ccc2c1", "C1=CC2=C(C=C1)NC=C2"], 2),
        // Not aromatic: two molecules whose rings differ.
        (&["CC1=CC=C1"], 1),
        (&["CC1=CC=CC=CC=C1"], 1),
        (&["C1=COC=C1", "c1ccoc1"], 1),
    ];
    for (drawings, n) in known {
        let rows: Vec<_> = drawings.iter().map(|smiles| world.read(smiles).unwrap()).collect();
        assert!(rows.iter().all(|row| *row == rows[0]), "{drawings:?}");
        let mut mask = vec![false; world.space().n_back_actions];
        world.legal_back(&rows[0], &mut mask);
        assert_eq!(mask.iter().filter(|&&legal| legal).count(), n, "{drawings:?}");
    }
    let different = ["CC1=C(C)C=C1", "CC1=CC=C1C"].map(|smiles| world.read(smiles).unwrap());
    assert_ne!(different[0], different[1]);
}

#[test]
fn what_is_no_molecule_of_a_world_is_refused_with_a_reason() {
    let small = world(3, ActionSet::AtomsBonds);
    let reasons = [
        ("CCCC", "max_atoms"),
        ("CCl", "Cl"),
        ("C[NH3+]", "charges"),
        ("[CH3]", "full"),
        ("CC.O", ""),
        ("C(", ""),
        ("", ""),
    ];
    for (smiles, part) in reasons {
        let reason = small.read(smiles).unwrap_err();
        assert!(reason.contains(part), "{smiles}: {reason}");
    }
    let full = world(3, ActionSet::Full);
    for smiles in ["C[NH3+]", "[CH3]", "[CH]C", "CO", "[O-]C"] {
        let row = full.read(smiles).unwrap();
        let again = full.render(&row);
        assert_eq!(Molecule::from_smiles(smiles).unwrap().canonical_smiles(), again);
    }
}

/// With all actions legal, states and objects are the same; they are reached by as many actions as
/// symmetric parts look alike.
#[test]
fn all_actions_lead_to_the_same_states() {
    let merged = world(4, ActionSet::AtomsBonds);
    let spec = MoleculeSpec { max_atoms: 4, symmetry: Symmetry::Actions, ..Default::default() };
    let all = MoleculeWorld::new(&spec).unwrap();
    let [a, b] = [&merged, &all].map(|world| StateGraph::explore(world, 100_000).unwrap());
    let rows = |graph: &StateGraph| -> HashSet<Vec<i32>> {
        graph.states().rows().map(<[i32]>::to_vec).collect()
    };
    assert_eq!(rows(&a), rows(&b));
    let mut mask = vec![false; all.space().n_actions];
    let mut count = |world: &MoleculeWorld, smiles: &str| {
        let mut row = world.read(smiles).unwrap();
        world.unstep(&mut row, 0);
        world.legal(&row, &mut mask);
        mask.iter().filter(|&&legal| legal).count()
    };
    // Ethane: stop, four elements at one or two atoms, two orders of its bond.
    assert_eq!([count(&merged, "CC"), count(&all, "CC")], [1 + 4 + 2, 1 + 8 + 2]);
    // Fluoromethane has no symmetry.
    assert_eq!(count(&merged, "CF"), count(&all, "CF"));
}

/// Of both directions; the laws of every single step are in `contract.rs`.
/// By Floyd and Warshall's recurrence over the observed bonds.
#[test]
fn observed_distances_are_shortest_paths() {
    let world = world(9, ActionSet::AtomsBonds);
    let space = world.space();
    let draw = Draw { streams: Streams::new(6), purpose: Purpose::Test, step: 0 };
    let walks = Sampler::default().forward(&world, &UniformPolicy, Exploration::NONE, draw, 2_000);
    let (n, edges) = (space.slots, space.relation.unwrap().edges as i32);
    let mut cells = vec![0; space.n_cells()];
    let mut seen = [0; 3];
    for row in walks.states.rows() {
        world.observe(row, &mut cells);
        let is_there = |i: usize| cells[i * space.features.len()] != NO_TOKEN;
        let relation = |i: usize, j: usize| cells[space.pair_cell(i, j).unwrap()];
        let mut far = vec![vec![99; n]; n];
        for (i, j) in (0..n).flat_map(|i| (0..n).map(move |j| (i, j))).filter(|(i, j)| i != j) {
            if (0..edges).contains(&relation(i, j)) {
                far[i][j] = 1;
            }
        }
        for k in 0..n {
            for i in 0..n {
                for j in 0..n {
                    far[i][j] = far[i][j].min(far[i][k] + far[k][j]);
                }
            }
        }
        for (i, j) in (0..n).flat_map(|i| (i + 1..n).map(move |j| (i, j))) {
            let expected = match (is_there(i) && is_there(j), far[i][j]) {
                (false, _) => NO_TOKEN,
                (true, 1) => continue,
                (true, far) => {
                    seen[far.min(4) - 2] += 1;
                    edges + far.min(4) as i32 - 2
                }
            };
            assert_eq!(relation(i, j), expected, "{i} and {j} of {}", world.render(row));
        }
    }
    assert!(seen.iter().all(|&n| n > 100), "{seen:?}");
}

#[test]
fn long_walks_stay_within_the_world() {
    let world = world(9, ActionSet::AtomsBonds);
    let draw = Draw { streams: Streams::new(5), purpose: Purpose::Test, step: 0 };
    let mut sampler = Sampler::default();
    let walks = sampler.forward(&world, &UniformPolicy, Exploration::NONE, draw, 100_000);
    let back = sampler.backward(&world, &UniformPolicy, draw, &walks.terminals());
    let mut sizes = HashSet::new();
    for i in 0..walks.len() {
        assert_eq!(walks.terminal(i), back.terminal(i));
        let start = back.states.row(back.rows(i).start);
        assert!(start.iter().all(|&cell| cell == 0));
        let molecule = world.molecule(walks.terminal(i));
        sizes.insert(molecule.atoms.len());
        assert!(molecule.atoms.len() <= 9 && molecule.is_simple_graph());
        for (atom, bonds) in molecule.atoms.iter().zip(molecule.neighbors()) {
            let orders: u8 = bonds.iter().map(|&(_, bond)| molecule.bonds[bond].order).sum();
            let valence = [4, 3, 2, 1][usize::from(atom.element) - 6];
            assert_eq!(orders + atom.hydrogens, valence, "every valence is used");
        }
    }
    assert_eq!(sizes.len(), 9);
}
