//! A walk through every environment, written down: what a change to states, observations or the
//! numbering of actions does shows as a difference of text.

use std::fmt::{self, Display, Write};
use std::path::{Path, PathBuf};

use gfn_core::policy::UniformPolicy;
use gfn_core::registry::EnvContext;
use gfn_core::rng::{Purpose, Streams};
use gfn_core::sampler::{Draw, Exploration, Sampler};
use gfn_core::space::{Block, Scope};
use gfn_core::{Direction, Environment, NO_TOKEN, Space};
use gfn_envs::ENVIRONMENTS;
use toml::Spanned;
use toml::de::DeTable;

/// File, kind, settings: one for every kind and way to build.
const WALKS: &[(&str, &str, &str)] = &[
    ("hypergrid", "hypergrid", "dim = 3\nside = 4"),
    ("sequence_prepend_append", "sequence", "length = 4\nsymbols = ['A', 'B', 'C']"),
    ("sequence_append", "sequence", "length = 4\nsymbols = ['0', '1', '10']\nbuild = 'append'"),
    ("sequence_fill", "sequence", "length = 4\nsymbols = ['A', 'B', 'C']\nbuild = 'fill'"),
    ("sequence_variable", "sequence", "length = 6\nmin_length = 2\nsymbols = ['A', 'B']"),
    ("bit_sequence_fill", "bit_sequence", "bits = 8\nword_bits = 2"),
    ("bit_sequence_append", "bit_sequence", "bits = 8\nword_bits = 2\nbuild = 'append'"),
    (
        "bit_sequence_prepend_append",
        "bit_sequence",
        "bits = 9\nword_bits = 3\nbuild = 'prepend_append'",
    ),
    ("dag", "dag", "nodes = 4"),
    (
        "dag_with_constraints",
        "dag",
        "names = ['raf', 'mek', 'erk', 'akt']\nmax_parents = 2\nrequired = ['raf -> mek']\n\
         forbidden = ['erk -> akt']\ntiers = [['raf', 'mek'], ['erk']]",
    ),
    ("molecule", "molecule", "max_atoms = 5"),
    ("molecule_full", "molecule", "max_atoms = 5\nactions = 'full'"),
    (
        "fragments_stems",
        "fragments",
        "max_fragments = 3\nfragments = [{ smiles = 'O', attach = [0] }, \
         { smiles = 'C', attach = [0, 0, 0] }, { smiles = 'c1cc[nH]c1', attach = [0, 1, 2] }]",
    ),
    (
        "fragments_blocks",
        "fragments",
        "version = 'blocks'\nmax_fragments = 3\nfragments = [{ smiles = 'O', attach = [0] }, \
         { smiles = 'C', attach = [0, 0, 0] }, { smiles = 'c1cc[nH]c1', attach = [0, 1, 2] }]",
    ),
];

/// The variable that has the files written instead of compared.
const BLESS: &str = "BLESS";

/// A block of actions, and the number of its first one.
fn blocks(space: &Space, direction: Direction) -> impl Iterator<Item = (usize, &Block)> {
    space.blocks(direction).iter().scan(0, |next, block| {
        let first = *next;
        *next += space.places(block.scope) * block.size;
        Some((first, block))
    })
}

/// A place of a scope: nothing for the whole, a slot, a pair.
fn place(space: &Space, scope: Scope, place: usize) -> String {
    match scope {
        Scope::Whole => String::new(),
        Scope::Slot(_) => format!("({place})"),
        Scope::Ordered => format!("({}, {})", place / space.slots, place % space.slots),
        Scope::Unordered => {
            let mut pairs =
                (0..space.slots).flat_map(|i| (i + 1..space.slots).map(move |j| (i, j)));
            format!("{:?}", pairs.nth(place).expect("a place"))
        }
    }
}

/// An action by its block, place and number in its block.
fn action(space: &Space, direction: Direction, action: usize) -> String {
    let starts_before = |(first, _): &(usize, &Block)| *first <= action;
    let (first, block) =
        blocks(space, direction).take_while(starts_before).last().expect("a block");
    let (at, value) = ((action - first) / block.size, (action - first) % block.size);
    let at = place(space, block.scope, at);
    if block.size == 1 {
        format!("{}{at}", block.name)
    } else {
        format!("{}{at}={value}", block.name)
    }
}

/// Numbers beside each other, `.` for what is not there.
fn cells(values: &[i32], none: Option<i32>) -> String {
    let text = |&value: &i32| if Some(value) == none { ".".to_owned() } else { value.to_string() };
    values.iter().map(text).collect::<Vec<_>>().join(" ")
}

fn summary(space: &Space, out: &mut String) -> fmt::Result {
    writeln!(out, "cells {}, at most {} actions", space.width, space.max_len)?;
    let kind = if space.named { "named" } else { "alike" };
    writeln!(out, "slots {} ({kind}), features {:?}", space.slots, space.features)?;
    match space.relation {
        None => writeln!(out, "no relation")?,
        Some(relation) => {
            let kind = if relation.ordered { "ordered" } else { "unordered" };
            let distances = relation.values - relation.edges;
            writeln!(
                out,
                "relation of {kind} pairs, {} edges, {distances} distances",
                relation.edges
            )?;
        }
    }
    for direction in [Direction::Forward, Direction::Backward] {
        for (first, block) in blocks(space, direction) {
            let Block { name, scope, size } = block;
            let places = space.places(*scope);
            writeln!(out, "{direction:?} {first}: {name}, {scope:?}, {places} x {size}")?;
        }
    }
    Ok(())
}

fn legal(env: &dyn Environment, direction: Direction, row: &[i32]) -> String {
    let space = env.space();
    let mut mask = vec![false; space.n_actions_in(direction)];
    env.legal_in(direction, row, &mut mask);
    let legal = (0..mask.len()).filter(|&action| mask[action]);
    let names: Vec<String> = legal.map(|number| action(space, direction, number)).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(" ") }
}

fn state(env: &dyn Environment, row: &[i32], out: &mut String) -> fmt::Result {
    let space = env.space();
    let mut observed = vec![0; space.n_cells()];
    env.observe(row, &mut observed);
    writeln!(out, "  cells     {}", cells(row, None))?;
    let (of_slots, of_pairs) = observed.split_at(space.n_slot_cells());
    if !of_slots.is_empty() {
        writeln!(out, "  slots     {}", cells(of_slots, Some(NO_TOKEN)))?;
    }
    if !of_pairs.is_empty() {
        // A pair that comes first or second is a matrix.
        let width =
            if space.relation.is_some_and(|r| r.ordered) { space.slots } else { of_pairs.len() };
        let lines = of_pairs.chunks(width).map(|line| cells(line, Some(NO_TOKEN)));
        writeln!(out, "  pairs     {}", lines.collect::<Vec<_>>().join("\n            "))?;
    }
    writeln!(out, "  forward   {}", legal(env, Direction::Forward, row))?;
    writeln!(out, "  backward  {}", legal(env, Direction::Backward, row))
}

/// The walk of a fixed seed under the uniform policy.
fn playthrough(title: &dyn Display, env: &dyn Environment) -> Result<String, fmt::Error> {
    let (space, mut text) = (env.space(), format!("{title}\n\n"));
    let out = &mut text;
    summary(space, out)?;
    let draw = Draw { streams: Streams::new(11), purpose: Purpose::Test, step: 0 };
    let walk = Sampler::default().forward(env, &UniformPolicy, Exploration::NONE, draw, 1);
    let mut row = vec![0; space.width];
    env.reset(&mut row);
    for (step, transition) in walk.transitions(0).enumerate() {
        writeln!(out, "\nstate {step}")?;
        state(env, &row, out)?;
        let number = walk.actions[transition] as usize;
        let back = env.step(&mut row, number);
        let names =
            (action(space, Direction::Forward, number), action(space, Direction::Backward, back));
        writeln!(out, "action {number}: {}, undone by {back}: {}", names.0, names.1)?;
    }
    writeln!(out, "\nobject `{}`", env.render(&row))?;
    state(env, &row, out)?;
    if let Some(log_paths) = env.log_paths(&row) {
        writeln!(out, "paths {:.0}", log_paths.exp())?;
    }
    if let Some(n_objects) = env.n_objects() {
        writeln!(out, "objects {n_objects}")?;
    }
    Ok(text)
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/playthroughs")
}

#[test]
fn walks_are_as_written() {
    for (file, kind, spec) in WALKS {
        let entry = ENVIRONMENTS.iter().find(|entry| entry.name == *kind).expect("a kind");
        let table = DeTable::parse(spec).expect("TOML");
        let settings = (entry.parse)(Spanned::new(0..0, table.into_inner())).expect("settings");
        let env = settings.build(EnvContext::NO_FILES).expect("an environment");
        let title = format!("kind = '{kind}'\n{spec}");
        let text = playthrough(&title, &*env).unwrap();
        let path = folder().join(file).with_extension("txt");
        if std::env::var_os(BLESS).is_some() {
            std::fs::write(&path, text).unwrap();
            continue;
        }
        let written = std::fs::read_to_string(&path).unwrap_or_default();
        let differs = written.lines().zip(text.lines()).position(|(a, b)| a != b);
        let line = 1 + differs.unwrap_or(written.lines().count().min(text.lines().count()));
        assert!(
            written == text,
            "{}: the walk differs from line {line} on; it now is\n\n{text}\n\nIf it should be, \
             {BLESS}=1 cargo test --release -p gfn-envs --test playthroughs writes it; read the \
             difference.",
            path.display()
        );
    }
}

#[test]
fn every_kind_is_walked_and_every_file_belongs_to_a_walk() {
    for entry in ENVIRONMENTS {
        let walked = WALKS.iter().any(|walk| walk.1 == entry.name);
        assert!(walked, "{}: add a line to WALKS", entry.name);
    }
    for file in std::fs::read_dir(folder()).unwrap() {
        let path = file.unwrap().path();
        let belongs = WALKS.iter().any(|walk| folder().join(walk.0).with_extension("txt") == path);
        assert!(belongs, "{}: no walk writes it", path.display());
    }
}
