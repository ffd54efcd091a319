//! Settings of molecules from fragments.

use std::path::PathBuf;

use gfn_core::registry::{EnvAxis, EnvContext, Files, Kind};
use gfn_core::{Environment, KeyError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::FragmentWorld;
use super::library::{Capacity, Entry, Library};
use super::tree::MAX_FRAGMENTS;
use crate::symmetry::Symmetry;

/// How molecules are put together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Version {
    /// A fragment is added next to another, then each of the two is told its attachment, in any order;
    /// stopping takes that all are (Gritsaev et al. 2025, arXiv:2410.15474). Each attachment is used once.
    #[default]
    Stems,
    /// A block, which is a fragment with the attachment that it is joined by, is put onto an open
    /// attachment; a molecule ends by itself when it has `max_fragments` or nothing is open (Bengio et al.
    /// 2021, arXiv:2106.04399; Tiapkin et al. 2024, arXiv:2310.12934). An atom can be joined as often as it
    /// is listed in some block.
    Blocks,
}

/// Settings of [`FragmentWorld`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FragmentsSpec {
    /// How molecules are put together.
    pub version: Version,
    /// A JSON file of fragments: `{"fragments": [{"smiles": "CO", "attach": [0, 1]}, …]}`, atoms counted from
    /// 0 in the order of the SMILES, each as often as it can be joined; or a list of `blocks`, where a
    /// fragment stands once for each kind of attachment, that one first.
    pub library: PathBuf,
    /// Fragments given here instead of a file.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fragments: Vec<Entry>,
    /// The fewest fragments of a molecule. Default: 1 with stems, 2 with blocks, as in the papers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_fragments: Option<usize>,
    /// The most fragments of a molecule, up to 16.
    pub max_fragments: usize,
    /// What the actions of a state stand for. Rewards can be corrected for `actions` with stems alone: a block
    /// stands for all attachments that are alike, however many.
    pub symmetry: Symmetry,
}

/// The file of the papers' fragments.
const LIBRARY: &str = "seh_blocks.json";

impl Default for FragmentsSpec {
    fn default() -> Self {
        Self {
            version: Version::default(),
            library: LIBRARY.into(),
            fragments: Vec::new(),
            min_fragments: None,
            max_fragments: 8,
            symmetry: Symmetry::default(),
        }
    }
}

impl Kind<EnvAxis> for FragmentsSpec {
    const NAME: &'static str = "fragments";
    const SUMMARY: &'static str = "molecules as trees of fragments, such as those of the sEH task";
    const PAPER: Option<&'static str> = Some("arXiv:2106.04399");
    const NEUTRAL_KEYS: &'static [&'static str] = &["library"];

    fn build(&self, context: EnvContext<'_>) -> Result<Box<dyn Environment>, KeyError> {
        Ok(Box::new(FragmentWorld::new(self, context.files)?))
    }

    fn resolve(&self) -> toml::Table {
        let resolved = Self { min_fragments: Some(self.min_fragments()), ..self.clone() };
        toml::Table::try_from(resolved).expect("settings serialise to TOML")
    }
}

impl FragmentsSpec {
    pub(super) fn min_fragments(&self) -> usize {
        let of_papers = match self.version {
            Version::Stems => 1,
            Version::Blocks => 2,
        };
        self.min_fragments.unwrap_or(of_papers.min(self.max_fragments))
    }

    /// The fragments.
    pub(super) fn read(&self, files: &dyn Files) -> Result<Library, KeyError> {
        let capacity = match (self.version, self.fragments.is_empty()) {
            // The first paper's blocks list an atom more than once; the second one's fragments do not.
            (Version::Stems, true) => Capacity::One,
            _ => Capacity::Listed,
        };
        let library = match self.fragments.is_empty() {
            true if self.library.as_os_str().is_empty() => {
                return Err(KeyError::new("library", "no fragments are given")
                    .help("name a JSON file, or give env.fragments"));
            }
            true => Library::read(&self.library, capacity, files)?,
            false => Library::of_entries(&self.fragments, capacity)?,
        };
        self.check(&library)?;
        Ok(library)
    }

    fn check(&self, library: &Library) -> Result<(), KeyError> {
        let (min, max) = (self.min_fragments(), self.max_fragments);
        if !(1..=MAX_FRAGMENTS).contains(&max) {
            let message = format!("{max} is not from 1 to {MAX_FRAGMENTS}");
            return Err(KeyError::new("max_fragments", message).help("the papers have up to 8"));
        }
        if !(1..=max).contains(&min) {
            let message = format!("{min} is not from 1 to max_fragments = {max}");
            return Err(KeyError::new("min_fragments", message));
        }
        if library.fragments.is_empty() {
            let key = if self.fragments.is_empty() { "library" } else { "fragments" };
            return Err(KeyError::new(key, "there are no fragments"));
        }
        if min > 2 && library.most_joins() < 2 {
            let message =
                format!("{min} fragments cannot be joined: none of them has two attachments");
            return Err(KeyError::new("min_fragments", message)
                .help("choose 1 or 2, or list fragments with more attachments"));
        }
        if self.version == Version::Blocks && self.symmetry == Symmetry::Actions {
            let message = "a block stands for all attachments that are alike, of which fragments have \
                           different numbers, so no factor of the reward corrects for symmetries";
            return Err(KeyError::new("symmetry", message).help(
                "use \"states\"; or \"actions_uncorrected\", which is biased as the papers' code",
            ));
        }
        Ok(())
    }
}
