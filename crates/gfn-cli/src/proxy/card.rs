//! The card of a surrogate reward: what it was made of and how far it can be trusted, in Markdown.

use super::scores::{LEAST_PER_CLASS, Scores};
use super::weights::{About, DataNote, Report};

/// Four significant digits.
fn short(x: f64) -> String {
    if x == 0.0 || !x.is_finite() {
        return x.to_string();
    }
    let before = x.abs().log10().floor() as i32;
    match before {
        -4..=5 => format!("{x:.*}", (3 - before).max(0) as usize),
        _ => format!("{x:.3e}"),
    }
}

/// A whole number with commas.
fn count(n: usize) -> String {
    let digits = n.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().map(|g| std::str::from_utf8(g).unwrap_or("")).collect();
    groups.join(",")
}

fn row(objects: &str, scores: &Scores) -> String {
    let or_none =
        |value: Option<f64>| value.map_or("–".to_owned(), |value| format!("{value:.3}"));
    let Scores { n, mae, rmse, r2, spearman } = scores;
    format!(
        "| {objects} | {} | {} | {} | {} | {} |\n",
        count(*n),
        short(*mae),
        short(*rmse),
        or_none(*r2),
        or_none(*spearman)
    )
}

fn table(first: &str, unit: &str) -> String {
    let unit = if unit.is_empty() { String::new() } else { format!(" ({unit})") };
    format!(
        "| {first} | n | MAE{unit} | RMSE{unit} | R² | Spearman |\n|---|---:|---:|---:|---:|---:|\n"
    )
}

fn data(note: &DataNote) -> String {
    let DataNote { file, sha256, value, rows, objects, repeated, skipped } = note;
    let mut text = format!("`{file}`, column `{value}`: {} rows, ", count(*rows));
    text += &format!("{} distinct objects", count(*objects));
    if *repeated > 0 {
        text += &format!("; {} rows repeat an object (values averaged)", count(*repeated));
    }
    if *skipped > 0 {
        text += &format!("; {} rows left out, none of the environment", count(*skipped));
    }
    text + &format!("; SHA-256 `{sha256}`")
}

/// The card.
pub fn card(about: &About) -> String {
    let kind = about.env.get("kind").and_then(|kind| kind.as_str()).unwrap_or("?");
    let unit = if about.unit.is_empty() { String::new() } else { format!(" in {}", about.unit) };
    let mut text = format!(
        "# Surrogate reward `{}`\n\n\
         A network of {} weights that predicts `{}`{unit} for objects of the environment `{kind}`, \
         made by gfn {} (`gfn proxy train`).\n\n",
        about.name,
        count(about.parameters),
        about.data.value,
        about.gfn
    );
    text += &format!("* Data: {}\n", data(&about.data));
    if let Some(test) = &about.test {
        text += &format!("* Test data: {}\n", data(test));
    }
    text += &format!(
        "* Trained on {} objects, weights of epoch {}, seed {}; mean {}, standard deviation {}{unit}\n",
        count(about.trained_on),
        about.epoch,
        about.seed,
        short(about.mean),
        short(about.sd)
    );
    if about.interrupted {
        text += "* Training was interrupted\n";
    }
    text += "\n## Errors on objects that were not trained on\n\n";
    if about.reports.is_empty() {
        text += "None were held out: nothing is known of its errors.\n\n";
    } else {
        text += &table("objects", &about.unit);
        for report in &about.reports {
            text += &row(&report.objects, &report.scores);
        }
        text += "\n";
        if about.proxy.get("keep").and_then(|keep| keep.as_str()) == Some("best") {
            let first = &about.reports[0].objects;
            text += &format!(
                "The epoch was chosen by the first of these ({first}), whose errors are a little too \
                 good for that.\n\n"
            );
        }
    }
    text += &unlike(about);
    for Report { objects, classes, .. } in &about.reports {
        for (name, classes) in classes {
            text += &format!("## By {name}: {objects}\n\n{}", table(name, &about.unit));
            classes.iter().for_each(|(class, scores)| text += &row(class, scores));
            text += &format!("\nClasses with at least {LEAST_PER_CLASS} of these objects.\n\n");
        }
    }
    let spec: toml::Table = [("env", &about.env), ("model", &about.model), ("proxy", &about.proxy)]
        .into_iter()
        .map(|(name, table)| (name.to_owned(), toml::Value::Table(table.clone())))
        .collect();
    let spec = toml::to_string(&spec).unwrap_or_default();
    text + &format!(
        "## Spec\n\n```toml\nname = \"{}\"\nseed = {}\n\n{spec}```\n",
        about.name, about.seed
    )
}

/// What is known of objects with new substructures.
fn unlike(about: &About) -> String {
    if about.known == 0 {
        return String::new();
    }
    let mut text = format!(
        "## Objects unlike those trained on\n\n\
         {} substructures are known. Objects with any other are unlike those trained on, and their \
         values extrapolated:\n\n{}",
        count(about.known),
        table("objects", &about.unit)
    );
    for Report { objects, like, unlike, .. } in &about.reports {
        for (what, scores) in [("only known substructures", like), ("some unknown", unlike)] {
            if let Some(scores) = scores {
                text += &row(&format!("{objects}: {what}"), scores);
            }
        }
    }
    text + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_four_digits() {
        for (x, expected) in [
            (0.0, "0"),
            (0.012_345_6, "0.01235"),
            (1.5, "1.500"),
            (-123.456, "-123.5"),
            (98_765.4, "98765"),
            (1.234_4e-7, "1.234e-7"),
            (1.234_4e9, "1.234e9"),
        ] {
            assert_eq!(short(x), expected);
        }
        for (n, expected) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(count(n), expected);
        }
    }
}
