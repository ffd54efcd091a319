//! Rewards and metrics of graphs through the registries, against reference data and enumeration.

use std::any::Any;
use std::path::Path;
use std::sync::Arc;

use gfn_core::metric::{EvalContext, MetricContext};
use gfn_core::policy::UniformPolicy;
use gfn_core::registry::{EnvContext, Files, RewardContext};
use gfn_core::sampler::{Draw, Exploration, Sampler};
use gfn_core::special::log_sum_exp;
use gfn_core::{Environment, KeyError, Purpose, Reward, StateGraph, States, Streams};
use gfn_envs::dag::Dag;
use gfn_envs::reward::bayes_net::NetworkReward;
use gfn_envs::{ENVIRONMENTS, METRICS, REWARDS};
use serde_json::Value;
use toml::Spanned;
use toml::de::DeTable;

type World = (Arc<dyn Environment>, Arc<dyn Reward>);

/// The parts that two tables of a spec say; files by name and text.
fn build(env: &str, reward: &str, listed: &[(&str, &str)]) -> Result<World, KeyError> {
    let read = |path: &Path| {
        let found = listed.iter().find(|file| Path::new(file.0) == path);
        match found {
            Some((_, text)) => Ok(text.as_bytes().to_vec()),
            None => std::fs::read(Path::new(env!("GFN_REFERENCE_DATA")).join(path)),
        }
    };
    let files: &dyn Files = &read;
    let table = |text: &'_ str| -> toml::Table { text.parse().expect("TOML") };
    let kind = |text: &str| table(text)["kind"].as_str().unwrap().to_owned();
    let rest = |text: &str| {
        let mut table = table(text);
        table.remove("kind");
        toml::to_string(&table).unwrap()
    };
    let text = rest(env);
    let entry = ENVIRONMENTS.iter().find(|entry| entry.answers_to(&kind(env))).unwrap();
    let parsed = Spanned::new(0..0, DeTable::parse(&text).unwrap().into_inner());
    let env: Arc<dyn Environment> =
        (entry.parse)(parsed).unwrap().build(EnvContext { files })?.into();
    let text = rest(reward);
    let entry = REWARDS.iter().find(|entry| entry.answers_to(&kind(reward))).unwrap();
    let parsed = Spanned::new(0..0, DeTable::parse(&text).unwrap().into_inner());
    let reward = (entry.parse)(parsed).unwrap().build(RewardContext { env: &env, files })?;
    Ok((env, reward.into()))
}

fn world(env: &str, reward: &str) -> World {
    build(env, reward, &[]).unwrap_or_else(|error| panic!("{env} {reward}: {error}"))
}

fn read(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("GFN_REFERENCE_DATA")).join(name)).unwrap()
}

fn graphs(env: &dyn Environment) -> &Dag {
    (env as &dyn Any).downcast_ref().unwrap()
}

fn network(reward: &dyn Reward) -> &NetworkReward {
    reward.as_any().unwrap().downcast_ref().unwrap()
}

fn log_reward(reward: &dyn Reward, rows: &States) -> Vec<f64> {
    let mut log_reward = vec![f64::NAN; rows.len()];
    reward.log_reward(rows, &mut log_reward).unwrap();
    log_reward
}

/// Every score of the reference, relative to the graph without edges; log Z by enumerating the state
/// graph and by the reward itself.
#[test]
#[cfg_attr(not(reference_data), ignore = "needs the reference data")]
fn golden_scores_and_partition_functions() {
    let summary: Value = serde_json::from_str(&read("golden/bn_summary.json")).unwrap();
    for d in [3, 4] {
        for (column, kind, key) in [(1, "bge", "bge"), (2, "linear_gaussian", "lingauss")] {
            let env = format!("kind = 'dag'\ndata = 'golden/bn_d{d}_data.csv'");
            let (env, reward) = world(&env, &format!("kind = '{kind}'"));
            let dag = graphs(&*env);
            let golden = read(&format!("golden/bn_d{d}_all_dags.csv"));
            let (mut rows, mut expected) = (States::new(env.space().width), Vec::new());
            for line in golden.lines().skip(1) {
                let fields: Vec<&str> = line.split(',').collect();
                let code: u64 = fields[0].parse().unwrap();
                let parents: Vec<u64> = (0..d)
                    .map(|j| (0..d).fold(0, |mask, i| mask | (code >> (i * d + j) & 1) << i))
                    .collect();
                rows.push(&dag.row_of(&parents, true).unwrap());
                expected.push(fields[column].parse::<f64>().unwrap());
            }
            assert_eq!(rows.len(), if d == 3 { 25 } else { 543 });
            for (got, score) in log_reward(&*reward, &rows).iter().zip(&expected) {
                assert!((got - (score - expected[0])).abs() < 4e-7, "{got} {score}");
            }
            let known = summary[format!("d{d}")][key]["log_partition_relative_to_empty"].as_f64();
            let graph = StateGraph::explore(&*env, 10_000).unwrap();
            let log_z = graph.target(&*reward).unwrap().log_z;
            assert!((log_z - known.unwrap()).abs() < 1e-9, "{log_z}");
            assert!((reward.log_partition().unwrap() - known.unwrap()).abs() < 1e-9);
        }
    }
}

/// Rewards of the states of trajectories, one after the other, are those of each state alone.
#[test]
fn rewards_along_trajectories_are_rewards() {
    let (env, reward) = world("kind = 'dag'\nnodes = 7\nmax_parents = 3", "kind = 'bge'");
    let draw = Draw { streams: Streams::new(5), purpose: Purpose::Test, step: 0 };
    let walks = Sampler::default().forward(&*env, &UniformPolicy, Exploration::NONE, draw, 200);
    assert!(walks.states.len() > 1500, "several chunks: {}", walks.states.len());
    let mut along = vec![f64::NAN; walks.states.len()];
    reward.log_reward_along(&walks.states, &mut along).unwrap();
    assert_eq!(along, log_reward(&*reward, &walks.states));
    let distinct: std::collections::HashSet<u64> = along.iter().map(|r| r.to_bits()).collect();
    assert!(distinct.len() > 500);
}

/// With everything that enters the score: the recursion is enumeration of what the environment builds.
#[test]
fn log_partition_is_enumeration() {
    let constraints = "kind = 'dag'\nnames = ['u', 'v', 'x', 'y', 'z']\nmax_parents = 2\n\
                       required = ['u -> v']\nforbidden = ['x -> y']\ntiers = [['u', 'v'], ['z']]";
    let odds = [(
        "odds.csv",
        ",z,y,x,v,u\nu,.5,.5,.1,.5,0\nv,.5,.5,.5,0,.5\nx,.9,.5,0,.5,.5\ny,.5,0,.5,.5,.5\n\
         z,0,.5,.5,.5,.5\n",
    )];
    for (env, reward) in [
        ("kind = 'dag'\nnodes = 4", "kind = 'bge'\nbeta = 0.3"),
        ("kind = 'dag'\nnodes = 4", "kind = 'bde'\ness = 3\nprior = 'fair'"),
        ("kind = 'dag'", "kind = 'linear_gaussian'\nprior = { edge_penalty = 0.2 }"),
        (constraints, "kind = 'bge'\nprior = { erdos_renyi = 3 }\nedge_probabilities = 'odds.csv'"),
        (constraints, "kind = 'bde'\ngenerate = { graph = 'scale_free', states = 2, edges = 8 }"),
    ] {
        let (env, reward) = build(env, reward, &odds).unwrap();
        let graph = StateGraph::explore(&*env, 100_000).unwrap();
        let log_reward = graph.log_rewards(&*reward).unwrap();
        assert!(log_reward.iter().all(|log_reward| log_reward.is_finite()), "all are built");
        let log_z = log_sum_exp(log_reward.iter().copied());
        assert!((reward.log_partition().unwrap() - log_z).abs() < 1e-9, "{log_z}");
        let weigh = |r: &f64| (r - log_z).exp() * r;
        let mean: f64 = log_reward.iter().map(weigh).sum();
        let estimate = reward.target_estimate().unwrap();
        assert!((estimate.mean_log_reward - mean).abs() < 1e-8);
        let target = reward.exact_target().unwrap();
        assert!((target.entropy - (log_z - mean)).abs() < 1e-8);
        assert!((target.log_n_objects - (log_reward.len() as f64).ln()).abs() < 1e-9);
        // s0 has the required edges only, and log R = 0.
        let mut start = vec![0; env.space().width];
        env.reset(&mut start);
        let base: Vec<u64> = graphs(&*env).parents_of(&start).collect();
        assert!(network(&*reward).modular().log_reward(&base).abs() < 1e-9);
        let test = reward.test_objects().unwrap();
        assert!(test.len() > 3 && test.rows().all(|row| graph.find_object(row).is_some()));
        let known: std::collections::HashSet<&[i32]> = test.rows().collect();
        assert_eq!(known.len(), test.len(), "distinct");
        assert_eq!(reward.exact_samples(7, 3).unwrap().len(), 7);
    }
}

/// Columns in another order than nodes, with a column of interventions in between, are the same data.
#[test]
fn columns_go_by_name() {
    let straight = "x,y,z,INT\n1,2,0.5,0\n3,-1,2,y\n0,1,1,0\n2,2,7,z\n-1,0,3,0\n";
    let moved = "z,INT,x,y\n0.5,0,1,2\n2,y,3,-1\n1,0,0,1\n7,z,2,2\n3,0,-1,0\n";
    let files = [("straight.csv", straight), ("moved.csv", moved)];
    let env = "kind = 'dag'\nnames = ['x', 'y', 'z']";
    let of = |env: &str, reward: &str| {
        let (env, reward) = build(env, reward, &files).unwrap();
        let graph = StateGraph::explore(&*env, 1000).unwrap();
        let objects = graph.objects();
        let names: Vec<String> = objects.rows().map(|row| env.render(row)).collect();
        let mut named: Vec<_> =
            names.into_iter().zip(graph.log_rewards(&*reward).unwrap()).collect();
        named.sort_by(|a, b| a.0.cmp(&b.0));
        named
    };
    let expected =
        of(env, "kind = 'bge'\ndata = 'straight.csv'\ninterventions = 'INT'\nstandardise = true");
    let same =
        of(env, "kind = 'bge'\ndata = 'moved.csv'\ninterventions = 'INT'\nstandardise = true");
    let by_env = of(
        "kind = 'dag'\ndata = 'straight.csv'\ninterventions = 'INT'",
        "kind = 'bge'\nstandardise = true",
    );
    for other in [same, by_env] {
        for (a, b) in expected.iter().zip(&other) {
            assert!(a.0 == b.0 && (a.1 - b.1).abs() < 1e-9, "{a:?} {b:?}");
        }
    }
    // Without the interventions it is another target.
    let files = [("data.csv", "x,y,z\n1,2,0.5\n3,-1,2\n0,1,1\n2,2,7\n-1,0,3\n")];
    let other = build("kind = 'dag'\ndata = 'data.csv'", "kind = 'bge'", &files).unwrap();
    assert_eq!(graphs(&*other.0).names(), ["x", "y", "z"]);
    assert!(
        (other.1.log_partition().unwrap() - log_sum_exp(expected.iter().map(|e| e.1))).abs() > 0.1
    );
}

/// A file of local scores names the nodes, in any order.
#[test]
fn local_scores_by_name() {
    let text = "3\nB 2\n-1.5 0\n-0.5 1 A\nA 1\n0 0\nC 3\n-2 0\n-1 1 B\n-3 2 A B\n";
    let files = [("x.jkl", text)];
    let named = "kind = 'dag'\nnodes = 3\nmax_parents = 2";
    for (env, reward) in [
        ("kind = 'dag'\ndata = 'x.jkl'", "kind = 'local_scores'"),
        (named, "kind = 'local_scores'\npath = 'x.jkl'"),
    ] {
        let (env, reward) = build(env, reward, &files).unwrap();
        let row = |text: &str| env.parse(text).unwrap();
        let mut rows = States::new(env.space().width);
        for text in ["-", "A->B", "A->B B->C", "A->B A->C B->C", "B->A"] {
            rows.push(&row(text));
        }
        let got = log_reward(&*reward, &rows);
        assert_eq!(got, [0.0, 1.0, 2.0, 0.0, f64::NEG_INFINITY]);
        let log_z = (1.0 + 1f64.exp() * 2.0 + 2f64.exp() + 1.0 + (-1f64).exp()).ln();
        assert!((reward.log_partition().unwrap() - log_z).abs() < 1e-12);
    }
}

/// The columns of `edges` that do not depend on a policy, for the published task.
#[test]
#[cfg_attr(not(reference_data), ignore = "needs the reference data")]
fn exact_columns_of_gfn_pg() {
    let file: Value = serde_json::from_str(&read("bayes_net/seed0_bge_local_scores.json")).unwrap();
    let adjacency: Vec<Vec<u64>> =
        serde_json::from_value(file["true_adj_row_source_col_target"].clone()).unwrap();
    let mut truth = "A,B,C,D,E\n".to_owned();
    for row in adjacency {
        truth += &(row.iter().map(u64::to_string).collect::<Vec<_>>().join(",") + "\n");
    }
    let files = [("truth.csv", truth.as_str())];
    let env = "kind = 'dag'\ndata = 'bayes_net/seed0_100x5.csv'";
    let values = measure(&build(env, "kind = 'bge'\ntruth = 'truth.csv'", &files).unwrap());
    for (name, expected, tolerance) in [
        ("expected_shd_exact", 6.3354, 5e-5),
        ("expected_edges_exact", 8.9017, 5e-5),
        ("auroc_exact", 0.6786, 5e-5),
        ("auprc_exact", 0.488, 5e-4),
    ] {
        let got = values.iter().find(|value| value.0 == name).unwrap().1.unwrap();
        assert!((got - expected).abs() < tolerance, "{name}: {got}");
    }
}

/// The metric on fresh samples of the uniform policy.
fn measure((env, reward): &World) -> Vec<(String, Option<f64>)> {
    let context = MetricContext {
        env: env.clone(),
        reward: reward.clone(),
        exact: None,
        layers: None,
        samples: 100,
        test: None,
        backward_trajectories: 1,
        settings: Default::default(),
    };
    let entry = METRICS.iter().find(|entry| entry.name == "edges").unwrap();
    let mut metric = (entry.build)(&context).unwrap_or_else(|error| panic!("{error}"));
    let eval = EvalContext::new(&context, &UniformPolicy, None, Streams::new(0), 0);
    let values = metric.evaluate(&eval).unwrap();
    let columns = metric.columns();
    assert_eq!(columns.len(), values.len());
    columns.into_iter().map(|column| column.name).zip(values).collect()
}

/// Where something is unknown its cells are empty, those of other worlds all.
#[test]
fn unknown_columns_are_empty() {
    let filled = |values: &[(String, Option<f64>)]| -> Vec<String> {
        values.iter().filter(|value| value.1.is_some()).map(|value| value.0.clone()).collect()
    };
    let grid = measure(&world("kind = 'hypergrid'\ndim = 2\nside = 4", "kind = 'hypergrid'"));
    assert!(grid.len() > 10 && filled(&grid).is_empty());
    let all = measure(&world("kind = 'dag'", "kind = 'bge'"));
    assert_eq!(filled(&all).len(), grid.len());
    let without_truth = "kind = 'dag'\ndata = 'data.csv'";
    let files = [("data.csv", "a,b,c\n1,2,0\n2,1,1\n0,1,3\n1,5,1\n")];
    let known = filled(&measure(&build(without_truth, "kind = 'bge'", &files).unwrap()));
    assert!(
        known.iter().any(|name| name == "edge_rmse") && !known.iter().any(|name| name == "auroc")
    );
    let unknown = measure(&build(without_truth, "kind = 'bge'\nexact_limit = 2", &files).unwrap());
    assert_eq!(filled(&unknown), ["expected_edges", "n_dags", "n_cpdags"]);
}

#[test]
fn bad_input_is_refused() {
    let wide: Vec<String> = (1..=65).map(|i| format!("V{i}")).collect();
    let wide = wide.join(",") + "\n";
    let levels: String = (0..60).map(|i| format!("{i}.5,{}\n", i % 2)).collect();
    let levels = "x,y\n".to_owned() + &levels;
    let files = [
        ("data.csv", "x,y\n1,2\n2,1\n0,3\n"),
        ("text.csv", "x,y\n1,2\n2,high\n"),
        ("wide.csv", wide.as_str()),
        ("spaced.csv", "x y,z\n1,2\n2,1\n"),
        ("levels.csv", levels.as_str()),
        ("cut.jkl", "2\nx 2\n-1 0\n-2 1 y\ny 1\n"),
        ("none.jkl", "2\nx 1\n-1 1 y\ny 1\n-1 1 x\n"),
        ("loop.csv", "from,to\nx,y\ny,x\n"),
        ("zeros.csv", "x,y\n0.0,2\n-0.0,1\n0.0,3\n"),
        ("never.csv", "y,x\n0.5,0.5\n0,0.5\n"),
    ];
    let data = "kind = 'dag'\ndata = 'data.csv'";
    for (env, reward, is_data, part) in [
        (data, "kind = 'bde'\ndata = 'gone.csv'", true, "cannot read `gone.csv`"),
        ("kind = 'dag'\ndata = 'text.csv'", "kind = 'bge'", true, "`high` in column `y`"),
        ("kind = 'dag'\ndata = 'wide.csv'", "kind = 'bge'", true, "65 variables"),
        ("kind = 'dag'\ndata = 'spaced.csv'", "kind = 'bge'", true, "white space"),
        ("kind = 'dag'\nnodes = 2\ndata = 'data.csv'", "kind = 'bge'", false, "env.nodes"),
        ("kind = 'dag'\ninterventions = 'x'", "kind = 'bge'", false, "not given"),
        ("kind = 'dag'\nnodes = 2", "kind = 'bge'\ndata = 'data.csv'", false, "for the node `A`"),
        ("kind = 'dag'\nnames = ['x', 'y', 'z']", "kind = 'bge'\ndata = 'data.csv'", false, "`z`"),
        ("kind = 'dag'\ndata = 'levels.csv'", "kind = 'bde'", false, "60 different values in 60"),
        ("kind = 'dag'\ndata = 'cut.jkl'", "kind = 'local_scores'", true, "ends after line 5"),
        ("kind = 'dag'\ndata = 'none.jkl'", "kind = 'local_scores'", true, "make a graph"),
        ("kind = 'dag'", "kind = 'local_scores'", true, "no local scores"),
        ("kind = 'hypergrid'\ndim = 2", "kind = 'bge'", false, "defined on graphs"),
        (data, "kind = 'bge'\nexact_limit = 21", false, "at most 20"),
        (
            data,
            "kind = 'bge'\nprior = { erdos_renyi = 2 }",
            false,
            "2 edges are expected, of 1 pairs",
        ),
        (data, "kind = 'bge'\ntruth = 'loop.csv'", true, "form a cycle"),
        ("kind = 'dag'\ndata = 'zeros.csv'", "kind = 'bge'", true, "same value in all rows"),
        (data, "kind = 'bge'\nedge_probabilities = 'never.csv'", true, "has 0 for x -> y"),
        ("kind = 'dag'", "kind = 'bge'\ngenerate = { rows = 9_000_000_000_000 }", false, "rows"),
        (data, "kind = 'bge'\ntrue_edges = ['x -> q']", false, "no node is called `q`"),
        (data, "kind = 'bge'\ninterventions = 'y'", false, "env.interventions"),
        ("kind = 'dag'", "kind = 'bge'\ngenerate = { rows = 1 }", false, "1 rows"),
        ("kind = 'dag'", "kind = 'bge'\ngenerate = { edges = 11 }", false, "11 expected edges"),
    ] {
        let Err(error) = build(env, reward, &files) else { panic!("{env} {reward} is accepted") };
        let text = format!("{} {}", error.message, error.help.as_deref().unwrap_or_default());
        assert!(text.contains(part), "{env} {reward}: {text}");
        assert_eq!(error.data, is_data, "{text}");
        assert!(error.help.is_some() || part.contains("gone"), "{text}");
    }
}
