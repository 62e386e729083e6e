use std::io::Read as _;

use flate2::read::GzDecoder;
use proptest::prelude::*;
use prost::Message as _;

use super::{proto, render};
use crate::report::{
    fixtures,
    profile::{Profile, Series, arbitrary},
};

fn decoded(profile: &Profile) -> proto::Profile {
    let bytes = render(profile).unwrap();
    let mut message = Vec::new();
    GzDecoder::new(&bytes[..])
        .read_to_end(&mut message)
        .unwrap();
    proto::Profile::decode(&message[..]).unwrap()
}

/// The profile in words.
fn dump(profile: &proto::Profile) -> String {
    let text = |at: i64| profile.string_table[usize::try_from(at).unwrap()].as_str();
    let mut out = String::new();
    let types = profile.sample_type.iter();
    let types: Vec<_> = types
        .map(|t| format!("{}/{}", text(t.r#type), text(t.unit)))
        .collect();
    let comments: Vec<_> = profile.comment.iter().map(|at| text(*at)).collect();
    out += &format!(
        "types {types:?}, default {}\n",
        text(profile.default_sample_type)
    );
    out += &format!(
        "time {} for {}\n",
        profile.time_nanos, profile.duration_nanos
    );
    out += &format!("hidden {}\n", text(profile.drop_frames));
    out += &format!("period {}, comments {comments:?}\n", profile.period);
    for m in &profile.mapping {
        out += &format!(
            "mapping {}: {:#x}-{:#x} at {:#x} {} {} {}{}{}{}\n",
            m.id,
            m.memory_start,
            m.memory_limit,
            m.file_offset,
            text(m.filename),
            text(m.build_id),
            u8::from(m.has_functions),
            u8::from(m.has_filenames),
            u8::from(m.has_line_numbers),
            u8::from(m.has_inline_frames),
        );
    }
    for l in &profile.location {
        let lines: Vec<_> = l
            .line
            .iter()
            .map(|line| {
                let function = &profile.function[usize::try_from(line.function_id - 1).unwrap()];
                format!(
                    "{} {}:{}",
                    text(function.name),
                    text(function.filename),
                    line.line
                )
            })
            .collect();
        out += &format!(
            "location {}: mapping {} {:#x} {lines:?}\n",
            l.id, l.mapping_id, l.address
        );
    }
    for s in &profile.sample {
        let labels: Vec<_> = s
            .label
            .iter()
            .map(|l| match l.str {
                0 => format!("{}={}", text(l.key), l.num),
                at => format!("{}={}", text(l.key), text(at)),
            })
            .collect();
        out += &format!("sample {:?} {:?} {labels:?}\n", s.location_id, s.value);
    }
    out
}

// Types, mappings with build ids, inlined lines, labels.
#[test]
fn golden() {
    let profile = Profile::new(&fixtures::leak(), Series::default());
    insta::assert_snapshot!(dump(&decoded(&profile)));
}

// The same profile is the same file.
#[test]
fn reproducible() {
    let profile = Profile::new(&fixtures::leak(), Series::default());
    assert_eq!(render(&profile).unwrap(), render(&profile).unwrap());
}

proptest! {
    // The four sums are the report's; ids and strings are what readers insist on.
    #[test]
    fn sums(profile in arbitrary::profile()) {
        let read = decoded(&profile);
        let sum = |at: usize| read.sample.iter().map(|s| s.value[at]).sum::<i64>() as u64;
        let of = |value: fn(&crate::report::profile::Sample) -> u64| -> u64 {
            profile.summed().map(value).sum()
        };
        let rest = &profile.not_shown;
        prop_assert_eq!(sum(0), of(|s| s.allocated_objects));
        prop_assert_eq!(sum(1), of(|s| s.allocated_bytes));
        prop_assert_eq!(sum(2), of(|s| s.outstanding_objects) + rest.outstanding_objects);
        prop_assert_eq!(sum(3), profile.outstanding_bytes());
        let apart = |s: &&crate::report::profile::Sample| s.apart().is_some();
        let kept: u64 = profile.samples.iter().filter(apart).map(|s| s.outstanding_bytes).sum();
        prop_assert_eq!((4..read.sample_type.len()).map(sum).sum::<u64>(), kept);
        prop_assert!(read.sample.iter().all(|s| s.value.len() == read.sample_type.len()));
        prop_assert_eq!(read.string_table[0].as_str(), "");
        for (at, location) in read.location.iter().enumerate() {
            prop_assert_eq!(location.id, at as u64 + 1);
            prop_assert!(location.mapping_id as usize <= read.mapping.len());
            for line in &location.line {
                prop_assert!((1..=read.function.len() as u64).contains(&line.function_id));
            }
        }
        for mapping in &read.mapping {
            prop_assert!(mapping.memory_start <= mapping.memory_limit);
        }
        for sample in &read.sample {
            for id in &sample.location_id {
                prop_assert!((1..=read.location.len() as u64).contains(id));
            }
        }
        for text in &read.string_table {
            prop_assert!(!text.chars().any(char::is_control), "{text:?}");
        }
    }
}
