//! The `[sweep]` table of a spec: its axes, how they are combined, successive halving.

use std::ops::Range;

use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::axis::{Axis, Point, Values, as_seed, take_axes, take_point};
use super::trial::Overrides;
use crate::error::Failure;
use crate::spec::{Source, take};

/// How axes become trials.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// Every combination of the values of all axes.
    Grid,
    /// The tables `[[sweep.trial]]`.
    List,
    /// Independent draws from every axis.
    Random,
}

/// The `[sweep.halving]` table: successive halving (Jamieson & Talwalkar 2016, arXiv:1502.07943).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HalvingSettings {
    /// The best 1/eta of the configurations of a rung are trained on, eta times as long in all.
    #[schemars(range(min = 2))]
    pub eta: u64,
    /// Training trajectories of every trial on the first rung.
    #[schemars(range(min = 1))]
    pub first_trajectories: u64,
    /// The column of metrics.csv that ranks configurations, by its mean over their seeds;
    /// metrics.schema.json says which way it improves.
    pub metric: String,
}

/// What a trial sets, and where each part of it stands in the spec.
#[derive(Clone, Debug)]
pub struct Configuration {
    /// Keys and values.
    pub overrides: Overrides,
    /// What names its folder: the same, with labels in place of the keys of points that have one.
    pub named: Overrides,
    /// The axes that set them: their names, their keys, the places of their values.
    pub origins: Vec<Origin>,
    /// The seed, where the entry of a list has its own.
    pub seed: Option<u64>,
}

/// Where a part of a configuration comes from.
#[derive(Clone, Debug)]
pub struct Origin {
    /// Name of the axis.
    pub axis: String,
    /// The keys that it sets.
    pub keys: Vec<String>,
    /// Its value in the spec.
    pub span: Range<usize>,
}

/// The whole table.
#[derive(Debug)]
pub struct SweepSettings {
    /// How axes are combined.
    pub method: Method,
    /// Training seeds; every configuration is run with each. `None`: the spec's own.
    pub seeds: Option<Vec<u64>>,
    /// Successive halving, if asked for.
    pub halving: Option<HalvingSettings>,
    axes: Vec<Axis>,
    list: Vec<Point>,
    samples: usize,
    sweep_seed: u64,
}

/// More trials than this are a mistake.
const MAX_TRIALS: usize = 1_000_000;

impl SweepSettings {
    /// Takes the table out of a spec.
    ///
    /// # Errors
    /// When there is none, or with the place and the remedy.
    pub fn take(source: &Source, spec: &mut DeTable<'_>) -> Result<Self, Failure> {
        let Some(sweep) = spec.remove("sweep") else {
            return Err(Failure::usage(format!(
                "the spec `{}` has no table [sweep]",
                source.origin()
            ))
            .help("for example: [sweep] with \"train.lr\" = [1e-3, 3e-4] and seed = { range = [1, 5] }"));
        };
        let span = sweep.span();
        let DeValue::Table(mut table) = sweep.into_inner() else {
            return Err(Failure::usage("`sweep` must be a table").at(source.place(span)));
        };
        if let Some(value) = table.get("method")
            && !value.get_ref().is_str()
        {
            return Err(Failure::usage("sweep.method is \"grid\", \"list\" or \"random\"")
                .at(source.place(value.span()))
                .help("an axis needs another name"));
        }
        let method: Option<Method> = take(source, &mut table, "method", "sweep.method")?;
        let samples = table.get("samples").map(Spanned::span);
        let n_samples: Option<usize> = take(source, &mut table, "samples", "sweep.samples")?;
        let sweep_seed: Option<u64> = take(source, &mut table, "sweep_seed", "sweep.sweep_seed")?;
        let halving_span = table.get("halving").map(Spanned::span);
        let halving: Option<HalvingSettings> =
            take(source, &mut table, "halving", "sweep.halving")?;
        if let (Some(halving), Some(span)) = (&halving, halving_span) {
            for (key, value, least) in
                [("eta", halving.eta, 2), ("first_trajectories", halving.first_trajectories, 1)]
            {
                if value < least {
                    let message = format!("sweep.halving.{key} must be at least {least}");
                    return Err(Failure::usage(message).at(source.place(span)));
                }
            }
        }
        let trial_span = table.get("trial").map(Spanned::span);
        let list = match table.remove("trial") {
            Some(list) => take_list(source, list)?,
            None => Vec::new(),
        };
        let mut axes = Vec::new();
        take_axes(source, table, "", &mut axes)?;
        let seeds = match axes.iter().position(|axis| axis.name == "seed") {
            Some(i) => Some(seeds(source, &axes.remove(i))?),
            None => None,
        };
        let default = if list.is_empty() { Method::Grid } else { Method::List };
        let settings = Self {
            method: method.unwrap_or(default),
            seeds,
            halving,
            axes,
            list,
            samples: n_samples.unwrap_or(0),
            sweep_seed: sweep_seed.unwrap_or(0),
        };
        settings.check(source, &span, samples, trial_span)?;
        Ok(settings)
    }

    /// Whether the parts fit the method.
    fn check(
        &self,
        source: &Source,
        whole: &Range<usize>,
        samples: Option<Range<usize>>,
        list: Option<Range<usize>>,
    ) -> Result<(), Failure> {
        let fail = |message: String, span: &Range<usize>, help: &str| {
            Err(Failure::usage(message).at(source.place(span.clone())).help(help))
        };
        match self.method {
            Method::List => {
                if self.list.is_empty() {
                    let help = "write one table [[sweep.trial]] per trial";
                    return fail("a list without trials".to_owned(), whole, help);
                }
                if let Some(axis) = self.axes.first() {
                    let message = format!("the axis `{}` beside a list of trials", axis.name);
                    let help = "a list takes no axis but seed; method = \"grid\" combines axes";
                    return fail(message, &axis.span, help);
                }
            }
            Method::Grid | Method::Random => {
                if let Some(span) = list {
                    let help = "remove [[sweep.trial]], or set method = \"list\"";
                    return fail("trials that the method does not read".to_owned(), &span, help);
                }
                if self.axes.is_empty() && self.seeds.is_none() {
                    let help = "for example: \"train.lr\" = [1e-3, 3e-4]";
                    return fail("[sweep] has no axis".to_owned(), whole, help);
                }
            }
        }
        if self.method == Method::Random {
            if self.samples == 0 {
                let help = "set sweep.samples to the number of configurations to draw";
                return fail("random search without samples".to_owned(), whole, help);
            }
        } else {
            if let Some(span) = samples {
                let help = "samples belongs to method = \"random\"";
                return fail("samples of a sweep that draws none".to_owned(), &span, help);
            }
            let drawn =
                |axis: &&Axis| matches!(axis.values, Values::Uniform(..) | Values::LogUniform(..));
            if let Some(axis) = self.axes.iter().find(drawn) {
                let message = format!("the axis `{}` has no end of values", axis.name);
                let help = "list the values, or set method = \"random\"";
                return fail(message, &axis.span, help);
            }
        }
        let n = match self.method {
            Method::Grid => self.axes.iter().map(Axis::len).fold(1, usize::saturating_mul),
            Method::List => self.list.len(),
            Method::Random => self.samples,
        };
        let n = n.saturating_mul(self.seeds.as_ref().map_or(1, Vec::len));
        if n > MAX_TRIALS {
            let help = format!("at most {MAX_TRIALS} are planned at once");
            return fail(format!("a sweep of {n} trials"), whole, &help);
        }
        Ok(())
    }

    /// Every configuration, in a stable order; seeds are not part of it.
    ///
    /// # Errors
    /// When two axes set the same key.
    pub fn configurations(&self, source: &Source) -> Result<Vec<Configuration>, Failure> {
        match self.method {
            Method::List => self
                .list
                .iter()
                .enumerate()
                .map(|(i, Point { sets, label, span })| {
                    let mut overrides = sets.clone();
                    let seed = overrides.take("seed");
                    let seed = seed.map(|value| as_seed(source, &value, span)).transpose()?;
                    let named = match label {
                        Some(label) => Overrides::single("", label.clone().into()),
                        None => overrides.clone(),
                    };
                    let keys = overrides.keys().map(str::to_owned).collect();
                    let axis = format!("trial {}", i + 1);
                    let origins = vec![Origin { axis, keys, span: span.clone() }];
                    Ok(Configuration { overrides, named, origins, seed })
                })
                .collect(),
            Method::Grid => {
                let n = self.axes.iter().map(Axis::len).product();
                (0..n)
                    .map(|mut i| {
                        // The last axis varies fastest.
                        let mut digits = vec![0; self.axes.len()];
                        for (digit, axis) in digits.iter_mut().zip(&self.axes).rev() {
                            *digit = i % axis.len();
                            i /= axis.len();
                        }
                        let parts = self.axes.iter().zip(digits);
                        combine(source, parts.map(|(axis, i)| (axis, axis.value(i))))
                    })
                    .collect()
            }
            Method::Random => (0..self.samples as u64)
                .map(|i| {
                    // A stream per sample: more samples do not change the first ones.
                    let mut rng = ChaCha8Rng::seed_from_u64(self.sweep_seed);
                    rng.set_stream(i);
                    let axes = self.axes.iter();
                    combine(source, axes.map(|axis| (axis, axis.draw(&mut rng))))
                })
                .collect(),
        }
    }
}

fn combine<'a>(
    source: &Source,
    parts: impl Iterator<Item = (&'a Axis, Point)>,
) -> Result<Configuration, Failure> {
    let mut all = Configuration {
        overrides: Overrides::default(),
        named: Overrides::default(),
        origins: vec![],
        seed: None,
    };
    for (axis, Point { sets, label, span }) in parts {
        let keys: Vec<String> = sets.keys().map(str::to_owned).collect();
        if let Some(label) = &label {
            all.named.insert(&axis.name, label.clone().into());
        }
        for (key, value) in sets {
            if label.is_none() {
                all.named.insert(&key, value.clone());
            }
            if all.overrides.insert(&key, value).is_some() {
                let other = all.origins.iter().find(|origin| origin.keys.contains(&key));
                let other = other.map(|origin| origin.axis.as_str()).unwrap_or_default();
                return Err(Failure::usage(format!(
                    "the axes `{other}` and `{}` both set `{key}`",
                    axis.name
                ))
                .at(source.place(span)));
            }
        }
        all.origins.push(Origin { axis: axis.name.clone(), keys, span });
    }
    Ok(all)
}

fn take_list(source: &Source, list: Spanned<DeValue<'_>>) -> Result<Vec<Point>, Failure> {
    let span = list.span();
    let DeValue::Array(entries) = list.into_inner() else {
        return Err(Failure::usage("`sweep.trial` must be a list of tables")
            .at(source.place(span))
            .help("write one table [[sweep.trial]] per trial"));
    };
    entries.into_iter().map(|entry| take_point(source, entry, "sweep.trial")).collect()
}

fn seeds(source: &Source, axis: &Axis) -> Result<Vec<u64>, Failure> {
    if !matches!(axis.values, Values::Listed(_) | Values::Range(..)) {
        return Err(Failure::usage("seeds are listed, or a range")
            .at(source.place(axis.span.clone()))
            .help("for example: seed = { range = [1, 5] }"));
    }
    if axis.len() > MAX_TRIALS {
        return Err(
            Failure::usage(format!("{} seeds", axis.len())).at(source.place(axis.span.clone()))
        );
    }
    let mut all = Vec::with_capacity(axis.len());
    for i in 0..axis.len() {
        let Point { mut sets, span, .. } = axis.value(i);
        let value = sets.take("seed").unwrap_or(toml::Value::Boolean(false));
        let seed = as_seed(source, &value, &span)?;
        if all.contains(&seed) {
            return Err(
                Failure::usage(format!("the seed {seed} is listed twice")).at(source.place(span))
            );
        }
        all.push(seed);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> Result<(Source, SweepSettings), Failure> {
        let source = Source::new("sweep.toml", text.to_owned(), &[])?;
        let mut table = source.table()?;
        let settings = SweepSettings::take(&source, &mut table)?;
        drop(table);
        Ok((source, settings))
    }

    fn all(text: &str) -> Vec<String> {
        let (source, settings) = settings(text).unwrap();
        let all = settings.configurations(&source).unwrap();
        all.iter().map(|configuration| configuration.overrides.to_string()).collect()
    }

    #[test]
    fn labels_name_folders() {
        let folders = |text: &str| -> Vec<String> {
            let (source, settings) = settings(text).unwrap();
            let all = settings.configurations(&source).unwrap();
            all.iter().map(|configuration| configuration.named.folder("base")).collect()
        };
        let grid = "[sweep]\ntrain.lr = [1e-3]\nway = [{ label = 'tlm', backward.kind = 'tlm', \
                    backward.lr = 1e-4 }, { backward.kind = 'naive' }]\n";
        assert_eq!(folders(grid), ["train.lr=0.001,way=tlm", "backward.kind=naive,train.lr=0.001"]);
        assert_eq!(
            all(grid)[0],
            "{ backward.kind = \"tlm\", backward.lr = 0.0001, train.lr = 0.001 }"
        );
        let list = "[[sweep.trial]]\nlabel = 'a'\ntrain.lr = 1e-3\n[[sweep.trial]]\nenv.side = 3\n";
        assert_eq!(folders(list), ["a", "env.side=3"]);
        for bad in ["'a/b'", "''", "'.a'", "1"] {
            let text = format!("[[sweep.trial]]\nlabel = {bad}\ntrain.lr = 1e-3\n");
            assert!(settings(&text).unwrap_err().message().contains("label"), "{bad}");
        }
        let alone = "[[sweep.trial]]\nlabel = 'a'\n";
        assert!(settings(alone).unwrap_err().message().contains("sets nothing"));
    }

    #[test]
    fn grids_are_products_in_the_order_written() {
        let text = "[sweep]\n\"backward.kind\" = ['uniform', 'tlm']\ntrain.lr = [1e-3, 1e-4]\n\
                    seed = { range = [3, 5] }\n";
        let expected = [
            "{ backward.kind = \"uniform\", train.lr = 0.001 }",
            "{ backward.kind = \"uniform\", train.lr = 0.0001 }",
            "{ backward.kind = \"tlm\", train.lr = 0.001 }",
            "{ backward.kind = \"tlm\", train.lr = 0.0001 }",
        ];
        assert_eq!(all(text), expected);
        assert_eq!(settings(text).unwrap().1.seeds, Some(vec![3, 4, 5]));
    }

    #[test]
    fn tables_set_several_keys_and_lists_are_lists() {
        let text = "[sweep]\nmethod = 'grid'\npair = [{ objective.kind = 'db' }, \
                    { \"objective.kind\" = 'tb', backward = { kind = 'tlm', lr = 1e-2 } }]\n";
        let expected = [
            "{ objective.kind = \"db\" }",
            "{ backward.kind = \"tlm\", backward.lr = 0.01, objective.kind = \"tb\" }",
        ];
        assert_eq!(all(text), expected);
        let text = "[[sweep.trial]]\ntrain.lr = 0.5\n[[sweep.trial]]\ntrain.lr = 0.25\nseed = 9\n";
        assert_eq!(all(text), ["{ train.lr = 0.5 }", "{ train.lr = 0.25 }"]);
        let (source, list) = settings(text).unwrap();
        let seeds: Vec<_> =
            list.configurations(&source).unwrap().iter().map(|entry| entry.seed).collect();
        assert_eq!(seeds, [None, Some(9)]);
    }

    #[test]
    fn random_search_is_uniform_reproducible_and_extends() {
        let text = |n: usize, seed: u64| {
            format!(
                "[sweep]\nmethod = 'random'\nsamples = {n}\nsweep_seed = {seed}\n\
                 train.lr = {{ log_uniform = [1e-4, 1e-2] }}\nenv.side = {{ range = [2, 5] }}\n\
                 train.epsilon = {{ uniform = [0, 1] }}\n"
            )
        };
        let long = all(&text(2000, 1));
        assert_eq!(long[..500], all(&text(500, 1)));
        assert_ne!(long[..500], all(&text(500, 2)));
        let (source, settings) = settings(&text(2000, 1)).unwrap();
        let (mut low, mut sides, mut epsilon) = (0, [0; 4], 0.0);
        for configuration in settings.configurations(&source).unwrap() {
            let get = |key: &str| configuration.overrides.get(key).unwrap();
            let lr = get("train.lr").as_float().unwrap();
            assert!((1e-4..=1e-2).contains(&lr));
            low += usize::from(lr < 1e-3);
            sides[get("env.side").as_integer().unwrap() as usize - 2] += 1;
            epsilon += get("train.epsilon").as_float().unwrap() / 2000.0;
        }
        // Half of the logarithms are below the middle; five standard deviations.
        assert!((888..=1112).contains(&low), "{low}");
        assert!(sides.iter().all(|count| (403..=597).contains(count)), "{sides:?}");
        assert!((epsilon - 0.5).abs() < 0.033, "{epsilon}");
    }

    #[test]
    fn bad_tables_are_refused_where_they_stand() {
        for (text, message, line) in [
            ("[sweep]\ntrain.lr = []", "the axis `train.lr` has no values", 2),
            ("[sweep]\nmethod = 'list'", "a list without trials", 1),
            ("[sweep]\nsamples = 3\ntrain.lr = [1]", "samples of a sweep that draws none", 2),
            ("[sweep]\nseed = [1, 1]", "the seed 1 is listed twice", 2),
            ("[sweep]\nseed = [-1]", "seeds are whole numbers of at least 0", 2),
            ("[sweep]\nseed = { range = [5, 1] }", "`seed`: the range from 5 to 1 is empty", 2),
            (
                "[sweep]\ntrain.lr = { uniform = [0, 1] }",
                "the axis `train.lr` has no end of values",
                2,
            ),
            ("[sweep]\ntrain.lr = 3", "the axis `train.lr` is no list of values", 2),
            ("[sweep]\nname = ['a']", "`name` cannot be an axis of a sweep", 2),
            ("[sweep]", "[sweep] has no axis", 1),
            (
                "[sweep]\nseed = [1]\n[sweep.halving]\neta = 1\nfirst_trajectories = 1\nmetric = 'x'",
                "sweep.halving.eta must be at least 2",
                3,
            ),
        ] {
            let failure = settings(text).unwrap_err();
            assert_eq!(failure.message(), message);
            assert_eq!(failure.place().unwrap().line_column().0, line, "{text}");
        }
        let (source, settings) =
            settings("[sweep]\ntrain.lr = [1]\nx = [{ train.lr = 2 }]").unwrap();
        let failure = settings.configurations(&source).unwrap_err();
        assert_eq!(failure.message(), "the axes `train.lr` and `x` both set `train.lr`");
    }
}
