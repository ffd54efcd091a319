//! Specs of surrogate rewards: what `gfn proxy train` is given.

use std::path::Path;

use super::{Chosen, Source, check_name, check_top, name_and_seed, read_text, settings};
use crate::Registry;
use crate::error::Failure;
use crate::proxy::{ProxySettings, ProxySpec};

/// The tables and keys at the top.
pub const PROXY_TOP: [&str; 5] = ["name", "seed", "env", "model", "proxy"];

impl ProxySpec {
    /// Reads a spec file and applies overrides (`key=value`) in their order.
    ///
    /// # Errors
    /// With the place, the legal values and a suggestion.
    pub fn load(registry: &Registry, path: &Path, overrides: &[String]) -> Result<Self, Failure> {
        let (text, stem) = read_text(path)?;
        Self::parse(registry, &path.display().to_string(), text, stem, overrides)
    }

    /// Parses the text of a spec.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn parse(
        registry: &Registry,
        origin: &str,
        text: String,
        default_name: &str,
        overrides: &[String],
    ) -> Result<Self, Failure> {
        let source = Source::new(origin, text, overrides)?;
        let mut table = source.table()?;
        check_top(&source, &table, &PROXY_TOP, "a spec of `gfn proxy train`")?;
        let (name, seed) = name_and_seed(&source, &mut table, default_name)?;
        check_name(&source, &name)?;
        let env = Chosen::take(&source, &mut table, &registry.environments, None)?;
        let model =
            Chosen::take(&source, &mut table, &registry.models, registry.models.first().copied())?;
        let proxy: ProxySettings = settings(&source, &mut table, "proxy")?;
        drop(table);
        proxy.check().map_err(|error| source.key_failure("proxy", &error))?;
        Ok(Self { name, seed, env, model, proxy, source })
    }
}
