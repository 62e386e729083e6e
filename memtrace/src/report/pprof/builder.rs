//! A neutral profile as the messages of pprof.

use std::collections::{BTreeSet, HashMap};

use super::proto::{Function, Label, Line, Location, Mapping, Profile, Sample, ValueType};
use crate::{
    ledger::regions::RegionKind,
    report::{
        culprit::culprit,
        layout::clean,
        model::Frame,
        profile::{self, Apart, names},
    },
};

/// Granule in which mappings are told apart: their real bounds are not in a profile.
const PAGE: u64 = 4096;
/// Names of allocators that are hidden.
const MAX_HIDDEN: usize = 200;

pub(super) fn build(profile: &profile::Profile) -> Profile {
    let mut builder = Builder::default();
    // The string table's first entry is empty.
    builder.string("");
    for (name, unit) in [
        ("alloc_objects", "count"),
        ("alloc_space", "bytes"),
        ("inuse_objects", "count"),
        ("inuse_space", "bytes"),
    ] {
        let value_type = builder.value_type(name, unit);
        builder.out.sample_type.push(value_type);
    }
    for apart in Apart::ALL {
        if profile.samples.iter().any(|s| s.apart() == Some(apart)) {
            let value_type = builder.value_type(type_of(apart), "bytes");
            builder.out.sample_type.push(value_type);
            builder.apart.push(apart);
        }
    }
    builder.out.default_sample_type = builder.string("inuse_space");
    builder.head(profile);
    builder.main_program(profile);
    for sample in &profile.samples {
        builder.sample(profile, sample);
    }
    builder.not_shown(profile);
    builder.hide_allocators(profile);
    builder.widen_mappings();
    builder.out
}

/// The type of sample that holds what is not added to the others.
fn type_of(apart: Apart) -> &'static str {
    match apart {
        Apart::Resident => "resident_space",
        Apart::Reserved => "reserved_space",
    }
}

#[derive(Default)]
struct Builder {
    out: Profile,
    /// Types of sample behind the four that are always there.
    apart: Vec<Apart>,
    strings: HashMap<String, i64>,
    functions: HashMap<Function, u64>,
    locations: HashMap<Location, u64>,
    mappings: HashMap<MappingKey, usize>,
}

/// One object at one place: the address at which its file's first byte would lie.
#[derive(Clone, PartialEq, Eq, Hash)]
struct MappingKey {
    pid: u32,
    module: String,
    build_id: String,
    base: Option<u64>,
}

impl Builder {
    fn string(&mut self, text: &str) -> i64 {
        if let Some(&at) = self.strings.get(text) {
            return at;
        }
        let at = count(self.out.string_table.len());
        self.out.string_table.push(text.to_owned());
        self.strings.insert(text.to_owned(), at);
        at
    }

    fn value_type(&mut self, name: &str, unit: &str) -> ValueType {
        ValueType {
            r#type: self.string(name),
            unit: self.string(unit),
        }
    }

    fn head(&mut self, profile: &profile::Profile) {
        let meta = &profile.meta;
        let taken: Option<jiff::Timestamp> = meta.taken_at.parse().ok();
        let nanos = taken.map_or(0, jiff::Timestamp::as_nanosecond);
        self.out.time_nanos = i64::try_from(nanos).unwrap_or(0);
        #[expect(
            clippy::cast_possible_truncation,
            reason = "a cast of a float saturates: 292 years"
        )]
        let duration = (meta.duration_seconds * 1e9) as i64;
        self.out.duration_nanos = duration;
        self.out.period_type = Some(self.value_type("space", "bytes"));
        self.out.period = saturate(meta.sample_bytes);
        let mut comments = vec![names::title(profile)];
        comments.push(format!("memtrace {}", meta.tool_version));
        if let Some(seconds) = meta.older_seconds {
            comments.push(format!("in use: only blocks at least {seconds} s old"));
        }
        let losses = meta.losses.iter();
        comments.extend(losses.map(|(name, count)| format!("lost: {} {count}", clean(name))));
        for comment in comments {
            let at = self.string(&comment);
            self.out.comment.push(at);
        }
    }

    /// pprof takes the first mapping for the program: not the allocator's library, please.
    fn main_program(&mut self, profile: &profile::Profile) {
        let Some(sample) = profile.samples.first() else {
            return;
        };
        let own = culprit(&sample.frames).and_then(|at| sample.frames.get(at));
        if let Some(frame) = own {
            self.mapping(sample.pid, frame, hex(Some(&frame.address)).unwrap_or(0));
        }
    }

    fn sample(&mut self, profile: &profile::Profile, sample: &profile::Sample) {
        let mut location_id = Vec::with_capacity(sample.frames.len());
        let mut inlined: Vec<&Frame> = Vec::new();
        for frame in &sample.frames {
            inlined.push(frame);
            // Inlined frames belong to the location of the one they are inlined into.
            if !frame.inlined {
                location_id.push(self.location(sample.pid, &inlined));
                inlined.clear();
            }
        }
        if !inlined.is_empty() {
            location_id.push(self.location(sample.pid, &inlined));
        }
        let label = self.labels(profile, sample);
        self.out.sample.push(Sample {
            location_id,
            value: self.values(sample),
            label,
        });
    }

    fn values(&self, sample: &profile::Sample) -> Vec<i64> {
        let summed = |value: u64| if sample.summed { saturate(value) } else { 0 };
        let mut values = vec![
            summed(sample.allocated_objects),
            summed(sample.allocated_bytes),
            summed(sample.outstanding_objects),
            summed(sample.outstanding_bytes),
        ];
        let bytes = saturate(sample.outstanding_bytes);
        let apart = sample.apart();
        let further = self.apart.iter();
        values.extend(further.map(|this| if apart == Some(*this) { bytes } else { 0 }));
        values
    }

    fn labels(&mut self, profile: &profile::Profile, sample: &profile::Sample) -> Vec<Label> {
        let process = profile.process(sample.pid);
        let comm = process.map_or("", |process| &process.comm);
        let container = process.and_then(|process| process.container.as_deref());
        let mut labels = vec![Label {
            key: self.string("pid"),
            num: i64::from(sample.pid),
            ..Label::default()
        }];
        let texts = [
            ("process", comm),
            ("container", container.unwrap_or("")),
            ("probe", sample.probe),
            ("kind", sample.kind.map_or("", RegionKind::name)),
            ("verdict", names::verdict(sample.verdict)),
        ];
        for (key, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
            labels.push(Label {
                key: self.string(key),
                str: self.string(&clean(text)),
                ..Label::default()
            });
        }
        labels
    }

    /// The stacks that are in no sample: what was allocated there is not known, what is in use is.
    fn not_shown(&mut self, profile: &profile::Profile) {
        let Some(name) = names::not_shown(profile) else {
            return;
        };
        let frame = Frame {
            function: Some(name),
            ..Frame::default()
        };
        let location = self.location(0, &[&frame]);
        let rest = &profile.not_shown;
        let [objects, bytes] = [rest.outstanding_objects, rest.outstanding_bytes].map(saturate);
        let mut value = vec![0, 0, objects, bytes];
        value.resize(value.len() + self.apart.len(), 0);
        self.out.sample.push(Sample {
            location_id: vec![location],
            value,
            label: Vec::new(),
        });
    }

    /// `frames`: those inlined first, the one they are inlined into last.
    fn location(&mut self, pid: u32, frames: &[&Frame]) -> u64 {
        let Some(outer) = frames.last() else { return 0 };
        let address = hex(Some(&outer.address)).unwrap_or(0);
        let mapping = self.mapping(pid, outer, address);
        let named = frames.iter().filter(|frame| frame.function.is_some());
        let line: Vec<Line> = named.map(|frame| self.line(frame)).collect();
        if let Some(mapping) = mapping.and_then(|at| self.out.mapping.get_mut(at)) {
            let any = |has: fn(&&Frame) -> bool| frames.iter().copied().any(|frame| has(&frame));
            mapping.has_functions |= any(|frame| frame.function.is_some());
            mapping.has_filenames |= any(|frame| frame.file.is_some());
            mapping.has_line_numbers |= any(|frame| frame.line.is_some());
            mapping.has_inline_frames |= frames.len() > 1;
        }
        let location = Location {
            id: 0,
            mapping_id: mapping.map_or(0, id),
            address,
            line,
        };
        let next = id(self.out.location.len());
        let found = *self.locations.entry(location.clone()).or_insert(next);
        if found == next {
            self.out.location.push(Location {
                id: next,
                ..location
            });
        }
        found
    }

    fn line(&mut self, frame: &Frame) -> Line {
        let name = self.string(&names::frame(frame));
        let file = clean(frame.file.as_deref().unwrap_or("")).into_owned();
        let function = Function {
            id: 0,
            name,
            system_name: name,
            filename: self.string(&file),
        };
        let next = id(self.out.function.len());
        let function_id = *self.functions.entry(function).or_insert(next);
        if function_id == next {
            self.out.function.push(Function {
                id: next,
                ..function
            });
        }
        Line {
            function_id,
            line: frame.line.map_or(0, i64::from),
        }
    }

    /// Index of the mapping an address is in, made as small as that address.
    fn mapping(&mut self, pid: u32, frame: &Frame, address: u64) -> Option<usize> {
        let module = frame.module.as_deref()?;
        let base = hex(frame.offset.as_deref()).and_then(|offset| address.checked_sub(offset));
        let key = MappingKey {
            pid,
            module: module.to_owned(),
            build_id: frame.build_id.clone().unwrap_or_default(),
            base,
        };
        let page = address / PAGE * PAGE;
        if let Some(&at) = self.mappings.get(&key) {
            if let Some(mapping) = self.out.mapping.get_mut(at) {
                mapping.memory_start = mapping.memory_start.min(page);
                mapping.memory_limit = mapping.memory_limit.max(page.saturating_add(PAGE));
            }
            return Some(at);
        }
        let at = self.out.mapping.len();
        let mapping = Mapping {
            id: id(at),
            memory_start: page,
            memory_limit: page.saturating_add(PAGE),
            filename: self.string(&clean(module)),
            build_id: self.string(&clean(&key.build_id)),
            ..Mapping::default()
        };
        self.out.mapping.push(mapping);
        self.mappings.insert(key, at);
        Some(at)
    }

    /// Nobody looks for a leak in `malloc`: pprof shows who called it.
    fn hide_allocators(&mut self, profile: &profile::Profile) {
        let frames = profile.samples.iter().flat_map(|sample| {
            // The whole stack is not hidden, whatever it is made of.
            let outermost = sample.frames.len().saturating_sub(1);
            sample.frames.iter().take(outermost)
        });
        let allocators = frames.filter(|frame| frame.allocator && frame.function.is_some());
        let mut patterns = BTreeSet::new();
        for name in allocators.map(names::frame) {
            // Readers may match names without their arguments.
            let bare = name.split_once('(').map_or("", |(bare, _)| bare);
            patterns.extend(
                [&name, bare]
                    .into_iter()
                    .filter(|n| !n.is_empty())
                    .map(escape),
            );
            if patterns.len() >= MAX_HIDDEN {
                break;
            }
        }
        let patterns: Vec<_> = patterns.into_iter().collect();
        self.out.drop_frames = self.string(&patterns.join("|"));
    }

    /// Where in the file each mapping begins, now that its beginning is known.
    fn widen_mappings(&mut self) {
        for (key, &at) in &self.mappings {
            if let (Some(mapping), Some(base)) = (self.out.mapping.get_mut(at), key.base) {
                mapping.memory_start = mapping.memory_start.max(base);
                mapping.file_offset = mapping.memory_start - base;
            }
        }
    }
}

fn id(index: usize) -> u64 {
    u64::try_from(index).unwrap_or(u64::MAX).saturating_add(1)
}

fn count(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}

fn saturate(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A name as a regular expression.
fn escape(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for c in name.chars() {
        if r"\.+*?()|[]{}^$".contains(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// `0x1f` as a number.
fn hex(text: Option<&str>) -> Option<u64> {
    u64::from_str_radix(text?.strip_prefix("0x")?, 16).ok()
}
