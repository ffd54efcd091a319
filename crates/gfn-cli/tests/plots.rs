//! Many runs as one table, as figures, and summed up: what is written is read back and compared with
//! values worked out by hand.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

struct Workspace {
    dir: TempDir,
}

/// A run that never was: its rows are of our choosing.
struct Run<'a> {
    name: &'a str,
    objective: &'a str,
    seed: u64,
    lr: f64,
    /// Columns after `trajectories`.
    metrics: &'a str,
    /// Trajectories, and the cells after it.
    rows: &'a [(u64, &'a str)],
}

const RUN: Run<'static> =
    Run { name: "a", objective: "tb", seed: 1, lr: 0.001, metrics: "tv_exact", rows: &[] };

impl Workspace {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn run(&self, run: &Run<'_>) -> PathBuf {
        let Run { name, objective, seed, lr, metrics, rows } = run;
        let dir = format!("runs/{name}/s{seed}");
        let spec = format!(
            "name = '{name}'\nseed = {seed}\ndevice = 'flex'\n[env]\nkind = 'hypergrid'\ndim = 2\nside = 3\n\
             [reward]\nkind = 'hypergrid'\n[objective]\nkind = '{objective}'\n\
             [backward]\nkind = 'uniform'\n[train]\nlr = {lr}\n"
        );
        self.write(&format!("{dir}/spec.toml"), &spec);
        let mut table =
            format!("name,env,objective,backward,model,device,seed,step,trajectories,{metrics}\n");
        for (trajectories, cells) in *rows {
            let step = trajectories / 10;
            writeln!(
                table,
                "{name},hypergrid,{objective},uniform,mlp,flex,{seed},{step},{trajectories},{cells}"
            )
            .unwrap();
        }
        self.write(&format!("{dir}/metrics.csv"), &table);
        self.write(&format!("{dir}/DONE"), "");
        self.path(&dir)
    }

    fn gfn(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gfn"));
        command.args(args).current_dir(self.dir.path()).env("NO_COLOR", "1");
        command.env_remove("GFN_LOG").output().unwrap()
    }

    /// What a command that succeeds writes to stdout.
    fn stdout(&self, args: &[&str]) -> String {
        let output = self.gfn(args);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// What a command that is refused says.
    fn refused(&self, args: &[&str]) -> String {
        let output = self.gfn(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", stderr(&output));
        assert!(output.stdout.is_empty(), "{args:?}: half an output");
        stderr(&output)
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn attribute<'a>(element: &'a str, name: &str) -> &'a str {
    let start = element.find(&format!(" {name}=\"")).unwrap() + name.len() + 3;
    element[start..].split('"').next().unwrap()
}

fn number(element: &str, name: &str) -> f64 {
    attribute(element, name).parse().unwrap()
}

fn elements<'a>(svg: &'a str, class: &str) -> Vec<&'a str> {
    svg.lines().filter(|line| line.contains(&format!("class=\"{class}\""))).collect()
}

/// The part of a figure that is its panel number `i`.
fn panel(svg: &str, i: usize) -> &str {
    svg.split("<g class=\"panel\">").nth(i + 1).unwrap()
}

/// From places on the page to data: by the first and the last labelled tick.
struct Axis {
    place: [f64; 2],
    value: [f64; 2],
    log: bool,
}

impl Axis {
    fn read(svg: &str, name: &str, log: bool) -> Self {
        let ticks = elements(svg, &format!("tick-{name}"));
        let of = |tick: &str| {
            let label = tick.split('>').nth(1).unwrap().split('<').next().unwrap();
            let label = label.replace('−', "-");
            let value: f64 = match label.strip_suffix('k') {
                Some(thousands) => thousands.parse::<f64>().unwrap() * 1e3,
                None => label.parse().unwrap(),
            };
            // Labels along y stand a little below their ticks.
            let place = number(tick, name) - if name == "y" { 3.5 } else { 0.0 };
            (place, if log { value.log10() } else { value })
        };
        let ends = [of(ticks[0]), of(ticks[ticks.len() - 1])];
        Self { place: ends.map(|end| end.0), value: ends.map(|end| end.1), log }
    }

    fn value(&self, place: f64) -> f64 {
        let [a, b] = self.place;
        let share = (place - a) / (b - a);
        let value = self.value[0] + share * (self.value[1] - self.value[0]);
        if self.log { 10f64.powf(value) } else { value }
    }
}

/// The points of a path in data coordinates.
fn points(path: &str, x: &Axis, y: &Axis) -> Vec<[f64; 2]> {
    let corners = attribute(path, "d").trim_start_matches('M').trim_end_matches('Z').split('L');
    corners
        .map(|corner| {
            let (a, b) = corner.split_once(' ').unwrap();
            [x.value(a.parse().unwrap()), y.value(b.parse().unwrap())]
        })
        .collect()
}

fn close(found: &[[f64; 2]], expected: &[[f64; 2]]) {
    assert_eq!(found.len(), expected.len(), "{found:?}");
    for (a, b) in found.iter().flatten().zip(expected.iter().flatten()) {
        // A hundredth of a pixel, of axes of some hundred pixels.
        assert!((a - b).abs() <= 2e-4 * b.abs().max(1.0) + 0.01, "{found:?}, not {expected:?}");
    }
}

/// Four runs: two objectives of two seeds.
fn two_methods() -> Workspace {
    let work = Workspace::new();
    let rows: [&[(u64, &str)]; 4] = [
        &[(0, "0.8"), (100, "0.4"), (200, "0.2")],
        &[(0, "0.8"), (100, "0.6"), (200, "0.4")],
        &[(0, "0.9"), (100, "0.5"), (200, "0.02")],
        &[(0, "0.7"), (100, "0.5"), (200, "0.04")],
    ];
    for (i, rows) in rows.into_iter().enumerate() {
        let (name, objective) = if i < 2 { ("a", "tb") } else { ("b", "db") };
        work.run(&Run { name, objective, seed: i as u64 % 2 + 1, rows, ..RUN });
    }
    work
}

#[test]
fn runs_are_collected_into_their_union() {
    let work = Workspace::new();
    work.run(&Run { rows: &[(0, "0.8"), (10, "0.5")], ..RUN });
    let other = Run { name: "b", seed: 2, lr: 0.01, metrics: "modes,tv_exact", ..RUN };
    let going_on = work.run(&Run { rows: &[(0, "3,")], ..other });
    // A row that is being written, a run that was moved aside, one without rows, and other folders.
    let table = going_on.join("metrics.csv");
    let text = std::fs::read_to_string(&table).unwrap() + "b,hypergrid,tb,unifo";
    std::fs::write(&table, text).unwrap();
    let aside = work.run(&Run { seed: 9, rows: &[(0, "0.1")], ..RUN });
    std::fs::rename(&aside, aside.with_file_name("s9.old-1")).unwrap();
    work.run(&Run { name: "empty", ..RUN });
    work.write("runs/trials.csv", "index,seed\n");
    let expected = "\
name,env,objective,backward,model,device,seed,train.lr,step,trajectories,tv_exact,modes
a,hypergrid,tb,uniform,mlp,flex,1,0.001,0,0,0.8,
a,hypergrid,tb,uniform,mlp,flex,1,0.001,1,10,0.5,
b,hypergrid,tb,uniform,mlp,flex,2,0.01,0,0,,3
";
    let output = work.gfn(&["collect", "runs"]);
    assert_eq!(String::from_utf8(output.stdout.clone()).unwrap(), expected);
    assert!(stderr(&output).contains("1 run has no row yet"));
    assert_eq!(work.stdout(&["collect", "runs/a", "runs", "-o", "all.csv"]), "all.csv\n");
    assert_eq!(std::fs::read_to_string(work.path("all.csv")).unwrap(), expected);

    let last = work.stdout(&["collect", "runs", "--last"]);
    let kept: Vec<&str> =
        expected.lines().enumerate().filter(|(i, _)| *i != 1).map(|(_, line)| line).collect();
    assert_eq!(last.lines().collect::<Vec<_>>(), kept);
    let all = work.stdout(&["collect", "runs", "--all-keys"]);
    let header = all.lines().next().unwrap();
    assert!(header.contains(",seed,env.dim,env.side,reward.kind,train.lr,step,"), "{header}");
}

/// Paths on the page, taken back to data by the labels of the ticks, are the means over seeds.
#[test]
fn curves_are_means_over_seeds() {
    let work = two_methods();
    let expected =
        [[[0.0, 0.8], [100.0, 0.5], [200.0, 0.03]], [[0.0, 0.8], [100.0, 0.5], [200.0, 0.3]]];
    let band = [[0.0, 0.9], [100.0, 0.5], [200.0, 0.04], [200.0, 0.02], [100.0, 0.5], [0.0, 0.7]];
    for log in [false, true] {
        let mut args = vec!["plot", "runs", "--by", "objective", "--band", "minmax"];
        args.extend(if log { ["--log", "y"].as_slice() } else { &[] });
        let svg = work.stdout(&args);
        let (x, y) = (Axis::read(&svg, "x", false), Axis::read(&svg, "y", log));
        let curves = elements(&svg, "curve");
        assert_eq!(curves.len(), 2);
        for ((curve, expected), name) in curves.iter().zip(&expected).zip(["db", "tb"]) {
            assert_eq!(attribute(curve, "data-series"), name);
            close(&points(curve, &x, &y), expected);
        }
        close(&points(elements(&svg, "band")[0], &x, &y), &band);
        assert!(svg.contains("mean of 2 runs; lowest to highest"));
        assert_eq!(svg, work.stdout(&args), "the same bytes");
    }
}

#[test]
fn a_collected_table_draws_what_its_runs_do() {
    let work = two_methods();
    work.stdout(&["collect", "runs", "-o", "all.csv"]);
    let of_runs = work.stdout(&["plot", "runs", "--facet", "objective"]);
    assert_eq!(of_runs, work.stdout(&["plot", "all.csv", "--facet", "objective"]));
    // Files that do not say who they are: their names do.
    for name in ["x", "y"] {
        work.write(&format!("{name}.csv"), "step,trajectories,tv\n0,0,0.5\n1,10,0.25\n");
    }
    let svg = work.stdout(&["plot", "x.csv", "y.csv"]);
    let names: Vec<&str> =
        elements(&svg, "curve").iter().map(|curve| attribute(curve, "data-series")).collect();
    assert_eq!(names, ["x", "y"]);
}

#[test]
fn a_curve_ends_with_its_shortest_run() {
    let work = two_methods();
    work.run(&Run { seed: 3, rows: &[(0, "0.8"), (100, "0.8")], ..RUN });
    let args = ["plot", "runs", "--where", "objective=tb"];
    let output = work.gfn(&args);
    let svg = String::from_utf8(output.stdout.clone()).unwrap();
    assert!(stderr(&output).contains("runs end between trajectories 100 and 200"));
    let curve = elements(&svg, "curve")[0];
    let (x, y) = (Axis::read(&svg, "x", false), Axis::read(&svg, "y", false));
    close(&points(curve, &x, &y), &[[0.0, 0.8], [100.0, 0.6]]);
    let svg = work.stdout(&[&args[..], &["--partial"]].concat());
    let (x, y) = (Axis::read(&svg, "x", false), Axis::read(&svg, "y", false));
    close(&points(elements(&svg, "curve")[0], &x, &y), &[[0.0, 0.8], [100.0, 0.6], [200.0, 0.3]]);
}

#[test]
fn panels_share_their_axes() {
    let work = two_methods();
    let svg = work.stdout(&["plot", "runs", "--facet", "objective"]);
    assert_eq!(svg.matches("<g class=\"panel\">").count(), 2);
    // Numbers stand on the left alone, and hold for both.
    let y = Axis::read(panel(&svg, 0), "y", false);
    assert!(elements(panel(&svg, 1), "tick-y").is_empty());
    for (i, last) in [(0, 0.03), (1, 0.3)] {
        let x = Axis::read(panel(&svg, i), "x", false);
        let curve = points(elements(panel(&svg, i), "curve")[0], &x, &y);
        close(&curve[2..], &[[200.0, last]]);
    }
    let svg = work.stdout(&["plot", "runs", "--facet", "objective", "--free"]);
    assert!(!elements(panel(&svg, 1), "tick-y").is_empty());
    let rows = work.stdout(&["plot", "runs", "-y", "tv_exact,step", "--facet", "seed"]);
    assert_eq!(rows.matches("<g class=\"panel\">").count(), 4);
    let rows = work.stdout(&["plot", "runs", "--facet", "seed,objective"]);
    assert_eq!(rows.matches("<g class=\"panel\">").count(), 4);
}

#[test]
fn bars_are_as_long_as_final_means() {
    let work = two_methods();
    let svg = work.stdout(&["plot", "runs", "--kind", "bars", "--band", "std"]);
    let x = Axis::read(&svg, "x", false);
    let bars = elements(&svg, "bar");
    let ends: Vec<f64> =
        bars.iter().map(|bar| x.value(number(bar, "x") + number(bar, "width"))).collect();
    close(&[[ends[0], ends[1]]], &[[0.3, 0.03]]);
    assert!((x.value(number(bars[0], "x"))).abs() < 1e-3, "bars start at 0");
    assert!(number(bars[0], "y") < number(bars[1], "y"), "the first is on top");
}

#[test]
fn points_are_last_rows_of_runs() {
    let work = two_methods();
    let svg =
        work.stdout(&["plot", "runs", "--kind", "scatter", "-x", "trajectories", "-y", "tv_exact"]);
    let markers: usize =
        elements(&svg, "points").iter().map(|path| attribute(path, "d").matches('Z').count()).sum();
    assert_eq!(markers, 4);
}

/// Samples of a 3 × 3 grid: three quarters at (1, 2).
fn with_samples() -> Workspace {
    let work = Workspace::new();
    let run = work.run(&Run { rows: &[(100, "0.5")], ..RUN });
    let samples = "object,log_reward,reward\n1 2,0,1\n1 2,0,1\n1 2,0,1\n0 0,-1,0.37\n";
    std::fs::write(run.join("samples.csv"), samples).unwrap();
    work
}

#[test]
fn heat_maps_show_where_samples_are() {
    let work = with_samples();
    let svg = work.stdout(&["plot", "runs", "--kind", "heatmap"]);
    // The target, a symmetric one, then the samples.
    let fills = |i| -> Vec<&str> {
        elements(panel(&svg, i), "cell").iter().map(|cell| attribute(cell, "fill")).collect()
    };
    let target = fills(0);
    for (i, j) in [(0, 1), (0, 2), (1, 2)] {
        assert_eq!(target[3 * i + j], target[3 * j + i]);
    }
    let cells = elements(panel(&svg, 1), "cell");
    assert_eq!(fills(1).iter().filter(|&&fill| fill == "#ffffff").count(), 7);
    let darkest = cells.iter().find(|cell| attribute(cell, "fill") == "#081d58").unwrap();
    let first = panel(&svg, 0);
    let (x, y) = (Axis::read(first, "x", false), Axis::read(first, "y", false));
    let half = number(darkest, "width") / 2.0;
    let centre = [number(darkest, "x") + half, number(darkest, "y") + half];
    // The second panel lies to the right of the first, which the axis was read from.
    let shift = number(cells[0], "x") - number(elements(&svg, "cell")[0], "x");
    close(&[[x.value(centre[0] - shift), y.value(centre[1])]], &[[1.0, 2.0]]);
}

#[test]
fn samples_lie_over_their_rewards() {
    let work = with_samples();
    let svg = work.stdout(&["plot", "runs", "--kind", "scatter"]);
    let (x, y) = (Axis::read(&svg, "x", false), Axis::read(&svg, "y", false));
    // Circles start at their left edge, 2.6 to the left of their centre.
    let path = attribute(elements(&svg, "points")[0], "d");
    let starts = path.split('M').skip(1).map(|circle| circle.split('a').next().unwrap());
    let mut found: Vec<[f64; 2]> = starts
        .map(|start| {
            let (a, b) = start.split_once(' ').unwrap();
            [x.value(a.parse::<f64>().unwrap() + 2.6), y.value(b.parse().unwrap())]
        })
        .collect();
    found.sort_by(|a, b| a[0].total_cmp(&b[0]));
    close(&found, &[[-1.0, 0.25f64.ln()], [0.0, 0.75f64.ln()]]);
}

#[test]
fn tables_show_the_best_setting_of_every_method() {
    let work = Workspace::new();
    // Final values by objective, learning rate and seed; 0.01 and 0.001 of db are equal.
    let finals = [
        ("tb", 0.01, ["0.3", "0.5"]),
        ("tb", 0.001, ["0.25", "0.35"]),
        ("db", 0.01, ["0.2", "0.2"]),
        ("db", 0.001, ["0.1", "0.3"]),
    ];
    for (objective, lr, values) in finals {
        for (seed, value) in (1..).zip(values) {
            let name = &format!("{objective}_{lr}");
            let rows = [(0, "0.01"), (100, value)];
            let run = work.run(&Run { name, objective, seed, lr, rows: &rows, ..RUN });
            let schema = "[{\"name\": \"tv_exact\", \"better\": \"lower\"}]";
            std::fs::write(run.join("metrics.schema.json"), schema).unwrap();
        }
    }
    let args = ["table", "runs", "--by", "objective", "--over", "train.lr"];
    let table = work.stdout(&args);
    let expected = "\
objective  train.lr  tv_exact       n
db         0.001     0.20 ± 0.14    2
tb         0.001     0.300 ± 0.071  2
";
    assert_eq!(table, expected);
    let csv = work.stdout(&[&args[..], &["--format", "csv", "--best", "max"]].concat());
    let rows: Vec<Vec<&str>> = csv.lines().map(|line| line.split(',').collect()).collect();
    assert_eq!(rows[0], ["objective", "train.lr", "tv_exact_mean", "tv_exact_std", "tv_exact_n"]);
    assert_eq!(rows[2][..3], ["tb", "0.01", "0.4"]);
    // √(2 · 0.1²)
    assert!((rows[2][3].parse::<f64>().unwrap() - 0.02f64.sqrt()).abs() < 1e-12);
    let markdown = work.stdout(&[&args[..], &["--format", "markdown"]].concat());
    assert!(markdown.contains("| db | 0.001 | 0.20 ± 0.14 | 2 |"), "{markdown}");
    // A table does not say which way is better.
    work.stdout(&["collect", "runs", "-o", "all.csv"]);
    let args = ["table", "all.csv", "--by", "objective", "--over", "train.lr"];
    assert!(work.refused(&args).contains("say --best min or --best max"));
    assert_eq!(work.stdout(&[&args[..], &["--best", "min"]].concat()), expected);
}

#[test]
fn figures_have_a_preview() {
    let work = two_methods();
    let text = work.stdout(&["plot", "runs", "--terminal"]);
    assert!(text.chars().any(|c| ('\u{2801}'..='\u{28ff}').contains(&c)), "{text}");
    assert!(text.contains("name: a a   b b"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    let bars = work.stdout(&["plot", "runs", "--kind", "bars", "--terminal"]);
    let length = |name: &str| {
        let line = bars.lines().find(|line| line.starts_with(name)).unwrap();
        line.matches('█').count() as f64
    };
    assert!((length("a ") / length("b ") - 10.0).abs() < 2.0, "0.3 and 0.03: {bars}");
    let work = with_samples();
    let map = work.stdout(&["plot", "runs", "--kind", "heatmap", "--terminal"]);
    assert!(map.contains("│  ██  │"), "{map}");
}

#[test]
fn what_cannot_be_drawn_is_said() {
    let work = two_methods();
    work.write("words.csv", "step,trajectories,tv\n0,0,low\n");
    work.write("plain.csv", "a,b\n1,2\n");
    work.write("ragged.csv", "step,tv\n0,1\n2\n");
    work.write("zero.csv", "step,tv\n0,0\n1,-1\n");
    work.write("empty.csv", "");
    std::fs::create_dir(work.path("nothing")).unwrap();
    for (args, message) in [
        (&["plot", "nothing"][..], "no run in `nothing`"),
        (&["collect", "nothing"], "no run in `nothing`"),
        (&["collect", "plain.csv"], "`plain.csv` is not a folder"),
        (&["plot", "absent"], "cannot read `absent`"),
        (&["plot", "empty.csv"], "`empty.csv` has no rows"),
        (&["plot", "plain.csv"], "neither `trajectories` nor `step`"),
        (&["plot", "ragged.csv"], "`ragged.csv` cannot be used"),
        (&["plot", "words.csv", "-y", "tv"], "the column `tv` has no numbers, but `low`"),
        (&["plot", "zero.csv", "-x", "step", "-y", "tv", "--log", "y"], "no positive value"),
        (&["plot", "runs", "-y", "tv_exakt"], "did you mean `tv_exact`?"),
        (&["plot", "runs", "-x", "trajectorys"], "did you mean `trajectories`?"),
        (&["plot", "runs", "--by", "train.lrr"], "did you mean `train.lr`?"),
        (&["plot", "runs", "--facet", "nonsense"], "no run has a column or spec key `nonsense`"),
        (&["plot", "runs", "--facet", "name,seed,env"], "--facet takes one key, or two"),
        (&["plot", "runs", "--where", "objective=pg"], "values: db, tb"),
        (&["plot", "runs", "--where", "objective"], "is not KEY=VALUE"),
        (&["plot", "runs", "-o", "fig.pdf"], "figures are written as SVG"),
        (&["plot", "runs", "-o", "no/such/folder/fig.svg"], "cannot write"),
        (&["collect", "runs", "-o", "no/such/folder/all.csv"], "cannot write"),
        (&["plot", "runs", "--kind", "heatmap"], "has no samples.csv"),
        (&["plot", "runs", "--kind", "scatter", "-x", "step"], "both -x and -y, or neither"),
        (&["plot", "plain.csv", "--kind", "heatmap"], "heat maps are of hypergrids"),
        (&["table", "runs", "--over", "train.lrr"], "did you mean `train.lr`?"),
        (&["table", "runs", "-y", "env"], "the column `env` has no numbers, but `hypergrid`"),
    ] {
        let said = work.refused(args);
        assert!(said.contains(message), "{args:?}: {said}");
    }
    assert!(!work.path("fig.pdf").exists());
}

/// What needs a feature works with it, and says so without.
#[test]
fn figures_as_png_and_tables_as_parquet() {
    let work = two_methods();
    for (feature, args, first) in [
        (cfg!(feature = "png"), ["plot", "runs", "-o", "fig.png"], &b"\x89PNG"[..]),
        (cfg!(feature = "parquet"), ["collect", "runs", "-o", "all.parquet"], b"PAR1"),
    ] {
        if feature {
            let output = work.gfn(&args);
            assert!(output.status.success(), "{}", stderr(&output));
            assert!(std::fs::read(work.path(args[3])).unwrap().starts_with(first));
        } else {
            assert!(work.refused(&args).contains("--features"), "{args:?}");
            assert!(!work.path(args[3]).exists());
        }
    }
}

#[test]
fn damaged_runs_are_named() {
    for (file, text, why) in [
        ("metrics.csv", b"step,tv\n0,1,2\n".as_slice(), "found record with 3 fields"),
        ("metrics.csv", b"foreign,table\n0,1\n", "it has no column `step`"),
        ("metrics.csv", b"step,tv,tv\n0,1,2\n", "column 3 is called `tv` like another"),
        ("metrics.csv", b"step,\xff\n", "it is not UTF-8 text"),
        ("spec.toml", b"name = \n", "it is not TOML"),
    ] {
        let work = two_methods();
        std::fs::write(work.path("runs/a/s1").join(file), text).unwrap();
        let said = work.refused(&["collect", "runs"]);
        let path = Path::new("runs/a/s1").join(file);
        assert!(said.contains(&path.display().to_string()) && said.contains(why), "{said}");
        let kept = work.stdout(&["collect", "runs", "--skip-damaged"]);
        assert_eq!(kept.lines().count(), 1 + 9, "the other three runs: {kept}");
    }
}
