//! What this machine can do, what is missing and how to mend it; and where probes would go in a
//! process.
//!
//! Most checks only read files and take the root of a tree that holds `proc` and `sys`, so that a
//! test can make up a machine. What must be tried on the running kernel is in `trials`.

mod bpf;
mod kernel;
mod limits;
pub mod namespaces;
pub mod privileges;
mod process;
mod tracing;
mod tree;
mod trials;

#[cfg(test)]
mod tests;

pub use tree::Tree;

use crate::{
    id::Tgid,
    probe::{Features, provide_tracefs},
    report::doctor::{Check, Doctor, SCHEMA, Status},
    target::{discover::Discoverer, family::CustomFunctions, process::ProcFs},
};

/// What to look at besides the machine.
#[derive(Clone, Debug, Default)]
pub struct Questions {
    /// Processes.
    pub pids: Vec<Tgid>,
    /// Allocators the user named.
    pub custom: CustomFunctions,
    /// Search only these objects; empty: all.
    pub objects: Vec<std::path::PathBuf>,
}

/// Looks at the running machine. Before the first thread is started.
#[must_use]
pub fn examine(questions: &Questions) -> Doctor {
    let tree = Tree::default();
    let uname = rustix::system::uname();
    let features = Features::detect();
    let mut checks = from_files(&tree, &features, &uname.machine().to_string_lossy());
    let mut trials = trials::Trials::default();
    if privileges::check(&tree).status == Status::Fail {
        checks.push(trials::untried());
    } else {
        // A failure shows in the checks that need it.
        let _ = provide_tracefs();
        let tried = [bpf::system_call(), tracing::tracepoints(&tree)];
        let loads = tried.iter().all(|check| check.status != Status::Fail);
        checks.extend(tried);
        if loads {
            checks.extend(trials.on_kernel(&features));
        }
    }
    let mut discoverer = Discoverer::new(ProcFs::default(), questions.custom.clone());
    let mut placements = Vec::new();
    for tgid in &questions.pids {
        let found = process::look(&mut discoverer, &questions.objects, &mut trials, *tgid);
        checks.extend(found.checks);
        placements.extend(found.placements);
    }
    Doctor {
        schema: SCHEMA,
        tool_version: env!("CARGO_PKG_VERSION"),
        host: uname.nodename().to_string_lossy().into_owned(),
        checks,
        placements,
        costs: trials.costs(),
    }
}

/// What files tell, without any privilege.
fn from_files(tree: &Tree, features: &Features, machine: &str) -> Vec<Check> {
    vec![
        kernel::release(features, machine),
        privileges::check(tree),
        namespaces::check(tree),
        kernel::lockdown(tree),
        kernel::jit(tree),
        kernel::btf(tree),
        tracing::uprobes(tree),
        tracing::tracefs_mount(tree),
        tracing::perf_paranoid(tree),
        limits::locked_memory(tree, features),
        limits::open_files(tree),
        limits::cgroups(tree),
        limits::memory(tree),
    ]
}
