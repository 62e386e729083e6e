//! Containers: who a process belongs to, by its cgroup, and what the runtime calls it.
//!
//! - [`path`] reads an identity out of a cgroup path: ids, which always stand;
//! - [`names`] asks the runtimes' sockets for names, pods, images and labels, within deadlines and
//!   size limits, on a thread of its own;
//! - [`find`] finds the processes of a container that a person named.

mod cri;
mod docker;
pub mod find;
mod http;
pub mod names;
pub mod path;

#[cfg(test)]
mod tests;

use serde::Serialize;

use super::process::ProcFs;
use crate::id::Tgid;

/// Who runs a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Runtime {
    /// Docker, or an engine that uses its paths.
    Docker,
    /// containerd: by the CRI, ctr or nerdctl.
    Containerd,
    /// CRI-O.
    CriO,
    /// Podman.
    Podman,
    /// A Kubernetes pod whose path does not name the runtime.
    Kubernetes,
    /// LXC or LXD.
    Lxc,
    /// systemd-nspawn and other machines of systemd's.
    Nspawn,
    /// A step of an image build.
    Buildkit,
    /// No container but a service of systemd's.
    Systemd,
    /// A container's id in a path that names no runtime.
    Unknown,
}

impl Runtime {
    /// As reports call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Containerd => "containerd",
            Self::CriO => "cri-o",
            Self::Podman => "podman",
            Self::Kubernetes => "kubernetes",
            Self::Lxc => "lxc",
            Self::Nspawn => "systemd-nspawn",
            Self::Buildkit => "buildkit",
            Self::Systemd => "systemd",
            Self::Unknown => "unknown",
        }
    }
}

/// Kubernetes' quality of service class of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Qos {
    /// Limits equal to requests.
    Guaranteed,
    /// Some requests.
    Burstable,
    /// None.
    BestEffort,
}

impl Qos {
    fn named(name: &str) -> Option<Self> {
        match name {
            "guaranteed" => Some(Self::Guaranteed),
            "burstable" => Some(Self::Burstable),
            "besteffort" => Some(Self::BestEffort),
            _ => None,
        }
    }

    /// As reports call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Guaranteed => "guaranteed",
            Self::Burstable => "burstable",
            Self::BestEffort => "best-effort",
        }
    }
}

/// What a cgroup path says of a container.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// Who runs it.
    pub runtime: Runtime,
    /// Its id, whole; a service's unit.
    pub id: String,
    /// The pod it is in, with dashes as Kubernetes writes it.
    pub pod_uid: Option<String>,
    /// That pod's class.
    pub qos: Option<Qos>,
    /// The id of the container that this one runs in.
    pub outer: Option<String>,
}

impl Identity {
    /// Of the text of `/proc/PID/cgroup`. The memory controller's line counts first: a runtime
    /// need not join every hierarchy.
    #[must_use]
    pub fn of_cgroups(text: &str) -> Option<Self> {
        let mut lines: Vec<(u8, &str)> = text.lines().filter_map(line).collect();
        lines.sort_by_key(|(order, _)| *order);
        let found: Vec<Self> = lines
            .iter()
            .filter_map(|(_, path)| path::parse(path))
            .collect();
        found
            .iter()
            .find(|one| one.runtime != Runtime::Systemd)
            .or(found.first())
            .cloned()
    }

    /// Of a process; nothing when it is in no container, or gone.
    #[must_use]
    pub fn of_process(proc: &ProcFs, tgid: Tgid) -> Option<Self> {
        Self::of_cgroups(&super::cgroup::text_of(proc, tgid)?)
    }
}

/// Rank and path of a line of `/proc/PID/cgroup`.
fn line(line: &str) -> Option<(u8, &str)> {
    let mut fields = line.splitn(3, ':').skip(1);
    let (controllers, path) = (fields.next()?, fields.next()?);
    let order = match controllers {
        "" => 1,
        "name=systemd" => 2,
        names if names.split(',').any(|name| name == "memory") => 0,
        _ => 3,
    };
    Some((order, path))
}
