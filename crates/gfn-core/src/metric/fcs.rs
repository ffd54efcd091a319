//! Flow consistency in subgraphs: total variation between P_T and the target, both restricted to small
//! random subsets of objects, on average ("When do GFlowNets learn the right distribution?", ICLR
//! 2025). It says what correlations cannot, and needs P_T(x) of few objects.

use rustc_hash::FxHashSet;

use super::{
    Better, Column, EvalContext, Metric, MetricContext, MetricError, MetricKind, TestSet,
    elbo_eubo::mean_and_error, estimate_log_probs, subsets::Subsets,
};
use crate::rng::Streams;
use crate::special::log_sum_exp;
use crate::{KeyError, States};

/// Subsets, and objects of one.
const MOST: usize = 1 << 16;

pub(super) struct Fcs {
    context: MetricContext,
    settings: Subsets,
    /// The last subsets. Those of test objects are drawn once: some rewards are expensive.
    drawn: Option<Drawn>,
}

/// Subsets of objects whose P_T is to be estimated.
struct Drawn {
    /// The objects that are in some subset, all different.
    objects: States,
    /// log R of each.
    log_reward: Vec<f64>,
    /// Subsets of these, by place.
    subsets: Vec<Vec<usize>>,
}

impl Fcs {
    /// Over which objects, and how P_T is known there.
    fn definition(&self) -> String {
        let n = self.context.backward_trajectories.max(1);
        let estimated = format!(
            "P_T(x) estimated as the mean of P_F(tau)/P_B(tau|x) over {n} trajectories tau drawn from \
             P_B, whose noise adds to the distance"
        );
        let context = &self.context;
        match &context.test {
            _ if context.exact.is_some() || context.layers.is_some() => {
                "all objects of the environment, P_T by dynamic programming".to_owned()
            }
            Some(TestSet { objects, origin }) => {
                format!("the distinct ones of {} {origin}, {estimated}", objects.len())
            }
            None => format!(
                "the distinct ones of {} fresh samples of P_F, {estimated}; objects that P_F misses \
                 do not show",
                context.samples
            ),
        }
    }

    /// Subsets of the distinct rows among `candidates`.
    fn draw(&self, streams: Streams, candidates: &States) -> Result<Drawn, MetricError> {
        let mut seen = FxHashSet::default();
        let distinct: Vec<&[i32]> = candidates.rows().filter(|row| seen.insert(*row)).collect();
        let mut subsets = self.settings.draw(streams, distinct.len());
        let mut places = vec![None; distinct.len()];
        let mut objects = States::new(candidates.width());
        for object in subsets.iter_mut().flatten() {
            *object = *places[*object].get_or_insert_with(|| {
                objects.push(distinct[*object]);
                objects.len() - 1
            });
        }
        let mut log_reward = vec![0.0; objects.len()];
        self.context.reward.log_reward(&objects, &mut log_reward)?;
        Ok(Drawn { objects, log_reward, subsets })
    }

    /// The distance on every subset that some R is positive on.
    fn distances(&mut self, eval: &EvalContext<'_>) -> Result<Vec<f64>, MetricError> {
        // In log space where the graph is at hand: exact also where P_T underflows.
        if let Some(exact) = &eval.fixed.exact {
            let (log_p, log_r) = (eval.log_prob(exact), &exact.target.log_reward);
            return Ok(distances(&self.settings.draw(eval.streams, log_p.len()), |i| {
                (log_p[i], log_r[i])
            }));
        }
        if let Some(objects) = eval.objects()? {
            let subsets = self.settings.draw(eval.streams, objects.prob.len());
            return Ok(distances(&subsets, |i| (objects.prob[i].ln(), objects.log_reward[i])));
        }
        match self.context.test.clone() {
            Some(test) if self.drawn.is_none() => {
                self.drawn = Some(self.draw(eval.streams, &test.objects)?);
            }
            Some(_) => {}
            None => self.drawn = Some(self.draw(eval.streams, &eval.samples()?.terminals())?),
        }
        let Some(Drawn { objects, log_reward, subsets }) = &self.drawn else {
            return Ok(Vec::new());
        };
        let estimates = estimate_log_probs(eval, objects, self.context.backward_trajectories);
        Ok(distances(subsets, |i| (estimates[i].log_prob, log_reward[i])))
    }
}

/// The distance on every subset, from (log p, log R) of an object.
fn distances(subsets: &[Vec<usize>], of: impl Fn(usize) -> (f64, f64)) -> Vec<f64> {
    let distance = |subset: &Vec<usize>| {
        let (log_p, log_r): (Vec<f64>, Vec<f64>) = subset.iter().map(|&i| of(i)).unzip();
        total_variation(&log_p, &log_r)
    };
    subsets.iter().filter_map(distance).collect()
}

/// 1/2 Σ |p − R|, both made to sum to one; none if R sums to nothing, 1 if p does.
fn total_variation(log_p: &[f64], log_r: &[f64]) -> Option<f64> {
    let log_sum = |logs: &[f64]| log_sum_exp(logs.iter().copied());
    let (log_sum_p, log_sum_r) = (log_sum(log_p), log_sum(log_r));
    if log_sum_r == f64::NEG_INFINITY {
        return None;
    }
    // Not by the sum, in which NaN does not show.
    if log_p.iter().all(|&p| p == f64::NEG_INFINITY) {
        return Some(1.0);
    }
    let term = |(p, r): (&f64, &f64)| ((p - log_sum_p).exp() - (r - log_sum_r).exp()).abs();
    Some(0.5 * log_p.iter().zip(log_r).map(term).sum::<f64>())
}

impl MetricKind for Fcs {
    const NAME: &'static str = "fcs";
    const SUMMARY: &'static str =
        "total variation between P_T and the target on small random subsets of objects";
    type Settings = Subsets;

    fn build(context: &MetricContext, settings: Subsets) -> Result<Self, KeyError> {
        for (key, value, least) in [("subsets", settings.subsets, 1), ("size", settings.size, 2)] {
            let bound = match value {
                _ if value < least => format!("at least {least}"),
                _ if value > MOST => format!("at most {MOST}"),
                _ => continue,
            };
            return Err(KeyError::new(key, format!("`{key}` must be {bound}, not {value}")));
        }
        Ok(Self { context: context.clone(), settings, drawn: None })
    }
}

impl Metric for Fcs {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn columns(&self) -> Vec<Column> {
        let Subsets { subsets, size } = self.settings;
        vec![
            Column::new(
                "fcs",
                "1",
                Better::Lower,
                format!(
                    "mean over {subsets} random subsets S of {size} objects, or over the one of all \
                     objects if there are no more, of 1/2 sum over x in S of |p_S(x) - R_S(x)|, with \
                     p_S and R_S = P_T and R divided by their sums over S (1 where P_T is 0 on all of S; \
                     without those where R is); S from {}",
                    self.definition()
                ),
            ),
            Column::new(
                "fcs_error",
                "1",
                Better::Neither,
                "standard error of that mean by the choice of subsets, which is the same at every \
                 evaluation where the objects are; empty for a single subset",
            ),
        ]
    }

    fn evaluate(&mut self, eval: &EvalContext<'_>) -> Result<Vec<Option<f64>>, MetricError> {
        let distances = self.distances(eval)?;
        let (mean, error) = mean_and_error(&distances);
        Ok(vec![mean, error])
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::environment::testing::Edges;
    use crate::exact::Exact;
    use crate::metric::MetricEntry;
    use crate::policy::Policy;
    use crate::{Direction, Environment, Layers, Reward, RewardError, StateGraph};

    #[test]
    fn total_variation_of_hand_numbers() {
        let of = |p: &[f64], r: &[f64]| {
            let ln = |xs: &[f64]| xs.iter().map(|x| x.ln()).collect::<Vec<_>>();
            total_variation(&ln(p), &ln(r))
        };
        // (1/4, 3/4) against (1/2, 1/2), at any scale.
        assert!((of(&[0.1, 0.3], &[5.0, 5.0]).unwrap() - 0.25).abs() < 1e-15);
        // (1/2, 1/2, 0) against (0, 1/4, 3/4).
        assert!((of(&[0.2, 0.2, 0.0], &[0.0, 1.0, 3.0]).unwrap() - 0.75).abs() < 1e-15);
        assert_eq!(of(&[0.3, 0.1], &[0.0, 0.0]), None);
        assert_eq!(of(&[0.0, 0.0], &[2.0, 1.0]), Some(1.0));
        for other in [0.0, 0.5, f64::NAN] {
            assert!(of(&[f64::NAN, other], &[2.0, 1.0]).unwrap().is_nan());
        }
        let far = total_variation(&[-2000.0, -2000.0 + 3f64.ln()], &[900.0, 900.0]);
        assert!((far.unwrap() - 0.25).abs() < 1e-9, "nothing underflows");
    }

    struct Known;

    impl Reward for Known {
        fn log_reward(&self, xs: &States, out: &mut [f64]) -> Result<(), RewardError> {
            for (out, row) in out.iter_mut().zip(xs.rows()) {
                *out = (f64::from(row[0]) * 1.3).sin();
            }
            Ok(())
        }
    }

    struct Uneven;

    impl Policy for Uneven {
        fn logits(&self, _: &dyn Environment, _: Direction, states: &States, out: &mut [f32]) {
            let n = out.len() / states.len();
            for (row, out) in states.rows().zip(out.chunks_mut(n)) {
                for (action, out) in (0..).zip(out) {
                    *out = ((row[0] * 5 + action) as f32 * 0.8).cos();
                }
            }
        }
    }

    /// Seven objects below three states, each reached in one way, or with `shared` in up to three.
    fn world(shared: bool) -> Arc<dyn Environment> {
        let mut edges = vec![(0, 1), (0, 2), (0, 3)];
        edges.extend([(1, 4), (1, 5), (2, 6), (2, 7), (3, 8), (3, 9), (3, 10)]);
        if shared {
            edges.extend([(2, 5), (3, 5), (1, 8), (1, 8), (2, 10)]);
        }
        Arc::new(Edges::new(11, edges))
    }

    fn context(env: &Arc<dyn Environment>, settings: &str) -> MetricContext {
        let table = toml::from_str(settings).unwrap();
        MetricContext {
            env: env.clone(),
            reward: Arc::new(Known),
            exact: None,
            layers: None,
            samples: 500,
            test: None,
            backward_trajectories: 1,
            settings: [("fcs".to_owned(), table)].into(),
        }
    }

    /// The graph, and a set of its objects of which some are twice.
    fn exact(env: &Arc<dyn Environment>) -> (Arc<Exact>, TestSet) {
        let graph = StateGraph::explore(&**env, 100).unwrap();
        let mut objects = graph.objects();
        objects.push(&[6]);
        objects.push(&[9]);
        let target = graph.target(&Known).unwrap();
        let test = TestSet { objects: Arc::new(objects), origin: "objects" };
        (Arc::new(Exact { graph, target }), test)
    }

    fn evaluate(context: &MetricContext) -> Vec<Option<f64>> {
        let eval = EvalContext::new(context, &Uneven, None, Streams::new(9), 3);
        let mut metric =
            (MetricEntry::of::<Fcs>().build)(context).unwrap_or_else(|error| panic!("{error}"));
        let values = metric.evaluate(&eval).unwrap();
        assert_eq!(values, metric.evaluate(&eval).unwrap(), "subsets stay");
        assert_eq!(values.len(), metric.columns().len());
        values
    }

    /// All ways to know P_T give the sum written out over the subsets.
    #[test]
    fn every_source_agrees_with_the_direct_sum() {
        let env = world(false);
        let (exact, test) = exact(&env);
        let fixed =
            MetricContext { exact: Some(exact.clone()), ..context(&env, "subsets = 40\nsize = 3") };
        let eval = EvalContext::new(&fixed, &Uneven, None, Streams::new(9), 3);
        let p = exact.graph.terminal_probs(eval.log_pf(&exact));
        let r: Vec<f64> = exact.target.log_reward.iter().map(|r| r.exp()).collect();
        let mut terms = Vec::new();
        let settings = Subsets { subsets: 40, size: 3 };
        for subset in settings.draw(Streams::new(9), 7) {
            let (p_sum, r_sum) =
                subset.iter().fold((0.0, 0.0), |sums, &i| (sums.0 + p[i], sums.1 + r[i]));
            let of = |&i: &usize| (p[i] / p_sum - r[i] / r_sum).abs();
            terms.push(0.5 * subset.iter().map(of).sum::<f64>());
        }
        let mean = terms.iter().sum::<f64>() / 40.0;
        let variance = terms.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 39.0;
        let near = |values: Vec<Option<f64>>| {
            assert!((values[0].unwrap() - mean).abs() < 1e-6, "{values:?} {mean}");
            assert!((values[1].unwrap() - (variance / 40.0).sqrt()).abs() < 1e-6);
        };
        assert!(mean > 0.05);
        near(evaluate(&fixed));
        let layers = Layers::new(&*env, 100).map(Arc::new);
        assert!(layers.is_some());
        near(evaluate(&MetricContext { layers, ..context(&env, "subsets = 40\nsize = 3") }));
        // With one way to every object a single backward trajectory is exact. Test objects keep the
        // order of the graph, their doubles do not count.
        near(evaluate(&MetricContext {
            test: Some(test),
            ..context(&env, "subsets = 40\nsize = 3")
        }));
    }

    /// Where a subset holds all objects it is the total variation, by every source.
    #[test]
    fn on_all_objects_it_is_the_total_variation() {
        let env = world(true);
        let (exact, test) = exact(&env);
        let known =
            MetricContext { exact: Some(exact.clone()), ..context(&env, "size = 7\nsubsets = 5") };
        let eval = EvalContext::new(&known, &Uneven, None, Streams::new(9), 3);
        let p = exact.graph.terminal_probs(eval.log_pf(&exact));
        let tv: f64 = p.iter().zip(&exact.target.prob).map(|(p, q)| 0.5 * (p - q).abs()).sum();
        let values = evaluate(&known);
        assert!((values[0].unwrap() - tv).abs() < 1e-12 && values[1].is_none());
        let estimating =
            MetricContext { backward_trajectories: 20_000, ..context(&env, "size = 7") };
        for test in [Some(test), None] {
            let values = evaluate(&MetricContext { test, ..estimating.clone() });
            assert!((values[0].unwrap() - tv).abs() < 5e-3, "{values:?} {tv}");
        }
    }

    #[test]
    fn definitions_and_settings() {
        let env = world(false);
        let definition = |context: &MetricContext| {
            let metric =
                (MetricEntry::of::<Fcs>().build)(context).unwrap_or_else(|error| panic!("{error}"));
            metric.columns()[0].definition.clone()
        };
        let (exact, test) = exact(&env);
        let fresh = context(&env, "");
        assert!(definition(&fresh).contains("128 random subsets S of 32 objects"));
        assert!(definition(&fresh).contains("distinct ones of 500 fresh samples"));
        let tested = MetricContext { test: Some(test), ..fresh };
        assert!(definition(&tested).contains("distinct ones of 9 objects"));
        let known = MetricContext { exact: Some(exact), ..tested };
        assert!(definition(&known).contains("P_T by dynamic programming"));
        for (settings, message) in [
            ("size = 1", "`size` must be at least 2, not 1"),
            ("subsets = 0", "`subsets` must be at least 1, not 0"),
            ("sizes = 3", "unknown field `sizes`"),
        ] {
            let Err(error) = (MetricEntry::of::<Fcs>().build)(&context(&env, settings)) else {
                panic!("{settings}")
            };
            assert!(error.message.contains(message), "{error}");
        }
    }
}
