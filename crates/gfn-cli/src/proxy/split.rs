//! Which objects are trained on, and which are held out: at random, and by class.

use std::collections::BTreeMap;

use gfn_core::rng::{Purpose, Streams, shuffle};
use gfn_core::{Environment, KeyError, States};

use super::settings::ProxySettings;

/// Places of objects, each in exactly one list, in ascending order.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Split {
    /// Trained on.
    pub train: Vec<usize>,
    /// Held out at random.
    pub random: Vec<usize>,
    /// Held out with all objects of their class.
    pub groups: Vec<usize>,
}

impl Split {
    /// Draws a split.
    ///
    /// # Errors
    /// When the environment has no such classification, or too little is left to train on.
    pub fn draw(
        env: &dyn Environment,
        objects: &States,
        settings: &ProxySettings,
        seed: u64,
    ) -> Result<Self, KeyError> {
        let (n, streams) = (objects.len(), Streams::new(seed));
        let mut split = Self::default();
        let mut left: Vec<usize> = (0..n).collect();
        if !settings.held_out_by.is_empty() {
            let mut classes = by_class(env, objects, &settings.held_out_by)?;
            shuffle(&mut classes, &mut streams.get(Purpose::Split, 0));
            let share = (settings.held_out_groups * n as f64).round() as usize;
            for class in classes {
                if split.groups.len() + class.len() <= share {
                    split.groups.extend(class);
                }
            }
            split.groups.sort_unstable();
            left.retain(|place| split.groups.binary_search(place).is_err());
        }
        shuffle(&mut left, &mut streams.get(Purpose::Split, 1));
        let share = ((settings.held_out * n as f64).round() as usize).min(left.len());
        split.train = left.split_off(share);
        split.random = left;
        split.train.sort_unstable();
        split.random.sort_unstable();
        if split.train.len() < 2 {
            let message = format!("of {n} objects, {} are left to train on", split.train.len());
            return Err(KeyError::new("held_out", message));
        }
        Ok(split)
    }
}

/// The places of the objects of each class, in the order of its name.
fn by_class(
    env: &dyn Environment,
    objects: &States,
    name: &str,
) -> Result<Vec<Vec<usize>>, KeyError> {
    let mut classes: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (place, row) in objects.rows().enumerate() {
        let strata = env.strata(row);
        let Some((_, class)) = strata.iter().find(|(other, _)| *other == name) else {
            let known: Vec<&str> = strata.iter().map(|(known, _)| *known).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            let message = format!("the environment does not classify objects by `{name}`");
            return Err(
                KeyError::new("held_out_by", message).help(format!("its classifications: {known}"))
            );
        };
        classes.entry(class.clone()).or_default().push(place);
    }
    Ok(classes.into_values().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use gfn_core::registry::{EnvContext, Kind};
    use gfn_envs::sequence::SequenceSpec;

    #[test]
    fn objects_are_in_one_part_and_classes_stay_together() {
        let symbols = ["a", "b"].map(str::to_owned).to_vec();
        let spec = SequenceSpec { length: 6, min_length: Some(1), symbols, ..Default::default() };
        let env = spec.build(EnvContext::NO_FILES).unwrap();
        let mut objects = States::new(env.space().width);
        for length in 1..=6 {
            for bits in 0..1 << length {
                let text: String =
                    (0..length).map(|i| if bits >> i & 1 == 1 { 'b' } else { 'a' }).collect();
                objects.push(&env.parse(&text).unwrap());
            }
        }
        let settings = ProxySettings {
            held_out: 0.25,
            held_out_by: "length".to_owned(),
            held_out_groups: 0.3,
            ..Default::default()
        };
        let split = Split::draw(&*env, &objects, &settings, 7).unwrap();
        let mut all = [split.train.clone(), split.random.clone(), split.groups.clone()].concat();
        all.sort_unstable();
        assert_eq!(all, (0..126).collect::<Vec<_>>());
        assert_eq!(split.random.len(), 32);
        assert!((1..=38).contains(&split.groups.len()));
        let length = |&place: &usize| env.strata(objects.row(place))[0].1.clone();
        let held: Vec<String> = split.groups.iter().map(length).collect();
        assert!(split.train.iter().chain(&split.random).all(|i| !held.contains(&length(i))));
        assert_eq!(Split::draw(&*env, &objects, &settings, 7).unwrap(), split);
        assert_ne!(Split::draw(&*env, &objects, &settings, 8).unwrap(), split);
        let other = ProxySettings { held_out_by: "scaffold".to_owned(), ..settings };
        let error = Split::draw(&*env, &objects, &other, 7).unwrap_err();
        assert!(error.help.unwrap().contains("length"));
    }
}
