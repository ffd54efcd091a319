//! `gfn list`: what specs can name.

use gfn_core::registry::{Descriptor, Status};

use super::print;
use crate::Registry;
use crate::error::Failure;

/// Name, aliases, summary, source and status of one kind.
pub(super) struct Row {
    pub name: &'static str,
    pub aliases: &'static [&'static str],
    pub summary: &'static str,
    pub paper: Option<&'static str>,
    pub experimental: bool,
}

/// All that specs can name, by axes, in the order of a spec.
pub(super) fn axes(registry: &Registry) -> Vec<(&'static str, Vec<Row>)> {
    let row = |kind: Descriptor| Row {
        name: kind.name,
        aliases: kind.aliases,
        summary: kind.summary,
        paper: kind.paper,
        experimental: kind.status == Status::Experimental,
    };
    let kinds = registry.axes().into_iter();
    let mut axes: Vec<_> =
        kinds.map(|(axis, kinds)| (axis, kinds.into_iter().map(row).collect())).collect();
    let plain =
        |name, summary| Row { name, aliases: &[], summary, paper: None, experimental: false };
    axes.push(("metric", registry.metrics.iter().map(|m| plain(m.name, m.summary)).collect()));
    axes.push(("device", registry.devices.iter().map(|d| plain(d.name, d.summary)).collect()));
    axes
}

pub fn run(registry: &Registry, axis: Option<&str>) -> Result<(), Failure> {
    let axes = axes(registry);
    let names: Vec<&str> = axes.iter().map(|(name, _)| *name).collect();
    if let Some(axis) = axis
        && !names.contains(&axis)
    {
        let failure = Failure::usage(format!("unknown axis `{axis}`"))
            .did_you_mean(axis, names.iter().copied());
        return Err(failure.help(format!("axes: {}", names.join(", "))));
    }
    let mut text = String::new();
    for (name, rows) in axes {
        if axis.is_some_and(|axis| axis != name) {
            continue;
        }
        text += &format!("{name}\n");
        for row in rows {
            let mut notes = Vec::new();
            if !row.aliases.is_empty() {
                notes.push(format!("also {}", row.aliases.join(", ")));
            }
            notes.extend(row.paper.map(str::to_owned));
            if row.experimental {
                notes.push("experimental".to_owned());
            }
            let notes =
                if notes.is_empty() { String::new() } else { format!(" [{}]", notes.join("; ")) };
            text += &format!("  {:<14} {}{notes}\n", row.name, row.summary);
        }
    }
    print(&text)
}
