//! Surrogate rewards: a network that learns the values of a table and then rewards any object.
//!
//! `gfn proxy train` reads a table of objects and values ([`Examples`]), holds some of them out, trains
//! one of the registered networks on the rest with the engines that train policies, and writes the
//! weights with all that is needed to use them ([`ProxyFile`]), beside a card that says how far they can
//! be trusted. The reward `proxy` reads that file ([`ProxyReward`]).

mod card;
mod examples;
mod fit;
mod gap;
mod known;
mod network;
mod predictor;
mod reward;
mod scores;
mod settings;
mod split;
mod train;
mod weights;

pub use card::card;
pub use examples::Examples;
pub use gap::GapSpec;
pub use predictor::Predictor;
pub use reward::{ProxyReward, ProxyRewardSpec, proxy_reward};
pub use scores::Scores;
pub use settings::{Keep, Loss, Precision, ProxySettings};
pub use train::{Epoch, ProxySpec, Trained, train};
pub use weights::{About, ProxyFile, Unusable};
