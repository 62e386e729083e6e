//! Harness: target programs that know their own truth, and a runner that holds memtrace to it.
//!
//! A test builds a program ([`Program`]), starts it ([`Target`]), attaches the real `memtrace`
//! ([`Tracer`]), lets the program run its scenario, reads the truth it prints, and compares the report
//! ([`assert_exact`]). Nothing here reaches into memtrace: only its command line, its JSON, its exit code.
//!
//! Every wait is for a condition and has a deadline ([`deadline`]); nothing sleeps to synchronise.
//! Everything that was started is killed when its handle is dropped.
//!
//! | environment | |
//! |---|---|
//! | `MEMTRACE_BIN` | the binary under test; else `memtrace` of the test's own target folder |
//! | `MEMTRACE_SKIP_KERNEL_TESTS=1` | skip, loudly, what needs root and BPF |
//! | `MEMTRACE_SKIP_BROWSER_TESTS=1` | skip, loudly, what needs Chromium and its driver |
//! | `MEMTRACE_TEST_SLOW=16` | multiply every deadline (a virtual machine without hardware support) |
//! | `MEMTRACE_TEST_PROGRAMS` | folder of built programs (default `target/test-programs`) |
//! | `MEMTRACE_TEST_SOURCES` | folder of their sources (default: this crate's `programs`) |
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test harness fails by panicking"
)]

mod browser;
mod cgroup;
mod cri;
mod kernel;
mod process;
mod program;
mod report;
mod target;
mod tmux;
mod tracer;
mod truth;

pub use browser::{Browser, Element};
pub use cgroup::Cgroup;
pub use cri::{Containerd, Pod};
pub use kernel::{BpfObjects, kernel_tests_wanted, kernel_version};
pub use process::{Ended, Running, deadline};
pub use program::{Program, line_of, preload, target_dir};
pub use report::{Coverage, Frame, Group, Grower, Mark, NotShown, Process, Report, Runtime, Stack};
pub use target::Target;
pub use tmux::Tmux;
pub use tracer::{Tracer, memtrace, memtrace_bin};
pub use truth::{Site, Truth, assert_exact, assert_stacks_reach, site_stacks};

/// The same for tests that need a browser too.
#[macro_export]
macro_rules! require_browser {
    () => {
        $crate::require_kernel!();
        if std::env::var("MEMTRACE_SKIP_BROWSER_TESTS").is_ok_and(|value| value == "1") {
            eprintln!("SKIPPED: MEMTRACE_SKIP_BROWSER_TESTS is set");
            return;
        }
    };
}

/// Returns from the test, loudly, when kernel tests are switched off; fails it when they are not and
/// this machine cannot run them.
#[macro_export]
macro_rules! require_kernel {
    () => {
        if !$crate::kernel_tests_wanted() {
            eprintln!("SKIPPED: MEMTRACE_SKIP_KERNEL_TESTS is set");
            return;
        }
    };
}
