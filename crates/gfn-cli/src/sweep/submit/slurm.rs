//! A Slurm job array: one task per missing trial.

use std::fmt::Write;
use std::path::Path;

use super::{Resources, ranges};

/// Seconds before the time limit at which a task is told to save.
const WARNING_S: u32 = 120;

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
    // In names of files, % begins a replacement.
    let logs = sweep.join("logs").display().to_string().replace('%', "%%") + "/slurm-%A_%a.log";
    let mut options = vec![
        format!("--job-name={}", quoted(name)),
        format!("--array={}{throttle}", ranges(indices)),
        format!("--cpus-per-task={}", resources.cpus),
        format!("--chdir={}", quoted(&here.display().to_string())),
        format!("--output={}", quoted(&logs)),
        "--open-mode=append".to_owned(),
        "--requeue".to_owned(),
        format!("--signal=B:USR1@{WARNING_S}"),
    ];
    for (option, value) in
        [("time", &resources.time), ("partition", &resources.partition), ("mem", &resources.mem)]
    {
        options.extend(value.iter().map(|value| format!("--{option}={}", quoted(value))));
    }
    // The last one counts where an option is given twice.
    options.extend(resources.more.iter().cloned());

    let mut text = "#!/bin/bash\n".to_owned();
    options.iter().for_each(|option| {
        let _ = writeln!(text, "#SBATCH {option}");
    });
    let _ = write!(
        text,
        r#"
{program} sweep run {sweep} --index env:SLURM_ARRAY_TASK_ID \
    --threads-per-job "${{SLURM_CPUS_PER_TASK:-{cpus}}}" &
trial=$!

# USR1: the time limit is near. TERM: the task is requeued, pre-empted or cancelled. Both have the
# trial saved.
warned=0
trap 'asked=1; warned=1; kill -USR1 "$trial" 2>/dev/null' USR1
trap 'asked=1; kill -TERM "$trial" 2>/dev/null' TERM

# A trapped signal ends `wait`, not the trial: wait again.
asked=1
while [ "$asked" = 1 ]; do
    asked=0
    wait "$trial"
    code=$?
done

# 75: interrupted with a checkpoint. Back into the queue, to go on from there; after TERM that is
# Slurm's choice.
if [ "$code" = 75 ] && [ "$warned" = 1 ]; then
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

/// A value of an option of sbatch: quotes, and backslashes also within them.
fn quoted(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.+=,/:%@".contains(c);
    if !value.is_empty() && value.chars().all(plain) {
        value.to_owned()
    } else {
        format!("\"{}\"", value.replace('\\', r"\\").replace('"', r#"\""#))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_quoted_for_whoever_reads_them() {
        assert_eq!(quoted("/a/b-1,2=%A_%a.log"), "/a/b-1,2=%A_%a.log");
        assert_eq!(quoted(r#"/it's "a\b""#), r#""/it's \"a\\b\"""#);
        assert_eq!(shell("it's"), r"'it'\''s'");
        let resources = Resources {
            parallel: None,
            cpus: 1,
            mem: None,
            time: None,
            partition: None,
            image: None,
            volume_claim: None,
            mount_path: String::new(),
            more: vec!["--signal=B:USR1@300".to_owned()],
        };
        let path = Path::new("/100%/a b");
        let script = script("a b", path, Path::new("gfn"), path, &[1], &resources);
        assert!(script.contains("--output=\"/100%%/a b/logs/slurm-%A_%a.log\"\n"), "{script}");
        assert!(script.contains("--chdir=\"/100%/a b\"\n"), "{script}");
        // The user's own options come last, where they count.
        let options = script.rfind("#SBATCH").unwrap();
        assert!(script[options..].starts_with("#SBATCH --signal=B:USR1@300\n"), "{script}");
    }
}
