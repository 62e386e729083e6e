//! The sentences of the help.

pub(super) const ABOUT: &str = "Which code paths keep memory that only grows, and how sure that is";

pub(super) const LONG_ABOUT: &str = "\
Which code paths keep memory that only grows, and how sure that is.

Traces every allocation and free of a running process with eBPF: nothing is injected, the \
program is neither stopped nor changed. Shows what is outstanding per call stack since the \
attach, how fast it grows, a verdict with its confidence, what tracing costs, and every loss. \
Needs root; `memtrace doctor` tells what else.";

pub(super) const USAGE: &str = "memtrace [OPTIONS] --pid <PID>
       memtrace [OPTIONS] --comm <NAME>|--cgroup <PATH>|--container <NAME>|--all
       memtrace run [OPTIONS] -- <CMD> [ARGS]...
       memtrace top [OPTIONS] --pid <PID>|--comm <NAME>|...|<FILE>
       memtrace events [OPTIONS] --pid <PID>
       memtrace report [OPTIONS] <FILE>
       memtrace diff [OPTIONS] <BEFORE> [AFTER]
       memtrace incidents [OPTIONS] <FILE> [N]
       memtrace mark [--session <PID>] <NAME>
       memtrace doctor [--pid <PID>]";

pub(super) const TOP_USAGE: &str = "memtrace top [OPTIONS] --pid <PID>
       memtrace top [OPTIONS] --comm <NAME>|--cgroup <PATH>|--container <NAME>
       memtrace top [OPTIONS] --all
       memtrace top [OPTIONS] <FILE>";

pub(super) const TOP_EXAMPLES: &str = "\
Examples:
  sudo memtrace top --pid 1234
  sudo memtrace top --pid 1234 -i 1s --output leak.json
  sudo memtrace top --container web --record leak.memtrace
       memtrace top leak.memtrace --at -10m";

pub(super) const EVENTS_USAGE: &str = "memtrace events [OPTIONS] --pid <PID>
       memtrace events [OPTIONS] -- <CMD> [ARGS]...";

pub(super) const EVENTS_EXAMPLES: &str = "\
Examples:
  sudo memtrace events --pid 1234
  sudo memtrace events -p 1234 --kind alloc,realloc --min-size 1MiB --stacks
  sudo memtrace events -p 1234 --kind region,life -d 10s
  sudo memtrace events --format json -n 100000 --output calls.ndjson -- ls -l

A record for each call is dearer than plain tracing, and --stacks dearer still;
--kind and --min-size make it less.";

pub(super) const RUN_USAGE: &str = "memtrace run [OPTIONS] -- <CMD> [ARGS]...";

pub(super) const EXAMPLES: &str = "\
Examples:
  sudo memtrace --pid 1234               a report every 5 s until Ctrl-C
  sudo memtrace -p 1234 -d 1m -qo 30s    one report after a minute, without
                                         what is younger than 30 s
  sudo memtrace -p 1234 --follow         and the processes it forks
  sudo memtrace run -- ./server --port 80

Times are written 500ms, 5s, 2m, 1h30m; sizes 512, 64KiB, 10MB.
--help tells more than -h.";

pub(super) const LONG_EXAMPLES: &str = "\
Examples:
  A report every 5 s, and a last one on Ctrl-C:
      sudo memtrace --pid 1234
  One report after a minute, without what is younger than 30 s:
      sudo memtrace --pid 1234 --duration 1m --quiet --older 30s
  A server and its workers, those to come and those that ended, as one:
      sudo memtrace --pid 1234 --follow --group-by process
  A container, by its name or the beginning of its id:
      sudo memtrace --container web
  A program from its first allocation to its end; fails a test that leaks:
      sudo memtrace run --fail-on growing -- ./server --port 80
  The same in CI, against the last release, written down for the pull request:
      sudo memtrace run --baseline last.json --suppressions known.toml \
          --junit leaks.xml --summary leaks.md -- ./soak-test
  A page to look at and to send; a profile for `go tool pprof`:
      sudo memtrace --pid 1234 --duration 5m --format html --output leak.html
      sudo memtrace --pid 1234 --duration 5m --format pprof --output leak.pb.gz
  A busy service, at a cost of at most 3% of its CPU time:
      sudo memtrace --pid 1234 --sample-bytes 512KiB --max-overhead 3
  For a script:
      sudo memtrace --pid 1234 --duration 1m --format json --top all
  An allocator of your own, pool_alloc(pool, size) and pool_free(pool, ptr):
      sudo memtrace --pid 1234 --alloc-fn pool_alloc:2 --free-fn pool_free:2

Verdicts:
  growing    a leak: grows steadily, troughs rise, old blocks survive
  plateau    grew and stopped, as a warm-up or a cache does
  sawtooth   comes back down again and again
  spike      once up and down
  steady     neither up nor down
  shrinking  goes down
  too early  fewer than five intervals, or losses forbid a verdict

Units:
  Times are written 500ms, 5s, 2m, 1h30m; a bare number is seconds.
  Sizes are written 512, 64KiB (or 64k), 1.5GiB, 10MB; a bare number is bytes.

Exit status:
  0  done
  1  it failed; one line on standard error says why and what to do
  2  wrong usage
  3  --fail-on was met, or something is worse than --baseline
  `run` passes the program's own status on, and 3 only when that was 0.";

pub(super) const RUN_EXAMPLES: &str = "\
Examples:
  sudo memtrace run -- ./server --port 80
  sudo memtrace run --fail-on growing -i 1s -- ./soak-test";

pub(super) const REPORT_EXAMPLES: &str = "\
Examples:
  memtrace report leak.memtrace                      the last report
  memtrace report leak.memtrace --at 10m --top all
  memtrace report leak.memtrace --from 10m --to 20m  gained between the two
  memtrace report leak.memtrace --format html --output leak.html";

pub(super) const DIFF_EXAMPLES: &str = "\
Examples:
  memtrace diff old.memtrace new.memtrace            two builds
  memtrace diff leak.memtrace --from 10m --to 20m    two moments of one
  memtrace diff leak.memtrace --from cycle#1 --to cycle   first mark of a name, last
  memtrace diff old.memtrace new.memtrace --format svg > diff.svg
  memtrace diff old.memtrace new.memtrace --fail-on growth:1MiB";

pub(super) const INCIDENTS_EXAMPLES: &str = "\
Examples:
  memtrace incidents leak.memtrace
  memtrace incidents leak.memtrace 1
  memtrace incidents leak.memtrace 1 --format json";

pub(super) const MARK_EXAMPLES: &str = "\
Examples:
  sudo memtrace mark 'cycle 5'
  memtrace report soak.memtrace --at 'cycle 5'
  memtrace diff soak.memtrace --from 'cycle 1' --to 'cycle 5'
The same name each time, and the first of them to the last:
  sudo memtrace mark cycle
  memtrace diff soak.memtrace --from cycle#1 --to cycle";

pub(super) const DOCTOR_EXAMPLES: &str = "\
Examples:
  sudo memtrace doctor
  sudo memtrace doctor --pid 1234 -v
  sudo memtrace doctor --format json";

pub(super) const COMPLETIONS_EXAMPLES: &str = "\
Example:
  memtrace completions bash | sudo tee /etc/bash_completion.d/memtrace";

pub(super) const MAN_EXAMPLES: &str = "\
Examples:
  memtrace man > memtrace.1
  memtrace man run > memtrace-run.1";

/// Printed when there is nothing to do.
pub(super) const NO_TARGET: &str = "\
memtrace shows which code paths keep memory that only grows.

  sudo memtrace --pid 1234           trace a running process
  sudo memtrace run -- ./server -x   start a program and trace it from its start
  sudo memtrace top --pid 1234       watch it on the terminal: sort, filter, open
       memtrace doctor               what this machine can do, what is missing

`pgrep NAME` finds a pid. `memtrace --help` tells everything else.
";

/// What options of tracing mean to `top`; those about printed reports are refused there and not
/// shown.
pub(super) fn of_top(arg: clap::Arg) -> clap::Arg {
    let told = |arg: clap::Arg, text: &'static str| arg.help(text).long_help(text);
    match arg.get_id().as_str() {
        "top" => told(arg, "Keep this many stacks, or `all` [default: 500]"),
        "interval" => told(arg, "Time between two looks; a verdict needs five"),
        "duration" => told(arg, "Stop tracing after this time; the screen stays"),
        "count" => told(
            arg,
            "Stop tracing after this many intervals; the screen stays",
        ),
        "output" => told(
            arg,
            "Write snapshots to FILE instead of one with a name of its own",
        ),
        "format" | "group_by" | "quiet" | "verbose" | "fail_on" | "baseline" | "suppressions"
        | "junit" | "summary" => arg.hide(true),
        _ => arg,
    }
}
