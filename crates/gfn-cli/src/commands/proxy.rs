//! `gfn proxy train`: a surrogate reward from a table, with a card of its errors.

use std::path::Path;
use std::time::{Duration, Instant};

use super::print;
use crate::Registry;
use crate::args::{Proxy, ProxyTrain};
use crate::data;
use crate::error::{BUG, Failure, INTERRUPTED, say};
use crate::files::FileReader;
use crate::proxy::{self, Epoch, ProxySpec, Trained, card};
use crate::run::directory::write_atomically;
use crate::signals::Stop;

pub fn run(registry: &Registry, what: &Proxy) -> Result<(), Failure> {
    match what {
        Proxy::Train(args) => train(registry, args),
    }
}

fn train(registry: &Registry, args: &ProxyTrain) -> Result<(), Failure> {
    let mut overrides = args.set.clone();
    overrides.extend(args.seed.map(|seed| format!("seed={seed}")));
    let spec = ProxySpec::load(registry, &args.spec, &overrides)?;
    let card_path = args.out.with_extension("md");
    check_free(&[&args.out, &card_path])?;
    let stop = Stop::listen()
        .map_err(|error| Failure::new(BUG, format!("cannot listen to signals: {error}")))?;
    let start = Instant::now();
    let tell = |line: &str| {
        if !args.quiet {
            say(line);
        }
    };
    // Its parts run side by side there without waking a thread for each.
    let trained = rayon::scope(|_| {
        let files = FileReader::new(data::data_dir());
        proxy::train(
            &spec,
            &files,
            |note| tell(&format!("note: {note}")),
            |epoch| tell(&line(&epoch, &spec.proxy.unit, start.elapsed())),
            || stop.requested(),
        )
    });
    let Trained { file, .. } = trained?;
    write_atomically(&args.out, &file.to_bytes())?;
    write_atomically(&card_path, card(&file.about).as_bytes())?;
    let (out, about) = (args.out.display(), &file.about);
    for report in &about.reports {
        let scores = &report.scores;
        let r2 = scores.r2.map(|r2| format!(", R² {r2:.4}")).unwrap_or_default();
        let (mae, n) = (significant(scores.mae), scores.n);
        tell(&format!("{}: MAE {mae} {}{r2} ({n} objects)", report.objects, about.unit));
    }
    if about.interrupted {
        let epoch = about.epoch;
        let message = format!("interrupted: `{out}` holds the weights of epoch {epoch}");
        return Err(Failure::new(INTERRUPTED, message)
            .help("running the same command again, with another -o, starts anew"));
    }
    print(&format!("{out}\n"))
}

/// Refuses to replace files, and folders that are not there, before time is spent.
fn check_free(paths: &[&Path]) -> Result<(), Failure> {
    for path in paths {
        if path.exists() {
            return Err(Failure::usage(format!("`{}` exists already", path.display()))
                .help("choose another file with -o, or move it aside"));
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
            return Err(Failure::usage(format!("there is no folder `{}`", folder.display())));
        }
    }
    Ok(())
}

fn significant(x: f64) -> String {
    format!("{x:.*}", (3 - x.abs().log10().floor().clamp(-9.0, 3.0) as i32) as usize)
}

fn line(epoch: &Epoch, unit: &str, elapsed: Duration) -> String {
    let Epoch { epoch, of, loss, mae } = *epoch;
    let mut line = format!("epoch {epoch}/{of}  loss {}", significant(loss));
    if let Some(mae) = mae {
        line += &format!("  held-out MAE {} {unit}", significant(mae));
    }
    let left = elapsed.as_secs_f64() / epoch as f64 * (of - epoch) as f64;
    let eta = humantime::format_duration(Duration::from_secs(left as u64));
    format!("{}  eta {eta}", line.trim_end())
}
