//! `gfn score` against formulas and tables.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Output, Stdio};

const TABLE: &str = "x,y\nAA,1\nAC,2\nCA,4\nCC,1\n";
const STRINGS: &str = "[env]\nkind = 'sequence'\nlength = 2\nsymbols = ['A', 'C']\n\
                       [reward]\nkind = 'table'\npath = 'table.csv'\n";

fn command(dir: &Path, args: &[&str]) -> Command {
    let mut gfn = Command::new(env!("CARGO_BIN_EXE_gfn"));
    gfn.args(["score", "spec.toml"]).args(args).current_dir(dir);
    gfn.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    gfn
}

fn folder(spec: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("table.csv"), TABLE).unwrap();
    std::fs::write(dir.path().join("spec.toml"), spec).unwrap();
    dir
}

/// What is printed for lines on stdin: exit code, stdout, stderr.
fn score(spec: &str, args: &[&str], input: &[u8]) -> (i32, String, String) {
    let dir = folder(spec);
    let mut child = command(dir.path(), args).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

/// Objects and numbers in the rows of CSV text, below its header.
fn rows(text: &str) -> Vec<(String, f64)> {
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let row = |record: csv::StringRecord| (record[0].to_owned(), record[1].parse().unwrap());
    reader.records().map(|record| row(record.unwrap())).collect()
}

/// r0 + r1 [all coordinates beyond a quarter] + r2 [all in the band], from a file of more lines than are
/// scored together.
#[test]
fn cells_of_a_grid_by_their_formula() {
    let dir = folder(
        "[env]\nkind = 'hypergrid'\ndim = 2\nside = 100\n\
         [reward]\nkind = 'hypergrid'\nr0 = 1e-3\nr1 = 0.5\nr2 = 2.0\n",
    );
    let cells: Vec<String> = (0..10_000).map(|i| format!("{} {}", i / 100, i % 100)).collect();
    std::fs::write(dir.path().join("cells.txt"), cells.join("\r\n")).unwrap();
    let output = command(dir.path(), &["cells.txt"]).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty());
    let rows = rows(&String::from_utf8(output.stdout).unwrap());
    assert_eq!(rows.len(), cells.len());
    for (i, (object, log_reward)) in rows.iter().enumerate() {
        assert_eq!(*object, cells[i]);
        let off = [i / 100, i % 100].map(|x| (x as f64 / 99.0 - 0.5).abs());
        let all =
            |inside: &dyn Fn(f64) -> bool| f64::from(u8::from(off.iter().all(|&x| inside(x))));
        let reward = 1e-3 + 0.5 * all(&|x| x > 0.25) + 2.0 * all(&|x| x > 0.3 && x < 0.4);
        assert!((log_reward - f64::ln(reward)).abs() < 1e-12, "{object}: {log_reward}");
    }
}

#[test]
fn strings_of_a_table_and_overrides() {
    let input = b"\xef\xbb\xbfCA\n\n  \nAC\nCA";
    let (code, text, said) = score(STRINGS, &["-s", "reward.transform={ beta = 2 }"], input);
    assert_eq!((code, said.as_str()), (0, ""));
    assert!(text.starts_with("object,log_reward\nCA,"), "{text}");
    let expected = [("CA", 4f64), ("AC", 2.0), ("CA", 4.0)];
    for ((object, log_reward), (name, value)) in rows(&text).iter().zip(expected) {
        assert_eq!(object, name);
        assert!((log_reward - 2.0 * value.ln()).abs() < 1e-12, "{text}");
    }
    assert_eq!(score(STRINGS, &["-"], b"").1, "object,log_reward\n");
}

/// They keep their place, and all others are scored.
#[test]
fn lines_that_are_no_objects() {
    let (code, text, said) = score(STRINGS, &[], b"AA\n\nAG,1\nC\xff\nCC\n");
    assert_eq!(code, 2);
    assert_eq!(text, "object,log_reward\nAA,0\n\"AG,1\",\nC\u{fffd},\nCC,0\n");
    for part in ["line 3: `AG,1`, which is no object", "line 4: `C\u{fffd}`", "2 of 4 lines"] {
        assert!(said.contains(part), "{said}");
    }
}

/// Values of molecules stand beside their rewards, and impossible ones have a reason.
#[test]
fn molecules_with_their_gaps() {
    let spec = "[env]\nkind = 'molecule'\n[reward]\nkind = 'huckel'\n";
    let (code, text, said) = score(spec, &[], b"C=CC=C\nOCC\nC(C)(C)(C)(C)C\n");
    assert_eq!(code, 2, "{said}");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "object,log_reward,gap_ev");
    assert!(lines[1].starts_with("C=CC=C,") && lines[2].starts_with("OCC,"), "as given: {text}");
    assert_eq!(lines[3], "C(C)(C)(C)(C)C,,");
    assert!(said.contains("line 3: ") && said.contains("no object of the environment: "), "{said}");
}

/// A program's values; where it fails, what was before is there.
#[test]
fn rewards_of_a_program() {
    let spec = "[env]\nkind = 'sequence'\nlength = 2\nsymbols = ['A', 'C']\n\
                [reward]\nkind = 'command'\ncache = 100\n";
    let program = |of_c: &str| {
        let script =
            format!("while read x; do case $x in *C) echo {of_c};; ?*) echo 2;; esac; done");
        format!("reward.command=['sh', '-c', '{script}']")
    };
    let (good, bad) = (program("3"), program("none"));
    let (code, text, said) = score(spec, &["-s", &good], b"AC\nAA\nAC\n");
    assert_eq!(code, 0, "{said}");
    assert_eq!(text.lines().next(), Some("object,log_reward,value"));
    let log_rewards: Vec<f64> = rows(&text).into_iter().map(|row| row.1).collect();
    for (log_reward, value) in log_rewards.iter().zip([3f64, 2.0, 3.0]) {
        assert!((log_reward - value.ln()).abs() < 1e-12, "{text}");
    }
    let mut lines = "AA\n".repeat(4096);
    lines += "AC\n";
    let (code, text, said) = score(spec, &["-s", &bad], lines.as_bytes());
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("not a number"), "{said}");
    assert!(said.contains("before line ") && text.lines().count() > 1, "{said}");
}

/// Whoever writes one line sees its row before the next.
#[test]
fn pipes_see_results() {
    let dir = folder(STRINGS);
    let mut child = command(dir.path(), &[]).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(output.next().unwrap().unwrap(), "object,log_reward");
    for _ in 0..3 {
        input.write_all(b"AA\n").unwrap();
        assert_eq!(output.next().unwrap().unwrap(), "AA,0");
    }
    // A reader that goes away is no failure.
    drop(output);
    let _ = input.write_all("CC\n".repeat(100_000).as_bytes());
    drop(input);
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr), (Some(0), Vec::new()));
}
