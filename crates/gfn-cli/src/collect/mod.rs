//! Many runs as data: run directories are found, read, told apart by what differs in their specs,
//! and put into one table. `gfn plot` and `gfn table` start from the same runs.

mod find;
mod group;
#[cfg(feature = "parquet")]
mod parquet;
mod run;
mod samples;
mod source;
pub mod summary;
mod tidy;

pub use group::{check_key, group, telling_keys};
#[cfg(feature = "parquet")]
pub use parquet::parquet;
pub use run::Run;
pub use samples::Samples;
pub use source::{load, select};
pub use tidy::{Tidy, tidy};
