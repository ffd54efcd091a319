//! Rewards by a program of the user's own, over a pipe.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use gfn_core::registry::{Kind, RewardAxis, RewardContext};
use gfn_core::{Environment, KeyError, Reward, RewardError, States};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::modes::{ModeSpec, is_empty};
use super::remembered::Remembered;
use super::transform::Transform;
use super::value::{ObjectValues, ValueKeys, ValueReward};

/// How objects are written to the program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// The object's text.
    #[default]
    Text,
    /// A JSON object with the text and the cells of the row: `{"object": "AC", "row": [0, 1]}`.
    Jsonl,
}

/// R(x) from the numbers that a program prints, by [`Transform`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CommandSpec {
    /// The program and its arguments. It reads objects from stdin, one per line and an empty line
    /// after each batch, and writes one number per object to stdout, in order, flushed.
    pub command: Vec<String>,
    /// How objects are written.
    pub format: Format,
    /// Seconds for a batch, the start of the program included.
    pub timeout_s: f64,
    /// How often a program that crashed, hung or lost count is started anew for a batch.
    pub restarts: usize,
    /// Programs that score side by side.
    pub workers: usize,
    /// Whether all objects are scored at the start where the environment is small enough, so that
    /// metrics are exact.
    pub enumerate: bool,
    /// Scores to remember, at most; 0 to ask anew every time.
    pub cache: usize,
    /// From numbers to rewards.
    #[serde(skip_serializing_if = "Transform::is_identity")]
    pub transform: Transform,
    /// Which objects are modes.
    #[serde(skip_serializing_if = "ModeSpec::is_none")]
    pub modes: ModeSpec,
    /// A CSV file with a header whose first column names objects to measure correlations on.
    #[serde(skip_serializing_if = "is_empty")]
    pub test_set: PathBuf,
}

impl Default for CommandSpec {
    fn default() -> Self {
        Self {
            command: Vec::new(),
            format: Format::Text,
            timeout_s: 60.0,
            restarts: 1,
            workers: 1,
            enumerate: false,
            cache: 0,
            transform: Transform::default(),
            modes: ModeSpec::default(),
            test_set: PathBuf::new(),
        }
    }
}

impl Kind<RewardAxis> for CommandSpec {
    const NAME: &'static str = "command";
    const SUMMARY: &'static str = "a program of your own, asked over a pipe";
    const NEUTRAL_KEYS: &'static [&'static str] =
        &["command", "timeout_s", "restarts", "workers", "cache"];

    fn build(&self, context: RewardContext<'_>) -> Result<Box<dyn Reward>, KeyError> {
        if self.command.first().is_none_or(String::is_empty) {
            return Err(KeyError::new("command", "no program is given")
                .help("for example reward.command = [\"python3\", \"scripts/scorer.py\"]"));
        }
        if !(self.timeout_s > 0.0 && self.timeout_s <= 1e6) {
            return Err(KeyError::new("timeout_s", "the time for a batch must be above 0 s"));
        }
        if !(1..=1024).contains(&self.workers) {
            let message = format!("must lie in 1..=1024, not {}", self.workers);
            return Err(KeyError::new("workers", message));
        }
        // A program that cannot be started is found out now, not after hours.
        let first =
            Scorer::start(&self.command).map_err(|message| KeyError::new("command", message))?;
        let mut scorers: Vec<_> = (1..self.workers).map(|_| Mutex::new(None)).collect();
        scorers.push(Mutex::new(Some(first)));
        let program = Program {
            env: context.env.clone(),
            spec: self.clone(),
            scorers,
            remembered: Remembered::new(context.env.space().width, self.cache),
            computed: AtomicU64::new(0),
        };
        let keys =
            ValueKeys { transform: &self.transform, modes: &self.modes, test_set: &self.test_set };
        Ok(Box::new(ValueReward::new(context, program, keys)?))
    }
}

/// A running program. Threads of its own write to it and read from it, so that a program that
/// neither reads nor answers cannot block anything but its batch.
struct Scorer {
    child: Child,
    input: Option<Sender<String>>,
    output: Receiver<String>,
}

impl Scorer {
    fn start(command: &[String]) -> Result<Self, String> {
        let mut process = Command::new(&command[0]);
        process.args(&command[1..]).stdin(Stdio::piped()).stdout(Stdio::piped());
        // Ctrl-C is for gfn: it finishes the iteration, and needs its scores for that.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut process, 0);
        let mut child = process
            .spawn()
            .map_err(|error| format!("cannot start `{}`: {error}", command.join(" ")))?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let (input, lines) = channel::<String>();
        std::thread::spawn(move || {
            let Some(mut stdin) = stdin else { return };
            for text in lines {
                if stdin.write_all(text.as_bytes()).and_then(|()| stdin.flush()).is_err() {
                    return;
                }
            }
        });
        let (answers, output) = channel();
        std::thread::spawn(move || {
            let Some(stdout) = stdout else { return };
            for line in BufReader::new(stdout).lines() {
                // A program that prints something else than text gives no number.
                let line = line.unwrap_or_else(|_| "<not UTF-8>".to_owned());
                if answers.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Self { child, input: Some(input), output })
    }

    /// Numbers for a batch of `n` objects; an error says what the program did.
    fn score(&mut self, text: String, n: usize, timeout: Duration) -> Result<Vec<String>, String> {
        let count = |got: usize| format!("after {got} of {n} numbers");
        if let Ok(line) = self.output.try_recv() {
            return Err(format!("printed more numbers than it was given objects: `{line}`"));
        }
        let deadline = Instant::now() + timeout;
        if self.input.as_ref().is_none_or(|input| input.send(text).is_err()) {
            return Err(format!("{} {}", self.ending(), count(0)));
        }
        let mut numbers = Vec::with_capacity(n);
        while numbers.len() < n {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.output.recv_timeout(left) {
                Ok(line) if line.trim().is_empty() => {}
                Ok(line) => numbers.push(line),
                Err(RecvTimeoutError::Timeout) => {
                    let seconds = timeout.as_secs_f64();
                    return Err(format!(
                        "gave no answer within {seconds} s {}",
                        count(numbers.len())
                    ));
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(format!("{} {}", self.ending(), count(numbers.len())));
                }
            }
        }
        Ok(numbers)
    }

    /// How the program ended, once it has closed its output.
    fn ending(&mut self) -> String {
        for _ in 0..100 {
            if let Ok(Some(status)) = self.child.try_wait() {
                return format!("ended ({status})");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        "closed its output".to_owned()
    }
}

impl Drop for Scorer {
    fn drop(&mut self) {
        // The end of its input asks the program to end.
        drop(self.input.take());
        for _ in 0..50 {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The numbers that a program prints for objects.
struct Program {
    env: Arc<dyn Environment>,
    spec: CommandSpec,
    scorers: Vec<Mutex<Option<Scorer>>>,
    remembered: Remembered,
    computed: AtomicU64,
}

impl Program {
    fn write(&self, rows: &[&[i32]]) -> String {
        let mut text = String::new();
        for row in rows {
            let object = self.env.render(row);
            match self.spec.format {
                Format::Text => text += &object,
                Format::Jsonl => {
                    text += &serde_json::json!({ "object": object, "row": row }).to_string();
                }
            }
            text.push('\n');
        }
        text.push('\n');
        text
    }

    /// Raw values of some objects by one of the programs, which is started anew if it fails.
    fn ask(
        &self,
        scorer: &Mutex<Option<Scorer>>,
        rows: &[&[i32]],
    ) -> Result<Vec<f64>, RewardError> {
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let program = self.spec.command.join(" ");
        let timeout = Duration::from_secs_f64(self.spec.timeout_s);
        let mut scorer = scorer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut failure = String::new();
        for _ in 0..=self.spec.restarts {
            if scorer.is_none() {
                match Scorer::start(&self.spec.command) {
                    Ok(started) => *scorer = Some(started),
                    Err(message) => return Err(RewardError::Failed { message }),
                }
            }
            let running = scorer.as_mut().expect("started above");
            match running.score(self.write(rows), rows.len(), timeout) {
                Ok(lines) => return self.numbers(&program, rows, &lines),
                Err(message) => {
                    failure = message;
                    *scorer = None;
                }
            }
        }
        let tries = match self.spec.restarts {
            0 => String::new(),
            restarts => format!(", and again when started anew ({restarts}×)"),
        };
        Err(RewardError::Failed { message: format!("the scorer `{program}` {failure}{tries}") })
    }

    fn numbers(
        &self,
        program: &str,
        rows: &[&[i32]],
        lines: &[String],
    ) -> Result<Vec<f64>, RewardError> {
        let number = |(row, line): (&&[i32], &String)| {
            let value = line.trim().parse().ok().filter(|value: &f64| value.is_finite());
            value.ok_or_else(|| {
                let object = self.env.render(row);
                let message =
                    format!("the scorer `{program}` gave `{line}` for `{object}`, not a number");
                RewardError::Failed { message }
            })
        };
        rows.iter().zip(lines).map(number).collect()
    }

    /// Raw values of objects, shared out over the programs.
    fn ask_all(&self, rows: &[&[i32]]) -> Result<Vec<f64>, RewardError> {
        self.computed.fetch_add(rows.len() as u64, Ordering::Relaxed);
        let share = rows.len().div_ceil(self.scorers.len()).max(1);
        if rows.len() <= share {
            return self.ask(&self.scorers[self.scorers.len() - 1], rows);
        }
        let parts = std::thread::scope(|scope| {
            let shares = rows.chunks(share).zip(&self.scorers);
            let threads: Vec<_> =
                shares.map(|(rows, scorer)| scope.spawn(|| self.ask(scorer, rows))).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panics")).collect::<Vec<_>>()
        });
        Ok(parts.into_iter().collect::<Result<Vec<_>, _>>()?.concat())
    }
}

impl ObjectValues for Program {
    fn values(&self, xs: &States) -> Result<Vec<f64>, RewardError> {
        self.remembered.values(xs, |xs| self.ask_all(&xs.rows().collect::<Vec<_>>()))
    }

    /// Numbers are shown beside samples if the program need not be asked for them again.
    fn column(&self) -> Option<&str> {
        (self.spec.cache > 0).then_some("value")
    }

    fn are_cheap(&self) -> bool {
        false
    }

    fn may_enumerate(&self) -> bool {
        self.spec.enumerate
    }

    fn computed(&self) -> Option<u64> {
        Some(self.computed.load(Ordering::Relaxed))
    }
}
