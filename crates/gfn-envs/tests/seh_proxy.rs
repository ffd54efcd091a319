//! The sEH proxy against golden values: of molecules read from SMILES, of the papers' test set atom by atom,
//! and as a reward.

use std::path::Path;
use std::sync::Arc;

use gfn_core::registry::{EnvAxis, EnvContext, Kind, RewardContext};
use gfn_core::{Environment, KeyError, Reward, States};
use gfn_envs::chemistry::{DrawnMolecule, Hybridisation, Molecule};
use gfn_envs::fragments::{FragmentsSpec, Version};
use gfn_envs::molecule::MoleculeSpec;
use gfn_envs::reward::seh_proxy::SehProxySpec;
use gfn_envs::reward::seh_proxy::features::{AtomInput, BondKind, Input};
use gfn_envs::reward::seh_proxy::network::Network;
use gfn_envs::reward::transform::Transform;
use gfn_envs::sequence::SequenceSpec;
use serde_json::Value;

const WEIGHTS: &str = "seh_proxy_bengio2021.safetensors";

fn reference(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("GFN_REFERENCE_DATA")).join(name)).unwrap()
}

fn list(name: &str) -> Vec<Value> {
    serde_json::from_slice(&reference(name)).unwrap()
}

fn integers(value: &Value) -> Vec<i64> {
    value.as_array().unwrap().iter().map(|number| number.as_i64().unwrap()).collect()
}

fn rows(value: &Value) -> Vec<Vec<i64>> {
    value.as_array().unwrap().iter().map(integers).collect()
}

fn network() -> Network {
    Network::read(&reference(WEIGHTS)).unwrap()
}

fn input(smiles: &str, mark_open: bool) -> Input {
    let molecule = Molecule::from_smiles(smiles).unwrap();
    Input::of(&DrawnMolecule::finished(molecule), mark_open)
}

/// Columns of atoms that are not 0, in hundred-thousandths, so that they can be sorted.
type Columns = Vec<Vec<(usize, i64)>>;

/// Pairs of atoms with the kind of bond between them, both ways.
type Edges = Vec<[i64; 3]>;

fn seen(input: &Input) -> (Columns, Edges) {
    let exact = |(column, number): (usize, f32)| (column, (number * 1e5) as i64);
    let columns = input.atoms.iter().map(|atom| atom.columns().map(exact).collect());
    let mut edges: Edges = Vec::new();
    for &([a, b], kind) in &input.bonds {
        let (a, b) = (a as i64, b as i64);
        edges.extend([[a, b, kind as i64], [b, a, kind as i64]]);
    }
    if edges.is_empty() {
        edges.push([0, 0, -1]);
    }
    (columns.collect(), edges)
}

fn golden(entry: &Value) -> (Columns, Edges) {
    let mut columns = vec![Vec::new(); entry["natoms"].as_u64().unwrap() as usize];
    for row in entry["x_nonzero"].as_array().unwrap() {
        let number = (row[2].as_f64().unwrap() * 1e5) as i64;
        let [atom, column] = [0, 1].map(|i| row[i].as_u64().unwrap() as usize);
        columns[atom].push((column, number));
    }
    columns.iter_mut().for_each(|columns: &mut Vec<_>| columns.sort_unstable());
    let (ends, kinds) = (rows(&entry["edge_index"]), integers(&entry["edge_type"]));
    (columns, (0..kinds.len()).map(|i| [ends[0][i], ends[1][i], kinds[i]]).collect())
}

/// Without numbers of atoms.
fn unnumbered((columns, edges): &(Columns, Edges)) -> impl PartialEq + std::fmt::Debug + use<> {
    let mut atoms = columns.clone();
    atoms.sort_unstable();
    let ends =
        |&[a, b, kind]: &[i64; 3]| (columns[a as usize].clone(), columns[b as usize].clone(), kind);
    let mut edges: Vec<_> = edges.iter().map(ends).collect();
    edges.sort_unstable();
    (atoms, edges)
}

/// Some of them number atoms in another order than their SMILES.
#[test]
#[cfg_attr(not(reference_data), ignore = "needs the reference data")]
fn golden_molecules_have_their_features_and_scores() {
    let entries = list("golden/seh_proxy_golden.json");
    assert_eq!(entries.len(), 20);
    let network = network();
    let mut in_order = 0;
    for entry in &entries {
        let smiles = entry["smiles"].as_str().unwrap();
        let plain = input(smiles, false);
        let (mut found, mut expected) = (seen(&plain), golden(entry));
        assert_eq!(unnumbered(&found), unnumbered(&expected), "{smiles}");
        found.1.sort_unstable();
        expected.1.sort_unstable();
        let close = |score: f64, key: &str| (score - entry[key].as_f64().unwrap()).abs() < 1e-4;
        let score = network.scores(std::slice::from_ref(&plain))[0];
        assert!(close(score, "score_no_mask"), "{smiles}: {score}");
        let first: Vec<usize> = if found == expected {
            in_order += 1;
            vec![0]
        } else {
            (0..found.0.len()).filter(|&atom| found.0[atom] == expected.0[0]).collect()
        };
        let marked: Vec<Input> = first
            .iter()
            .map(|&atom| {
                let mut marked = plain.clone();
                marked.mark(&[atom]);
                marked
            })
            .collect();
        let scores = network.scores(&marked);
        assert!(
            scores.iter().any(|&score| close(score, "score_mask_atom0")),
            "{smiles}: {scores:?}"
        );
        if first == [0] {
            assert_eq!(network.scores(&[input(smiles, true)]), scores);
        }
    }
    assert!(in_order >= 12, "{in_order}");
}

/// An entry of the test set, whose scores need no chemistry.
fn stored_input(entry: &Value) -> Input {
    let atom = |atom: &Vec<i64>| AtomInput {
        element: atom[0] as u8,
        aromatic: atom[1] == 1,
        hybridisation: match atom[2] {
            1 => Hybridisation::Sp,
            2 => Hybridisation::Sp2,
            3 => Hybridisation::Sp3,
            code => panic!("{code}"),
        },
        hydrogens: atom[3] as u8,
        open: false,
    };
    let bond =
        |bond: &Vec<i64>| ([bond[0] as usize, bond[1] as usize], BondKind::ALL[bond[2] as usize]);
    Input {
        atoms: rows(&entry["atoms"]).iter().map(atom).collect(),
        bonds: rows(&entry["bonds"]).iter().map(bond).collect(),
    }
}

#[test]
#[cfg_attr(not(reference_data), ignore = "needs the reference data")]
fn both_papers_scores_of_their_test_set() {
    let entries = list("test_mols_950.json");
    let mut inputs = Vec::new();
    for entry in &entries {
        let plain = stored_input(entry);
        let mut marked = plain.clone();
        let open: Vec<usize> = integers(&entry["stem_atoms"]).iter().map(|&i| i as usize).collect();
        marked.mark(&open);
        inputs.extend([plain, marked]);
    }
    let network = network();
    let scores = network.scores(&inputs);
    let (mut plain, mut marked) = (0, 0);
    for (entry, scores) in entries.iter().zip(scores.chunks(2)) {
        if let Some(expected) = entry["score_tlm"].as_f64() {
            assert!((scores[0] - expected).abs() < 1e-4, "{}", entry["smiles"]);
            plain += 1;
        }
        if let Some(expected) = entry["score_gflownet_rl"].as_f64() {
            assert!((scores[1].max(0.1) - expected).abs() < 1e-4, "{}", entry["smiles"]);
            assert_eq!(entry["clipped"].as_bool(), Some(scores[1] < 0.1), "{}", entry["smiles"]);
            marked += 1;
        }
    }
    assert_eq!((plain, marked), (475, 475));
    // One at a time, and in another order on one thread.
    for (input, score) in inputs.iter().zip(&scores).step_by(97) {
        assert_eq!(network.scores(std::slice::from_ref(input))[0].to_bits(), score.to_bits());
    }
    inputs.reverse();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let again = pool.install(|| network.scores(&inputs));
    assert!(again.iter().rev().zip(&scores).all(|(a, b)| a.to_bits() == b.to_bits()));
}

fn molecules() -> Arc<dyn Environment> {
    Kind::<EnvAxis>::build(&MoleculeSpec::default(), EnvContext::NO_FILES).unwrap().into()
}

fn build(
    spec: &SehProxySpec,
    env: &Arc<dyn Environment>,
    file: &[u8],
) -> Result<Box<dyn Reward>, KeyError> {
    let files = |_: &Path| Ok(file.to_vec());
    spec.build(RewardContext { env, files: &files })
}

/// Scores of the test set by the fragments' own tables of atoms: cut into fragments and put together again.
#[test]
#[cfg_attr(not(reference_data), ignore = "needs the reference data")]
fn molecules_of_fragments_have_their_scores() {
    let files = |_: &Path| Ok(reference("fragments_105.json"));
    let spec = FragmentsSpec { version: Version::Blocks, ..FragmentsSpec::default() };
    let env: Arc<dyn Environment> =
        Kind::<EnvAxis>::build(&spec, EnvContext { files: &files }).unwrap().into();
    let (mut xs, mut expected) = (States::new(env.space().width), Vec::new());
    for entry in list("test_mols_950.json") {
        if let Some(score) = entry["score_tlm"].as_f64() {
            xs.push(&env.parse(entry["smiles"].as_str().unwrap()).unwrap());
            expected.push(score);
        }
    }
    let reward = build(&SehProxySpec::default(), &env, &reference(WEIGHTS)).unwrap();
    let (name, scores) = reward.values(&xs).unwrap().unwrap();
    assert_eq!((name.as_str(), scores.len()), ("seh", 475));
    for (i, (score, expected)) in scores.iter().zip(&expected).enumerate() {
        assert!((score - expected).abs() < 1e-4, "{}", env.render(xs.row(i)));
    }
}

/// The rewards of both papers, by their equations.
#[test]
#[cfg_attr(not(reference_data), ignore = "needs the reference data")]
fn rewards_are_those_of_the_papers() {
    let (env, file) = (molecules(), reference(WEIGHTS));
    let smiles = ["C", "CF", "C#N", "CNC=O", "c1cc(F)[nH]c1", "CNC=O", "OC1CC1C(=O)N"];
    let mut xs = States::new(env.space().width);
    smiles.iter().for_each(|smiles| xs.push(&env.parse(smiles).unwrap()));
    let soft = Transform { floor: Some(0.1), scale: 0.125, exponent: 10.0, ..Transform::default() };
    let marked = SehProxySpec { stem_mask: true, transform: soft, ..SehProxySpec::default() };
    let network = network();
    for (spec, reward) in [
        (SehProxySpec::default(), (|s| (s / 8.0).clamp(1e-4, 100.0)) as fn(f64) -> f64),
        (marked, |s| s.max(0.1) / 8.0),
    ] {
        let built = build(&spec, &env, &file).unwrap();
        let mut log_rewards = vec![0.0; xs.len()];
        built.log_reward(&xs, &mut log_rewards).unwrap();
        assert_eq!(built.computed(), Some(6), "equal molecules once");
        let (column, scores) = built.values(&xs).unwrap().unwrap();
        assert_eq!((&*column, built.computed()), ("seh", Some(6)), "they are remembered");
        for (i, smiles) in smiles.iter().enumerate() {
            // Marks are on the first atom of the environment's drawing, which is not that of the SMILES.
            if !spec.stem_mask {
                let score = network.scores(&[input(smiles, false)])[0];
                assert!((scores[i] - score).abs() < 1e-5, "{smiles}");
            }
            let expected = 10.0 * reward(scores[i]).ln();
            assert!((log_rewards[i] - expected).abs() < 1e-9, "{smiles}: {expected}");
        }
    }
}

#[test]
fn what_cannot_be_used_is_refused() {
    let strings =
        SequenceSpec { length: 3, symbols: vec!["A".into(), "B".into()], ..Default::default() };
    let strings = Kind::<EnvAxis>::build(&strings, EnvContext::NO_FILES).unwrap().into();
    let spec = SehProxySpec::default();
    let refusal = build(&spec, &strings, &[]).err().unwrap();
    assert!(refusal.message.contains("molecules") && !refusal.data);
    let env = molecules();
    let refusal = build(&spec, &env, b"no tensors").err().unwrap();
    assert!(refusal.data && refusal.message.contains("`seh_proxy.safetensors`"), "{refusal:?}");
    assert!(refusal.help.unwrap().contains("gfn data fetch sehproxy"));
}
