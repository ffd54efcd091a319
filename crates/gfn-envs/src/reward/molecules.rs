//! The molecules that an environment's objects are, for rewards.

use std::any::Any;
use std::sync::Arc;

use gfn_core::{Environment, KeyError};

use crate::chemistry::Molecules;
use crate::fragments::FragmentWorld;
use crate::molecule::MoleculeWorld;

/// What draws the objects of an environment, if they are molecules.
pub fn molecules_of(env: &Arc<dyn Environment>) -> Option<Arc<dyn Molecules>> {
    // From the trait object inside: the pointer to it is `Any` as well.
    let env: &dyn Any = &**env;
    if let Some(world) = env.downcast_ref::<FragmentWorld>() {
        return Some(Arc::new(world.clone()));
    }
    env.downcast_ref::<MoleculeWorld>().map(|world| Arc::new(world.clone()) as Arc<dyn Molecules>)
}

/// The error of rewards for molecules in another environment.
pub fn not_for_molecules() -> KeyError {
    KeyError::new("kind", "this reward is for molecules")
        .help("set env.kind = \"molecule\" or \"fragments\"")
}
