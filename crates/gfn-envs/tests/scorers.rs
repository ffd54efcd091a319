//! Rewards by trees and by programs: golden values, and programs that misbehave.

use std::path::Path;
use std::sync::Arc;

use gfn_core::registry::{EnvAxis, EnvContext, Kind, RewardAxis, RewardContext};
use gfn_core::{Environment, KeyError, Reward, RewardError, States};
use gfn_envs::reward::command::{CommandSpec, Format};
use gfn_envs::reward::gbt::{GbtSpec, Trees};
use gfn_envs::reward::modes::ModeSpec;
use gfn_envs::reward::transform::Transform;
use gfn_envs::sequence::SequenceSpec;
use safetensors::{Dtype, tensor::TensorView};

fn strings(length: usize, symbols: &[&str]) -> Arc<dyn Environment> {
    let symbols = symbols.iter().map(|&symbol| symbol.to_owned()).collect();
    let spec = SequenceSpec { length, symbols, ..Default::default() };
    Kind::<EnvAxis>::build(&spec, EnvContext::NO_FILES).unwrap().into()
}

fn build(
    spec: &impl Kind<RewardAxis>,
    env: &Arc<dyn Environment>,
) -> Result<Box<dyn Reward>, KeyError> {
    let files = |path: &Path| std::fs::read(path);
    spec.build(RewardContext { env, files: &files })
}

fn rows(env: &dyn Environment, texts: &[&str]) -> States {
    let mut rows = States::new(env.space().width);
    texts.iter().for_each(|text| rows.push(&env.parse(text).unwrap()));
    rows
}

/// Two trees over two symbols at two positions, written by hand:
/// 1 + [y at 0: 5, else [x at 1: 2, else 3]] + [threshold 1 sends all to the left: 10].
fn small_trees(feature: [i32; 8], left: [i32; 8]) -> Vec<u8> {
    let f64s = |values: &[f64]| values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
    let i32s = |values: &[i32]| values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
    let tensors = [
        ("baseline", Dtype::F64, f64s(&[1.0])),
        ("threshold", Dtype::F64, f64s(&[0.5, 0.5, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0])),
        ("value", Dtype::F64, f64s(&[0.0, 0.0, 3.0, 2.0, 5.0, 0.0, 10.0, 20.0])),
        ("feature", Dtype::I32, i32s(&feature)),
        ("left", Dtype::I32, i32s(&left)),
        ("right", Dtype::I32, i32s(&[4, 3, 0, 0, 0, 2, 0, 0])),
        ("tree_offset", Dtype::I32, i32s(&[0, 5, 8])),
    ];
    let views = tensors.iter().map(|(name, dtype, bytes)| {
        let width = if *dtype == Dtype::F64 { 8 } else { 4 };
        (*name, TensorView::new(*dtype, vec![bytes.len() / width], bytes).unwrap())
    });
    safetensors::serialize(views, None).unwrap()
}

const FEATURE: [i32; 8] = [1, 2, -1, -1, -1, 3, -1, -1];
const LEFT: [i32; 8] = [1, 2, 0, 0, 0, 1, 0, 0];

#[test]
fn trees_are_walked_as_stated() {
    let env = strings(2, &["x", "y"]);
    let trees = Trees::read(&small_trees(FEATURE, LEFT), 2, 2).unwrap();
    for (text, expected) in [("xx", 13.0), ("xy", 14.0), ("yx", 16.0), ("yy", 16.0)] {
        assert_eq!(trees.predict(&env.parse(text).unwrap()), expected, "{text}");
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("trees.safetensors");
    std::fs::write(&path, small_trees(FEATURE, LEFT)).unwrap();
    let spec = GbtSpec {
        path,
        transform: Transform { exponent: 2.0, beta: 0.5, ..Default::default() },
        modes: ModeSpec { threshold: Some(14.0), ..Default::default() },
        ..Default::default()
    };
    let reward = build(&spec, &env).unwrap();
    // Enough rows for several threads.
    let texts: Vec<&str> = (0..1000).map(|i| ["xx", "xy", "yx", "yy"][i % 4]).collect();
    let mut out = vec![0.0; 1000];
    reward.log_reward(&rows(&*env, &texts), &mut out).unwrap();
    for (i, log_reward) in out.iter().enumerate() {
        assert!((log_reward - [13f64, 14.0, 16.0, 16.0][i % 4].ln()).abs() < 1e-12);
    }
    let modes = reward.modes().unwrap();
    let found = |i: usize| modes.modes_of(&env.parse(texts[i]).unwrap(), out[i]);
    assert!(found(0).is_empty() && found(1).len() == 1 && found(1) != found(2));

    let damaged = |bytes: Vec<u8>| Trees::read(&bytes, 2, 2).unwrap_err();
    assert!(damaged(b"no".to_vec()).contains("not a safetensors file"));
    let mut feature = FEATURE;
    feature[0] = 4;
    assert!(damaged(small_trees(feature, LEFT)).contains("splits on feature 4"));
    let mut left = LEFT;
    left[1] = 0;
    assert!(damaged(small_trees(FEATURE, left)).contains("bad child at node 1"));
    let missing = GbtSpec { path: "nowhere.safetensors".into(), ..Default::default() };
    assert!(build(&missing, &env).err().unwrap().data);
}

/// Predictions of the published sEH proxy, to the digits of the file.
#[test]
#[cfg_attr(not(reference_data), ignore = "needs the reference data")]
fn seh_predictions_match_the_golden_file() {
    let folder = Path::new(env!("GFN_REFERENCE_DATA"));
    let bytes = std::fs::read(folder.join("sehstr_gbt.safetensors")).unwrap();
    let trees = Trees::read(&bytes, 6, 18).unwrap();
    let golden = std::fs::read_to_string(folder.join("golden/sehstr_gbt_golden.csv")).unwrap();
    let mut n = 0;
    for line in golden.lines().skip(1) {
        let cells: Vec<&str> = line.split(',').collect();
        let row: Vec<i32> = cells[..6].iter().map(|cell| cell.parse().unwrap()).collect();
        let expected: f64 = cells[6].parse().unwrap();
        assert!((trees.predict(&row) - expected).abs() < 1e-9, "{line}");
        n += 1;
    }
    assert!(n >= 250, "{n}");

    // Strings in order, for which trees are cut back, score as they do one by one.
    let symbols: Vec<String> = (0..18).map(|block| block.to_string()).collect();
    let env = strings(6, &symbols.iter().map(String::as_str).collect::<Vec<_>>());
    let spec = GbtSpec { path: folder.join("sehstr_gbt.safetensors"), ..Default::default() };
    let reward = build(
        &GbtSpec { transform: Transform { floor: Some(1e-3), ..Default::default() }, ..spec },
        &env,
    );
    let reward = reward.unwrap();
    let mut rows = States::new(6);
    (0..3000).for_each(|i| rows.push(&env.object_at(7_654_321 + i).unwrap()));
    let mut out = vec![0.0; 3000];
    reward.log_reward(&rows, &mut out).unwrap();
    for (row, log_reward) in rows.rows().zip(out) {
        assert_eq!(log_reward, trees.predict(row).max(1e-3).ln());
    }
    assert!((trees.predict(&[0, 1, 2, 3, 4, 5]) - 4.541_797_68).abs() < 5e-9);
}

fn scorer(script: &str) -> CommandSpec {
    let command = ["sh", "-c", script].map(str::to_owned).to_vec();
    CommandSpec { command, timeout_s: 5.0, ..Default::default() }
}

fn scores(spec: &CommandSpec, texts: &[&str]) -> Result<Vec<f64>, RewardError> {
    let env = strings(2, &["x", "y"]);
    let reward = build(spec, &env).unwrap();
    let mut out = vec![0.0; texts.len()];
    reward.log_reward(&rows(&*env, texts), &mut out)?;
    Ok(out)
}

/// Answers the number of y's plus one, line by line.
const COUNT: &str =
    "while read x; do case $x in '') ;; xx) echo 1;; yy) echo 3;; *) echo 2;; esac; done";

#[test]
fn programs_score_in_order() {
    let texts = ["yy", "xx", "xy", "yy", "yx", "xx", "xx"];
    let expected = [3f64, 1.0, 2.0, 3.0, 2.0, 1.0, 1.0].map(|x| 2.0 * x.ln());
    for workers in [1, 3, 20] {
        for cache in [0, 2, 100] {
            let mut spec = CommandSpec { workers, cache, ..scorer(COUNT) };
            spec.transform.exponent = 2.0;
            let env = strings(2, &["x", "y"]);
            let reward = build(&spec, &env).unwrap();
            let mut out = [0.0; 7];
            for _ in 0..3 {
                reward.log_reward(&rows(&*env, &texts), &mut out).unwrap();
                assert_eq!(out, expected, "{workers} {cache}");
            }
            // All that fits is asked for once; without a cache, everything every time.
            match cache {
                0 => assert_eq!(reward.computed(), Some(21)),
                100 => assert_eq!(reward.computed(), Some(4)),
                _ => assert!((4..21).contains(&reward.computed().unwrap())),
            }
        }
    }
    // A whole batch at once: the empty line ends it.
    let whole = "while read x; do case $x in '') printf '%s' \"$all\"; all=;; *) all=\"${all}5
\";; esac; done";
    assert_eq!(scores(&scorer(whole), &["xy", "yy"]).unwrap(), [5f64.ln(); 2]);
    let jsonl = "while read x; do case $x in *'\"object\":\"xy\",\"row\":[0,1]'*) echo 7;; '') ;; *) echo 9;; esac; done";
    let spec = CommandSpec { format: Format::Jsonl, ..scorer(jsonl) };
    assert_eq!(scores(&spec, &["xy", "yy"]).unwrap(), [7f64.ln(), 9f64.ln()]);
}

#[test]
fn a_program_that_dies_once_is_started_anew() {
    let dir = tempfile::tempdir().unwrap();
    let mark = dir.path().join("died");
    let script =
        format!("if [ ! -e {0} ]; then touch {0}; read x; exit 3; fi; {COUNT}", mark.display());
    assert_eq!(scores(&scorer(&script), &["yy", "xx"]).unwrap(), [3f64.ln(), 0.0]);
    std::fs::remove_file(&mark).unwrap();
    let once = CommandSpec { restarts: 0, ..scorer(&script) };
    let message = scores(&once, &["yy"]).unwrap_err().to_string();
    assert!(message.contains("ended (exit status: 3) after 0 of 1 numbers"), "{message}");
}

#[test]
fn misbehaving_programs_are_named_with_what_they_did() {
    let fails = |script: &str, part: &str| {
        let spec = CommandSpec { timeout_s: 0.5, ..scorer(script) };
        let message = scores(&spec, &["xx", "yy", "xy"]).unwrap_err().to_string();
        assert!(message.contains(part), "{message:?} should contain {part:?}");
        assert!(message.contains("scorer") || message.contains("reward."), "{message:?}");
    };
    fails("sleep 60", "gave no answer within 0.5 s after 0 of 3 numbers, and again");
    fails(
        "read x; echo 1; echo 2; cat > /dev/null",
        "gave no answer within 0.5 s after 2 of 3 numbers",
    );
    fails("read x; echo 1; echo 2", "ended (exit status: 0) after 2 of 3 numbers");
    fails("read x; exec 1>&-; kill -9 $$", "ended (signal: 9");
    fails("read x; echo 1; echo nan; echo 3; cat > /dev/null", "gave `nan` for `yy`, not a number");
    fails("read x; echo 1; echo two; echo 3; cat > /dev/null", "gave `two` for `yy`, not a number");
    fails("read x; echo 1; echo 0; echo 3; cat > /dev/null", "`yy` has the value 0");
    fails("read x; sleep 0.1; echo 1; echo -inf; echo 1", "gave `-inf`");

    // Numbers that nobody asked for are found at the next batch.
    let env = strings(2, &["x", "y"]);
    let chatty = "while read x; do case $x in '') ;; *) echo 1; echo 1;; esac; done";
    let reward = build(&CommandSpec { restarts: 0, ..scorer(chatty) }, &env).unwrap();
    let (batch, mut out) = (rows(&*env, &["xy"]), [0.0]);
    reward.log_reward(&batch, &mut out).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(200));
    let message = reward.log_reward(&batch, &mut out).unwrap_err().to_string();
    assert!(message.contains("more numbers than it was given objects"), "{message}");

    let missing = CommandSpec { command: vec!["/no/such/scorer".into()], ..Default::default() };
    assert!(build(&missing, &env).err().unwrap().message.contains("cannot start"));
    let none = build(&CommandSpec::default(), &env).err().unwrap();
    assert_eq!(none.key.as_deref(), Some("command"));
    let scaled = CommandSpec {
        transform: Transform { r_max: Some(1.0), ..Default::default() },
        ..scorer(COUNT)
    };
    assert!(build(&scaled, &env).err().unwrap().message.contains("transform.largest"));
}
