//! A Kubernetes Indexed Job: completion index = index of the trial.

use std::path::Path;

use super::Resources;
use crate::error::Failure;

/// The manifest. Indices count from 0 without gaps, so finished trials are started, too, and end at
/// once.
///
/// # Errors
/// Without an image or a volume.
pub fn manifest(
    name: &str,
    sweep: &Path,
    indices: &[usize],
    resources: &Resources,
) -> Result<String, Failure> {
    let needed = |value: &Option<String>, option: &str, what: &str| {
        value.clone().ok_or_else(|| {
            Failure::usage(format!("Kubernetes needs {option}")).help(what.to_owned())
        })
    };
    let image = needed(&resources.image, "--image", "a container image that has gfn in its PATH")?;
    let claim = needed(
        &resources.volume_claim,
        "--volume-claim",
        "the PersistentVolumeClaim that holds the sweep's directory, mounted at --mount-path",
    )?;
    let completions = indices.iter().max().map_or(0, |last| last + 1);
    let parallelism = resources.parallel.unwrap_or(completions).min(completions);
    let memory = resources
        .mem
        .as_ref()
        .map(|mem| format!("\n              memory: {}", yaml(mem)))
        .unwrap_or_default();
    Ok(format!(
        r#"apiVersion: batch/v1
kind: Job
metadata:
  generateName: {name}-
spec:
  completionMode: Indexed
  completions: {completions}
  parallelism: {parallelism}
  # A trial that fails is started once more; the others go on.
  backoffLimitPerIndex: 1
  maxFailedIndexes: {completions}
  podFailurePolicy:
    rules:
      # 75: interrupted with a checkpoint; evicted: the node went away. Neither is a failure.
      - action: Ignore
        onExitCodes:
          containerName: trial
          operator: In
          values: [75]
      - action: Ignore
        onPodConditions:
          - type: DisruptionTarget
            status: "True"
  template:
    spec:
      restartPolicy: Never
      # For the checkpoint, after SIGTERM.
      terminationGracePeriodSeconds: 120
      containers:
        - name: trial
          image: {image}
          workingDir: {mount}
          command: [gfn, sweep, run, {sweep}, --index, "env:JOB_COMPLETION_INDEX", --threads-per-job, "{cpus}"]
          resources:
            requests: &resources
              cpu: "{cpus}"{memory}
            limits: *resources
          volumeMounts:
            - name: sweep
              mountPath: {mount}
      volumes:
        - name: sweep
          persistentVolumeClaim:
            claimName: {claim}
"#,
        name = label(name),
        image = yaml(&image),
        mount = yaml(&resources.mount_path),
        sweep = yaml(&sweep.display().to_string()),
        cpus = resources.cpus,
        claim = yaml(&claim),
    ))
}

/// A string of YAML: JSON's strings are some.
fn yaml(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A name as Kubernetes allows it (RFC 1123), with room for what it adds.
fn label(name: &str) -> String {
    let lower = name.to_lowercase();
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    let name: String = lower.chars().map(plain).take(50).collect();
    let name = name.trim_matches('-');
    if name.is_empty() { "sweep".to_owned() } else { name.to_owned() }
}
