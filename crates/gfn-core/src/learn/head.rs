//! Heads: the named outputs that a model has because some loss reads them.

use crate::Direction;

/// How many numbers a head gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HeadSize {
    /// One per action of a direction, for each state.
    Actions(Direction),
    /// One for each state.
    Scalar,
    /// One in all, a parameter of its own that no state enters.
    Parameter,
}

/// A named output of a model. Its own parameters belong to the group of that name; which updates
/// change them, at which rate and by which optimiser, goes by the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Head {
    /// Unique name, also in checkpoints.
    pub name: &'static str,
    /// What it gives.
    pub size: HeadSize,
}

impl Head {
    /// Logits of P_F.
    pub const FORWARD: Self = Self::actions("forward", Direction::Forward);
    /// Logits of P_B, read at the child.
    pub const BACKWARD: Self = Self::actions("backward", Direction::Backward);
    /// log F of states.
    pub const FLOW: Self = Self::scalar("flow");
    /// log Z.
    pub const LOG_Z: Self = Self { name: "log_z", size: HeadSize::Parameter };

    /// A head with a number per action.
    pub const fn actions(name: &'static str, direction: Direction) -> Self {
        Self { name, size: HeadSize::Actions(direction) }
    }

    /// A head with a number per state.
    pub const fn scalar(name: &'static str) -> Self {
        Self { name, size: HeadSize::Scalar }
    }

    /// Whether it is a parameter of its own, which weight decay and clipping of gradients leave
    /// alone.
    pub fn is_parameter(self) -> bool {
        self.size == HeadSize::Parameter
    }
}

/// The group of the parameters that several heads share.
pub const TRUNK: &str = "trunk";
