//! A container's identity from the path of its cgroup. Pure: text in, identity out.
//!
//! Runtimes write the id into the path in two ways, by systemd (`docker-ID.scope`) and by
//! directories of their own (`/docker/ID`); Kubernetes puts a pod above either. The innermost
//! container counts, and a service inside a container is that container's.

use super::{Identity, Qos, Runtime};

/// Longer names are nobody's: a path component has at most this many bytes.
const MAX_NAME: usize = 255;

/// Prefixes of a scope or a directory that name the runtime.
const PREFIXES: &[(&str, Runtime)] = &[
    ("docker-", Runtime::Docker),
    ("cri-containerd-", Runtime::Containerd),
    ("containerd-", Runtime::Containerd),
    ("nerdctl-", Runtime::Containerd),
    ("crio-", Runtime::CriO),
    ("cri-o-", Runtime::CriO),
    ("libpod-payload-", Runtime::Podman),
    ("libpod-", Runtime::Podman),
    ("lxc.payload.", Runtime::Lxc),
];

/// Not the container, but the process beside it that watches it.
const MONITORS: &[&str] = &["crio-conmon-", "libpod-conmon-", "lxc.monitor."];

/// Directories whose children are containers.
const PARENTS: &[(&str, Runtime)] = &[
    ("docker", Runtime::Docker),
    ("k8s.io", Runtime::Containerd),
    ("buildkit", Runtime::Buildkit),
    ("ecs", Runtime::Docker),
    ("libpod_parent", Runtime::Podman),
    ("lxc", Runtime::Lxc),
];

/// The identity in a cgroup path; nothing for a path that is no container's and no service's.
///
/// `path` is as in `/proc/PID/cgroup`: slashes, no mount point. A cgroup namespace's leading
/// `/..` does no harm.
#[must_use]
pub fn parse(path: &str) -> Option<Identity> {
    let parts: Vec<&str> = path
        .trim_end_matches(" (deleted)")
        .split('/')
        .filter(|part| !part.is_empty() && *part != "..")
        .collect();
    let mut found: Option<Identity> = None;
    let mut pod = None;
    let mut parent = None;
    for (at, part) in parts.iter().enumerate() {
        if part.len() > MAX_NAME {
            return found;
        }
        if let Some(named) = pod_of(part) {
            // Kubernetes in a container: what is inside is a pod of its own.
            pod = Some(Pod {
                qos: named.qos.or_else(|| qos_of(parts.get(at.wrapping_sub(1)))),
                ..named
            });
        }
        if let Some((runtime, id)) = container_of(part, parent, pod.is_some(), at) {
            let outer = found.take().map(|outer| outer.id);
            let (pod_uid, qos) = match pod.take() {
                Some(pod) => (Some(pod.uid), Some(pod.qos.unwrap_or(Qos::Guaranteed))),
                None => (None, None),
            };
            found = Some(Identity {
                runtime,
                id,
                pod_uid,
                qos,
                outer,
            });
        }
        parent = Some(*part);
    }
    found
        .or_else(|| pod.map(only_pod))
        .or_else(|| service_of(&parts))
}

/// A process in a pod's own group, in no container.
fn only_pod(pod: Pod) -> Identity {
    Identity {
        runtime: Runtime::Kubernetes,
        id: pod.uid.clone(),
        pod_uid: Some(pod.uid),
        qos: Some(pod.qos.unwrap_or(Qos::Guaranteed)),
        outer: None,
    }
}

struct Pod {
    uid: String,
    qos: Option<Qos>,
}

/// `podUID` below `kubepods`, or `kubepods-burstable-podUID.slice` with underscores for dashes,
/// or the same in front of a mismatched driver's `:cri-containerd:ID`.
fn pod_of(part: &str) -> Option<Pod> {
    let slice = part.split(':').next().unwrap_or(part);
    let (qos, uid) = match slice.strip_suffix(".slice") {
        Some(name) => {
            let at = name.rfind("-pod")?;
            let (before, uid) = (name.get(..at)?, name.get(at + 4..)?);
            let above = before.rsplit('-').next()?;
            if above != "kubepods" && !before.contains("kubepods-") {
                return None;
            }
            (Qos::named(above), uid.replace('_', "-"))
        }
        None => (None, slice.strip_prefix("pod")?.replace('_', "-")),
    };
    is_pod_uid(&uid).then_some(Pod { uid, qos })
}

/// A UUID, or the 32 digits of a static pod.
fn is_pod_uid(uid: &str) -> bool {
    let digits = uid.bytes().filter(u8::is_ascii_hexdigit).count();
    let dashes = uid.bytes().filter(|byte| *byte == b'-').count();
    digits == 32 && digits + dashes == uid.len() && (dashes == 0 || dashes == 4)
}

fn qos_of(part: Option<&&str>) -> Option<Qos> {
    Qos::named(part?)
}

fn container_of(
    part: &str,
    parent: Option<&str>,
    in_pod: bool,
    at: usize,
) -> Option<(Runtime, String)> {
    if MONITORS.iter().any(|prefix| part.starts_with(prefix)) {
        return None;
    }
    // `SLICE:PREFIX:ID`, a runtime told to use systemd that does not.
    if let Some((rest, id)) = part.rsplit_once(':') {
        let prefix = rest.rsplit_once(':').map_or(rest, |(_, prefix)| prefix);
        let runtime = runtime_of_prefix(&format!("{prefix}-"));
        return Some((runtime?, named(id)?));
    }
    let bare = part.strip_suffix(".scope").unwrap_or(part);
    let is_scope = bare.len() < part.len();
    for (prefix, runtime) in PREFIXES {
        if let Some(id) = bare.strip_prefix(prefix)
            && (is_hex_id(id) || (is_scope && named(id).is_some()) || *runtime == Runtime::Lxc)
        {
            return Some((*runtime, named(id)?));
        }
    }
    if is_scope {
        // `machine-NAME.scope` is systemd's own containers, names escaped.
        let name = bare.strip_prefix("machine-")?;
        return Some((Runtime::Nspawn, unescaped(name)));
    }
    if let Some(name) = part
        .strip_prefix("systemd-nspawn@")
        .and_then(|rest| rest.strip_suffix(".service"))
    {
        return Some((Runtime::Nspawn, unescaped(name)));
    }
    let id = is_hex_id(part) || is_ecs_id(part);
    if let Some(runtime) = parent.and_then(runtime_of_parent)
        && (id || runtime == Runtime::Containerd || runtime == Runtime::Lxc)
    {
        return Some((runtime, named(part)?));
    }
    // ctr's namespaces are directories at the top; any name is an id there.
    if at == 1 && parent == Some("default") {
        return Some((Runtime::Containerd, named(part)?));
    }
    // Which runtime runs the pod is not in such a path.
    if id {
        let runtime = if in_pod {
            Runtime::Kubernetes
        } else {
            Runtime::Unknown
        };
        return Some((runtime, part.to_owned()));
    }
    None
}

fn runtime_of_prefix(prefix: &str) -> Option<Runtime> {
    PREFIXES
        .iter()
        .find(|(known, _)| *known == prefix)
        .map(|(_, runtime)| *runtime)
}

fn runtime_of_parent(parent: &str) -> Option<Runtime> {
    PARENTS
        .iter()
        .find(|(known, _)| *known == parent)
        .map(|(_, runtime)| *runtime)
}

/// 64 hexadecimal digits, as every OCI engine makes them.
fn is_hex_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Fargate: 32 hexadecimal digits, a dash, decimal digits.
fn is_ecs_id(text: &str) -> bool {
    let Some((task, number)) = text.split_once('-') else {
        return false;
    };
    task.len() == 32
        && task.bytes().all(|byte| byte.is_ascii_hexdigit())
        && (1..=20).contains(&number.len())
        && number.bytes().all(|byte| byte.is_ascii_digit())
}

/// A name of the characters that runtimes allow in one.
fn named(text: &str) -> Option<String> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    (!text.is_empty() && text.bytes().all(good)).then(|| text.to_owned())
}

/// Without systemd's escapes (`\x2d` for a dash); what is none stays.
fn unescaped(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let code = rest
            .get(2..4)
            .filter(|_| rest.starts_with(b"\\x"))
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok())
            .filter(|byte| (0x20..0x7f).contains(byte));
        match code {
            Some(byte) => {
                bytes.push(byte);
                rest = rest.get(4..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    crate::target::printable(&bytes)
}

/// The innermost systemd service.
fn service_of(parts: &[&str]) -> Option<Identity> {
    let unit = parts
        .iter()
        .rev()
        .find(|part| part.ends_with(".service") && part.len() > ".service".len())?;
    // The user manager is a service around the user's own; a process in it is a session's.
    Some(Identity {
        runtime: Runtime::Systemd,
        id: unescaped(unit),
        pod_uid: None,
        qos: None,
        outer: None,
    })
}
