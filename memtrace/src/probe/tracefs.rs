//! tracefs: where it is mounted, mounting it where it is not, and the fields of tracepoints in it.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use memtrace_common::events::{
    EXEC_OLD_PID_OFFSET, MMAP_PROT_OFFSET, NEWTASK_FLAGS_OFFSET, NEWTASK_PID_OFFSET, OOM_PID_OFFSET,
};

use super::ProbeError;

/// What a person can do where memtrace cannot.
const REMEDY: &str = "tracefs is not mounted, or not readable: run memtrace as root, or `mount -t tracefs nodev \
     /sys/kernel/tracing`";

/// A tracepoint, a field of it that memtrace reads, and where that must be.
type Field<'a> = (&'a str, &'a str, usize);

/// The tracepoints that memtrace cannot do without.
const NEEDED: [Field<'_>; 4] = [
    ("task/task_newtask", "pid", NEWTASK_PID_OFFSET),
    ("task/task_newtask", "clone_flags", NEWTASK_FLAGS_OFFSET),
    ("sched/sched_process_exec", "old_pid", EXEC_OLD_PID_OFFSET),
    ("syscalls/sys_enter_mmap", "prot", MMAP_PROT_OFFSET),
];
/// The one that tells of OOM kills.
const OOM: Field<'_> = ("oom/mark_victim", "pid", OOM_PID_OFFSET);

/// Where tracefs is mounted and can be read, below the root of a machine (`/`, or a test's tree).
#[must_use]
pub fn tracefs(root: &Path) -> Option<PathBuf> {
    ["sys/kernel/tracing", "sys/kernel/debug/tracing"]
        .into_iter()
        .map(|path| root.join(path))
        .find(|path| path.join("events").is_dir())
}

/// Makes tracefs visible: where it is not mounted, mounts it for this process alone, so that
/// nothing changes for anyone else and nothing is left behind. Before the first thread is started.
pub fn provide_tracefs() -> Result<(), ProbeError> {
    if tracefs(Path::new("/")).is_some() {
        return Ok(());
    }
    mount_for_oneself().map_err(|errno| ProbeError::system(REMEDY, errno.into()))
}

fn mount_for_oneself() -> Result<(), rustix::io::Errno> {
    use rustix::{
        mount::{MountFlags, MountPropagationFlags, mount, mount_change},
        thread::UnshareFlags,
    };
    // SAFETY: no thread has been started yet, and nothing holds a path of the old namespace.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }?;
    mount_change(
        "/",
        MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC,
    )?;
    mount(
        "nodev",
        "/sys/kernel/tracing",
        "tracefs",
        MountFlags::empty(),
        None,
    )
}

/// Checks that the tracepoints' fields are where the programs read them (R27); `root` as for
/// [`tracefs`].
pub fn check_tracepoints(root: &Path) -> Result<(), ProbeError> {
    let mount = tracefs(root).ok_or_else(|| ProbeError::Tracepoint(REMEDY.into()))?;
    NEEDED.iter().try_for_each(|field| check(&mount, field))
}

/// The same for the tracepoint of OOM kills, without which heap tracing goes on.
pub(super) fn check_oom(root: &Path) -> Result<(), ProbeError> {
    let mount = tracefs(root).ok_or_else(|| ProbeError::Tracepoint(REMEDY.into()))?;
    check(&mount, &OOM)
}

/// The same for other fields, `(name, offset)`, of an event, `category/name`, of this machine.
pub(super) fn check_fields(event: &str, fields: &[(&str, usize)]) -> Result<(), ProbeError> {
    let mount = tracefs(Path::new("/")).ok_or_else(|| ProbeError::Tracepoint(REMEDY.into()))?;
    let mut fields = fields.iter();
    fields.try_for_each(|(field, offset)| check(&mount, &(event, field, *offset)))
}

fn check(mount: &Path, (event, field, offset): &Field<'_>) -> Result<(), ProbeError> {
    let path = mount.join("events").join(event).join("format");
    let text = fs::read_to_string(&path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => ProbeError::Tracepoint(format!(
            "this kernel has no tracepoint {event}: it needs CONFIG_FTRACE and \
             CONFIG_FTRACE_SYSCALLS"
        )),
        _ => ProbeError::system(format!("cannot read {}", path.display()), source),
    })?;
    if field_offset(&text, field) != Some(*offset) {
        return Err(ProbeError::Tracepoint(format!(
            "field `{field}` of tracepoint {event} is not at offset {offset} on this kernel, \
             which memtrace does not know; please report {}",
            path.display()
        )));
    }
    Ok(())
}

/// The text of an event's format file, `category/name`.
#[must_use]
pub fn event_format(root: &Path, event: &str) -> Option<String> {
    let path = tracefs(root)?.join("events").join(event).join("format");
    fs::read_to_string(path).ok()
}

/// Whether a tracepoint has a field at an offset; `root` as for [`tracefs`].
pub(super) fn has_field(root: &Path, event: &str, field: &str, offset: usize) -> bool {
    tracefs(root)
        .and_then(|mount| fs::read_to_string(mount.join("events").join(event).join("format")).ok())
        .is_some_and(|text| field_offset(&text, field) == Some(offset))
}

/// Offset of a field in an event's format file.
fn field_offset(format: &str, field: &str) -> Option<usize> {
    format.lines().find_map(|line| {
        let rest = line.trim().strip_prefix("field:")?;
        let (declaration, rest) = rest.split_once(';')?;
        let name = declaration.rsplit([' ', '\t']).next()?;
        let name = name.split('[').next()?;
        if name != field {
            return None;
        }
        rest.trim()
            .strip_prefix("offset:")?
            .split(';')
            .next()?
            .parse()
            .ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Offsets are found for plain fields and arrays, and not for names that only end alike.
    #[test]
    fn offsets() {
        let format = "\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n\
                      \tfield:pid_t pid;\toffset:8;\tsize:4;\tsigned:1;\n\
                      \tfield:char comm[16];\toffset:12;\tsize:16;\tsigned:0;\n";
        assert_eq!(field_offset(format, "pid"), Some(8));
        assert_eq!(field_offset(format, "comm"), Some(12));
        assert_eq!(field_offset(format, "flags"), None);
    }
}
