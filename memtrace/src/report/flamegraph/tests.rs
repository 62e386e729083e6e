use proptest::prelude::*;

use super::*;
use crate::report::{
    fixtures,
    profile::{Series, arbitrary},
};

fn svg(profile: &Profile) -> String {
    String::from_utf8(render(profile).unwrap()).unwrap()
}

/// What a reader sees of the frames: their titles.
fn titles(svg: &str) -> Vec<String> {
    let parts = svg.split("<title>").skip(1);
    parts
        .filter_map(|part| part.split_once("</title>"))
        .map(|(title, _)| unescape(title))
        .collect()
}

fn unescape(text: &str) -> String {
    text.replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&quot;", "\"")
        .replace("&apos;", "'")
        .replace("&amp;", "&")
}

// Every frame with its bytes.
#[test]
fn golden() {
    let profile = Profile::new(&fixtures::leak(), Series::default());
    let svg = svg(&profile);
    assert!(svg.starts_with("<?xml") && svg.trim_end().ends_with("</svg>"));
    insta::assert_snapshot!(titles(&svg).join("\n"));
}

// What grew is red, what shrank blue, and the figures tell by how much.
#[test]
fn differential() {
    let before = Profile::new(&fixtures::leak(), Series::default());
    let mut after = before.clone();
    after.samples[0].outstanding_bytes *= 2;
    after.samples[1].outstanding_bytes /= 2;
    let svg = String::from_utf8(render_diff(&before, &after).unwrap()).unwrap();
    insta::assert_snapshot!(titles(&svg).join("\n"));
    assert!(svg.contains("red grew, blue shrank"));
}

// Nothing outstanding is a picture too.
#[test]
fn nothing() {
    let mut profile = Profile::new(&fixtures::two_callers(), Series::default());
    profile.samples.clear();
    assert!(svg(&profile).contains("nothing is outstanding"));
}

// A name with a space sorts between a shorter one and its callees, which inferno refuses.
#[test]
fn names_that_sort_badly() {
    let mut report = fixtures::two_callers();
    report.stacks[0].frames[0].function = Some("foo".to_owned());
    report.stacks[1].frames[0].function = Some("foo (inlined) 12".to_owned());
    report.stacks[1].frames[2].function = report.stacks[0].frames[2].function.clone();
    let titles = titles(&svg(&Profile::new(&report, Series::default()))).join("\n");
    assert!(titles.contains("foo (2,000 bytes"), "{titles}");
    assert!(titles.contains("foo (inlined) 12 (1,000 bytes"), "{titles}");
}

proptest! {
    // Whatever the names: it is drawn, well formed, holds no markup of the target's, and the root
    // is the sum.
    #[test]
    fn drawn(profile in arbitrary::profile()) {
        let svg = svg(&profile);
        let bytes = human::count(profile.outstanding_bytes().max(1));
        prop_assert!(svg.contains(&format!("<title>all ({bytes} bytes, 100%)")), "{bytes}");
        prop_assert_eq!(svg.matches("<script").count(), 1);
        prop_assert_eq!(svg.matches("</script>").count(), 1);
        prop_assert!(!svg.contains("<b>"));
        prop_assert!(!svg.contains(|c: char| c.is_control() && c != '\n' && c != '\t'), "control");
        let leftover = svg.contains([SPACE, SEMICOLON, '\u{fffe}', '\u{ffff}']);
        prop_assert!(!leftover, "a character without a place");
        for title in titles(&svg) {
            prop_assert!(!title.contains('<') || profile.samples.iter().any(|s| {
                s.frames.iter().any(|f| names::frame(f).contains('<'))
            }) || profile.processes.iter().any(|p| p.comm.contains('<')), "{title}");
        }
    }
}
