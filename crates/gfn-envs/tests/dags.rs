//! Laws of directed acyclic graphs: what rows derive and masks allow, against graphs from scratch.

use gfn_core::registry::Kind;
use gfn_core::rng::{Purpose, Streams};
use gfn_core::special::ln_gamma;
use gfn_core::{Environment, StateGraph};
use gfn_envs::dag::{Dag, DagSpec};
use rand::RngExt;
use rand::rngs::ChaCha8Rng;

fn dag(spec: &str) -> Dag {
    Dag::new(&toml::from_str(spec).unwrap()).unwrap_or_else(|error| panic!("{spec}: {error}"))
}

/// `matrix[i][j]`: i -> j.
type Matrix = Vec<Vec<bool>>;

fn matrix_of(dag: &Dag, row: &[i32]) -> Matrix {
    let d = dag.n_nodes();
    let mut cells = vec![7; d * d];
    dag.observe(row, &mut cells);
    cells.chunks(d).map(|cells| cells.iter().map(|&cell| cell == 0).collect()).collect()
}

fn masks_of(matrix: &Matrix) -> Vec<u64> {
    let d = matrix.len();
    (0..d).map(|j| (0..d).map(|i| u64::from(matrix[i][j]) << i).sum()).collect()
}

/// Kahn's topological sort.
fn is_acyclic(matrix: &Matrix) -> bool {
    let d = matrix.len();
    let mut n_parents: Vec<usize> =
        (0..d).map(|j| (0..d).filter(|&i| matrix[i][j]).count()).collect();
    let mut roots: Vec<usize> = (0..d).filter(|&j| n_parents[j] == 0).collect();
    let mut n_sorted = 0;
    while let Some(i) = roots.pop() {
        n_sorted += 1;
        for j in (0..d).filter(|&j| matrix[i][j]) {
            n_parents[j] -= 1;
            if n_parents[j] == 0 {
                roots.push(j);
            }
        }
    }
    n_sorted == d
}

/// Warshall's closure, from every node to the set of those that it can be reached from, itself too.
fn ancestors_of(matrix: &Matrix) -> Vec<u64> {
    let mut above = masks_of(matrix);
    above.iter_mut().enumerate().for_each(|(j, above)| *above |= 1 << j);
    for via in 0..above.len() {
        for j in 0..above.len() {
            if above[j] >> via & 1 == 1 {
                above[j] |= above[via];
            }
        }
    }
    above
}

/// What a spec says of edges, read anew.
struct Rules {
    required: Matrix,
    forbidden: Matrix,
    most: usize,
}

impl Rules {
    fn of(spec: &str, dag: &Dag) -> Self {
        let spec: DagSpec = toml::from_str(spec).unwrap();
        let d = dag.n_nodes();
        let node = |name: &str| dag.names().iter().position(|known| known == name).unwrap();
        let listed = |edges: &[String]| {
            let mut matrix = vec![vec![false; d]; d];
            for edge in edges {
                let (from, to) = edge.split_once(" -> ").unwrap();
                matrix[node(from)][node(to)] = true;
            }
            matrix
        };
        let mut forbidden = listed(&spec.forbidden);
        for (early, tier) in spec.tiers.iter().enumerate() {
            for effect in tier {
                for cause in spec.tiers[early + 1..].iter().flatten() {
                    forbidden[node(cause)][node(effect)] = true;
                }
            }
        }
        let most = spec.max_parents.unwrap_or(usize::MAX);
        Self { required: listed(&spec.required), forbidden, most }
    }

    fn allow_one_more(&self, matrix: &Matrix, i: usize, j: usize) -> bool {
        let n_parents = (0..matrix.len()).filter(|&i| matrix[i][j]).count();
        if i == j || matrix[i][j] || self.forbidden[i][j] || n_parents >= self.most {
            return false;
        }
        let mut more = matrix.clone();
        more[i][j] = true;
        is_acyclic(&more)
    }

    fn allow(&self, matrix: &Matrix) -> bool {
        let d = matrix.len();
        let pair = |i: usize, j: usize| match matrix[i][j] {
            true => !self.forbidden[i][j] && i != j,
            false => !self.required[i][j],
        };
        let in_degree = |j: usize| (0..d).filter(|&i| matrix[i][j]).count();
        (0..d).all(|i| (0..d).all(|j| pair(i, j)))
            && (0..d).all(|j| in_degree(j) <= self.most)
            && is_acyclic(matrix)
    }
}

const SPECS: &[&str] = &[
    "",
    "nodes = 5\nmax_parents = 2\nrequired = ['B -> A', 'D -> A']\nforbidden = ['C -> E']",
    "nodes = 20",
    "nodes = 20\nmax_parents = 2\ntiers = [['D', 'A', 'T'], ['F'], ['B', 'C']]\n\
     required = ['T -> A', 'A -> B']\nforbidden = ['A -> C', 'Q -> R']",
    "nodes = 31\nmax_parents = 4",
    "nodes = 32",
    "nodes = 64",
    "nodes = 64\nmax_parents = 3\nrequired = ['X64 -> X1', 'X1 -> X33', 'X33 -> X32']",
];

/// One of the legal actions; none if there are none.
fn draw(mask: &[bool], rng: &mut ChaCha8Rng) -> Option<usize> {
    let legal: Vec<usize> = (0..mask.len()).filter(|&action| mask[action]).collect();
    (!legal.is_empty()).then(|| legal[rng.random_range(0..legal.len())])
}

#[test]
fn walks_keep_closures_and_masks_right() {
    for spec in SPECS {
        let dag = dag(spec);
        let (d, rules) = (dag.n_nodes(), Rules::of(spec, &dag));
        let mut rng = Streams::new(4).get(Purpose::Test, d as u64);
        let mut row = vec![0; dag.space().width];
        let mut mask = vec![true; d * d + 1];
        dag.reset(&mut row);
        assert_eq!(matrix_of(&dag, &row), rules.required, "s0 has the required edges");
        // Back and forth between few edges and many.
        let phase = 2 * dag.space().max_len;
        let mut most_seen = 0;
        for step in 0..100_000 {
            let forward = rng.random_bool(if (step / phase).is_multiple_of(2) { 0.9 } else { 0.1 });
            dag.legal_in(direction(forward), &row, &mut mask);
            let Some(action) = draw(&mask, &mut rng) else { continue };
            let before = row.clone();
            if forward {
                assert_eq!(dag.step(&mut row, action), action);
            } else {
                assert_eq!(dag.unstep(&mut row, action), action);
            }
            let matrix = matrix_of(&dag, &row);
            let above: Vec<u64> = (0..d).map(|node| dag.ancestors(&row, node)).collect();
            assert_eq!(above, ancestors_of(&matrix), "{spec}: after action {action}");
            let parents: Vec<u64> = dag.parents_of(&row).collect();
            assert_eq!(parents, masks_of(&matrix), "{spec}");
            most_seen = most_seen.max(dag.n_edges(&row));

            let stopped = dag.is_stopped(&row);
            assert_eq!(stopped, dag.is_stopped(&before) ^ (action == d * d));
            dag.legal(&row, &mut mask);
            let mut pairs: Vec<usize> = (0..4).map(|_| rng.random_range(0..d * d)).collect();
            if d <= 5 || step % 5000 == 0 {
                pairs = (0..d * d).collect();
            }
            for pair in pairs {
                let expected = !stopped && rules.allow_one_more(&matrix, pair / d, pair % d);
                assert_eq!(mask[pair], expected, "{spec}: {pair} at {}", dag.render(&row));
            }
            assert_eq!(mask[d * d], !stopped);
            dag.legal_back(&row, &mut mask);
            for (pair, &legal) in mask[..d * d].iter().enumerate() {
                let (i, j) = (pair / d, pair % d);
                let removable = matrix[i][j] && !rules.required[i][j];
                assert_eq!(legal, removable && !stopped);
            }
            assert_eq!(mask[d * d], stopped);
        }
        assert!(10 * most_seen > 7 * dag.space().max_len, "{spec}: dense graphs: {most_seen}");
    }
}

fn direction(forward: bool) -> gfn_core::Direction {
    if forward { gfn_core::Direction::Forward } else { gfn_core::Direction::Backward }
}

/// All digraphs of up to 5 nodes: rows exist for the acyclic ones that obey the rules, and all of them
/// are reached, in E! ways.
#[test]
fn every_graph_is_reached_and_no_other() {
    for (spec, n_objects) in [
        ("nodes = 2", Some(3)),
        ("nodes = 3", Some(25)),
        ("nodes = 4", Some(543)),
        ("nodes = 5", Some(29_281)),
        ("nodes = 4\nmax_parents = 1", None),
        ("nodes = 4\nmax_parents = 2\nrequired = ['D -> A']\nforbidden = ['B -> C']", None),
        ("nodes = 5\ntiers = [['E'], ['A', 'B'], ['D']]\nrequired = ['E -> D']", None),
    ] {
        let dag = dag(spec);
        let (d, rules) = (dag.n_nodes(), Rules::of(spec, &dag));
        let graph = StateGraph::explore(&dag, 100_000).unwrap();
        let log_paths = graph.log_paths();
        let pairs: Vec<(usize, usize)> =
            (0..d * d).map(|pair| (pair / d, pair % d)).filter(|(i, j)| i != j).collect();
        let n_required = rules.required.iter().flatten().filter(|&&edge| edge).count();
        let mut found = 0;
        for bits in 0..1u32 << pairs.len() {
            let mut matrix = vec![vec![false; d]; d];
            for (k, &(i, j)) in pairs.iter().enumerate() {
                matrix[i][j] = bits >> k & 1 == 1;
            }
            let row = dag.row_of(&masks_of(&matrix), true);
            assert_eq!(row.is_some(), rules.allow(&matrix), "{spec}: {matrix:?}");
            let Some(row) = row else { continue };
            found += 1;
            let object = graph.find_object(&row).expect("reached");
            let n_added = bits.count_ones() as usize - n_required;
            let state = graph.terminals()[object] as usize;
            assert!((log_paths[state] - ln_gamma(n_added as f64 + 1.0)).abs() < 1e-9);
            assert!((dag.log_paths(&row).unwrap() - log_paths[state]).abs() < 1e-9);
            assert_eq!(dag.parse(&dag.render(&row)).as_deref(), Some(&row[..]));
        }
        assert_eq!(found, graph.terminals().len(), "{spec}");
        assert_eq!(graph.states().len(), 2 * found, "{spec}: every graph, stopped and not");
        assert_eq!(dag.n_objects(), n_objects, "{spec}");
        assert!(n_objects.is_none_or(|n| n == found as u64));
    }
}

#[test]
fn constraints_leave_as_many_edges_as_max_len_says() {
    for (spec, max_len) in [
        ("nodes = 5", 11),
        ("nodes = 5\nmax_parents = 2", 8),
        ("nodes = 5\nmax_parents = 9\nrequired = ['A -> B']", 10),
        ("nodes = 2\nforbidden = ['A -> B', 'B -> A']", 1),
    ] {
        assert_eq!(dag(spec).space().max_len, max_len, "{spec}");
    }
    assert_eq!(dag("nodes = 31").space().width, 63);
    assert_eq!(dag("nodes = 32").space().width, 129);
}

#[test]
fn graphs_are_text() {
    let dag =
        dag("names = ['raf', 'mek', 'P38', '-']\nmax_parents = 2\nrequired = ['raf -> mek']\n\
                   forbidden = ['P38 -> raf']");
    let row = dag.parse("P38->mek raf->mek --> P38->-");
    assert_eq!(row, None, "`-->` has no end");
    let row = dag.parse(" P38->mek raf->mek  -->raf").unwrap();
    assert_eq!(dag.render(&row), "raf->mek P38->mek -->raf");
    assert_eq!(dag.parents_of(&row).collect::<Vec<_>>(), [8, 5, 0, 0]);
    assert!(dag.is_stopped(&row));
    for text in [
        "",
        "-",
        "raf->mek mek->raf",
        "raf->mek P38->raf",
        "P38->mek",
        "raf->mek raf->mek",
        "raf->mek raf->erk",
        "raf->mek raf->raf",
        "raf->mek P38->mek -->mek",
        "raf -> mek",
        "raf mek",
    ] {
        assert_eq!(dag.parse(text), None, "{text}");
    }
    let free = self::dag("nodes = 2");
    assert_eq!(free.render(&free.row_of(&[0, 0], true).unwrap()), "-");
    assert_eq!(free.parse("-"), free.row_of(&[0, 0], true));
    assert_eq!(free.row_of(&[0], true), None);
    assert_eq!(free.row_of(&[4, 0], true), None);
}

/// Edges are counted, not what rows derive from them.
#[test]
fn graphs_differ_by_edges() {
    let dag = dag("nodes = 4");
    let graph = StateGraph::explore(&dag, 10_000).unwrap();
    let objects: Vec<Vec<i32>> = graph.objects().rows().step_by(37).map(<[i32]>::to_vec).collect();
    for (a, b) in objects.iter().flat_map(|a| objects.iter().map(move |b| (a, b))) {
        let (of_a, of_b) = (matrix_of(&dag, a).concat(), matrix_of(&dag, b).concat());
        let differ = of_a.iter().zip(&of_b).filter(|(a, b)| a != b).count();
        assert_eq!(dag.distance(a, b), differ as f64);
    }
}

#[test]
fn names_have_defaults() {
    assert_eq!(dag("").names(), ["A", "B", "C", "D", "E"]);
    assert_eq!(dag("nodes = 26").names()[25], "Z");
    let names = dag("nodes = 27").names().to_vec();
    assert_eq!((names[0].as_str(), names[26].as_str()), ("X1", "X27"));
    let resolved = DagSpec::default().resolve();
    assert_eq!(resolved["nodes"].as_integer(), Some(5));
    assert_eq!(resolved["names"].as_array().unwrap().len(), 5);
    assert_eq!(Dag::new(&resolved.try_into().unwrap()).unwrap().n_nodes(), 5);
}

#[test]
fn bad_specs_are_told_why() {
    for (spec, key, message) in [
        ("nodes = 1", "nodes", "a graph has from 2 to 64 nodes, not 1"),
        ("nodes = 65", "nodes", "a graph has from 2 to 64 nodes, not 65"),
        ("names = ['a']", "names", "a graph has from 2 to 64 nodes, not 1"),
        ("names = ['a', 'b']\nnodes = 3", "nodes", "there are 2 names for 3 nodes"),
        ("names = ['a', 'b', 'a']", "names", "the name `a` occurs twice"),
        (
            "names = ['a', '']",
            "names",
            "name 2, ``, is empty, or contains white space, a comma or `->`",
        ),
        (
            "names = ['a', 'b c']",
            "names",
            "name 2, `b c`, is empty, or contains white space, a comma or `->`",
        ),
        (
            "names = ['a,b', 'c']",
            "names",
            "name 1, `a,b`, is empty, or contains white space, a comma or `->`",
        ),
        (
            "names = ['a->b', 'c']",
            "names",
            "name 1, `a->b`, is empty, or contains white space, a comma or `->`",
        ),
        ("max_parents = 0", "max_parents", "must be at least 1, not 0"),
        ("required = ['A > B']", "required", "`A > B` is no edge"),
        ("required = ['A -> Q']", "required", "no node is called `Q`"),
        ("forbidden = ['Q -> A']", "forbidden", "no node is called `Q`"),
        ("forbidden = ['A -> A']", "forbidden", "`A -> A` is a loop, which no graph has"),
        ("required = ['A->A']", "required", "`A->A` is a loop, which no graph has"),
        ("tiers = [['A'], ['Q']]", "tiers", "no node is called `Q`"),
        ("tiers = [['A', 'B'], ['A']]", "tiers", "`A` is listed twice"),
        (
            "required = ['A -> B']\nforbidden = ['A -> B']",
            "required",
            "the edge `A -> B` is required, but it is forbidden as well",
        ),
        (
            "required = ['A -> B']\ntiers = [['B'], ['A']]",
            "required",
            "the edge `A -> B` is required, but `A` stands in a later tier than `B`",
        ),
        (
            "required = ['E -> A', 'A -> B', 'B -> C', 'C -> A', 'C -> D']",
            "required",
            "required edges form a cycle: A -> B -> C -> A",
        ),
        (
            "required = ['A -> B', 'C -> B']\nmax_parents = 1",
            "max_parents",
            "`B` has 2 required parents, more than 1",
        ),
    ] {
        let spec: DagSpec = toml::from_str(spec).unwrap();
        let Err(error) = Dag::new(&spec) else { panic!("{spec:?} is accepted") };
        assert_eq!((error.key.as_deref(), error.message.as_str()), (Some(key), message));
        assert!(error.help.is_some(), "{message}");
    }
}
