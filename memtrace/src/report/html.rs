//! One HTML page, whole in itself: no network, no other file.
//!
//! The page is `html/page.html` with its style and script put in, and the profile as JSON, escaped
//! so that no name can end the element it stands in. The script makes everything a person sees out
//! of text nodes; names are never markup.

use std::collections::HashMap;
use std::io;

use serde::Serialize;
use serde_json::{Value, json};

use super::{
    culprit,
    cycles::Cycles,
    layout::clean,
    model::Frame,
    profile::{Apart, Profile, ProfiledProcess, Sample, names},
};
use crate::ledger::regions::RegionKind;

const PAGE: &str = include_str!("html/page.html");
const STYLE: &str = include_str!("html/page.css");
const SCRIPT: &str = include_str!("html/page.js");

/// The page.
///
/// # Errors
/// When JSON cannot hold the profile.
pub fn render(profile: &Profile) -> io::Result<Vec<u8>> {
    let data = serde_json::to_string(&data(profile))?;
    let parts = [
        ("@TITLE@", markup(&names::title(profile))),
        ("@CSS@", STYLE.to_owned()),
        ("@DATA@", in_script(&data)),
        ("@JS@", SCRIPT.to_owned()),
    ];
    // In the order of the page, so that a name that looks like a placeholder is left alone.
    let (mut page, mut rest) = (String::new(), PAGE);
    for (placeholder, text) in parts {
        let (before, after) = rest.split_once(placeholder).unwrap_or((rest, ""));
        page.push_str(before);
        page.push_str(&text);
        rest = after;
    }
    page.push_str(rest);
    Ok(page.into_bytes())
}

/// Text for markup.
fn markup(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            c => out.push(c),
        }
    }
    out
}

/// JSON for a script element: `</script>` and `<!--` cannot appear, and it is the same JSON.
fn in_script(json: &str) -> String {
    json.replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
        .replace('\u{2028}', "\\u2028")
        .replace('\u{2029}', "\\u2029")
}

#[derive(PartialEq, Eq, Hash, Clone, Serialize)]
struct PageFrame {
    name: String,
    module: Option<String>,
    place: Option<String>,
    allocator: bool,
    inlined: bool,
    reason: Option<String>,
}

fn data(profile: &Profile) -> Value {
    let mut frames = Frames::default();
    let stacks: Vec<_> = profile
        .samples
        .iter()
        .enumerate()
        .map(|(at, sample)| stack(at + 1, sample, &mut frames))
        .collect();
    let meta = &profile.meta;
    let losses = meta
        .losses
        .iter()
        .map(|(name, count)| (clean(name), *count));
    let processes = profile.processes.iter();
    json!({
        "meta": {
            "version": meta.tool_version,
            "host": clean(&meta.host),
            "target": clean(&meta.target),
            "started_at": clean(&meta.started_at),
            "taken_at": clean(&meta.taken_at),
            "duration_seconds": meta.duration_seconds,
            "gained_since": meta.gained_since,
            "interval_seconds": meta.interval_seconds,
            "intervals_completed": meta.intervals_completed,
            "sample_bytes": meta.sample_bytes,
            "older_seconds": meta.older_seconds,
            "losses": losses.collect::<std::collections::BTreeMap<_, _>>(),
        },
        "processes": processes.map(|one| process(profile, one)).collect::<Vec<_>>(),
        "frames": frames.all,
        "stacks": stacks,
        "not_shown": {
            "stacks": profile.not_shown.stacks,
            "bytes": profile.not_shown.outstanding_bytes,
            "objects": profile.not_shown.outstanding_objects,
        },
        "marks": profile.marks.iter().map(|mark| json!({
            "at": mark.at,
            "name": clean(&mark.name),
        })).collect::<Vec<_>>(),
        "thresholds": profile.thresholds.iter().map(|threshold| json!({
            "name": clean(&threshold.name),
            "bytes": threshold.bytes,
        })).collect::<Vec<_>>(),
        "incidents": profile.incidents.iter().map(|incident| json!({
            "at": incident.at,
            "pid": incident.pid,
            "kind": clean(&incident.kind),
            "text": clean(&incident.text),
        })).collect::<Vec<_>>(),
        "cycles": profile.cycles.as_ref().map(|told| cycles(profile, told)),
    })
}

fn process(profile: &Profile, process: &ProfiledProcess) -> Value {
    let usage = process.usage.iter().map(|point| {
        json!([
            point.at,
            point.outstanding_bytes,
            point.rss_bytes,
            point.usage_bytes,
            point.limit_bytes
        ])
    });
    json!({
        "pid": process.pid,
        "name": names::process(profile, process.pid),
        "state": process.state,
        "container": process.container.as_deref().map(clean),
        "rss_at_attach": process.rss_bytes_at_attach,
        "rss": process.rss_bytes,
        "usage_bytes": process.usage_bytes,
        "limit": process.limit_bytes,
        "bytes": process.outstanding_bytes,
        "objects": process.outstanding_objects,
        "growth": process.growth_bytes_per_second,
        "verdict": names::verdict(process.verdict),
        "seconds_to_limit": process.seconds_to_limit,
        "usage": usage.collect::<Vec<_>>(),
    })
}

fn stack(rank: usize, sample: &Sample, frames: &mut Frames) -> Value {
    let indices: Vec<_> = sample
        .frames
        .iter()
        .map(|frame| frames.index(frame))
        .collect();
    let history = sample.history.iter();
    json!({
        "rank": rank,
        "pid": sample.pid,
        "probe": sample.probe,
        "kind": sample.kind.map_or("", RegionKind::name),
        "apart": sample.apart().map(|apart| match apart {
            Apart::Resident => "resident",
            Apart::Reserved => "reserved",
        }),
        "bytes": sample.outstanding_bytes,
        "objects": sample.outstanding_objects,
        "allocated_bytes": sample.allocated_bytes,
        "allocated_objects": sample.allocated_objects,
        "oldest": sample.oldest_seconds,
        "growth": sample.growth_bytes_per_second,
        "verdict": names::verdict(sample.verdict),
        "confidence": sample.confidence,
        "complete": sample.complete,
        "per_cycle": sample.gained_per_cycle,
        "culprit": culprit::culprit(&sample.frames).unwrap_or(0),
        "frames": indices,
        "history": history.map(|m| json!([m.at, m.outstanding_bytes])).collect::<Vec<_>>(),
    })
}

fn cycles(profile: &Profile, cycles: &Cycles) -> Value {
    let list = cycles.list.iter().map(|one| {
        json!({
            "number": one.number,
            "from": clean(&one.from),
            "to": one.to.as_deref().map(clean),
            "at": one.from_seconds - profile.from_seconds,
            "amounts": one.amounts,
        })
    });
    let growing = cycles.growing_functions.iter().map(|grows| {
        json!({
            "name": clean(&grows.title()),
            "probe": grows.probe,
            "gained": grows.gained_bytes,
            "per_cycle": grows.gained_per_cycle,
        })
    });
    json!({
        "name": cycles.name.as_deref().map(clean),
        "marks": clean(&cycles.marks()),
        "completed": cycles.completed,
        "needed": cycles.needed,
        "at_least": cycles.at_least(),
        "earlier": cycles.earlier,
        "total": cycles.total,
        "thresholds": cycles.thresholds,
        "list": list.collect::<Vec<_>>(),
        "growing": growing.collect::<Vec<_>>(),
    })
}

/// Frames, each once.
#[derive(Default)]
struct Frames {
    all: Vec<PageFrame>,
    known: HashMap<PageFrame, usize>,
}

impl Frames {
    fn index(&mut self, frame: &Frame) -> usize {
        let owned = |text: &str| clean(text).into_owned();
        let page = PageFrame {
            name: names::frame(frame),
            module: frame.module.as_deref().map(culprit::file_name).map(owned),
            place: frame
                .file
                .as_ref()
                .and_then(|_| culprit::place(frame))
                .as_deref()
                .map(owned),
            allocator: frame.allocator,
            inlined: frame.inlined,
            reason: frame.reason.as_deref().map(owned),
        };
        let next = self.all.len();
        let at = *self.known.entry(page.clone()).or_insert(next);
        if at == next {
            self.all.push(page);
        }
        at
    }
}

#[cfg(test)]
mod tests;
