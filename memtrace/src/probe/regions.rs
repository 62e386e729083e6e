//! Attaching to what changes mappings, and to page faults: by what the kernel has.

use aya::programs::{
    FEntry, FExit, KProbe, RawTracePoint, fentry::FEntryLinkId, fexit::FExitLinkId,
};

use super::{KernelSide, ProbeError, kernel_btf};

/// How the system calls that change mappings are seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegionHook {
    /// At their functions: costs other system calls nothing.
    Functions,
    /// At every system call of the machine, some 60 ns each.
    EveryCall,
}

/// How page faults are seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultHook {
    /// Faults that the kernel takes for the program, in `read` and its like, are seen too.
    pub in_system_calls: bool,
}

/// A system call and the programs at its entry and return.
pub(super) struct Call {
    pub name: &'static str,
    /// At its function.
    function: [&'static str; 2],
    /// The same by kprobes.
    pub probes: [&'static str; 2],
}

macro_rules! call {
    ($name:literal) => {
        Call {
            name: $name,
            function: [concat!("enter_", $name), concat!("leave_", $name)],
            probes: [concat!("entered_", $name), concat!("returned_", $name)],
        }
    };
}

pub(super) const CALLS: [Call; 6] = [
    call!("mmap"),
    call!("munmap"),
    call!("mremap"),
    call!("brk"),
    call!("madvise"),
    call!("mprotect"),
];

/// The names of all programs that see changes of mappings.
pub(super) fn programs() -> impl Iterator<Item = &'static str> {
    let of_call = |call: &'static Call| call.function.into_iter().chain(call.probes);
    let of_calls = CALLS.iter().flat_map(of_call);
    of_calls.chain(["sys_enter", "sys_exit"])
}

/// What the kernel's functions of system calls begin with.
pub(super) const PREFIX: &str = if cfg!(target_arch = "aarch64") {
    "__arm64_sys_"
} else {
    "__x64_sys_"
};

/// Programs that are on, to be taken off when not all can be.
#[derive(Default)]
struct On {
    entries: Vec<(&'static str, FEntryLinkId)>,
    exits: Vec<(&'static str, FExitLinkId)>,
}

impl KernelSide {
    /// Attaches to the system calls that change mappings, in the way that misses none on this kernel.
    pub fn attach_regions(&mut self) -> Result<RegionHook, ProbeError> {
        if self.attach_regions_cheaply().is_ok() {
            return Ok(RegionHook::Functions);
        }
        // The return first, so that no entry is noted whose return cannot be seen.
        self.attach_raw("sys_exit")?;
        self.attach_raw("sys_enter")?;
        Ok(RegionHook::EveryCall)
    }

    /// The same only where it costs other system calls nothing.
    pub fn attach_regions_cheaply(&mut self) -> Result<(), ProbeError> {
        if self.preemptible && self.attach_calls_unpreempted().is_ok() {
            return Ok(());
        }
        let mut on = On::default();
        let attached = self.attach_calls(&mut on);
        if attached.is_err() {
            self.take_off(on);
        }
        attached
    }

    fn attach_calls(&mut self, on: &mut On) -> Result<(), ProbeError> {
        for Call {
            name,
            function: [entry, exit],
            ..
        } in CALLS
        {
            let function = format!("{PREFIX}{name}");
            let btf = kernel_btf::with_only(&function)
                .ok_or(ProbeError::Missing("the kernel's type information (BTF)"))?;
            let error = ProbeError::program(exit);
            let program = self.ebpf.program_mut(exit);
            let program = program.ok_or(ProbeError::Missing(exit))?;
            let program: &mut FExit = program.try_into().map_err(&error)?;
            if program.fd().is_err() {
                program.load(&function, &btf).map_err(&error)?;
            }
            on.exits.push((exit, program.attach().map_err(&error)?));
            let error = ProbeError::program(entry);
            let program = self.ebpf.program_mut(entry);
            let program = program.ok_or(ProbeError::Missing(entry))?;
            let program: &mut FEntry = program.try_into().map_err(&error)?;
            if program.fd().is_err() {
                program.load(&function, &btf).map_err(&error)?;
            }
            on.entries.push((entry, program.attach().map_err(&error)?));
        }
        Ok(())
    }

    fn take_off(&mut self, on: On) {
        for (name, link) in on.entries {
            let program = self.ebpf.program_mut(name).map(<&mut FEntry>::try_from);
            if let Some(Ok(program)) = program {
                // What stays on counts nothing twice: entries only note the time.
                let _ = program.detach(link);
            }
        }
        for (name, link) in on.exits {
            let program = self.ebpf.program_mut(name).map(<&mut FExit>::try_from);
            if let Some(Ok(program)) = program {
                let _ = program.detach(link);
            }
        }
    }

    /// Attaches to page faults, in the way that misses none on this kernel.
    pub fn attach_faults(&mut self) -> Result<FaultHook, ProbeError> {
        if self.preemptible && self.attach_faults_unpreempted().is_ok() {
            return Ok(FaultHook {
                in_system_calls: true,
            });
        }
        if let Err(error) = self.attach_raw("page_fault_user") {
            // An architecture without the tracepoints.
            return match self.attach_fault_function() {
                Ok(()) => Ok(FaultHook {
                    in_system_calls: true,
                }),
                Err(_) => Err(error),
            };
        }
        // Where the helper for the registers is missing (before 5.15) the verifier refuses it.
        let in_system_calls = self.attach_raw("page_fault_kernel").is_ok();
        Ok(FaultHook { in_system_calls })
    }

    fn attach_fault_function(&mut self) -> Result<(), ProbeError> {
        const NAME: &str = "fault_in_function";
        let error = ProbeError::program(NAME);
        let program = self.ebpf.program_mut(NAME);
        let program = program.ok_or(ProbeError::Missing(NAME))?;
        let program: &mut KProbe = program.try_into().map_err(&error)?;
        if program.fd().is_err() {
            program.load().map_err(&error)?;
        }
        let on = program.attach("handle_mm_fault", 0);
        on.map(drop).map_err(&error)
    }

    fn attach_raw(&mut self, name: &'static str) -> Result<(), ProbeError> {
        let program: &mut RawTracePoint = self
            .ebpf
            .program_mut(name)
            .ok_or(ProbeError::Missing(name))?
            .try_into()
            .map_err(ProbeError::program(name))?;
        if program.fd().is_err() {
            program.load().map_err(ProbeError::program(name))?;
        }
        program
            .attach(name)
            .map(drop)
            .map_err(ProbeError::program(name))
    }
}
