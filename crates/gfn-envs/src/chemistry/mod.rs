//! Chemistry that molecule environments, their rewards and metrics call: molecules as plain data, and
//! what is computed from one. Nothing here is an environment, and nothing keeps state but
//! [`SeparatedModes`].

mod canonical_smiles;
pub mod depiction;
pub(crate) mod drawn;
pub mod fingerprint;
pub mod huckel;
mod hybridisation;
pub(crate) mod kekule;
mod layout;
pub mod molecule;
pub mod separated_modes;
mod smiles;

pub use drawn::{DrawnMolecule, Molecules};
pub use fingerprint::Fingerprint;
pub use hybridisation::Hybridisation;
pub use molecule::{Atom, Bond, Chirality, Molecule};
pub use separated_modes::SeparatedModes;
pub use smiles::SmilesError;
