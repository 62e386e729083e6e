//! Attaching where the kernel can be preempted: only what it runs without interruption misses nothing.
//!
//! Programs at functions and raw tracepoints are skipped now and then (see [`super::missed`]), from 7.2
//! on those at the tracepoints of system calls, too. Kprobes and perf's other tracepoints run with
//! preemption off, and their programs are through with before it is on again. They cost some 0.2 us more,
//! and other system calls nothing.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
};

use aya::programs::{KProbe, TracePoint, trace_point::TracePointLinkId};
use memtrace_common::events::{FAULT_ADDRESS_OFFSET, FAULT_ERROR_OFFSET};

use super::{
    KernelSide, ProbeError,
    regions::{CALLS, PREFIX},
    sys::{self, Scope},
    trace_events::Definition,
    tracefs,
};

/// A program at a function of the kernel. Dropping it takes it off.
pub(super) struct KernelProbe {
    _event: OwnedFd,
    // Goes after the event that uses it.
    _definition: Definition,
}

impl KernelSide {
    /// Puts kprobes on the system calls that change mappings.
    pub(super) fn attach_calls_unpreempted(&mut self) -> Result<(), ProbeError> {
        let mut probes = Vec::new();
        for call in &CALLS {
            let function = format!("{PREFIX}{}", call.name);
            let [entered, returned] = call.probes;
            // The return first, so that no entry is noted whose return cannot be seen.
            for (program, at_return) in [(returned, true), (entered, false)] {
                probes.push(self.probe_function(program, at_return, &function)?);
            }
        }
        self.kernel_probes.append(&mut probes);
        Ok(())
    }

    /// Puts a kprobe where files are mapped.
    pub(super) fn attach_mappings_unpreempted(&mut self) -> Result<(), ProbeError> {
        let probe = self.probe_function("file_is_mapped", false, "security_mmap_file")?;
        self.kernel_probes.push(probe);
        Ok(())
    }

    fn probe_function(
        &mut self,
        name: &'static str,
        at_return: bool,
        function: &str,
    ) -> Result<KernelProbe, ProbeError> {
        let system = |error: io::Error| ProbeError::system(format!("probing {function}"), error);
        let events = self.events.as_ref();
        let events = events.ok_or(ProbeError::Missing("trace events of probes"))?;
        let definition = events
            .define_in_kernel(at_return, function)
            .map_err(system)?;
        let error = ProbeError::program(name);
        let program = self.ebpf.program_mut(name);
        let program = program.ok_or(ProbeError::Missing(name))?;
        let program: &mut KProbe = program.try_into().map_err(&error)?;
        if program.fd().is_err() {
            program.load().map_err(&error)?;
        }
        let fd = program.fd().map_err(&error)?.as_fd();
        let id = definition.id().map_err(system)?;
        Ok(KernelProbe {
            _event: sys::attach_event(fd, id, Scope::All).map_err(system)?,
            _definition: definition,
        })
    }

    /// Attaches to perf's tracepoints of page faults.
    pub(super) fn attach_faults_unpreempted(&mut self) -> Result<(), ProbeError> {
        let fields = [
            ("address", FAULT_ADDRESS_OFFSET),
            ("error_code", FAULT_ERROR_OFFSET),
        ];
        let points = [
            ("fault_in_program", "page_fault_user"),
            ("fault_in_kernel", "page_fault_kernel"),
        ];
        let mut on = Vec::new();
        let attached = points.into_iter().try_for_each(|(program, tracepoint)| {
            tracefs::check_fields(&format!("exceptions/{tracepoint}"), &fields)?;
            on.push((
                program,
                self.attach_to_tracepoint(program, "exceptions", tracepoint)?,
            ));
            Ok(())
        });
        if attached.is_err() {
            self.take_off_tracepoints(on);
        }
        attached
    }

    fn take_off_tracepoints(&mut self, on: Vec<(&'static str, TracePointLinkId)>) {
        for (name, link) in on {
            let program = self.ebpf.program_mut(name).map(<&mut TracePoint>::try_from);
            if let Some(Ok(program)) = program {
                let _ = program.detach(link);
            }
        }
    }
}
