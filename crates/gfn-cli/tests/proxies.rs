//! Surrogate rewards: they learn their table, and give the same numbers wherever they are used.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use gfn_cli::Registry;
use gfn_cli::proxy::{
    ProxyFile, ProxyReward, ProxySpec, Scores, Trained, Unusable, card, proxy_reward, train,
};
use gfn_core::registry::{EnvContext, RewardContext};
use gfn_core::{Environment, Reward, States};
use gfn_envs::reward::modes::ModeSpec;
use gfn_envs::reward::transform::Transform;
use gfn_envs::reward::value::{ObjectValues, ValueKeys};

const GRID: &str = "
[env]
kind = 'hypergrid'
dim = 2
side = 8
[model]
kind = 'mlp'
hidden = 64
[proxy]
table = 'table.csv'
held_out = 0
epochs = 400
batch = 16
lr = 5e-3
ema = 0.9
";

const STRINGS: &str = "
[env]
kind = 'sequence'
build = 'append'
length = 7
min_length = 4
symbols = ['a', 'b', 'c']
[model]
kind = 'mlp'
hidden = 32
[proxy]
table = 'table.csv'
held_out = 0.2
held_out_by = 'length'
held_out_groups = 0.1
epochs = 4
batch = 64
";

/// A smooth function on the grid, with values around 100.
fn on_grid(x: i32, y: i32) -> f64 {
    100.0 + (0.8 * f64::from(x)).sin() + 0.1 * f64::from(x * y)
}

fn grid_table() -> String {
    let cells = (0..8).flat_map(|x| (0..8).map(move |y| (x, y)));
    let rows = cells.map(|(x, y)| format!("{x} {y},{}\n", on_grid(x, y)));
    format!("object,value\n{}", rows.collect::<String>())
}

/// All strings of these lengths, with how often each symbol occurs and follows itself as their value.
fn strings_table(lengths: std::ops::RangeInclusive<u32>) -> String {
    let mut text = "object,value\n".to_owned();
    for length in lengths {
        for number in 0..3usize.pow(length) {
            let symbols: Vec<usize> =
                (0..length).map(|place| number / 3usize.pow(place) % 3).collect();
            let sum: usize = symbols.iter().sum();
            let repeats = symbols.windows(2).filter(|pair| pair[0] == pair[1]).count();
            let object: String = symbols.iter().map(|&symbol| ['a', 'b', 'c'][symbol]).collect();
            text += &format!("{object},{}\n", 0.5 * sum as f64 - repeats as f64);
        }
    }
    text
}

fn spec(text: &str, overrides: &[&str]) -> ProxySpec {
    let overrides: Vec<String> = overrides.iter().map(|&o| o.to_owned()).collect();
    ProxySpec::parse(&Registry::builtin(), "spec.toml", text.to_owned(), "surrogate", &overrides)
        .unwrap_or_else(|failure| panic!("{}", failure.render()))
}

/// Trains on a table of this content; stops after so many steps.
fn trained(text: &str, overrides: &[&str], table: &str, steps: usize) -> Trained {
    let files = |_: &Path| Ok(table.as_bytes().to_vec());
    let mut left = steps;
    let stop = || {
        left = left.saturating_sub(1);
        left == 0
    };
    train(&spec(text, overrides), &files, |_| {}, |_| {}, stop)
        .unwrap_or_else(|failure| panic!("{}", failure.render()))
}

fn env(text: &str) -> Arc<dyn Environment> {
    spec(text, &[]).env.build(EnvContext::NO_FILES).unwrap().into()
}

/// Objects and values of a table.
fn read(env: &dyn Environment, table: &str) -> (States, Vec<f64>) {
    let mut objects = States::new(env.space().width);
    let mut values = Vec::new();
    for line in table.lines().skip(1) {
        let (object, value) = line.rsplit_once(',').unwrap();
        objects.push(&env.parse(object).unwrap());
        values.push(value.parse().unwrap());
    }
    (objects, values)
}

fn reward(env: &Arc<dyn Environment>, bytes: &[u8], transform: &Transform) -> ProxyReward {
    let context = RewardContext { env, files: &|_: &Path| unreachable!("no file is named") };
    let keys = ValueKeys { transform, modes: &ModeSpec::default(), test_set: Path::new("") };
    proxy_reward(context, ("the file", bytes), "value", keys).unwrap()
}

#[test]
fn a_table_is_learned_and_the_file_gives_the_numbers_of_training() {
    let (env, table) = (env(GRID), grid_table());
    let (objects, values) = read(&*env, &table);
    let mut sizes = Vec::new();
    for precision in ["f32", "f16"] {
        let overrides = [format!("proxy.precision={precision}")];
        let trained = trained(GRID, &[&overrides[0]], &table, usize::MAX);
        let predicted = trained.predictor.values(&objects);
        let scores = Scores::of(&predicted, &values).unwrap();
        assert!(scores.r2.unwrap() > 0.995, "{precision}: {scores:?}");

        let bytes = trained.file.to_bytes();
        sizes.push(bytes.len());
        assert!(ProxyFile::from_bytes(&bytes).unwrap().weights == trained.file.weights);
        let zero_to_one = Transform {
            zero: Some(110.0),
            one: Some(100.0),
            floor: Some(0.25),
            ..Default::default()
        };
        let reward = reward(&env, &bytes, &zero_to_one);
        let values = reward.object_values().values(&objects).unwrap();
        assert_eq!(values, predicted, "{precision}");
        let mut log_reward = vec![0.0; objects.len()];
        reward.log_reward(&objects, &mut log_reward).unwrap();
        for (log_reward, value) in log_reward.iter().zip(&predicted) {
            let expected = ((value - 110.0) / -10.0).max(0.25).ln();
            assert!((log_reward - expected).abs() < 1e-12);
        }
        // The second time from memory.
        assert_eq!(reward.computed(), Some(64));
    }
    assert!(sizes[1] < sizes[0]);
}

#[test]
fn objects_have_one_value_in_any_company() {
    let table = strings_table(4..=6);
    let env = env(STRINGS);
    let (objects, _) = read(&*env, &table);
    for model in ["model.kind=mlp", "model.kind=transformer"] {
        let trained = trained(STRINGS, &[model], &table, 5);
        let all = trained.predictor.values(&objects);
        for size in [1, 2, 3, 7, 97, 500] {
            for start in (0..objects.len()).step_by(size).take(40) {
                let end = objects.len().min(start + size);
                let some = trained.predictor.values(&objects.slice(start..end));
                assert_eq!(some, all[start..end], "{model}, {size} from {start}");
            }
        }
    }
}

#[test]
fn threads_make_no_difference_and_seeds_do() {
    let table = strings_table(4..=6);
    let bytes = |threads: usize, seed: &str| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| trained(STRINGS, &[seed], &table, usize::MAX).file.to_bytes())
    };
    assert_eq!(bytes(1, "seed=1"), bytes(3, "seed=1"));
    assert_ne!(bytes(1, "seed=1"), bytes(1, "seed=2"));
}

#[test]
fn the_card_has_errors_by_class_and_of_both_ways_to_hold_out() {
    let table = strings_table(4..=7);
    let overrides = ["proxy.unit=eV", "proxy.test_table=folder/again.csv"];
    let trained = trained(STRINGS, &overrides, &table, usize::MAX);
    let about = &trained.file.about;
    // The lengths 4 and 5 are 81 and 243 of 3240 objects: one or both fit into a tenth of these.
    let [random, groups, test] = &about.reports[..] else { panic!("{:?}", about.reports) };
    assert_eq!(random.scores.n, 648);
    assert!([81, 243, 324].contains(&groups.scores.n), "{}", groups.scores.n);
    assert_eq!(about.trained_on, 3240 - 648 - groups.scores.n);
    // The same table once more: what was trained on does not count.
    assert_eq!(test.scores.n, 648 + groups.scores.n);
    let (name, classes) = &random.classes[0];
    assert!(name == "length" && classes.iter().all(|(_, scores)| scores.n >= 50));
    // 39 runs of one, two and three symbols.
    assert_eq!(about.known, 39);
    let card = card(about);
    for line in [
        "| objects | n | MAE (eV) | RMSE (eV) | R² | Spearman |",
        "| held out at random (0.2) | 648 |",
        "| held out by length | ",
        "## By length: held out at random (0.2)",
        "3,240 distinct objects",
        "| of `again.csv` | ",
        "table = \"table.csv\"",
    ] {
        assert!(card.contains(line), "{line}\n{card}");
    }
}

#[test]
fn stopping_keeps_what_there_is() {
    let table = grid_table();
    // Four steps are an epoch: the third epoch is not finished.
    let trained = trained(GRID, &[], &table, 11);
    let about = &trained.file.about;
    assert!(about.interrupted);
    assert_eq!(about.epoch, 2);
    let env = env(GRID);
    let (objects, _) = read(&*env, &table);
    let reward = reward(&env, &trained.file.to_bytes(), &Transform::default());
    assert_eq!(
        reward.object_values().values(&objects).unwrap(),
        trained.predictor.values(&objects)
    );
}

#[test]
fn repeated_and_unreadable_rows_are_counted() {
    let table = grid_table() + "9 9,3\n0 0,102\nnonsense,1\n";
    let trained = trained(GRID, &["proxy.epochs=1"], &table, usize::MAX);
    let data = &trained.file.about.data;
    assert_eq!((data.rows, data.objects, data.repeated, data.skipped), (67, 64, 1, 2));
}

#[test]
fn files_that_changed_are_told_from_files_for_something_else() {
    let trained = trained(GRID, &["proxy.epochs=1"], &grid_table(), usize::MAX);
    let bytes = trained.file.to_bytes();
    let load = |env: &str, bytes: &[u8]| {
        let env = spec(env, &[]).env.build(EnvContext::NO_FILES).unwrap().into();
        gfn_cli::proxy::Predictor::load(&env, bytes).err()
    };
    assert_eq!(load(GRID, &bytes), None);
    let mut flipped = bytes.clone();
    let last = flipped.len() - 1;
    flipped[last] ^= 1;
    for damaged in [&bytes[..100], &bytes[..bytes.len() - 4], &flipped] {
        assert!(matches!(load(GRID, damaged), Some(Unusable::Damaged(_))));
    }
    let other = GRID.replace("dim = 2", "dim = 3");
    let Some(Unusable::Foreign(message)) = load(&other, &bytes) else { panic!("refused") };
    assert!(message.contains("2 slots, not 3"), "{message}");
    // Another network than the one described.
    let mut file = trained.file;
    file.about.model["hidden"] = 65.into();
    let Some(Unusable::Foreign(message)) = load(GRID, &file.to_bytes()) else { panic!("refused") };
    assert!(message.contains("of shape [16, 64], but its network of shape [16, 65]"), "{message}");
}

/// A folder with a table, a trained surrogate reward `w.safetensors`, and a spec that uses it.
fn workspace(table: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    put("table.csv", table);
    put("proxy.toml", STRINGS);
    let (env, _) = STRINGS.split_once("[model]").unwrap();
    put(
        "train.toml",
        &format!(
            "{env}[reward]\nkind = 'proxy'\nweights = 'w.safetensors'\n\
             transform = {{ floor = 1e-2, beta = 2 }}\nmodes = {{ threshold = 5 }}\n\
             [model]\nkind = 'mlp'\nhidden = 16\n\
             [train]\ntrajectories = 1280\nbatch = 16\n[eval]\nevery = 20\nsamples = 60\n\
             [checkpoint]\nevery = 20\n"
        ),
    );
    let output = gfn(dir.path(), &["proxy", "train", "proxy.toml", "-o", "w.safetensors", "-q"]);
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "w.safetensors\n");
    assert!(dir.path().join("w.md").is_file());
    dir
}

fn gfn(dir: &Path, args: &[&str]) -> Output {
    let mut gfn = Command::new(env!("CARGO_BIN_EXE_gfn"));
    gfn.args(args).current_dir(dir).env("NO_COLOR", "1").env("GFN_DATA", "data").output().unwrap()
}

/// Runs use it as they use a table: enumerated, measured, resumed to the same bytes.
#[test]
fn runs_use_it_like_any_reward() {
    let dir = workspace(&strings_table(4..=7));
    let ok = |args: &[&str]| {
        let output = gfn(dir.path(), args);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{args:?}: {stderr}");
        (String::from_utf8(output.stdout).unwrap(), stderr)
    };
    let (exact, _) = ok(&["exact", "train.toml"]);
    assert!(exact.contains("objects              3240"), "{exact}");
    let (_, said) = ok(&["train", "train.toml", "--out", "whole"]);
    assert!(!said.contains("extrapolated"), "{said}");
    ok(&["train", "train.toml", "--out", "parts", "-s", "train.trajectories=640"]);
    ok(&["train", "train.toml", "--out", "parts"]);
    for file in ["checkpoints/80/model.safetensors", "checkpoints/80/state.bin", "samples.csv"] {
        let read = |out: &str| std::fs::read(dir.path().join(out).join("train/s0").join(file));
        assert_eq!(read("whole").unwrap(), read("parts").unwrap(), "{file}");
    }
    let metrics = std::fs::read_to_string(dir.path().join("whole/train/s0/metrics.csv")).unwrap();
    assert!(metrics.lines().next().unwrap().contains("unlike_training"));
}

/// Trained on strings of two symbols, most strings of three have unknown parts.
#[test]
fn samples_unlike_the_table_are_told() {
    let table: String = strings_table(4..=7)
        .lines()
        .filter(|line| line.starts_with("object") || !line.contains('c'))
        .map(|line| format!("{line}\n"))
        .collect();
    let dir = workspace(&table);
    let output = gfn(dir.path(), &["train", "train.toml", "-s", "train.trajectories=160"]);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("have substructures that the reward has never seen"), "{stderr}");
    let run = dir.path().join("results/train/s0");
    let samples = std::fs::read_to_string(run.join("samples.csv")).unwrap();
    assert_eq!(samples.lines().next(), Some("object,log_reward,reward,value,unlike_training"));
    for line in samples.lines().skip(1) {
        let object = line.split(',').next().unwrap();
        assert_eq!(line.ends_with(",true"), object.contains('c'), "{line}");
    }
}
