//! `manifest.json`: who ran what, when, with which program and data.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::directory::RunDirectory;
use crate::error::Failure;
use crate::spec::Spec;

/// One stretch of training: a run that was interrupted has several.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Session {
    argv: Vec<String>,
    start: String,
    end: Option<String>,
    exit: Option<u8>,
    from_step: u64,
    to_step: Option<u64>,
    /// Rewards that were really computed, metrics included, where that is costly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rewards_computed: Option<u64>,
}

/// Where a run comes from.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Manifest {
    gfn_version: String,
    git_commit: String,
    rustc: String,
    features: Vec<String>,
    device: String,
    host: String,
    threads: usize,
    parameters: usize,
    /// SHA-256 of the data files, by absolute path.
    data: BTreeMap<String, String>,
    /// Papers of the parts used.
    citations: BTreeMap<String, String>,
    /// Parts whose results or keys may change.
    experimental: Vec<String>,
    sessions: Vec<Session>,
}

fn now() -> String {
    humantime::format_rfc3339_seconds(SystemTime::now()).to_string()
}

impl Manifest {
    /// The manifest of a new session of a run, after those that are recorded already.
    pub fn begin(
        run: &RunDirectory,
        spec: &Spec,
        parameters: usize,
        data: &[(PathBuf, String)],
        from_step: u64,
    ) -> Self {
        let earlier: Option<Self> = std::fs::read(run.file("manifest.json"))
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let mut sessions = earlier.map(|manifest| manifest.sessions).unwrap_or_default();
        sessions.push(Session {
            argv: std::env::args().collect(),
            start: now(),
            end: None,
            exit: None,
            from_step,
            to_step: None,
            rewards_computed: None,
        });
        let mut citations = BTreeMap::new();
        let mut experimental = Vec::new();
        for part in spec.parts() {
            let (name, kind) = (format!("{}.{}", part.axis(), part.kind().name), part.kind());
            if kind.status == gfn_core::registry::Status::Experimental {
                experimental.push(name.clone());
            }
            citations.extend(kind.paper.map(|paper| (name, paper.to_owned())));
        }
        let features = [("ndarray", cfg!(feature = "ndarray")), ("wgpu", cfg!(feature = "wgpu"))];
        Self {
            gfn_version: env!("CARGO_PKG_VERSION").to_owned(),
            git_commit: env!("GFN_GIT_COMMIT").to_owned(),
            rustc: env!("GFN_RUSTC").to_owned(),
            features: features.iter().filter(|f| f.1).map(|f| f.0.to_owned()).collect(),
            device: spec.device.clone(),
            host: gethostname::gethostname().to_string_lossy().into_owned(),
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            parameters,
            data: data.iter().map(|(p, hash)| (p.display().to_string(), hash.clone())).collect(),
            citations,
            experimental,
            sessions,
        }
    }

    /// Records how the session ended.
    pub fn end(&mut self, exit: u8, step: u64, rewards_computed: Option<u64>) {
        if let Some(session) = self.sessions.last_mut() {
            session.end = Some(now());
            session.exit = Some(exit);
            session.to_step = Some(step);
            session.rewards_computed = rewards_computed;
        }
    }

    /// Writes the manifest.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, run: &RunDirectory) -> Result<(), Failure> {
        let json = serde_json::to_vec_pretty(self).expect("a manifest is JSON");
        run.write("manifest.json", &json)
    }
}
