//! The kernel side's handle: load, attach, typed maps.

mod attach;
mod batch;
mod calibrate;
mod calibrate_memory;
mod error;
mod family;
mod features;
mod handle;
mod kernel_btf;
mod map_log;
mod missed;
mod object;
mod own_code;
mod plain;
mod preemption;
mod programs;
mod regions;
mod seccomp;
mod sys;
mod trace_events;
mod tracefs;
mod trial;
mod uninterrupted;
mod unpreempted;

pub use attach::{AttachPoint, Attachments, Purpose};
pub use calibrate::{Calibration, HitCosts, StackCosts, calibrate};
pub use calibrate_memory::{MemoryCosts, calibrate_memory};
pub use error::ProbeError;
pub use features::Features;
pub use handle::{Counters, KernelOptions, KernelSide};
pub use map_log::{LoggedMapping, MapLog};
pub use missed::Missed;
pub use regions::{FaultHook, RegionHook};
pub use seccomp::{Confinement, ReturnProbes};
pub use tracefs::{check_tracepoints, event_format, provide_tracefs, tracefs};
pub use trial::{MapKind, try_map};
