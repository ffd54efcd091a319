//! `gfn exact` against reference data, closed forms and sums written out.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

fn gfn(dir: &Path, args: &[&str]) -> String {
    let mut gfn = Command::new(env!("CARGO_BIN_EXE_gfn"));
    let output = gfn.args(args).current_dir(dir).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// What `gfn exact --json` prints for a spec.
fn exact(spec: &str, overrides: &[&str]) -> Value {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("table.csv"), TABLE).unwrap();
    std::fs::write(dir.path().join("spec.toml"), spec).unwrap();
    let mut args = vec!["exact", "spec.toml", "--json"];
    overrides.iter().for_each(|change| args.extend(["-s", change]));
    let report = serde_json::from_str(&gfn(dir.path(), &args)).unwrap();
    let text = gfn(dir.path(), &[&args[..2], &args[3..]].concat());
    assert!(text.starts_with("known by ") && text.contains("\nlog Z "), "{text}");
    report
}

fn number(report: &Value, key: &str) -> f64 {
    report.pointer(key).and_then(Value::as_f64).unwrap_or_else(|| panic!("{key} in {report}"))
}

const TABLE: &str = "x,y\nAA,1\nAC,2\nCA,4\nCC,1\n";

/// Four objects with rewards 1, 2, 4, 1, enumerated and layer by layer.
#[test]
fn a_sequence_by_hand() {
    let spec = "[env]\nkind = 'sequence'\nlength = 2\nsymbols = ['A', 'C']\nbuild = 'append'\n\
                [reward]\nkind = 'table'\npath = 'table.csv'\nmodes = { threshold = 2.0 }\n";
    let mean = 0.25 * 2f64.ln() + 0.5 * 4f64.ln();
    for (overrides, method) in [
        (&[][..], "enumeration"),
        (&["eval.max_states=2", "eval.max_streamed_states=1000"], "walking layer by layer"),
    ] {
        let report = exact(spec, overrides);
        assert_eq!(report["method"], method);
        assert_eq!((number(&report, "/states"), number(&report, "/objects")), (7.0, 4.0));
        assert!((number(&report, "/log_z") - 8f64.ln()).abs() < 1e-12);
        assert!((number(&report, "/mean_log_reward") - mean).abs() < 1e-12);
        assert!((number(&report, "/entropy") - (8f64.ln() - mean)).abs() < 1e-12);
        assert_eq!(number(&report, "/modes"), 2.0);
        let best: Vec<(&str, f64)> = (0..4)
            .map(|i| {
                let best = &report["best"][i];
                (best["object"].as_str().unwrap(), best["probability"].as_f64().unwrap())
            })
            .collect();
        assert_eq!(best.iter().map(|best| best.0).collect::<Vec<_>>(), ["CA", "AC", "AA", "CC"]);
        assert!(best.iter().zip([0.5, 0.25, 0.125, 0.125]).all(|(a, b)| (a.1 - b).abs() < 1e-12));
    }
}

/// r0 + r1 [all coordinates beyond a quarter] + r2 [all in the band], summed over the grid.
#[test]
fn a_hypergrid_by_its_formula() {
    let spec = "[env]\nkind = 'hypergrid'\ndim = 2\nside = 8\n\
                [reward]\nkind = 'hypergrid'\nr0 = 1e-3\nr1 = 0.5\nr2 = 2.0\n";
    let report = exact(spec, &[]);
    let mut sum = 0.0;
    for cell in 0..64 {
        let off = [cell / 8, cell % 8].map(|x| (f64::from(x) / 7.0 - 0.5).abs());
        let all =
            |inside: &dyn Fn(f64) -> bool| f64::from(u8::from(off.iter().all(|&x| inside(x))));
        sum += 1e-3 + 0.5 * all(&|x| x > 0.25) + 2.0 * all(&|x| x > 0.3 && x < 0.4);
    }
    assert!((number(&report, "/log_z") - f64::ln(sum)).abs() < 1e-12);
    assert_eq!((number(&report, "/objects"), number(&report, "/modes")), (64.0, 4.0));
    assert_eq!(report["best"].as_array().unwrap().len(), 10);
}

/// The reference's numbers for four nodes, by enumeration and by the recursion.
#[test]
#[cfg_attr(not(reference_data), ignore = "needs the reference data")]
fn four_nodes() {
    let folder = Path::new(env!("GFN_REFERENCE_DATA")).join("golden");
    let summary = std::fs::read_to_string(folder.join("bn_summary.json")).unwrap();
    let summary: Value = serde_json::from_str(&summary).unwrap();
    let spec = format!("[env]\nkind = 'dag'\ndata = '{}/bn_d4_data.csv'\n", folder.display());
    for (kind, key) in [("bge", "bge"), ("linear_gaussian", "lingauss")] {
        let expected = &summary["d4"][key];
        for (max_states, method) in
            [(1_000_000, "enumeration"), (2, "the recursion over sets of nodes")]
        {
            let overrides =
                [format!("eval.max_states={max_states}"), format!("reward.kind={kind}")];
            let report = exact(&spec, &overrides.each_ref().map(String::as_str));
            assert_eq!(report["method"], method);
            for (pointer, key) in [
                ("/log_z", "log_partition_relative_to_empty"),
                ("/entropy", "entropy"),
                ("/mean_log_reward", "mean_log_reward"),
                ("/expectations/number of edges", "expected_edges"),
                ("/best/0/probability", "map_prob"),
            ] {
                let (got, expected) = (number(&report, pointer), expected[key].as_f64().unwrap());
                assert!((got - expected).abs() < 1e-9, "{kind} {method} {pointer}: {got}");
            }
            assert!((number(&report, "/log_objects") - 543f64.ln()).abs() < 1e-9);
            let marginals: Vec<Vec<f64>> =
                serde_json::from_value(report["marginals"][0]["values"].clone()).unwrap();
            let edges: Vec<Vec<f64>> =
                serde_json::from_value(expected["edge_marginals"].clone()).unwrap();
            for (got, expected) in marginals.iter().flatten().zip(edges.iter().flatten()) {
                assert!((got - expected).abs() < 1e-9);
            }
            assert_eq!(report["marginals"][0]["names"], serde_json::json!(["A", "B", "C", "D"]));
        }
    }
}

/// Files of a short run and of `gfn sample --out` are named, complete, and never overwritten.
#[test]
fn summaries_of_samples() {
    let dir = tempfile::tempdir().unwrap();
    let spec = "[env]\nkind = 'dag'\nnodes = 3\n[train]\ntrajectories = 32\n[eval]\n\
                metrics = ['edges']\n";
    std::fs::write(dir.path().join("spec.toml"), spec).unwrap();
    gfn(dir.path(), &["train", "spec.toml", "-q"]);
    let run = "results/spec/s0";
    let out = gfn(dir.path(), &["sample", run, "-n", "50", "--out", "some"]);
    assert_eq!(out, "some\n");
    for folder in [run, "some"] {
        let read =
            |name: &str| std::fs::read_to_string(dir.path().join(folder).join(name)).unwrap();
        assert!(read("edges.csv").starts_with(",A,B,C\nA,0,"), "{}", read("edges.csv"));
        assert_eq!(read("arcs.csv").lines().count(), 7);
        assert!(read("graph.dot").contains("digraph") && read("graph.svg").contains(">C</text>"));
        // A matrix of frequencies is that of the graphs beside it.
        let samples = read("samples.csv");
        let with = samples.lines().skip(1).filter(|line| line.contains("A->B")).count();
        let n = samples.lines().count() - 1;
        let p: f64 =
            read("edges.csv").lines().nth(1).unwrap().split(',').nth(2).unwrap().parse().unwrap();
        assert!((p - with as f64 / n as f64).abs() < 1e-12, "{p} {with} {n}");
    }
    let mut again = Command::new(env!("CARGO_BIN_EXE_gfn"));
    let output =
        again.args(["sample", run, "--out", "some"]).current_dir(dir.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("exists already"));
}
