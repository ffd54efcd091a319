//! Registries: one slice of descriptors per axis, from which parsing, `gfn list`,
//! `gfn describe`, `gfn schema` and the tests of all combinations follow.

use std::any::Any;
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Serialize, de::DeserializeOwned};
use toml::Spanned;
use toml::de::DeTable;

use crate::{Environment, Reward};

/// How far a part can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Tested against exact values; meant to be used.
    Stable,
    /// Works, but its results or its keys may change.
    Experimental,
}

/// Something wrong with one key of a part's settings, found after parsing.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct KeyError {
    /// The key inside the part's table; none if the part as a whole is wrong.
    pub key: Option<String>,
    /// What is wrong, as a sentence fragment.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
    /// Whether the cause is missing or damaged data rather than the spec.
    pub data: bool,
}

impl KeyError {
    /// The value of `key` is not acceptable.
    pub fn new(key: &str, message: impl Into<String>) -> Self {
        Self { key: Some(key.to_owned()), message: message.into(), help: None, data: false }
    }

    /// The part does not fit the rest of the experiment.
    pub fn part(message: impl Into<String>) -> Self {
        Self { key: None, message: message.into(), help: None, data: false }
    }

    /// A data file named by `key` is missing or damaged.
    pub fn data(key: &str, message: impl Into<String>) -> Self {
        Self { data: true, ..Self::new(key, message) }
    }

    /// Adds a remedy.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// One table of a spec whose `kind` selects an implementation.
pub trait Axis: 'static {
    /// The table's name: `env`, `reward`, ….
    const NAME: &'static str;
    /// What a kind builds.
    type Product: ?Sized;
    /// What it needs to be built.
    type Context<'a>;
}

/// The `env` axis.
pub struct EnvAxis;
impl Axis for EnvAxis {
    const NAME: &'static str = "env";
    type Product = dyn Environment;
    type Context<'a> = EnvContext<'a>;
}

/// What an environment is built from.
#[derive(Clone, Copy)]
pub struct EnvContext<'a> {
    /// Where data files are read from.
    pub files: &'a dyn Files,
}

impl EnvContext<'static> {
    /// For environments that read no files.
    pub const NO_FILES: Self = Self { files: &NoFiles };
}

/// The `reward` axis; rewards are built for an environment.
pub struct RewardAxis;
impl Axis for RewardAxis {
    const NAME: &'static str = "reward";
    type Product = dyn Reward;
    type Context<'a> = RewardContext<'a>;
}

/// What a reward is built from.
#[derive(Clone, Copy)]
pub struct RewardContext<'a> {
    /// The environment whose objects are rewarded.
    pub env: &'a Arc<dyn Environment>,
    /// Where data files are read from.
    pub files: &'a dyn Files,
}

impl<'a> RewardContext<'a> {
    /// The environment, if it is a `T`.
    pub fn env_as<T: Environment>(&self) -> Option<&'a T> {
        // From the trait object inside: the pointer to it is `Any` as well.
        (&**self.env as &dyn Any).downcast_ref()
    }
}

/// Access to data files. Libraries open nothing themselves: the program that owns the run does,
/// and records what was read.
pub trait Files {
    /// The whole content of a file.
    ///
    /// # Errors
    /// When it cannot be read.
    fn read(&self, path: &Path) -> std::io::Result<Vec<u8>>;

    /// What to do about a file that cannot be read, where its name is known.
    fn remedy(&self, _path: &Path) -> Option<String> {
        None
    }

    /// Tells the user something about a file that is no error.
    fn note(&self, _message: &str) {}

    /// The whole content of the file that `key` names.
    ///
    /// # Errors
    /// When it cannot be read.
    fn read_for(&self, key: &str, path: &Path) -> Result<Vec<u8>, KeyError> {
        self.read(path).map_err(|error| {
            let message = format!("cannot read `{}`: {error}", path.display());
            KeyError { help: self.remedy(path), ..KeyError::data(key, message) }
        })
    }
}

/// There are none.
struct NoFiles;

impl Files for NoFiles {
    fn read(&self, _: &Path) -> std::io::Result<Vec<u8>> {
        Err(std::io::ErrorKind::NotFound.into())
    }
}

impl<F: Fn(&Path) -> std::io::Result<Vec<u8>>> Files for F {
    fn read(&self, path: &Path) -> std::io::Result<Vec<u8>> {
        self(path)
    }
}

/// The settings of one kind on an axis: what stands in its table, and how to build it.
pub trait Kind<A: Axis>: Serialize + DeserializeOwned + JsonSchema + Send + Sync + 'static {
    /// The name used as `kind`.
    const NAME: &'static str;
    /// Other accepted names.
    const ALIASES: &'static [&'static str] = &[];
    /// One line for `gfn list`.
    const SUMMARY: &'static str;
    /// Where it was published.
    const PAPER: Option<&'static str> = None;
    /// How far it can be trusted.
    const STATUS: Status = Status::Stable;
    /// Keys of the table that change neither what is trained nor what is measured, such as where a
    /// file lies: they may differ between two sessions of a run.
    const NEUTRAL_KEYS: &'static [&'static str] = &[];

    /// Builds the part.
    ///
    /// # Errors
    /// When a value is out of range, or the part does not fit its context.
    fn build(&self, context: A::Context<'_>) -> Result<Box<A::Product>, KeyError>;

    /// The settings with every default filled in that depends on other keys.
    fn resolve(&self) -> toml::Table {
        toml::Table::try_from(self).expect("settings serialise to TOML")
    }
}

/// Parsed settings whose kind has been erased.
pub trait Settings<A: Axis>: Send + Sync {
    /// See [`Kind::build`].
    ///
    /// # Errors
    /// As [`Kind::build`].
    fn build(&self, context: A::Context<'_>) -> Result<Box<A::Product>, KeyError>;
    /// See [`Kind::resolve`]; without `kind`.
    fn resolve(&self) -> toml::Table;
}

impl<A: Axis, K: Kind<A>> Settings<A> for K {
    fn build(&self, context: A::Context<'_>) -> Result<Box<A::Product>, KeyError> {
        Kind::build(self, context)
    }
    fn resolve(&self) -> toml::Table {
        Kind::resolve(self)
    }
}

/// Parses a table (without `kind`) into settings.
pub type Parse<A> = fn(Spanned<DeTable<'_>>) -> Result<Box<dyn Settings<A>>, toml::de::Error>;

/// What is known of a kind, whatever its axis makes.
#[derive(Clone, Copy)]
pub struct Descriptor {
    /// See [`Kind::NAME`].
    pub name: &'static str,
    /// See [`Kind::ALIASES`].
    pub aliases: &'static [&'static str],
    /// See [`Kind::SUMMARY`].
    pub summary: &'static str,
    /// See [`Kind::PAPER`].
    pub paper: Option<&'static str>,
    /// See [`Kind::STATUS`].
    pub status: Status,
    /// See [`Kind::NEUTRAL_KEYS`].
    pub neutral_keys: &'static [&'static str],
    /// JSON schema of the settings.
    pub schema: fn(&mut SchemaGenerator) -> Schema,
    /// Every key with its default; none where some key has to be given.
    pub defaults: fn() -> Option<toml::Table>,
}

impl Descriptor {
    /// Whether `kind` is the name or an alias of this one.
    pub fn answers_to(&self, kind: &str) -> bool {
        self.name == kind || self.aliases.contains(&kind)
    }
}

/// One kind on an axis.
pub struct Entry<A: Axis> {
    /// What is known of it.
    pub about: Descriptor,
    /// Parses the settings.
    pub parse: Parse<A>,
}

impl<A: Axis> Deref for Entry<A> {
    type Target = Descriptor;

    fn deref(&self) -> &Descriptor {
        &self.about
    }
}

impl<A: Axis> Clone for Entry<A> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<A: Axis> Copy for Entry<A> {}

impl<A: Axis> Entry<A> {
    /// Settings with every default; none where some key has to be given.
    pub fn default_settings(&self) -> Option<Box<dyn Settings<A>>> {
        (self.parse)(Spanned::new(0..0, DeTable::new())).ok()
    }

    /// The kind `K`.
    pub const fn of<K: Kind<A>>() -> Self {
        let about = Descriptor {
            name: K::NAME,
            aliases: K::ALIASES,
            summary: K::SUMMARY,
            paper: K::PAPER,
            status: K::STATUS,
            neutral_keys: K::NEUTRAL_KEYS,
            schema: |generator| K::json_schema(generator),
            defaults: || {
                let nothing = Spanned::new(0..0, DeTable::new());
                let settings = K::deserialize(toml::de::Deserializer::from(nothing)).ok()?;
                Some(Settings::<A>::resolve(&settings))
            },
        };
        Self {
            about,
            parse: |table| {
                let settings = K::deserialize(toml::de::Deserializer::from(table))?;
                Ok(Box::new(settings))
            },
        }
    }
}
