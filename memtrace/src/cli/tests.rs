//! The command line as a user meets it.

use std::time::Duration;

use clap::CommandFactory;

use super::plan::*;
use super::values::{FailOn, Top};
use super::*;
use crate::id::Tgid;
use crate::record::When;
use crate::report::model::GroupBy;
use crate::report::output::Destination;
use crate::target::select::Selector;

fn line(text: &str) -> Result<Plan, Stop> {
    parse(std::iter::once("memtrace").chain(text.split_whitespace()))
}

fn trace(text: &str) -> TracePlan {
    match line(text) {
        Ok(Plan::Trace(plan)) => *plan,
        other => panic!("{text}: {other:?}"),
    }
}

/// What a wrong call prints, without styles.
fn complaint(text: &str) -> String {
    let stop = line(text)
        .err()
        .unwrap_or_else(|| panic!("{text} was accepted"));
    assert_eq!((stop.exit, stop.to_stdout), (Exit::Usage, false), "{text}");
    anstream::adapter::strip_str(&stop.text).to_string()
}

fn help(words: &str) -> String {
    let stop = line(words).unwrap_err();
    assert_eq!((stop.exit, stop.to_stdout), (Exit::Done, true));
    anstream::adapter::strip_str(&stop.text).to_string()
}

// clap's own check of the definition.
#[test]
fn definition_is_sound() {
    args::Cli::command().debug_assert();
}

// The defaults are those of the documentation.
#[test]
fn defaults() {
    let plan = trace("--pid 1234");
    let TargetPlan::Pids(pids) = &plan.target else {
        panic!("{plan:?}")
    };
    assert_eq!(pids.as_slice(), [Tgid(1234)]);
    assert_eq!(plan.timing.interval, Duration::from_secs(5));
    assert_eq!((plan.timing.duration, plan.timing.count), (None, None));
    assert_eq!(plan.selection.top.limit(), Some(10));
    assert_eq!(plan.selection.older, None);
    assert_eq!(plan.selection.sizes.bounds(), (0, u64::MAX));
    assert_eq!(plan.selection.group_by, GroupBy::Stack);
    assert_eq!(plan.cost.sample_bytes.get(), 1);
    assert_eq!(plan.cost.max_overhead, None);
    assert_eq!(plan.cost.live_entries.get(), 1 << 20);
    assert_eq!(plan.cost.ring_bytes.get(), 8 << 20);
    assert_eq!(plan.output.format, Format::Text);
    assert_eq!(plan.output.destination, Destination::Stdout);
    assert_eq!(plan.output.verbosity, Verbosity::Normal);
    assert_eq!(plan.gate, GatePlan::default());
    assert_eq!(plan.allocators, Allocators::default());
}

// Every option, in its short form where there is one.
#[test]
fn every_option() {
    let plan = trace(
        "-p 1,2 -p 2 -i 500ms -d 1m -n 100 -T all -o 30s -z 64 -Z 1MiB --group-by module \
         -O /opt/lib.so --prefix je_ --alloc-fn pool_alloc:2 --free-fn pool_free:2 \
         --sample-bytes 512KiB --max-overhead 5% --live-entries 100k --ring-bytes 1MiB \
         --format ndjson --output out.ndjson --fail-on growing:10KiB -v --color never",
    );
    let TargetPlan::Pids(pids) = &plan.target else {
        panic!("{plan:?}")
    };
    assert_eq!(pids.as_slice(), [Tgid(1), Tgid(2)]);
    assert_eq!(plan.timing.length(), Some(Duration::from_secs(50)));
    assert_eq!(plan.timing.intervals(), Some(100));
    assert_eq!(plan.selection.top, Top::All);
    assert_eq!(plan.selection.sizes.asked(), (Some(64), Some(1 << 20)));
    assert_eq!(plan.selection.group_by, GroupBy::Module);
    assert_eq!(plan.allocators.alloc_functions[0].argument.from_zero(), 1);
    assert_eq!(plan.cost.live_entries.get(), 100_000);
    assert_eq!(
        plan.output.destination,
        Destination::Append("out.ndjson".into())
    );
    assert_eq!(plan.output.verbosity, Verbosity::Verbose);
    assert_eq!(plan.output.color, ColorWhen::Never);
    assert_eq!(
        plan.gate.fail_on,
        Some(FailOn::Growing {
            bytes_per_second: 10_240
        })
    );
}

// `top` keeps more stacks, --output is its snapshots' file, and what is about printed reports is refused.
#[test]
fn top_plans() {
    let plan = |text: &str| match line(text) {
        Ok(Plan::Top(plan)) => *plan,
        other => panic!("{text}: {other:?}"),
    };
    let top = plan("top -p 1,2 -i 1s");
    assert_eq!(top.trace.selection.top.limit(), Some(500));
    assert_eq!(
        (top.trace.timing.interval, top.snapshot),
        (Duration::from_secs(1), None)
    );
    let top = plan("top -p 1 -T all --output x.json");
    assert_eq!(top.trace.selection.top, Top::All);
    assert_eq!(top.snapshot, Some("x.json".into()));
    assert!(complaint("top").contains("--pid"));
    for option in [
        "--format json",
        "--group-by module",
        "-q",
        "-v",
        "--fail-on growing",
        "--baseline b.json",
        "--suppressions s.toml",
        "--junit j.xml",
        "--summary s.md",
    ] {
        let text = complaint(&format!("top -p 1 {option}"));
        assert!(text.contains("printed reports"), "{text}");
    }
}

// `top` takes every target that tracing takes.
#[test]
fn top_targets() {
    let target = |text: &str| match line(text) {
        Ok(Plan::Top(plan)) => plan.trace.target,
        other => panic!("{text}: {other:?}"),
    };
    for (options, selector) in [
        ("--comm nginx", Selector::Comm("nginx".to_owned())),
        ("--cgroup /a", Selector::Cgroup("/a".into())),
        ("--container web -f", Selector::Container("web".to_owned())),
        ("--all", Selector::All),
    ] {
        assert_eq!(
            target(&format!("top {options}")),
            TargetPlan::Select(selector)
        );
    }
    assert!(complaint("top --comm a --all").contains("--all"));
    assert!(complaint("top -p 1 --comm a").contains("--comm"));
}

// `top FILE` reads a recording; every option of tracing is refused there by name.
#[test]
fn top_of_a_recording() {
    let Ok(Plan::Replay(plan)) = line("top leak.memtrace --at -30s --output x.json -T 7") else {
        panic!("no replay")
    };
    let at = Some(When::BeforeEnd(Duration::from_secs(30)));
    assert_eq!((plan.at, plan.top.limit()), (at, Some(7)));
    assert_eq!(
        (plan.file, plan.snapshot),
        ("leak.memtrace".into(), Some("x.json".into()))
    );
    assert!(complaint("top leak.memtrace --pid 1").contains("--pid"));
    assert!(complaint("top -p 1 --at end").contains("--at"));
    assert!(complaint("top leak.memtrace --format json").contains("printed reports"));
    let cli = args::Cli::command();
    let top = cli.find_subcommand("top").unwrap();
    let file = top
        .get_arguments()
        .find(|one| one.get_id() == "file")
        .unwrap();
    let refused: Vec<_> = top
        .get_arg_conflicts_with(file)
        .iter()
        .map(|one| one.get_id().as_str())
        .collect();
    let kept = [
        "file",
        "at",
        "top",
        "output",
        "color",
        "help",
        "record_max_age",
        "record_max_size",
    ];
    for option in top.get_arguments().filter(|one| !one.is_hide_set()) {
        let id = option.get_id().as_str();
        assert!(
            refused.contains(&id) || kept.contains(&id),
            "--{id} would mean nothing"
        );
    }
}

// The program's own options are never memtrace's, with -- and without.
#[test]
fn run_passes_arguments_on() {
    for text in [
        "run -i 1s -- ./prog -x --interval 9s --",
        "run -i 1s ./prog -x --interval 9s --",
    ] {
        let plan = trace(text);
        let TargetPlan::Run(program) = &plan.target else {
            panic!("{plan:?}")
        };
        assert_eq!(program.name, "./prog");
        assert_eq!(
            program.arguments,
            ["-x", "--interval", "9s", "--"],
            "{text}"
        );
        assert_eq!(plan.timing.interval, Duration::from_secs(1));
    }
}

// Arguments that are no UTF-8 reach the program as they are.
#[test]
fn run_passes_bytes_on() {
    use std::os::unix::ffi::OsStringExt;
    let odd = OsString::from_vec(vec![0xff, 0xfe]);
    let words = ["memtrace", "run", "--", "prog"].map(OsString::from);
    let Ok(Plan::Trace(plan)) = parse(words.into_iter().chain([odd.clone()])) else {
        panic!()
    };
    let TargetPlan::Run(program) = plan.target else {
        panic!()
    };
    assert_eq!(program.arguments, [odd]);
}

// Replaced or appended, by form; `-` is standard output.
#[test]
fn destinations() {
    let to = |text: &str| trace(&format!("-p 1 {text}")).output.destination;
    assert_eq!(to("--output r.txt"), Destination::Replace("r.txt".into()));
    assert_eq!(
        to("--format json --output r.json"),
        Destination::Replace("r.json".into())
    );
    assert_eq!(to("--output -"), Destination::Stdout);
    let appended = Destination::Append("r.csv".into());
    assert_eq!(to("--format csv --output r.csv"), appended);
    let replaced = Destination::Replace("r.html".into());
    assert_eq!(to("--format html --output r.html"), replaced);
}

// JSON is one object on standard output; a file always has the latest report; quiet is quiet.
#[test]
fn which_reports() {
    let every = |text: &str| trace(&format!("-p 1 {text}")).output.wants_every_report();
    assert!(every("") && every("--format ndjson") && every("--format json --output r.json"));
    assert!(!every("--format json") && !every("-q") && !every("-q --format ndjson"));
    assert!(every("--format csv") && every("--format svg --output r.svg"));
    assert!(!every("--format svg") && !every("--format pprof") && !every("-q --format csv"));
}

// Tables have ten rows, pictures all stacks, and who asks for a number gets it.
#[test]
fn default_top() {
    let top = |text: &str| trace(&format!("-p 1 --format {text}")).selection.top;
    for format in ["folded", "svg", "html", "pprof", "speedscope", "gperftools"] {
        assert_eq!(top(format), Top::All, "{format}");
        assert_eq!(top(&format!("{format} -T 3")).limit(), Some(3));
    }
    assert_eq!(top("csv").limit(), Some(10));
}

// Each contradiction is named, in one golden list.
#[test]
fn complaints() {
    let calls = [
        "-i 1s",
        "run",
        "run -p 1 -- ./prog",
        "-p 1 run -- ./prog",
        "-i 1s run -- ./prog",
        "1234",
        "./server --port 80",
        "-- ./server",
        "-p 0",
        "-p server",
        "-p 1 -i 0",
        "-p 1 -i soon",
        "-p 1 -d 0s",
        "-p 1 -n 0",
        "-p 1 -n -1",
        "-p 1 -T 0",
        "-p 1 -z 2MiB -Z 64KiB",
        "-p 1 --sample-bytes 0",
        "-p 1 --max-overhead 0",
        "-p 1 --ring-bytes 3MiB",
        "-p 1 --live-entries 0",
        "-p 1 --alloc-fn pool_alloc:0",
        "-p 1 --free-fn pool_free",
        "-p 1 -o 30s -d 10s",
        "-p 1 --fail-on growing -n 3",
        "-p 1 --fail-on growing -d 10s",
        "-p 1 --fail-on steady",
        "-p 1 -q -v",
        "-p 1 --format xml",
        "-p 1 --format svg --group-by function",
        "-p 1 --suppressions s.toml",
        "-p 1 --junit j.xml --summary s.md",
        "-p 1 --intervall 5s",
        "report r.memtrace --baseline b.memtrace --from 1m",
        "doctor --format ndjson",
        "completions tcsh",
        "man trace",
    ];
    let told: Vec<_> = calls
        .iter()
        .map(|call| format!("$ memtrace {call}\n{}", complaint(call)))
        .collect();
    insta::assert_snapshot!(told.join("\n"));
}

// An empty value is told by its option's name.
#[test]
fn empty_values() {
    for (option, name) in [
        ("--output=", "output"),
        ("--prefix=", "prefix"),
        ("--baseline=", "baseline"),
        ("--junit=", "junit"),
        ("-O=", "object"),
    ] {
        let text = complaint(&format!("-p 1 {option}"));
        assert!(text.contains(&format!("--{name}")), "{text}");
    }
}

// A mark's name is checked before anything is sent, and blanks around it go.
#[test]
fn marks() {
    let parsed = |name: &str| parse(["memtrace", "mark", name]);
    let Ok(Plan::Mark(plan)) = parsed(" cycle 5 ") else {
        panic!("refused")
    };
    assert_eq!((plan.name.as_str(), plan.session), ("cycle 5", None));
    let Ok(Plan::Mark(plan)) = parse(["memtrace", "mark", "--session", "7", "a"]) else {
        panic!("refused")
    };
    assert_eq!(plan.session, Some(7));
    assert!(complaint("mark --session 0 a").contains("--session"));
    for (name, why) in [
        ("", "it is empty"),
        ("a\nb", "control characters"),
        (&"x".repeat(201), "longer than 200 bytes"),
    ] {
        let stop = parsed(name).unwrap_err();
        assert_eq!(stop.exit, Exit::Usage);
        assert!(stop.text.contains(why), "{}", stop.text);
    }
}

// With no arguments the three most common commands are shown, and it is still a wrong call.
#[test]
fn no_arguments() {
    insta::assert_snapshot!(complaint(""));
}

// Short and long help; every line fits 80 columns.
#[test]
fn helps() {
    for (name, words) in [
        ("help_short", "-h"),
        ("help_long", "--help"),
        ("help_run_short", "run -h"),
        ("help_top", "top -h"),
        ("help_doctor", "doctor -h"),
        ("help_completions", "completions -h"),
        ("help_man", "man -h"),
        ("help_mark", "mark -h"),
        ("help_events", "events -h"),
        ("help_incidents", "incidents -h"),
    ] {
        let text = help(words);
        for line in text.lines() {
            assert!(crate::report::layout::width(line) <= 80, "{name}: {line:?}");
        }
        insta::assert_snapshot!(name, text);
    }
}

// The reference has every command and option in its text, and the generated help as it is.
#[test]
fn the_reference_is_complete() {
    let page =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/src/reference/cli.md");
    let page = std::fs::read_to_string(page).unwrap();
    let (text, generated) = page.split_once("## Generated help").unwrap();
    assert!(
        generated.contains(help("-h").trim_end()),
        "the generated help is not that of `memtrace -h`"
    );
    let cli = args::Cli::command();
    for command in std::iter::once(&cli).chain(cli.get_subcommands()) {
        assert!(text.contains(command.get_name()), "{}", command.get_name());
        let options = command.get_arguments().filter(|one| !one.is_hide_set());
        for long in options.filter_map(clap::Arg::get_long) {
            let told =
                text.contains(&format!("`--{long}`")) || text.contains(&format!("`--{long} "));
            assert!(told, "--{long} of {}", command.get_name());
        }
    }
}

// The version goes to standard output.
#[test]
fn version() {
    assert_eq!(
        help("--version"),
        concat!("memtrace ", env!("CARGO_PKG_VERSION"), "\n")
    );
}

// Completions know the subcommands and options, for every shell.
#[test]
fn completion_scripts() {
    use clap::ValueEnum;
    for shell in clap_complete::Shell::value_variants() {
        let mut out = Vec::new();
        completions(*shell, &mut out).unwrap();
        let script = String::from_utf8(out).unwrap();
        assert!(
            script.contains("group-by") && script.contains("doctor"),
            "{shell}"
        );
    }
}

// The pages are roff with the examples in them; there is no page of what is not there.
#[test]
fn man_pages() {
    for (command, word) in [
        (None, "max\\-overhead"),
        (Some("run"), "soak"),
        (Some("doctor"), "BTF"),
    ] {
        let mut out = Vec::new();
        man(command, &mut out).unwrap();
        let page = String::from_utf8(out).unwrap();
        assert!(
            page.contains(".TH") && page.contains(word),
            "{command:?}: {page}"
        );
    }
    assert!(man(Some("nothing"), &mut Vec::new()).is_err());
}

// Every subcommand has a page that can be asked for, with each of its options in it.
#[test]
fn man_pages_are_complete() {
    let mut cli = args::Cli::command();
    cli.build();
    for command in cli.get_subcommands().filter(|one| one.get_name() != "help") {
        let name = command.get_name();
        assert!(
            line(&format!("man {name}")).is_ok(),
            "man {name} is refused"
        );
        let mut page = Vec::new();
        man(Some(name), &mut page).unwrap();
        let page = String::from_utf8(page).unwrap();
        assert!(page.contains(&format!("memtrace\\-{name}")), "{page}");
        let options = command.get_arguments().filter(|one| !one.is_hide_set());
        for long in options.filter_map(clap::Arg::get_long) {
            let long = format!("\\-\\-{}", long.replace('-', "\\-"));
            assert!(page.contains(&long), "{long} in the page of {name}");
        }
    }
}
