//! The world of fragments against formulas, brute force, other drawings, and the papers' molecules.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use gfn_core::policy::UniformPolicy;
use gfn_core::registry::EnvContext;
use gfn_core::rng::{Purpose, Streams};
use gfn_core::sampler::{Draw, Exploration, Sampler};
use gfn_core::{Environment, StateGraph};
use gfn_envs::chemistry::{Molecule, Molecules};
use gfn_envs::fragments::{Entry, FragmentWorld, FragmentsSpec, Version};
use gfn_envs::symmetry::Symmetry;
use serde::Deserialize;

fn entry(smiles: &str, attach: &[usize]) -> Entry {
    Entry { smiles: smiles.to_owned(), attach: attach.to_vec() }
}

fn small() -> Vec<Entry> {
    vec![
        entry("O", &[0]),
        entry("CC", &[0, 1]),
        entry("C", &[0, 0, 0]),
        entry("c1ccccc1", &[0, 1, 2, 3, 4, 5]),
    ]
}

fn world(spec: &FragmentsSpec) -> FragmentWorld {
    FragmentWorld::new(spec, EnvContext::NO_FILES.files).unwrap()
}

fn of_small(version: Version, max_fragments: usize) -> FragmentWorld {
    let fragments = small();
    world(&FragmentsSpec { version, max_fragments, fragments, ..FragmentsSpec::default() })
}

/// That of a file of the reference data.
fn of_papers(file: &'static str, version: Version, max_fragments: usize) -> FragmentWorld {
    let read = move |_: &Path| std::fs::read(Path::new(env!("GFN_REFERENCE_DATA")).join(file));
    let spec = FragmentsSpec { version, max_fragments, ..FragmentsSpec::default() };
    FragmentWorld::new(&spec, &read).unwrap()
}

/// Random objects that uniform policies end in.
fn sampled(world: &FragmentWorld, n: usize, seed: u64) -> Vec<Vec<i32>> {
    let draw = Draw { streams: Streams::new(seed), purpose: Purpose::Test, step: 0 };
    let walks = Sampler::default().forward(world, &UniformPolicy, Exploration::NONE, draw, n);
    walks.terminals().rows().map(<[i32]>::to_vec).collect()
}

/// Trees of up to three fragments by hand: `O` has one place, the two of `CC` are alike, so are the
/// three of `C` at one atom, and the six around the ring, pairs of which are ortho, meta or para.
#[test]
fn small_trees_are_counted_by_hand() {
    let one = 4;
    // Unordered pairs of (fragment, kind of place): four kinds.
    let two = 4 * 5 / 2;
    // A middle fragment, and which of four others at two of its places: CC, at both ends, in no order as
    // they are alike; C, twice at one atom; the ring, at each of three pairs of places that an exchange
    // maps to itself.
    let pairs = 4 * 5 / 2;
    let three = pairs + pairs + 3 * pairs;
    for version in [Version::Stems, Version::Blocks] {
        let least = |min_fragments, max_fragments| {
            let spec = FragmentsSpec {
                version,
                max_fragments,
                min_fragments: Some(min_fragments),
                fragments: small(),
                ..FragmentsSpec::default()
            };
            let world = world(&spec);
            let graph = StateGraph::explore(&world, 1_000_000).unwrap();
            assert_eq!(world.n_objects(), Some(graph.objects().len() as u64));
            graph.objects().len()
        };
        assert_eq!(least(1, 1), one);
        assert_eq!(least(1, 2), one + two);
        assert_eq!(least(1, 3), one + two + three);
        assert_eq!(least(2, 3), two + three);
        assert_eq!(least(3, 3), three);
        least(1, 4);
    }
}

/// Formula, brute force and a count of SMILES: trees of the papers' fragments.
#[test]
#[cfg_attr(not(reference_data), ignore = "needs the reference data")]
fn trees_of_the_papers_fragments_are_counted() {
    // 72 fragments have 106 kinds of places: one more than the file has blocks, since atoms 2 and 4 of
    // C1CCNC1 are alike by themselves, but not beside its other places.
    let pairs = 106 * 107 / 2;
    for (file, version) in [
        ("fragments_72.json", Version::Stems),
        ("fragments_105.json", Version::Stems),
        ("fragments_105.json", Version::Blocks),
    ] {
        let count = |n| {
            let world = of_papers(file, version, n);
            let graph = StateGraph::explore(&world, 1_000_000).unwrap();
            assert_eq!(world.n_objects(), Some(graph.objects().len() as u64));
            graph.objects().len()
        };
        assert_eq!(count(1), 72);
        let without_blocks = if version == Version::Stems { 72 } else { 0 };
        assert_eq!(count(2), without_blocks + pairs, "{file}");
    }
    let three = of_papers("fragments_105.json", Version::Blocks, 3);
    let graph = StateGraph::explore(&three, 4_000_000).unwrap();
    assert_eq!(three.n_objects(), Some(graph.objects().len() as u64));
    eprintln!("{} {}", graph.objects().len(), graph.states().len());
}

/// Whatever the order of fragments and joins, and whichever of equivalent attachments are named.
#[test]
fn equal_trees_are_equal_rows() {
    let world = of_small(Version::Stems, 8);
    let mut named: HashMap<String, Vec<i32>> = HashMap::new();
    for row in sampled(&world, 2_000, 1) {
        let text = world.render(&row);
        assert_eq!(world.parse(&text).as_ref(), Some(&row), "{text}");
        let reversed: Vec<&str> = text.split('.').rev().collect();
        assert_eq!(world.parse(&reversed.join(".")).as_ref(), Some(&row), "{text}");
        let known = named.entry(text.clone()).or_insert_with(|| row.clone());
        assert_eq!(*known, row);
        // The same molecule, as any reader of SMILES sees it.
        let read = Molecule::from_smiles(&text).unwrap();
        assert_eq!(read.canonical_smiles(), world.molecule(&row).canonical_smiles(), "{text}");
    }
    assert!(named.len() > 500);
    let row = |text: &str| world.read(text).unwrap();
    let ortho = row("C%10.c1c%10c%11ccc1.O%11");
    assert_eq!(row("c1ccc%15c%12c1.O%12.C%15"), ortho);
    assert_ne!(row("c1cc%15cc%12c1.O%12.C%15"), ortho);
    // Of the trees of propane the one with the fewest fragments; others by their own name.
    assert_eq!(row("CCC"), row("CC%10.C%10"));
    assert_eq!(row("Oc1ccccc1C"), ortho);
    assert_ne!(row("C%10.C%10%11.C%11"), row("CCC"));
}

/// Where all actions of an orbit are legal, exact flows with the corrected reward give P over trees: a law of
/// the contract. Here: uncorrected ones do not.
#[test]
fn what_is_refused_says_why() {
    let refused = |change: &dyn Fn(&mut FragmentsSpec)| {
        let mut spec = FragmentsSpec { fragments: small(), ..FragmentsSpec::default() };
        change(&mut spec);
        FragmentWorld::new(&spec, EnvContext::NO_FILES.files).unwrap_err().message
    };
    let with = |new: Entry| refused(&|spec| spec.fragments.push(new.clone()));
    for (message, part) in [
        (with(entry("CO", &[2])), "no atom 2"),
        (with(entry("CO", &[])), "no attachment"),
        (with(entry("C1CC", &[0])), "C1CC"),
        (with(entry("C(F)(F)(F)F", &[0])), "nothing more can be joined to its atom 0"),
        (with(entry("CN", &[1, 1, 1])), "atom 1 3 times"),
        (with(entry("C.C", &[0])), "fragments"),
        (refused(&|spec| spec.max_fragments = 17), "17 is not from 1 to 16"),
        (refused(&|spec| spec.min_fragments = Some(9)), "9 is not from 1"),
        (
            refused(&|spec| {
                spec.fragments.truncate(1);
                spec.min_fragments = Some(3);
            }),
            "two attachments",
        ),
        (
            refused(&|spec| {
                spec.version = Version::Blocks;
                spec.symmetry = Symmetry::Actions;
            }),
            "corrects",
        ),
    ] {
        assert!(message.contains(part), "{message}");
    }
    let world = of_small(Version::Blocks, 3);
    for (text, part) in [
        ("N", "atom 1 (N)"),
        ("CCCCCCCCCCC", "cannot be cut into 2 to 3"),
        ("O%10.O%10.O%11", "Ring not closed"),
        ("c1ccccc", ""),
    ] {
        let refusal = world.refusal(text).unwrap();
        assert!(refusal.contains(part) && world.parse(text).is_none(), "{text}: {refusal}");
    }
}

#[derive(Deserialize)]
struct TestMolecule {
    smiles: String,
    blocks: Vec<usize>,
    jbonds: Vec<[usize; 4]>,
    atoms: Vec<[i32; 5]>,
}

#[derive(Deserialize)]
struct Blocks {
    blocks: Vec<Entry>,
}

fn reference<T: for<'a> Deserialize<'a>>(file: &str) -> T {
    let bytes = std::fs::read(Path::new(env!("GFN_REFERENCE_DATA")).join(file)).unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

/// The papers' test molecules, as RDKit sees them: put together from blocks, and cut into fragments again.
#[test]
#[cfg_attr(not(reference_data), ignore = "needs the reference data")]
fn test_molecules_are_built_and_cut() {
    let molecules: Vec<TestMolecule> = reference("test_mols_950.json");
    let Blocks { blocks } = reference("fragments_105.json");
    let [stems, of_blocks] = [Version::Stems, Version::Blocks]
        .map(|version| of_papers("fragments_105.json", version, 8));
    let mut outside = 0;
    for test in &molecules {
        let parts: Vec<&str> = test.blocks.iter().map(|&block| &blocks[block].smiles[..]).collect();
        let row = of_blocks.row_of_parts(&parts, &test.jbonds).unwrap();
        let built = of_blocks.molecule(&row);
        let known = Molecule::from_smiles(&test.smiles).unwrap();
        assert_eq!(built.canonical_smiles(), known.canonical_smiles(), "{}", test.smiles);
        // Element, hydrogens and charge of every atom, whatever their order.
        let mut atoms: Vec<_> = built
            .atoms
            .iter()
            .map(|atom| {
                (i32::from(atom.element), i32::from(atom.hydrogens), i32::from(atom.charge))
            })
            .collect();
        let mut expected: Vec<_> =
            test.atoms.iter().map(|&[element, _, _, h, charge]| (element, h, charge)).collect();
        atoms.sort_unstable();
        expected.sort_unstable();
        assert_eq!(atoms, expected, "{}", test.smiles);
        // Cut into no more fragments than it was built of, the same molecule.
        let cut = of_blocks.read(&test.smiles).unwrap();
        assert_eq!(of_blocks.molecule(&cut).canonical_smiles(), known.canonical_smiles());
        let size = |row: &[i32]| row[..8].iter().filter(|&&cell| cell != 0).count();
        assert!(size(&cut) <= test.blocks.len());
        // With each attachment used once some are outside, which is said.
        match stems.row_of_parts(&parts, &test.jbonds) {
            Ok(row) => {
                assert_eq!(stems.molecule(&row).canonical_smiles(), known.canonical_smiles());
                assert_eq!(stems.parse(&stems.render(&row)), Some(row));
            }
            Err(_) if stems.parse(&test.smiles).is_none() => outside += 1,
            Err(_) => {}
        }
        assert_eq!(of_blocks.parse(&of_blocks.render(&row)), Some(row));
    }
    eprintln!("{outside}");
    let different: HashSet<&str> = molecules.iter().map(|test| &test.smiles[..]).collect();
    assert_eq!((molecules.len(), different.len()), (950, 891));
}
