//! speedscope's own format (<https://www.speedscope.app/file-format-schema.json>): one profile
//! each for what is outstanding and what was allocated, in bytes and in objects. What may not be
//! added to them ([`super::sums`]) has profiles of its own.

use std::collections::HashMap;
use std::io;

use serde::Serialize;

use super::{
    layout::clean,
    model::Frame,
    profile::{Apart, Profile, Sample, names},
};

#[derive(Serialize)]
struct File {
    #[serde(rename = "$schema")]
    schema: &'static str,
    name: String,
    exporter: String,
    #[serde(rename = "activeProfileIndex")]
    active: usize,
    shared: Shared,
    profiles: Vec<Sampled>,
}

#[derive(Serialize)]
struct Shared {
    frames: Vec<SharedFrame>,
}

#[derive(Clone, PartialEq, Eq, Hash, Serialize)]
struct SharedFrame {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u32>,
}

#[derive(Serialize)]
struct Sampled {
    r#type: &'static str,
    name: &'static str,
    unit: &'static str,
    #[serde(rename = "startValue")]
    start: u64,
    #[serde(rename = "endValue")]
    end: u64,
    /// Indices of frames, outermost first.
    samples: Vec<Vec<usize>>,
    weights: Vec<u64>,
}

/// The profile as one line of JSON.
///
/// # Errors
/// When JSON cannot hold it.
pub fn render(profile: &Profile) -> io::Result<Vec<u8>> {
    let mut frames = Frames::default();
    let mut stacks: Vec<Stack> = Vec::with_capacity(profile.samples.len() + 1);
    for sample in &profile.samples {
        stacks.push(Stack {
            frames: frames.stack(profile, sample),
            values: values(sample),
        });
    }
    if let Some(rest) = names::not_shown(profile) {
        let hidden = &profile.not_shown;
        stacks.push(Stack {
            frames: vec![frames.plain(rest)],
            values: [
                hidden.outstanding_bytes,
                hidden.outstanding_objects,
                0,
                0,
                0,
                0,
            ],
        });
    }
    let has = |wanted: Apart| profile.samples.iter().any(|s| s.apart() == Some(wanted));
    let views = [
        ("outstanding bytes", "bytes", true),
        ("outstanding objects", "none", true),
        ("allocated bytes", "bytes", true),
        ("allocated objects", "none", true),
        ("resident bytes", "bytes", has(Apart::Resident)),
        ("reserved bytes", "bytes", has(Apart::Reserved)),
    ];
    let profiles = views.into_iter().enumerate().filter(|(_, view)| view.2);
    let file = File {
        schema: "https://www.speedscope.app/file-format-schema.json",
        name: names::title(profile),
        exporter: format!("memtrace@{}", profile.meta.tool_version),
        active: 0,
        profiles: profiles
            .map(|(at, (name, unit, _))| sampled(&stacks, at, name, unit))
            .collect(),
        shared: Shared { frames: frames.all },
    };
    let mut bytes = serde_json::to_vec(&file)?;
    bytes.push(b'\n');
    Ok(bytes)
}

struct Stack {
    frames: Vec<usize>,
    /// By view.
    values: [u64; 6],
}

fn values(sample: &Sample) -> [u64; 6] {
    let bytes = sample.outstanding_bytes;
    match sample.apart() {
        Some(Apart::Resident) => [0, 0, 0, 0, bytes, 0],
        Some(Apart::Reserved) => [0, 0, 0, 0, 0, bytes],
        None => [
            bytes,
            sample.outstanding_objects,
            sample.allocated_bytes,
            sample.allocated_objects,
            0,
            0,
        ],
    }
}

fn sampled(stacks: &[Stack], view: usize, name: &'static str, unit: &'static str) -> Sampled {
    let weight = |stack: &Stack| stack.values.get(view).copied().unwrap_or(0);
    let with_weight = || stacks.iter().filter(|stack| weight(stack) > 0);
    Sampled {
        r#type: "sampled",
        name,
        unit,
        start: 0,
        end: with_weight().map(weight).fold(0, u64::saturating_add),
        samples: with_weight().map(|stack| stack.frames.clone()).collect(),
        weights: with_weight().map(weight).collect(),
    }
}

/// Frames, each once.
#[derive(Default)]
struct Frames {
    all: Vec<SharedFrame>,
    known: HashMap<SharedFrame, usize>,
}

impl Frames {
    fn stack(&mut self, profile: &Profile, sample: &Sample) -> Vec<usize> {
        let path = names::path(profile, sample);
        let named = path.len() - sample.frames.len().min(path.len());
        let mut stack = Vec::with_capacity(path.len());
        let frames = sample.frames.iter().rev().map(Some);
        let frames = std::iter::repeat_n(None, named).chain(frames);
        for (name, frame) in path.into_iter().zip(frames) {
            stack.push(match frame {
                Some(frame) => self.frame(name, frame),
                None => self.plain(name),
            });
        }
        stack
    }

    fn frame(&mut self, name: String, frame: &Frame) -> usize {
        let place = frame.file.as_deref().or(frame.module.as_deref());
        self.intern(SharedFrame {
            name,
            file: place.map(|file| clean(file).into_owned()),
            line: frame.line.filter(|_| frame.file.is_some()),
        })
    }

    fn plain(&mut self, name: String) -> usize {
        self.intern(SharedFrame {
            name,
            file: None,
            line: None,
        })
    }

    fn intern(&mut self, frame: SharedFrame) -> usize {
        let next = self.all.len();
        let at = *self.known.entry(frame.clone()).or_insert(next);
        if at == next {
            self.all.push(frame);
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::report::{
        fixtures,
        profile::{Series, arbitrary},
    };

    fn parsed(profile: &Profile) -> Value {
        serde_json::from_slice(&render(profile).unwrap()).unwrap()
    }

    // The file as speedscope reads it.
    #[test]
    fn golden() {
        let profile = Profile::new(&fixtures::leak(), Series::default());
        let pretty = serde_json::to_string_pretty(&parsed(&profile)).unwrap();
        insta::assert_snapshot!(pretty);
    }

    proptest! {
        // Weights add up to the report's figures, ends too, and every index is a frame.
        #[test]
        fn sums(profile in arbitrary::profile()) {
            let file = parsed(&profile);
            let frames = file["shared"]["frames"].as_array().unwrap().len();
            let sum = |of: fn(&Sample) -> u64| profile.summed().map(of).sum::<u64>();
            let rest = &profile.not_shown;
            let expected = [
                sum(|s| s.outstanding_bytes) + rest.outstanding_bytes,
                sum(|s| s.outstanding_objects) + rest.outstanding_objects,
                sum(|s| s.allocated_bytes),
                sum(|s| s.allocated_objects),
            ];
            for (at, expected) in expected.into_iter().enumerate() {
                let one = &file["profiles"][at];
                let weights = one["weights"].as_array().unwrap();
                let samples = one["samples"].as_array().unwrap();
                prop_assert_eq!(samples.len(), weights.len());
                let total: u64 = weights.iter().map(|w| w.as_u64().unwrap()).sum();
                prop_assert_eq!(total, expected);
                prop_assert_eq!(one["endValue"].as_u64(), Some(expected));
                for index in samples.iter().flat_map(|s| s.as_array().unwrap()) {
                    prop_assert!((index.as_u64().unwrap() as usize) < frames);
                }
            }
        }
    }
}
