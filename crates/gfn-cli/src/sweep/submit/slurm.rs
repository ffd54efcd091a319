//! A Slurm job array: one task per missing trial.

use std::fmt::Write;
use std::path::Path;

use super::{Resources, ranges};

/// The batch script. `here` is where paths in the spec are relative to.
pub fn script(
    name: &str,
    sweep: &Path,
    program: &Path,
    here: &Path,
    indices: &[usize],
    resources: &Resources,
) -> String {
    let throttle = resources.parallel.map(|n| format!("%{n}")).unwrap_or_default();
    let logs = sweep.join("logs").join("slurm-%A_%a.log");
    let mut options = vec![
        format!("--job-name={}", quoted(name)),
        format!("--array={}{throttle}", ranges(indices)),
        format!("--cpus-per-task={}", resources.cpus),
        format!("--chdir={}", quoted(&here.display().to_string())),
        format!("--output={}", quoted(&logs.display().to_string())),
        "--open-mode=append".to_owned(),
        "--requeue".to_owned(),
    ];
    for (option, value) in
        [("time", &resources.time), ("partition", &resources.partition), ("mem", &resources.mem)]
    {
        options.extend(value.iter().map(|value| format!("--{option}={}", quoted(value))));
    }
    options.extend(resources.more.iter().cloned());

    let mut text = "#!/bin/bash\n".to_owned();
    options.iter().for_each(|option| {
        let _ = writeln!(text, "#SBATCH {option}");
    });
    let _ = write!(
        text,
        r#"# Two minutes before the time limit the batch shell is told, and tells the trial.
#SBATCH --signal=B:USR1@120

{program} sweep run {sweep} --index env:SLURM_ARRAY_TASK_ID \
    --threads-per-job "${{SLURM_CPUS_PER_TASK:-{cpus}}}" &
trial=$!
stop() {{ asked=1; kill -USR1 "$trial" 2>/dev/null; }}
trap stop USR1 TERM

# A trapped signal ends `wait`, not the trial: wait again.
asked=1
while [ "$asked" = 1 ]; do
    asked=0
    wait "$trial"
    code=$?
done

# 75: interrupted with a checkpoint. Back into the queue, to go on from there.
if [ "$code" = 75 ]; then
    scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_${{SLURM_ARRAY_TASK_ID}}"
fi
exit "$code"
"#,
        program = shell(&program.display().to_string()),
        sweep = shell(&sweep.display().to_string()),
        cpus = resources.cpus,
    );
    text
}

/// A value of an option of sbatch.
fn quoted(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.+=,/:%@".contains(c);
    if !value.is_empty() && value.chars().all(plain) {
        value.to_owned()
    } else {
        format!("\"{value}\"")
    }
}

/// A word of a shell command.
fn shell(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.+=,/:%@".contains(c);
    if !value.is_empty() && value.chars().all(plain) {
        value.to_owned()
    } else {
        format!("'{}'", value.replace('\'', r"'\''"))
    }
}
