//! One more of everything from outside: an objective, a backward strategy and a metric, each a struct
//! and a line in the registry, used by a spec.

use gfn_cli::spec::Spec;
use gfn_cli::{Experiment, Registry};
use gfn_core::backward::{BackwardAxis, BackwardContext, BackwardStrategy};
use gfn_core::learn::expr::Var;
use gfn_core::learn::head::Head;
use gfn_core::learn::update::Update;
use gfn_core::learn::view::{BatchView, Loss, PbSource};
use gfn_core::metric::{
    Better, Column, EvalContext, Metric, MetricContext, MetricEntry, MetricError, MetricKind,
};
use gfn_core::objective::{LogZ, OBJECTIVE, Objective, ObjectiveAxis};
use gfn_core::registry::{Entry, Kind};
use gfn_core::{Environment, KeyError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Detailed balance whose log F is the sum of two heads.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct TwoFlows {
    power: i32,
}

impl Default for TwoFlows {
    fn default() -> Self {
        Self { power: 2 }
    }
}

/// A head that the model has because the loss below reads it.
const CORRECTION: Head = Head::scalar("correction");

impl Kind<ObjectiveAxis> for TwoFlows {
    const NAME: &'static str = "two_flows";
    const SUMMARY: &'static str = "detailed balance with two heads for flows";

    fn build(&self, (): ()) -> Result<Box<dyn Objective>, KeyError> {
        if self.power % 2 != 0 {
            return Err(KeyError::new("power", "must be even"));
        }
        Ok(Box::new(self.clone()))
    }
}

impl Loss for TwoFlows {
    fn loss<'t>(&self, batch: &BatchView<'_, 't>) -> Var<'t> {
        let from = batch.from(Head::FLOW) + batch.from(CORRECTION);
        let to = batch.to(Head::FLOW) + batch.to(CORRECTION);
        let to = batch.unless_at_end(to, batch.log_reward_at_ends(None));
        let residual = from + batch.log_pf() - to - batch.log_pb();
        let power = self.power;
        residual.map(|x| (x.powi(power), f64::from(power) * x.powi(power - 1))).mean()
    }
}

impl Objective for TwoFlows {
    fn updates(&self) -> Vec<Update> {
        vec![Update::new(OBJECTIVE, self.clone())]
    }

    fn log_z(&self) -> LogZ {
        LogZ::None
    }
}

/// A P_B that prefers the first of the legal actions.
#[derive(Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct FirstMore {}

impl Kind<BackwardAxis> for FirstMore {
    const NAME: &'static str = "first_more";
    const SUMMARY: &'static str = "three to one for the first action";

    fn build(&self, _: BackwardContext) -> Result<Box<dyn BackwardStrategy>, KeyError> {
        Ok(Box::new(self.clone()))
    }
}

impl BackwardStrategy for FirstMore {
    fn source(&self) -> PbSource {
        PbSource::Fixed
    }

    fn fixed_logits(&self, _: &dyn Environment, _: &[i32], legal: &[bool], logits: &mut [f32]) {
        logits.fill(0.0);
        if let Some(first) = legal.iter().position(|&legal| legal) {
            logits[first] = 3f32.ln();
        }
    }
}

/// The probabilities that P_F passes through two cells: (0, 1) and (1, 0) unless told otherwise.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Passes {
    cells: [[i32; 2]; 2],
}

impl Default for Passes {
    fn default() -> Self {
        Self { cells: [[0, 1], [1, 0]] }
    }
}

impl MetricKind for Passes {
    const NAME: &'static str = "passes";
    const SUMMARY: &'static str = "states that are passed through";
    type Settings = Self;

    fn build(_: &MetricContext, settings: Self) -> Result<Self, KeyError> {
        Ok(settings)
    }
}

impl Metric for Passes {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn columns(&self) -> Vec<Column> {
        let column = |name: &str| Column::new(name, "1", Better::Neither, "a probability");
        vec![column("through_0_1"), column("through_1_0")]
    }

    fn evaluate(&mut self, eval: &EvalContext<'_>) -> Result<Vec<Option<f64>>, MetricError> {
        let Some(exact) = &eval.fixed.exact else { return Ok(vec![None; 2]) };
        let visits = exact.graph.visits(eval.log_pf(exact));
        let through = |[x, y]: [i32; 2]| exact.graph.find(&[x, y, 0]).map(|i| visits[i]);
        Ok(self.cells.map(through).to_vec())
    }
}

fn registry() -> Registry {
    let mut registry = Registry::builtin();
    registry.objectives.push(Entry::of::<TwoFlows>());
    registry.backwards.push(Entry::of::<FirstMore>());
    registry.metrics.push(MetricEntry::of::<Passes>());
    registry
}

fn spec(registry: &Registry, power: i32) -> Spec {
    let text = format!(
        "[env]\nkind = 'hypergrid'\ndim = 2\nside = 3\n[model]\nkind = 'mlp'\nhidden = 32\n\
         [objective]\nkind = 'two_flows'\npower = {power}\n[backward]\nkind = 'first_more'\n\
         [train]\ntrajectories = 48000\nlr = 5e-3\nlr_schedule = 'cosine'\nepsilon = 0.2\n\
         [eval]\nmetrics = ['distribution', 'passes']\n"
    );
    Spec::parse(registry, "spec.toml", text, "test", &[]).unwrap()
}

#[test]
fn one_more_of_everything_trains_and_measures() {
    let registry = registry();
    let mut e = Experiment::build(&registry, &spec(&registry, 2)).unwrap();
    assert!(e.trainer.engine().params().iter().any(|info| info.group == CORRECTION.name));
    for _ in 0..e.trainer.n_steps() {
        e.trainer.step().unwrap();
    }
    let row = e.trainer.evaluate().unwrap();
    let value =
        |name: &str| row[e.columns.iter().position(|column| column.name == name).unwrap()].unwrap();
    assert!(value("tv_exact") < 0.02, "{}", value("tv_exact"));
    // Where balance holds, P_F passes through a state as often as P_B does on its way back.
    let exact = e.exact.as_ref().unwrap();
    let mut mass = [[0.0; 3]; 3];
    for (row, prob) in exact.graph.objects().rows().zip(&exact.target.prob) {
        mass[row[0] as usize][row[1] as usize] = *prob;
    }
    for (x, y) in (0..3).flat_map(|x| (0..3).map(move |y| (2 - x, 2 - y))) {
        // The first action back is a step along the first coordinate.
        let along_x = if x == 0 {
            0.0
        } else if y == 0 {
            1.0
        } else {
            0.75
        };
        if x > 0 {
            mass[x - 1][y] += along_x * mass[x][y];
        }
        if y > 0 {
            mass[x][y - 1] += (1.0 - along_x) * mass[x][y];
        }
    }
    assert!((mass[0][0] - 1.0).abs() < 1e-9);
    for (found, expected) in
        [(value("through_0_1"), mass[0][1]), (value("through_1_0"), mass[1][0])]
    {
        assert!((found - expected).abs() < 0.02, "{found} {expected}");
    }
    assert!((mass[0][1] - mass[1][0]).abs() > 0.1, "P_B is not that of a symmetric strategy");
}

/// A metric reads its settings from the spec, and refuses what it does not know.
#[test]
fn metrics_have_settings_of_their_own() {
    let registry = registry();
    let build = |settings: &str| {
        let spec = spec(&registry, 2);
        let mut table = spec.resolved();
        table["eval"].as_table_mut().unwrap().remove("settings");
        let text = toml::to_string(&table).unwrap() + settings;
        let spec = Spec::parse(&registry, "spec.toml", text, "test", &[])?;
        // What is resolved says them, with defaults.
        assert!(spec.resolved()["eval"]["settings"]["passes"].get("cells").is_some());
        Experiment::build(&registry, &spec)
    };
    let column = |settings: &str| {
        let mut experiment = build(settings).unwrap_or_else(|f| panic!("{}", f.render()));
        let at = experiment.columns.iter().position(|c| c.name == "through_0_1").unwrap();
        experiment.trainer.evaluate().unwrap()[at].unwrap()
    };
    // Every trajectory passes through s0.
    assert!((column("[eval.settings.passes]\ncells = [[0, 0], [1, 0]]\n") - 1.0).abs() < 1e-12);
    assert!(column("") < 0.9);
    for (settings, part) in [
        ("[eval.settings.passes]\ncell = 1\n", "no key `cell`"),
        ("[eval.settings.passes]\ncells = 'x'\n", "passes"),
        ("[eval.settings.log_zz]\n", "did you mean `log_z`?"),
        ("[eval.settings.distribution]\nk = 3\n", "has no settings"),
    ] {
        let failure = build(settings).err().expect("refused");
        let text = failure.render();
        assert_eq!(failure.exit_code(), 2);
        assert!(text.contains(part) && text.contains("spec.toml"), "{text}");
    }
}

/// Runs from when all metrics shared these keys have them in their specs, and go on.
#[test]
fn old_keys_of_metrics_are_read() {
    let registry = Registry::builtin();
    let eval = |eval: &str| {
        let text = format!("[env]\nkind = 'hypergrid'\n[eval]\n{eval}");
        Spec::parse(&registry, "spec.toml", text, "test", &[])
    };
    let Ok(old) = eval("window = 7\ntop_k = 3\n") else { panic!("refused") };
    let Ok(new) = eval("settings = { empirical.window = 7, samples.top_k = 3 }\n") else {
        panic!("refused")
    };
    assert_eq!(old.resolved(), new.resolved());
    assert_eq!(old.resolved()["eval"]["settings"]["empirical"]["window"].as_integer(), Some(7));
    let both = eval("window = 7\nsettings.empirical.window = 7\n").err().expect("refused").render();
    assert!(both.contains("old name") && both.contains("spec.toml:4"), "{both}");
    let odd = eval("window = 7\nsettings = 1\n").err().expect("refused").render();
    assert!(odd.contains("must be tables"), "{odd}");
    let Ok(none) = eval("settings.samples.top_k = 0\n") else { panic!("parses") };
    let none = Experiment::build(&registry, &none).err().expect("refused").render();
    assert!(none.contains("`samples`") && none.contains("at least 1"), "{none}");
}

/// Errors of parts from outside name the key, as those of shipped parts do.
#[test]
fn parts_from_outside_refuse_values_like_shipped_ones() {
    let registry = registry();
    let failure = Experiment::build(&registry, &spec(&registry, 3)).err().expect("refused");
    let text = failure.render();
    assert!(text.contains("must be even") && text.contains("power"), "{text}");
}
