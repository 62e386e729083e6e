use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::report::{
    fixtures,
    profile::{Events, Incident, Mark, Moment, Series, Threshold, UsagePoint, arbitrary},
};

/// The data in a page, as a browser would read it.
fn read(page: &str) -> Value {
    let (_, after) = page
        .split_once("<script type=\"application/json\" id=\"data\">")
        .unwrap();
    let (json, _) = after.split_once("</script>").unwrap();
    serde_json::from_str(json).unwrap()
}

fn page(profile: &Profile) -> String {
    String::from_utf8(render(profile).unwrap()).unwrap()
}

// The data of a page with a past.
#[test]
fn golden() {
    let moment = |at, bytes| Moment {
        at,
        outstanding_bytes: bytes,
        outstanding_objects: None,
    };
    let series = Series {
        usage: BTreeMap::from([(
            1234,
            vec![UsagePoint {
                at: 5.0,
                outstanding_bytes: 7,
                rss_bytes: Some(9),
                usage_bytes: None,
                limit_bytes: Some(100),
            }],
        )]),
        stacks: vec![vec![moment(5.0, 7), moment(30.5, 35_756_442)]],
        from_seconds: 0.0,
        events: Events {
            marks: vec![Mark {
                at: 10.0,
                name: "cycle 1".to_owned(),
            }],
            thresholds: vec![Threshold {
                name: "80%".to_owned(),
                bytes: 80,
            }],
            incidents: vec![Incident {
                at: 30.0,
                pid: Some(1234),
                kind: "OOM kill".to_owned(),
                text: "server (1234) was killed".to_owned(),
            }],
        },
    };
    let data = read(&page(&Profile::new(&fixtures::leak(), series)));
    insta::assert_snapshot!(serde_json::to_string_pretty(&data).unwrap());
}

// The page names nothing outside itself, and no placeholder is left.
#[test]
fn self_contained() {
    let page = page(&Profile::new(&fixtures::leak(), Series::default()));
    let without_data = page.replace("http://www.w3.org/2000/svg", "");
    for word in [
        "http:",
        "https:",
        "src=",
        "@import",
        "url(",
        "fetch(",
        "XMLHttpRequest",
        "@DATA@",
    ] {
        assert!(!without_data.contains(word), "{word}");
    }
    assert!(page.contains("default-src 'none'"));
    // Names only ever become text.
    for word in [
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
    ] {
        assert!(!SCRIPT.contains(word), "{word}");
    }
}

// A name that looks like a placeholder, or ends the script, is a name.
#[test]
fn hostile_names() {
    let mut report = fixtures::hostile();
    let name = "@JS@</script><script>alert(1)</script><!--".to_owned();
    report.stacks[0].frames[1].function = Some(name.clone());
    report.target.value = "@DATA@</title><b>".to_owned();
    let page = page(&Profile::new(&report, Series::default()));
    assert_eq!(page.matches("</script>").count(), 2);
    assert!(!page.contains("<script>alert") && !page.contains("<!--"));
    let data = read(&page);
    let names: Vec<_> = data["frames"]
        .as_array()
        .unwrap()
        .iter()
        .map(|f| f["name"].clone())
        .collect();
    assert!(names.contains(&Value::String(name)), "{names:?}");
}

proptest! {
    // Whatever the names: two scripts, readable data, and the report's sums.
    #[test]
    fn sums(profile in arbitrary::profile()) {
        let page = page(&profile);
        prop_assert_eq!(page.matches("<script").count(), 2);
        prop_assert_eq!(page.matches("</script").count(), 2);
        prop_assert_eq!(page.matches("</title>").count(), 1);
        let data = read(&page);
        let stacks = data["stacks"].as_array().unwrap();
        let summed = || stacks.iter().filter(|s| s["apart"].is_null());
        let sum = |key: &str| summed().map(|s| s[key].as_u64().unwrap()).sum::<u64>();
        let rest = data["not_shown"]["bytes"].as_u64().unwrap();
        prop_assert_eq!(sum("bytes") + rest, profile.outstanding_bytes());
        let objects: u64 = profile.summed().map(|s| s.outstanding_objects).sum();
        prop_assert_eq!(sum("objects"), objects);
        let frames = data["frames"].as_array().unwrap().len() as u64;
        for stack in stacks {
            for index in stack["frames"].as_array().unwrap() {
                prop_assert!(index.as_u64().unwrap() < frames);
            }
        }
    }
}
