//! What frames and processes are called in profile formats.
//!
//! Names come from the target and are hostile: what these functions return has no control
//! characters, no line breaks and nothing that turns the direction of text. What else a format
//! cannot hold, it escapes itself.

use std::hash::{Hash, Hasher};

use super::{Profile, Sample};
use crate::report::{
    culprit, human,
    layout::clean,
    model::{Frame, Report},
};
use crate::trend::Verdict;

/// What a frame is called: its function, else `module+0xoffset`, else its address.
#[must_use]
pub fn frame(frame: &Frame) -> String {
    let name = clean(&culprit::name(frame)).into_owned();
    if name.is_empty() {
        "[unknown]".to_owned()
    } else {
        name
    }
}

/// What a process is called: `server (1234)`.
#[must_use]
pub fn process(profile: &Profile, pid: u32) -> String {
    let comm = profile.process(pid).map_or("", |found| &found.comm);
    if comm.is_empty() {
        format!("pid {pid}")
    } else {
        format!("{} ({pid})", clean(comm))
    }
}

/// The stack from the process to the innermost frame.
#[must_use]
pub fn path(profile: &Profile, sample: &Sample) -> Vec<String> {
    let mut path = Vec::with_capacity(sample.frames.len() + 2);
    path.push(process(profile, sample.pid));
    if !sample.complete {
        path.push("[outer frames unknown]".to_owned());
    }
    path.extend(sample.frames.iter().rev().map(frame));
    path
}

/// In place of the stacks that are in no sample; `None` when there are none.
#[must_use]
pub fn not_shown(profile: &Profile) -> Option<String> {
    let rest = &profile.not_shown;
    (rest.stacks > 0 || rest.outstanding_bytes > 0).then(|| {
        let count = u64::try_from(rest.stacks).unwrap_or(u64::MAX);
        format!("[{} not shown]", human::counted(count, "stack", "stacks"))
    })
}

/// What a profile is called: `memtrace: pid 1234 on web-1`.
#[must_use]
pub fn title(profile: &Profile) -> String {
    let meta = &profile.meta;
    format!("memtrace: {} on {}", clean(&meta.target), clean(&meta.host))
}

/// What was traced: `pid 1234`.
#[must_use]
pub fn target(report: &Report) -> String {
    let target = &report.target;
    format!("{} {}", target.kind, clean(&target.value))
}

/// A verdict as JSON writes it.
#[must_use]
pub fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Growing => "growing",
        Verdict::Plateau => "plateau",
        Verdict::Sawtooth => "sawtooth",
        Verdict::Spike => "spike",
        Verdict::Steady => "steady",
        Verdict::Shrinking => "shrinking",
        Verdict::TooEarly => "too-early",
    }
}

/// A stack's id: the same in every report of a session, 16 hexadecimal digits.
///
/// Made of process, probe, kind of region and addresses: names may be found later, addresses stay.
#[must_use]
pub fn stack_id(sample: &Sample) -> String {
    let mut hasher = Fnv::default();
    (sample.pid, sample.probe).hash(&mut hasher);
    // One call path has a line for each kind of region.
    if let Some(kind) = sample.kind {
        kind.name().hash(&mut hasher);
    }
    for frame in &sample.frames {
        (&frame.address, &frame.module, &frame.offset, frame.inlined).hash(&mut hasher);
    }
    format!("{:016x}", hasher.finish())
}

/// FNV-1a: the standard library's hash may change with its version, and an id must not.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for Fnv {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{fixtures, profile::Series};

    // A path goes from the process to the allocator, and hostile names are harmless in it.
    #[test]
    fn path_is_outermost_first_and_clean() {
        let profile = Profile::new(&fixtures::hostile(), Series::default());
        let path = path(&profile, &profile.samples[0]);
        assert_eq!(path.last().map(String::as_str), Some("malloc"));
        assert!(path[0].ends_with("evil (1234)"), "{path:?}");
        let text = path.concat();
        assert!(!text.chars().any(char::is_control), "{text:?}");
        assert!(!text.contains('\u{202e}'), "{text:?}");
    }

    // Ids tell stacks apart, and do not change when a name is found later.
    #[test]
    fn ids() {
        let mut profile = Profile::new(&fixtures::two_callers(), Series::default());
        profile.samples[1].frames[2].address = "0x1".to_owned();
        let ids: Vec<_> = profile.samples.iter().map(stack_id).collect();
        assert_ne!(ids[0], ids[1]);
        profile.samples[0].frames[1].function = None;
        assert_eq!(stack_id(&profile.samples[0]), ids[0]);
    }

    // What is in no sample has a name of its own.
    #[test]
    fn rest() {
        let profile = Profile::new(&fixtures::leak(), Series::default());
        assert_eq!(not_shown(&profile).as_deref(), Some("[3 stacks not shown]"));
        let whole = Profile::new(&fixtures::two_callers(), Series::default());
        assert_eq!(not_shown(&whole), None);
    }
}
