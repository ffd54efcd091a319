//! What users are told about bad input, word for word, and the exit codes.

use std::process::Command;

use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

const SPEC: &str = "name = \"demo\"

[env]
kind = \"hypergrid\"
dim = 2
side = 5

[objective]
kind = \"subtb\"
lambda = 0.9

[train]
trajectories = 160
";

/// Runs `gfn check` on a spec with overrides; the exit code and all that is said on stderr.
fn check(spec: &[u8], overrides: &[&str]) -> String {
    run("check", spec, overrides)
}

fn run(command: &str, spec: &[u8], overrides: &[&str]) -> String {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("spec.toml"), spec).unwrap();
    let mut gfn = Command::new(env!("CARGO_BIN_EXE_gfn"));
    gfn.arg(command).arg("spec.toml").current_dir(dir.path()).env("GFN_DATA", "data");
    for change in overrides {
        gfn.args(["-s", change]);
    }
    let output = gfn.output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    format!("exit {}\n{text}", output.status.code().unwrap())
}

fn with(old: &str, new: &str) -> Vec<u8> {
    assert!(SPEC.contains(old));
    SPEC.replace(old, new).into_bytes()
}

macro_rules! snapshot {
    ($name:ident, $text:expr) => {
        #[test]
        fn $name() {
            insta::assert_snapshot!(stringify!($name), $text);
        }
    };
}

snapshot!(unknown_key, check(&with("side = 5", "sidee = 5"), &[]));
snapshot!(unknown_table, check(&with("[train]", "[trian]"), &[]));
snapshot!(unknown_kind, check(&with("\"subtb\"", "\"subtd\""), &[]));
snapshot!(wrong_type, check(&with("dim = 2", "dim = \"two\""), &[]));
snapshot!(negative_number, check(&with("dim = 2", "dim = -2"), &[]));
snapshot!(side_of_one, check(&with("side = 5", "side = 1"), &[]));
snapshot!(lambda_out_of_range, check(&with("lambda = 0.9", "lambda = 2.5"), &[]));
snapshot!(syntax_error, check(&with("dim = 2", "dim = = 2"), &[]));
snapshot!(duplicate_key, check(&with("dim = 2", "dim = 2\ndim = 3"), &[]));
snapshot!(not_utf8, check(b"name = \"a\"\n# \xff\n", &[]));
snapshot!(no_environment, check(b"seed = 1\n", &[]));
snapshot!(override_of_a_missing_key, check(SPEC.as_bytes(), &["env.sides=4"]));
snapshot!(override_of_a_missing_table, check(SPEC.as_bytes(), &["environment.side=4"]));
snapshot!(override_out_of_range, check(SPEC.as_bytes(), &["env.side=1"]));
snapshot!(override_without_a_value, check(SPEC.as_bytes(), &["env.side"]));
snapshot!(
    pair_without_meaning,
    check(SPEC.as_bytes(), &["objective.kind=fm", "backward.kind=naive"])
);
snapshot!(vargrad_needs_two, check(SPEC.as_bytes(), &["objective.kind=vargrad", "train.batch=1"]));
snapshot!(chains_beside_tlm, check(SPEC.as_bytes(), &["objective.kind=mh", "backward.kind=tlm"]));
snapshot!(
    chains_without_local_moves,
    check(SPEC.as_bytes(), &["objective.kind=mh", "objective.proposal=local"])
);
snapshot!(
    local_moves_do_not_go_back,
    check(
        SPEC.as_bytes(),
        &["objective.kind=mh", "objective.proposal=local", "objective.steps_back=2"]
    )
);
snapshot!(
    chains_that_only_burn_in,
    check(SPEC.as_bytes(), &["objective.kind=mh", "objective.burn_in=10"])
);
snapshot!(
    chains_that_go_back_too_far,
    check(SPEC.as_bytes(), &["objective.kind=mh", "objective.steps_back=1000"])
);
snapshot!(
    noise_below_zero,
    check(SPEC.as_bytes(), &["train.reward_noise={ sigma = -0.5, per = \"object\" }"])
);
snapshot!(noise_per_step, check(SPEC.as_bytes(), &["train.reward_noise={ per = \"step\" }"]));
snapshot!(
    noise_of_chains,
    check(SPEC.as_bytes(), &["objective.kind=mh", "train.reward_noise={ sigma = 0.5 }"])
);
snapshot!(
    gradients_of_one_batch,
    check(
        SPEC.as_bytes(),
        &["eval.metrics=[\"gradient\"]", "eval.settings={gradient={batches=1}}"]
    )
);
snapshot!(
    balance_of_rewards_where_objects_end_by_themselves,
    check(
        b"[env]\nkind = \"bit_sequence\"\n[reward]\nkind = \"hamming\"\n\
          [objective]\nkind = \"mdb\"\n",
        &[]
    )
);
snapshot!(
    too_many_subsets,
    check(
        SPEC.as_bytes(),
        &["eval.metrics=[\"fcs\"]", "eval.settings={fcs={subsets=10_000_000_000}}"]
    )
);
snapshot!(
    too_many_ancestors,
    check(
        SPEC.as_bytes(),
        &[
            "eval.metrics=[\"correlation\"]",
            "eval.settings={correlation={max_ancestors=1_000_000_000}}"
        ]
    )
);
snapshot!(
    chains_without_proposals,
    check(SPEC.as_bytes(), &["objective.kind=mh", "objective.thin=0"])
);
snapshot!(
    reward_of_another_world,
    check(SPEC.as_bytes(), &["env.kind=sequence", "reward.kind=hypergrid"])
);
snapshot!(two_sets_of_constants, check(SPEC.as_bytes(), &["reward.variant=hard", "reward.r0=0.1"]));
snapshot!(unknown_variant, check(SPEC.as_bytes(), &["reward.variant=hardd"]));
snapshot!(unknown_metric, check(SPEC.as_bytes(), &["eval.metrics=[\"distributions\"]"]));
snapshot!(unknown_device, check(SPEC.as_bytes(), &["device=flexx"]));
snapshot!(bad_name, check(SPEC.as_bytes(), &["name=../elsewhere"]));
snapshot!(missing_table, check(SPEC.as_bytes(), &["reward.kind=table", "reward.path=no.csv"]));
snapshot!(
    missing_table_with_a_source,
    check(
        SPEC.as_bytes(),
        &[
            "reward.kind=table",
            "reward.path=no.csv",
            "reward.source=https://example.org/t.csv",
            "reward.sha256=abc"
        ]
    )
);
snapshot!(
    missing_known_data,
    check(SPEC.as_bytes(), &["env.kind=sequence", "reward.kind=table", "reward.path=qm9str.csv"])
);
snapshot!(
    words_that_do_not_divide,
    check(SPEC.as_bytes(), &["env.kind=bit_sequence", "env.word_bits=7", "reward.kind=hamming"])
);
snapshot!(
    filled_strings_have_one_length,
    check(
        SPEC.as_bytes(),
        &["env.kind=sequence", "env.build=fill", "env.min_length=2", "reward.kind=hamming"]
    )
);
snapshot!(
    transform_out_of_range,
    check(
        SPEC.as_bytes(),
        &["reward.kind=table", "reward.path=no.csv", "reward.transform.exponent=0"]
    )
);
snapshot!(
    unknown_transform,
    check(SPEC.as_bytes(), &["reward.kind=table", "reward.transform={ floors = 1 }"])
);
snapshot!(
    modes_defined_twice,
    check(
        SPEC.as_bytes(),
        &["reward.kind=table", "reward.path=no.csv", "reward.modes={fraction=0.1, threshold=1.0}"]
    )
);
snapshot!(
    scorer_that_cannot_start,
    check(SPEC.as_bytes(), &["reward.kind=command", "reward.command=['/no/such/scorer', '-x']"])
);
snapshot!(
    scorer_that_answers_nonsense,
    run(
        "train",
        SPEC.as_bytes(),
        &["reward.kind=command", "reward.command=['sh', '-c', 'read x; yes good']"]
    )
);
snapshot!(
    trees_on_a_grid,
    check(SPEC.as_bytes(), &["reward.kind=gbt", "reward.path=no.safetensors"])
);
snapshot!(absurd_batch, check(SPEC.as_bytes(), &["train.batch=1000000000000"]));
snapshot!(
    transformer_heads_do_not_divide,
    check(SPEC.as_bytes(), &["model.kind=transformer", "model.heads=7"])
);
snapshot!(absurd_network, check(SPEC.as_bytes(), &["model.hidden=1000000"]));
snapshot!(absurd_depth, check(SPEC.as_bytes(), &["model.layers=1000000", "model.hidden=8"]));
snapshot!(
    absurd_transformer,
    check(SPEC.as_bytes(), &["model.kind=transformer", "model.width=16384", "model.layers=100"])
);
snapshot!(
    edges_without_relations,
    check(SPEC.as_bytes(), &["model.kind=graph_transformer", "model.block=papers"])
);
snapshot!(
    absurd_number_of_modes,
    check(
        SPEC.as_bytes(),
        &["env.kind=bit_sequence", "reward.kind=hamming", "reward.n_modes=65536"]
    )
);
snapshot!(fractional_count, check(SPEC.as_bytes(), &["train.trajectories=1e6"]));
snapshot!(zero_learning_rate, run("train", SPEC.as_bytes(), &["train.lr=0"]));

#[test]
fn a_missing_spec() {
    let output =
        Command::new(env!("CARGO_BIN_EXE_gfn")).args(["check", "no.toml"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    insta::assert_snapshot!("a_missing_spec", String::from_utf8(output.stderr).unwrap());
}

#[test]
fn wrong_arguments_exit_with_2() {
    for args in [
        &["trian"][..],
        &["train"],
        &["list", "envs"],
        &["describe", "backward.tml"],
        &["eval", "."],
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_gfn")).args(args).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(!output.stderr.is_empty());
    }
}

/// A reader that goes away is no failure, on stdout or on stderr.
#[test]
fn nobody_has_to_listen() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("spec.toml"), SPEC).unwrap();
    let script = format!(
        "'{}' train spec.toml 2>&1 | true; exit ${{PIPESTATUS[0]}}",
        env!("CARGO_BIN_EXE_gfn")
    );
    let output =
        Command::new("bash").args(["-c", &script]).current_dir(dir.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(dir.path().join("results/demo/s0/DONE").exists());
}

/// Runs `gfn check` with a table of strings of two letters.
fn check_table(table: &str) -> String {
    check_table_with(table, &[])
}

fn check_table_with(table: &str, overrides: &[&str]) -> String {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("table.csv"), table).unwrap();
    let spec = "[env]\nkind = 'sequence'\nlength = 2\nsymbols = ['A', 'C']\n\
                [reward]\nkind = 'table'\npath = 'table.csv'\n";
    std::fs::write(dir.path().join("spec.toml"), spec).unwrap();
    let mut gfn = Command::new(env!("CARGO_BIN_EXE_gfn"));
    // `check` does not read data; training does.
    gfn.args(["train", "spec.toml", "-q", "-s", "train.trajectories=16"]);
    overrides.iter().for_each(|change| _ = gfn.args(["-s", change]));
    let output = gfn.current_dir(dir.path()).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    format!("exit {}\n{text}", output.status.code().unwrap())
}

/// What `gfn proxy train`, and then with a file `gfn check` with the reward of that file, says in a
/// folder with a table of strings of two letters.
fn surrogate(table: &str, overrides: &[&str], then: Option<&[&str]>) -> String {
    let dir = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    let env = "[env]\nkind = 'sequence'\nlength = 2\nsymbols = ['A', 'C']\n";
    put("table.csv", table);
    put("proxy.toml", &format!("{env}[proxy]\ntable = 'table.csv'\nheld_out = 0\nepochs = 2\n"));
    put("spec.toml", &format!("{env}[reward]\nkind = 'proxy'\nweights = 'w.safetensors'\n"));
    let gfn = |args: &[&str], overrides: &[&str]| {
        let mut gfn = Command::new(env!("CARGO_BIN_EXE_gfn"));
        gfn.args(args).current_dir(dir.path()).env("GFN_DATA", "data");
        overrides.iter().for_each(|change| _ = gfn.args(["-s", change]));
        let output = gfn.output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        format!("exit {}\n{text}", output.status.code().unwrap())
    };
    let said = gfn(&["proxy", "train", "proxy.toml", "-o", "w.safetensors", "-q"], overrides);
    let Some(then) = then else { return said };
    assert_eq!(said, "exit 0\n");
    let bytes = std::fs::read(dir.path().join("w.safetensors")).unwrap();
    std::fs::write(dir.path().join("short.safetensors"), &bytes[..2000]).unwrap();
    gfn(&["check", "spec.toml"], then)
}

const LETTERS: &str = "x,y\nAA,1\nAC,3\nCA,2\nCC,1\n";

snapshot!(surrogate_without_a_table, surrogate(LETTERS, &["proxy.table="], None));
snapshot!(surrogate_of_no_such_table, surrogate(LETTERS, &["proxy.table=no.csv"], None));
snapshot!(surrogate_of_unknown_data, surrogate(LETTERS, &["proxy.table=tfbind8"], None));
snapshot!(surrogate_of_another_alphabet, surrogate("x,y\nAA,1\nAG,2\nAC,3\n", &[], None));
snapshot!(surrogate_of_words, surrogate("x,y\nAA,1\nAC,high\n", &[], None));
snapshot!(surrogate_of_one_value, surrogate("x,y\nAA,1\nAC,1\nCC,1\n", &[], None));
snapshot!(surrogate_of_another_column, surrogate(LETTERS, &["proxy.value_column=z"], None));
snapshot!(surrogate_without_such_classes, surrogate(LETTERS, &["proxy.held_out_by=length"], None));
snapshot!(surrogate_with_a_reward, surrogate(LETTERS, &["reward.beta=2"], None));
snapshot!(surrogate_with_an_unknown_key, surrogate(LETTERS, &["proxy.epoch=2"], None));
snapshot!(surrogate_that_diverges, surrogate(LETTERS, &["proxy.lr=1e30"], None));
snapshot!(surrogate_of_longer_strings, surrogate(LETTERS, &[], Some(&["env.length=3"])));
snapshot!(
    surrogate_of_letters_that_go_by_other_names,
    surrogate(LETTERS, &[], Some(&["env.symbols=[\"A\", \"G\"]"]))
);
snapshot!(surrogate_cut_off, surrogate(LETTERS, &[], Some(&["reward.weights=short.safetensors"])));
snapshot!(
    surrogate_that_is_something_else,
    surrogate(LETTERS, &[], Some(&["reward.weights=table.csv"]))
);
snapshot!(
    surrogate_that_is_missing,
    surrogate(LETTERS, &[], Some(&["reward.weights=no.safetensors"]))
);
snapshot!(half_a_scale, check_table_with(LETTERS, &["reward.transform={ zero = 1 }"]));

snapshot!(table_with_a_gap, check_table("x,y\nAA,1\nCC,2\nAC,3\n"));
snapshot!(table_with_a_duplicate, check_table("x,y\nAA,1\nAC,2\nAA,3\nCC,1\nCA,1\n"));
snapshot!(table_with_a_nan, check_table("x,y\nAA,1\nAC,nan\nCA,3\nCC,1\n"));
snapshot!(table_of_another_alphabet, check_table("x,y\nAA,1\nAG,2\n"));
snapshot!(table_with_a_zero, check_table("x,y\nAA,1\nAC,0\nCA,3\nCC,1\n"));

/// Runs `gfn` on a spec of two lines of graphs, with files beside it.
fn graphs(command: &str, files: &[(&str, &str)], overrides: &[&str]) -> String {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    std::fs::write(dir.path().join("spec.toml"), "[env]\nkind = 'dag'\n").unwrap();
    let mut gfn = Command::new(env!("CARGO_BIN_EXE_gfn"));
    gfn.args([command, "spec.toml"]).current_dir(dir.path()).env("GFN_DATA", "data");
    for change in overrides {
        gfn.args(["-s", change]);
    }
    let output = gfn.output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    format!("exit {}\n{text}", output.status.code().unwrap())
}

/// ... on observations.
fn observed(text: &str, overrides: &[&str]) -> String {
    let overrides = [&["env.data=cells.csv"], overrides].concat();
    graphs("check", &[("cells.csv", text)], &overrides)
}

snapshot!(observations_missing, graphs("check", &[], &["env.data=cells.csv"]));
snapshot!(observations_in_words, observed("Raf,Mek\n26.4,13.2\n35.9,high\n", &[]));
snapshot!(observations_with_a_gap, observed("Raf,Mek\n26.4,13.2\n35.9,NA\n", &[]));
snapshot!(observations_that_are_constant, observed("Raf,Mek\n26.4,1\n35.9,1\n", &[]));
snapshot!(observations_of_one_name, observed("Raf,Raf\n26.4,1\n35.9,1\n", &[]));
snapshot!(
    observations_of_65_nodes,
    observed(&((0..65).map(|i| format!("V{i}")).collect::<Vec<_>>().join(",") + "\n"), &[])
);
snapshot!(
    observations_of_other_nodes,
    graphs(
        "check",
        &[("cells.csv", "Raf,Mek\n26.4,13.2\n35.9,16.5\n")],
        &["env.nodes=2", "reward.kind=bge", "reward.data=cells.csv"]
    )
);
snapshot!(
    measurements_as_states,
    observed(
        &("Raf,Mek\n".to_owned()
            + &(0..50).map(|i| format!("{i}.5,{}\n", i % 2)).collect::<String>()),
        &["reward.kind=bde"]
    )
);
snapshot!(
    an_edge_required_and_forbidden,
    graphs("check", &[], &["env.required=['A -> B']", "env.forbidden=['A -> B']"])
);
snapshot!(
    required_edges_in_a_cycle,
    graphs("check", &[], &["env.required=['A -> B', 'B -> C', 'C -> A']"])
);
snapshot!(graphs_of_65_nodes, graphs("check", &[], &["env.nodes=65"]));
snapshot!(
    local_scores_cut_off,
    graphs(
        "check",
        &[("scores.jkl", "2\nRaf 2\n-10.5 0\n-9.5 1 Mek\nMek 2\n-11 0\n")],
        &["env.data=scores.jkl", "reward.kind=local_scores"]
    )
);

/// `gfn check` on molecules, with files beside the spec.
fn molecules(files: &[(&str, &str)], overrides: &[&str]) -> String {
    let kinds = ["env.kind=molecule", "reward.kind=huckel"];
    graphs("check", files, &[&kinds, overrides].concat())
}
snapshot!(molecules_without_atoms, molecules(&[], &["env.max_atoms=0"]));
snapshot!(molecules_of_forty_atoms, molecules(&[], &["env.max_atoms=40"]));
snapshot!(
    test_molecules_with_chlorine,
    molecules(&[("test.csv", "smiles\nCCO\nCCl\n")], &["reward.test_set=test.csv"])
);
snapshot!(
    test_molecules_that_are_too_large,
    molecules(
        &[("test.csv", "smiles\nCCO\nCCCCC\n")],
        &["env.max_atoms=4", "eval.test_set=test.csv"]
    )
);
/// `gfn check` on fragments of a file.
fn fragments(library: &str) -> String {
    let kinds = ["env.kind=fragments", "env.library=mine.json", "reward.kind=huckel"];
    graphs("check", &[("mine.json", library)], &kinds)
}
snapshot!(
    fragment_with_a_wrong_atom,
    fragments(
        "{\"fragments\": [\n{\"smiles\": \"CO\", \"attach\": [0]},\n{\"smiles\": \"CN\", \"attach\": [2]}]}"
    )
);
snapshot!(
    fragment_that_is_no_molecule,
    fragments("{\"fragments\": [{\"smiles\": \"C1CN\", \"attach\": [1]}]}")
);
snapshot!(
    fragment_without_attachments,
    fragments("{\"blocks\": [{\"smiles\": \"CN\", \"attach\": []}]}")
);
snapshot!(
    fragments_without_a_comma,
    fragments("{\"fragments\": [{\"smiles\": \"CN\" \"attach\": []}]}")
);
snapshot!(
    table_of_an_impossible_molecule,
    molecules(
        &[("table.csv", "smiles,gap\nCCO,6.1\nC(C)(C)(C)(C)C,5\n")],
        &["reward.kind=table", "reward.path=table.csv"]
    )
);
snapshot!(gaps_of_graphs, graphs("check", &[], &["reward.kind=gap"]));
snapshot!(seh_network_missing, molecules(&[], &["reward.kind=seh_proxy"]));
snapshot!(
    seh_network_damaged,
    molecules(
        &[("mine.safetensors", "")],
        &["reward.kind=seh_proxy", "reward.path=mine.safetensors"]
    )
);
snapshot!(
    separated_modes_of_graphs,
    graphs(
        "check",
        &[],
        &[
            "reward.kind=command",
            "reward.command=['cat']",
            "reward.modes={ similarity = 0.7, thresholds = [1.0] }"
        ]
    )
);
snapshot!(similarity_without_thresholds, molecules(&[], &["reward.modes={ similarity = 0.7 }"]));

snapshot!(unknown_prior, graphs("check", &[], &["reward.kind=bge", "reward.prior=fare"]));
snapshot!(
    generated_and_given,
    observed("Raf,Mek\n26.4,13.2\n35.9,16.5\n", &["reward.kind=bge", "reward.generate.rows=9"])
);

/// What `gfn score` says of lines that stand in a file beside a spec of molecules.
fn scored(lines: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("lines.txt"), lines).unwrap();
    let spec = "[env]\nkind = 'molecule'\nmax_atoms = 4\n[reward]\nkind = 'huckel'\n";
    std::fs::write(dir.path().join("spec.toml"), spec).unwrap();
    let mut gfn = Command::new(env!("CARGO_BIN_EXE_gfn"));
    gfn.args(["score", "spec.toml", if lines.is_empty() { "no.txt" } else { "lines.txt" }]);
    let output = gfn.current_dir(dir.path()).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    format!("exit {}\n{text}", output.status.code().unwrap())
}
snapshot!(scores_of_no_objects, scored("CCO\nCCl\n\nCCCCC\nC1\n"));
snapshot!(scores_of_no_file, scored(""));

snapshot!(nothing_exact, graphs("exact", &[], &["env.nodes=15"]));

/// So are tables.
#[test]
fn tables_from_windows_are_read() {
    let text = check_table("\u{feff}x,y\r\nAA,1\r\nAC,2\r\nCA,3\r\nCC,1\r\n");
    assert!(text.starts_with("exit 0"), "{text}");
}

/// Byte-order marks and Windows line ends are no reason to refuse a spec.
#[test]
fn specs_from_windows_are_read() {
    let text = format!("\u{feff}{}", SPEC.replace('\n', "\r\n"));
    assert!(check(text.as_bytes(), &[]).starts_with("exit 0"), "{}", check(text.as_bytes(), &[]));
}

/// A build without the feature says which one to add.
#[test]
#[cfg(not(feature = "ndarray"))]
fn a_device_that_is_not_compiled_in() {
    insta::assert_snapshot!("device_not_compiled_in", check(SPEC.as_bytes(), &["device=ndarray"]));
}

/// Whatever happens to a shipped spec or an override of it, in characters of one to four bytes, the
/// answer is a spec or a message with a place, never a panic.
#[test]
fn mutated_specs_are_answered() {
    let configs = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs");
    let paths = std::fs::read_dir(configs).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> =
        paths.filter(|path| path.extension() == Some("toml".as_ref())).collect();
    paths.sort();
    let specs: Vec<String> =
        paths.iter().map(|path| std::fs::read_to_string(path).unwrap()).collect();
    assert!(specs.len() >= 10);
    const WIDE: [&str; 8] = ["é", "λ", "—", "漢", "😀", "\u{301}", "\u{200d}", "\u{feff}"];
    const PLAIN: [&str; 16] = [
        "\0",
        "\r",
        "\t",
        "\n",
        "\"",
        "'",
        "=",
        "[",
        "]",
        "{",
        ".",
        "#",
        "-1",
        "1e999",
        "nan",
        "18446744073709551616",
    ];
    let mutate = |text: &str, rng: &mut ChaCha8Rng| {
        let mut text: Vec<char> = text.chars().collect();
        for _ in 0..rng.random_range(1..4) {
            let at = rng.random_range(0..=text.len());
            let pieces = if rng.random() { &WIDE[..] } else { &PLAIN };
            let piece = pieces[rng.random_range(0..pieces.len())].chars();
            let end = text.len().min(at + rng.random_range(0..6));
            match rng.random_range(0..4) {
                0 => drop(text.splice(at..at, piece)),
                1 => drop(text.splice(at..end, piece)),
                2 => drop(text.drain(at..end)),
                _ => {
                    let copied: Vec<char> = text[at..end].to_vec();
                    let to = rng.random_range(0..=text.len());
                    drop(text.splice(to..to, copied));
                }
            }
        }
        text.into_iter().collect::<String>()
    };
    let registry = gfn_cli::Registry::builtin();
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let (mut parsed, mut refused) = (0, 0);
    for i in 0..6000 {
        let text = mutate(&specs[i % specs.len()], &mut rng);
        let change = mutate("train.lr=0.125", &mut rng);
        let overrides = if i % 3 == 0 { vec![change] } else { vec![] };
        match gfn_cli::spec::Spec::parse(&registry, "spec.toml", text, "run", &overrides) {
            Ok(_) => parsed += 1,
            Err(failure) => {
                assert!(failure.render().starts_with("error"));
                refused += 1;
            }
        }
    }
    assert!(parsed > 300 && refused > 300, "{parsed} parsed, {refused} refused");
}

/// Keys that are declared not to matter are keys.
#[test]
fn neutral_keys_exist() {
    let registry = gfn_cli::Registry::builtin();
    let mut declared = 0;
    for entry in &registry.rewards {
        let schema = (entry.schema)(&mut schemars::SchemaGenerator::default());
        for key in entry.neutral_keys {
            assert!(
                schema.pointer(&format!("/properties/{key}")).is_some(),
                "{} {key}",
                entry.name
            );
            declared += 1;
        }
    }
    assert!(declared >= 9, "tables, trees and programs declare some");
}

/// What `check` prints is a spec that resolves to itself.
#[test]
fn resolved_specs_are_fixed_points() {
    let dir = tempfile::tempdir().unwrap();
    let resolve = |text: &[u8]| {
        std::fs::write(dir.path().join("spec.toml"), text).unwrap();
        let mut gfn = Command::new(env!("CARGO_BIN_EXE_gfn"));
        let output = gfn.args(["check", "spec.toml"]).current_dir(dir.path()).output().unwrap();
        assert!(output.status.success());
        output.stdout
    };
    let once = resolve(SPEC.as_bytes());
    assert_eq!(once, resolve(&once));
    insta::assert_snapshot!("resolved", String::from_utf8(once).unwrap());
}

#[test]
fn lists_descriptions_and_schema_cover_every_kind() {
    let gfn = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_gfn")).args(args).output().unwrap();
        assert!(output.status.success(), "{args:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    insta::assert_snapshot!("list", gfn(&["list"]));
    insta::assert_snapshot!("describe_tlm", gfn(&["describe", "backward.tlm"]));
    insta::assert_snapshot!("describe_checkpoint", gfn(&["describe", "checkpoint"]));
    let schema: serde_json::Value = serde_json::from_str(&gfn(&["schema"])).unwrap();
    let registry = gfn_cli::Registry::builtin();
    let kinds = schema["properties"]["objective"]["oneOf"].as_array().unwrap();
    assert_eq!(kinds.len(), registry.objectives.len());
    for kind in registry.environments.iter().map(|entry| format!("env.{}", entry.name)) {
        assert!(gfn(&["describe", &kind]).contains(" = "), "{kind} has defaults");
    }
}
