//! Chemistry that molecule environments, their rewards and metrics call: molecules as plain data, and
//! what is computed from one. Nothing here is an environment, and nothing keeps state but
//! [`SeparatedModes`](separated_modes::SeparatedModes).

pub mod molecule;
mod smiles;

pub use molecule::{Atom, Bond, Chirality, Molecule};
pub use smiles::SmilesError;
