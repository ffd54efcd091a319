//! Chemistry against RDKit: tables that it wrote, committed or among the reference data.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use gfn_core::metric::{pearson, spearman};
use gfn_envs::chemistry::{
    Fingerprint, Hybridisation, Molecule, SeparatedModes, huckel, separated_modes,
};
use sha2::{Digest, Sha256};

fn reference(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("GFN_REFERENCE_DATA")).join(name)).unwrap()
}

fn molecule(smiles: &str) -> Molecule {
    Molecule::from_smiles(smiles).unwrap_or_else(|error| panic!("{error}"))
}

fn rows(text: &str, headers: bool) -> Vec<csv::StringRecord> {
    let mut reader = csv::ReaderBuilder::new().has_headers(headers).from_reader(text.as_bytes());
    reader.records().map(Result::unwrap).collect()
}

/// `scripts/reference/chemistry_golden.py` writes the table.
#[test]
fn molecules_are_what_rdkit_takes_them_for() {
    let table = rows(include_str!("chemistry/molecules.csv"), true);
    assert!(table.len() > 300);
    let mut seen = BTreeMap::new();
    let mut samples = Vec::new();
    for row in &table {
        let (smiles, kekule) = (&row[0], &row[1]);
        let mol = molecule(smiles);
        let canonical = mol.canonical_smiles();
        assert_eq!(molecule(kekule).canonical_smiles(), canonical, "{smiles}");
        assert_eq!(molecule(&canonical).canonical_smiles(), canonical, "{smiles}");
        assert_eq!(seen.insert(canonical, smiles.to_owned()), None, "{smiles}");
        let aromatic = mol.aromatic_bonds().iter().filter(|&&aromatic| aromatic).count();
        assert_eq!(aromatic.to_string(), row[2], "{smiles}");
        for text in [smiles, kekule] {
            let fingerprint = Fingerprint::of(&molecule(text));
            assert_eq!(fingerprint.n_bits().to_string(), row[3], "{text}");
            let bytes: Vec<u8> = fingerprint.0.iter().flat_map(|word| word.to_le_bytes()).collect();
            let digest = Sha256::digest(bytes);
            let digest: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(digest, row[4], "{text}");
        }
        let [one, other] = [smiles, kekule].map(|text| huckel::gap(&molecule(text)));
        assert!((one - other).abs() < 1e-6, "{smiles}: {one} {other}");
        samples.push((Fingerprint::of(&mol), row[5].parse::<f64>().unwrap()));
    }
    let modes: serde_json::Value =
        serde_json::from_str(include_str!("chemistry/modes.json")).unwrap();
    let numbers = |key: &str| -> Vec<f64> {
        modes[key].as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
    };
    let counts = separated_modes::count(&samples, 0.7, &numbers("thresholds"));
    assert_eq!(counts.iter().map(|&count| count as f64).collect::<Vec<_>>(), numbers("counts"));
    // Online, keys in the order of the table break ties as its order does.
    let mut online = SeparatedModes::new(0.7, numbers("thresholds"), 1000);
    for (index, (fingerprint, reward)) in samples.iter().enumerate().rev() {
        online.observe(&format!("{index:03}"), fingerprint, *reward);
    }
    assert_eq!(online.counts(), counts);
}

#[test]
#[cfg_attr(not(reference_data), ignore = "needs the reference data")]
fn fingerprints_and_similarities_are_rdkits() {
    let table = rows(&reference("golden/chem_rdk_fp_bits.csv"), false);
    let fingerprints: Vec<Fingerprint> = table
        .iter()
        .map(|row| {
            let fingerprint = Fingerprint::of(&molecule(&row[0]));
            let bits: Vec<usize> = row[1].split(' ').map(|bit| bit.parse().unwrap()).collect();
            assert_eq!(fingerprint.bits().collect::<Vec<_>>(), bits, "{}", &row[0]);
            fingerprint
        })
        .collect();
    assert_eq!(fingerprints.len(), 200);
    for row in rows(&reference("golden/chem_tanimoto_pairs.csv"), true) {
        let [i, j]: [usize; 2] = [&row[0], &row[1]].map(|index| index.parse().unwrap());
        let expected: f64 = row[3].parse().unwrap();
        assert!((fingerprints[i].tanimoto(&fingerprints[j]) - expected).abs() < 1e-8);
    }
}

#[test]
#[cfg_attr(not(reference_data), ignore = "needs the reference data")]
fn formulas_and_aromatic_atoms_are_rdkits() {
    for row in rows(&reference("golden/chem_golden.csv"), true) {
        let mol = molecule(&row[0]);
        assert_eq!(mol.atoms.len().to_string(), row[1]);
        let aromatic = mol.bonds.iter().zip(mol.aromatic_bonds()).filter(|(_, aromatic)| *aromatic);
        let atoms: BTreeSet<usize> = aromatic.flat_map(|(bond, _)| bond.ends).collect();
        assert_eq!(atoms.len().to_string(), row[2], "{}", &row[0]);
        let hydrogens: u32 = mol.atoms.iter().map(|atom| u32::from(atom.hydrogens)).sum();
        assert_eq!(hydrogens.to_string(), row[3]);
        assert_eq!(mol.formula(), row[4]);
    }
}

/// The affine map of `huckel::gap`, and how good the model is, on every tenth molecule of QM9.
#[test]
#[cfg_attr(not(reference_data), ignore = "needs the reference data")]
fn gaps_follow_those_of_qm9() {
    let table = rows(&reference("qm9_smiles_gap.csv"), true);
    let tenth = table.iter().step_by(10);
    let (gaps, expected): (Vec<f64>, Vec<f64>) = tenth
        .map(|row| {
            let hartree: f64 = row[3].parse().unwrap();
            (huckel::gap(&molecule(&row[1])), hartree * 27.211_386)
        })
        .unzip();
    let n = gaps.len() as f64;
    let mean = |values: &[f64]| values.iter().sum::<f64>() / n;
    let (x, y) = (mean(&gaps), mean(&expected));
    let covariance: f64 = gaps.iter().zip(&expected).map(|(a, b)| (a - x) * (b - y)).sum();
    let slope = covariance / gaps.iter().map(|a| (a - x).powi(2)).sum::<f64>();
    let offset = y - slope * x;
    // Regression on the model is the model.
    let rmse = (gaps.iter().zip(&expected).map(|(a, b)| (a - b).powi(2)).sum::<f64>() / n).sqrt();
    let (spearman, pearson) =
        (spearman(&gaps, &expected).unwrap(), pearson(&gaps, &expected).unwrap());
    println!(
        "Spearman {spearman:.4}, Pearson {pearson:.4}, RMSE {rmse:.3} eV; {offset} + {slope} E"
    );
    assert!((slope - 1.0).abs() < 0.01 && offset.abs() < 0.05, "{offset} + {slope} E");
    assert!(spearman > 0.9 && pearson > 0.9 && rmse < 0.6);
}

#[test]
fn errors_say_what_is_wrong_and_where() {
    for (smiles, at, part) in [
        ("C1CC", None, "Ring not closed"),
        ("CC(C", None, "Branch not closed"),
        ("CCX", Some(3), "X"),
        ("C.C", Some(2), "2 fragments"),
        ("[13CH4]", None, "isotope"),
        ("", None, ""),
        ("C*", None, "Wildcard"),
        ("c1cccc1", None, "Kekul"),
        ("C$C", None, "quadruple"),
    ] {
        let error = Molecule::from_smiles(smiles).unwrap_err();
        if at.is_some() {
            assert_eq!(error.at, at, "{error}");
        }
        assert!(error.to_string().to_lowercase().contains(&part.to_lowercase()), "{error}");
    }
}

#[test]
fn scaffolds_are_rings_and_what_joins_them() {
    for (smiles, scaffold) in [
        ("CCCO", ""),
        ("Cc1ccccc1", "c1ccccc1"),
        ("CC(=O)c1ccc(CCC2CCN(C)CC2)cc1", "c1ccc(CCC2CCNCC2)cc1"),
        ("CC1CCC(=O)C1", "O=C1CCCC1"),
        ("OC(=O)C(C1CC1)C1CC1", "C(C1CC1)C1CC1"),
        ("C[C@H]1CC[C@@H](C)CC1", "C1CCCCC1"),
        ("Cn1cccc1", "c1cc[nH]c1"),
    ] {
        let found = molecule(smiles).scaffold().canonical_smiles();
        let expected =
            if scaffold.is_empty() { String::new() } else { molecule(scaffold).canonical_smiles() };
        assert_eq!(found, expected, "{smiles}");
    }
}

/// `scripts/reference/hybridisation.py` writes the table.
#[test]
fn atoms_are_hybridised_as_by_rdkit() {
    let table = rows(include_str!("chemistry/hybridisation.csv"), true);
    assert!(table.len() > 360);
    for row in &table {
        let molecule = molecule(&row[0]);
        let molecule = molecule.charge_separated().unwrap_or(molecule);
        let letter = |hybridisation| match hybridisation {
            Hybridisation::S => 'S',
            Hybridisation::Sp => '1',
            Hybridisation::Sp2 => '2',
            Hybridisation::Sp3 => '3',
            Hybridisation::Sp3d => 'd',
            Hybridisation::Sp3d2 => 'e',
            Hybridisation::Other => '.',
        };
        let found = molecule.hybridisations(&molecule.aromatic_bonds());
        assert_eq!(found.into_iter().map(letter).collect::<String>(), row[1], "{}", &row[0]);
    }
}
