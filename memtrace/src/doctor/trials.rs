//! What must be tried on the running kernel: loading, the cost of hits, seccomp.

use memtrace_common::{FINGERPRINT_BYTES, MIDDLE_BYTES, WIDE_BYTES};

use crate::{
    probe::{
        Attachments, Calibration, Confinement, Features, KernelOptions, KernelSide, ProbeError,
        ReturnProbes, calibrate,
    },
    report::{
        doctor::{Check, CostRow},
        human,
    },
    stream::Stream,
};

/// Enough for trials on memtrace itself.
const SMALL: u32 = 1024;

/// The kernel side, loaded to try things on, and what came out.
#[derive(Default)]
pub(super) struct Trials {
    kernel: Option<KernelSide>,
    return_probes: ReturnProbes,
    costs: Option<Calibration>,
    // Programs that are loaded later need it.
    _stream: Option<Stream>,
    // Taking probes off is slow: done once, at the end.
    _attachments: Attachments,
}

/// What is said where nothing may be tried.
pub(super) fn untried() -> Check {
    Check::warn(
        "probes",
        "not tried and not measured: loading programs and reading tracepoints needs the privileges",
    )
}

impl Trials {
    /// Loads the kernel side, measures, and tries what seccomp does to return probes.
    pub(super) fn on_kernel(&mut self, features: &Features) -> Vec<Check> {
        let name = "probes";
        match self.load(features) {
            Err(error) => vec![Check::fail(name, error.to_string())],
            Ok(Calibration { exact: costs, .. }) => {
                let nanoseconds = |ns: f64| human::count(ns.round() as u64);
                let found = format!(
                    "programs load, probes hit: an allocation costs {} ns, a free {} ns more",
                    nanoseconds(costs.emulated_pair_ns),
                    nanoseconds(costs.emulated_free_ns),
                );
                let refused = self.kernel.as_mut().map(KernelSide::refused_probes);
                let probes = match refused.unwrap_or_default().join(", ") {
                    none if none.is_empty() => Check::ok(name, found),
                    some => Check::fail(name, format!("the kernel refuses some programs: {some}")),
                };
                vec![
                    probes,
                    self.regions(),
                    self.faults(),
                    self.oom_kills(),
                    self.seccomp(),
                ]
            }
        }
    }

    fn load(&mut self, features: &Features) -> Result<Calibration, ProbeError> {
        let options = KernelOptions {
            live_entries: SMALL,
            context_entries: SMALL,
            thread_entries: SMALL,
            text_slots: 1,
            ring_bytes: 256 << 10,
            ..KernelOptions::default()
        };
        let (mut kernel, ring) = KernelSide::load(&options, features)?;
        kernel.attach_lifecycle()?;
        let (calibration, attachments) = calibrate(&mut kernel)?;
        self._attachments = attachments;
        self.costs = Some(calibration);
        self.kernel = Some(kernel);
        self._stream = Some(Stream::new(ring));
        Ok(calibration)
    }

    /// How system calls that change mappings can be probed.
    fn regions(&mut self) -> Check {
        let name = "regions";
        let tried = self.kernel.as_mut().map(KernelSide::attach_regions_cheaply);
        match tried {
            Some(Ok(())) => Check::ok(name, "the kernel's mmap, brk and their like can be probed"),
            Some(Err(error)) => Check::warn(
                name,
                format!(
                    "the kernel's mmap and its like cannot be probed ({}): while --probe region is on, \
                     every system call of the machine is some 60 ns slower",
                    error.summary()
                ),
            )
            .remedy(
                "it takes CONFIG_DEBUG_INFO_BTF=y, CONFIG_FUNCTION_TRACER=y, and that nothing forbids \
                 programs on the kernel's functions",
            ),
            None => Check::warn(name, "not tried"),
        }
    }

    /// Whether page faults can be seen.
    fn faults(&mut self) -> Check {
        let name = "page faults";
        match self.kernel.as_mut().map(KernelSide::attach_faults) {
            Some(Ok(hook)) if hook.in_system_calls => {
                Check::ok(name, "seen, also those within system calls")
            }
            Some(Ok(_)) => Check::warn(
                name,
                "seen, but not those within system calls: what `read` and its like touch first stands \
                 under no stack",
            )
            .remedy("update the kernel: 5.15 and later tell who called"),
            Some(Err(error)) => Check::warn(
                name,
                format!("--probe fault cannot be used: {}", error.summary()),
            )
            .remedy("it takes CONFIG_TRACEPOINTS=y on x86-64, CONFIG_KPROBES=y elsewhere"),
            None => Check::warn(name, "not tried"),
        }
    }

    /// Whether the kernel tells of the processes it kills.
    fn oom_kills(&mut self) -> Check {
        let name = "OOM kills";
        match self.kernel.as_mut().map(KernelSide::attach_oom) {
            Some(Ok(())) => Check::ok(name, "seen as they happen"),
            Some(Err(error)) => Check::warn(
                name,
                format!(
                    "not seen ({}): a process that is killed so is shown as exited, without an incident",
                    error.summary()
                ),
            )
            .remedy("nothing must be done; --threshold tells of a limit before it is met"),
            None => Check::warn(name, "not tried"),
        }
    }

    /// The machine's answer about processes under seccomp.
    fn seccomp(&mut self) -> Check {
        let name = "seccomp";
        match self.return_probes_kill(Confinement::Filter) {
            Some(Ok(false)) => Check::ok(
                name,
                "return probes leave processes under a filter unharmed (tried on a child)",
            ),
            Some(Ok(true)) => Check::warn(
                name,
                "a return probe kills a process under a filter on this kernel (tried on a child): \
                 memtrace refuses such processes",
            )
            .remedy("update the kernel: 6.14 and later let return probes pass"),
            Some(Err(error)) => Check::warn(name, error.to_string()),
            None => Check::warn(name, "not tried"),
        }
    }

    /// Whether a return probe kills a process so confined; none when it cannot be tried.
    pub(super) fn return_probes_kill(
        &mut self,
        confinement: Confinement,
    ) -> Option<Result<bool, ProbeError>> {
        let kernel = self.kernel.as_mut()?;
        Some(self.return_probes.kill(kernel, confinement))
    }

    /// What each kind of hit costs; nothing when it could not be measured.
    pub(super) fn costs(&self) -> Vec<CostRow> {
        let Some(Calibration {
            exact: costs,
            stacks,
            ..
        }) = self.costs
        else {
            return Vec::new();
        };
        [
            (
                "allocation (entry and return), emulated",
                costs.emulated_pair_ns,
            ),
            ("free, emulated", costs.emulated_free_ns),
            (
                "allocation (entry and return), single-stepped",
                costs.stepped_pair_ns,
            ),
            ("free, single-stepped", costs.stepped_free_ns),
            (
                "more, where 2 KiB of stack tell call paths apart",
                stacks.window_ns * (MIDDLE_BYTES / FINGERPRINT_BYTES) as f64,
            ),
            (
                "more, where it takes 8 KiB",
                stacks.window_ns * (WIDE_BYTES / FINGERPRINT_BYTES) as f64,
            ),
            ("more, on a new call path (stack copied)", stacks.copy_ns),
        ]
        .into_iter()
        .map(|(kind, nanoseconds)| CostRow {
            kind: kind.to_owned(),
            nanoseconds,
        })
        .collect()
    }
}
