//! What the actions of a state stand for, where states are classes of labelled things.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the actions of a state stand for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Symmetry {
    /// Of actions that lead to the same molecule one is legal: P_F and P_B are over molecules.
    #[default]
    States,
    /// All actions are legal, as in the papers; rewards in losses are multiplied by the number of
    /// automorphisms, without which symmetric molecules would be sampled too seldom (Kim et al. 2025,
    /// arXiv:2506.02685).
    Actions,
    /// All actions are legal and nothing is corrected: the bias of the papers' code, for
    /// reproductions.
    ActionsUncorrected,
}
