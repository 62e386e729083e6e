//! The page and the flame graph in a real browser: clicked, searched, zoomed, on a wide screen and a narrow one.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use memtrace_tests::{Browser, Program, Target, Tracer, memtrace, require_browser};
use serde_json::{Value, json};

/// A name made to break a page.
const HOSTILE: &str =
    "</script><script>document.title='owned'</script><img src=x onerror=alert(1)>";

/// A session of fourteen intervals of a program that leaks.
#[track_caller]
fn trace(format: &str, folder: &Path) -> PathBuf {
    let file = folder.join(format!("report.{format}"));
    let mut target = Target::spawn(&Program::c("live").build(), &["leak"]);
    let pid = target.pid().to_string();
    let output = file.to_str().unwrap();
    let mut tracer = Tracer::start(&mut memtrace(&[
        "--pid",
        &pid,
        "--interval",
        "400ms",
        "--count",
        "14",
        "--format",
        format,
        "--output",
        output,
    ]));
    tracer.wait_attached();
    target.go();
    tracer.wait().assert_code(0);
    target.assert_unharmed();
    file
}

/// Nothing was written to the console, and nothing was loaded.
#[track_caller]
fn assert_quiet(browser: &Browser) {
    assert_eq!(browser.console(), Vec::<String>::new());
    let loaded = "return performance.getEntriesByType('resource').length";
    assert_eq!(browser.script(loaded), json!(0), "the page loads something");
}

/// What a live session does not know: marks, thresholds, a kill, hostile names.
fn with_events(data: &mut Value) {
    let end = data["meta"]["duration_seconds"].as_f64().unwrap();
    data["marks"] = json!([{"at": end / 3.0, "name": HOSTILE}]);
    data["thresholds"] = json!([{"name": "warn", "bytes": 1000}]);
    data["incidents"] =
        json!([{"at": end * 0.9, "pid": null, "kind": "OOM kill", "text": "it was killed"}]);
    data["frames"][0]["name"] = json!(HOSTILE);
}

/// A page with other data than was traced, under another name.
fn rewritten(page: &Path, name: &str, change: impl Fn(&mut Value)) -> PathBuf {
    let text = std::fs::read_to_string(page).unwrap();
    let (before, rest) = text.split_once("id=\"data\">").unwrap();
    let (data, after) = rest.split_once("</script>").unwrap();
    let mut data: Value = serde_json::from_str(data).unwrap();
    change(&mut data);
    let file = page.with_extension(name);
    let data = data.to_string().replace('<', "\\u003c");
    std::fs::write(&file, format!("{before}id=\"data\">{data}</script>{after}")).unwrap();
    file
}

/// The page: what grows is its headline; frames open, the flame graph is searched and zoomed, a stretch of
/// time changes it, and a phone need not scroll sideways.
#[test]
fn page() {
    require_browser!();
    let folder = tempfile::tempdir().unwrap();
    let file = trace("html", folder.path());
    let browser = Browser::start(&folder.path().join("profile"));
    browser.open(&file);
    let headline = browser.text("#headline");
    assert!(
        headline.contains("grow") && headline.contains("leak"),
        "{headline}"
    );

    browser.click("td.name button");
    assert!(browser.text("ol.frames").contains("leak"));

    browser.type_into("#search", "leak");
    assert!(browser.text("#matched").starts_with("matches "));
    browser.wait_for("return document.querySelectorAll('#flame .f.hit').length > 0");
    let focused = "const f = document.querySelector('#flame .f.hit'); f.id = 'hit'; return true";
    browser.script(focused);
    browser.click("#hit");
    browser.wait_for("return !document.getElementById('reset').hidden");
    assert!(browser.text("#detail").contains("leak"));
    browser.click("#reset");
    browser.wait_for("return document.getElementById('reset').hidden");

    // The first half of the time: less was held then, in the root of the graph and in the table.
    let held = "return [document.querySelector('#flame .f.root').textContent, \
                document.querySelector('#stacks tbody td.n').textContent].join(' ')";
    let all = browser.script(held);
    browser.script(
        "const to = document.getElementById('to'); to.value = 500; \
         to.dispatchEvent(new Event('input'))",
    );
    let changed = format!("return (() => {{ {held} }})() !== {all}");
    browser.wait_for(&changed);
    browser.click("#whole");
    browser.wait_for(&format!("return (() => {{ {held} }})() === {all}"));

    let background = "return getComputedStyle(document.body).backgroundColor";
    let before = browser.script(background);
    browser.click("#theme");
    assert_ne!(
        browser.script(background),
        before,
        "light and dark look the same"
    );

    browser.resize(500, 900);
    let fits = "return document.documentElement.scrollWidth <= innerWidth";
    browser.wait_for(fits);
    assert_quiet(&browser);

    browser.open(&rewritten(&file, "events.html", with_events));
    browser.wait_for(fits);
    let text = browser.text("#events");
    assert!(
        text.contains("OOM kill: it was killed") && text.contains(HOSTILE),
        "{text}"
    );
    let drawn = "return ['mark', 'incident', 'threshold'].every((c) => \
                 document.querySelector('#chart line.' + c))";
    assert_eq!(browser.script(drawn), json!(true));
    let title = browser.script("return document.title");
    assert!(title.as_str().unwrap().starts_with("memtrace"), "{title}");
    assert_eq!(browser.script("return document.images.length"), json!(0));
    assert_quiet(&browser);

    // What gained too little for a verdict is not said to stand still.
    let undecided = |data: &mut Value| {
        let stacks = data["stacks"].as_array_mut().unwrap();
        let mut steady = stacks[0].clone();
        steady["verdict"] = json!("steady");
        stacks[0]["verdict"] = json!("too-early");
        stacks[0]["growth"] = json!(5.0);
        stacks.truncate(1);
        stacks.push(steady);
        for process in data["processes"].as_array_mut().unwrap() {
            process["verdict"] = json!("too-early");
        }
    };
    browser.open(&rewritten(&file, "undecided.html", undecided));
    let headline = browser.text("#headline");
    assert!(
        headline.starts_with("Undecided: 1 stack gained"),
        "{headline}"
    );
    assert_quiet(&browser);
}

/// The flame graph: searched and zoomed.
#[test]
fn flame_graph() {
    require_browser!();
    let folder = tempfile::tempdir().unwrap();
    let file = trace("svg", folder.path());
    let browser = Browser::start(&folder.path().join("profile"));
    browser.open(&file);
    browser.click("#search");
    browser.answer("leak");
    let matched = browser.text("#matched");
    assert!(
        matched.starts_with("Matched: ") && !matched.ends_with(" 0%"),
        "{matched}"
    );
    let zoom = "const g = [...document.querySelectorAll('#frames g')]\
                .find((g) => g.textContent.startsWith('leak')); g.id = 'zoom'; return true";
    browser.script(zoom);
    browser.click("#zoom rect");
    let zoomed = "return !document.getElementById('unzoom').classList.contains('hide')";
    browser.wait_for(zoomed);
    assert_quiet(&browser);
}
