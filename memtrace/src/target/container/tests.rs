use proptest::prelude::*;

use super::{Identity, Qos, Runtime, path};

const ID: &str = "3f2504e04f8911d39a0c0305e82c33013f2504e04f8911d39a0c0305e82c3301";
const OTHER: &str = "aa2504e04f8911d39a0c0305e82c33013f2504e04f8911d39a0c0305e82c33bb";
const UID: &str = "6f1c8a2e-1b7d-4a53-9a8e-0c1d2e3f4a5b";
const UID_: &str = "6f1c8a2e_1b7d_4a53_9a8e_0c1d2e3f4a5b";
const STATIC: &str = "0123456789abcdef0123456789abcdef";

fn expand(path: &str) -> String {
    path.replace("OTHER", OTHER)
        .replace("UID_", UID_)
        .replace("UID", UID)
        .replace("STATIC", STATIC)
        .replace("ID", ID)
}

/// Real paths of every runtime, driver and cgroup version: runtime, id, path.
const REAL_PATHS: &str = r"
# Docker, cgroupfs and systemd drivers; a daemon of a user; --cgroup-parent.
Docker ID /docker/ID
Docker ID /system.slice/docker-ID.scope
Docker ID /user.slice/user-1000.slice/user@1000.service/user.slice/docker-ID.scope
Docker ID /mine.slice/docker-ID.scope/init.scope
# containerd.
Containerd ID /k8s.io/ID
Containerd web /default/web
Containerd ID /system.slice/nerdctl-ID.scope
Buildkit ID /buildkit/ID
# Podman, root and user, both managers, in a pod.
Podman ID /libpod_parent/libpod-ID
Podman ID /machine.slice/libpod-ID.scope
Podman ID /machine.slice/libpod-ID.scope/container
Podman ID /machine.slice/machine-libpod_pod_OTHER.slice/libpod-ID.scope/container
Podman ID /user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope/container
Podman ID /system.slice/web.service/libpod-payload-ID
# Kubernetes without the runtime's name, by containerd, by CRI-O.
Kubernetes ID /kubepods/burstable/podUID/ID
Kubernetes ID /kubepods/besteffort/podUID/ID
Kubernetes ID /kubepods/podUID/ID
Kubernetes ID /kubepods/burstable/podSTATIC/ID
CriO ID /kubepods/burstable/podUID/crio-ID
Containerd ID /kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podUID_.slice/cri-containerd-ID.scope
Containerd ID /kubepods.slice/kubepods-podUID_.slice/cri-containerd-ID.scope
CriO ID /kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podUID_.slice/crio-ID.scope
CriO ID /kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podUID_.slice/crio-ID.scope/container
Docker ID /kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podUID_.slice/docker-ID.scope
Docker ID /kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podSTATIC.slice/docker-ID.scope
# The runtime's driver is not the kubelet's.
Containerd ID /system.slice/containerd.service/kubepods-burstable-podUID_.slice:cri-containerd:ID
# kind: a cluster in a container.
Kubernetes ID /docker/OTHER/kubelet/kubepods/burstable/podUID/ID
Containerd ID /kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-podUID_.slice/cri-containerd-ID.scope
Containerd ID /system.slice/docker-OTHER.scope/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-podUID_.slice/cri-containerd-ID.scope
# Nested, and a service in a container.
Docker ID /docker/OTHER/docker/ID
Docker ID /docker/OTHER/system.slice/docker-ID.scope
Docker ID /docker/ID/system.slice/nginx.service
# Others.
Unknown ID /ecs/STATIC/ID
Unknown STATIC-1234567890 /ecs/STATIC/STATIC-1234567890
Lxc web1 /lxc/web1
Lxc web1 /lxc.payload.web1
Nspawn deb-book /machine.slice/machine-deb\x2dbook.scope
Nspawn deb /machine.slice/systemd-nspawn@deb.service/payload
Unknown ID /own/ID
# Services.
Systemd nginx.service /system.slice/nginx.service
Systemd containerd.service /system.slice/containerd.service
Systemd getty@tty1.service /system.slice/system-getty.slice/getty@tty1.service
Systemd syncthing.service /user.slice/user-1000.slice/user@1000.service/app.slice/syncthing.service
# As a cgroup namespace and a removed group show them.
Docker ID /../../docker/ID
Docker ID /docker/ID (deleted)
";

/// Runtime and id are read of each of them.
#[test]
fn real_paths() {
    let is_row = |line: &&str| !line.is_empty() && !line.starts_with('#');
    for row in REAL_PATHS.lines().filter(is_row) {
        let [runtime, id, text] = row.splitn(3, ' ').collect::<Vec<_>>()[..] else {
            panic!("no row: {row}");
        };
        let found = path::parse(&expand(text)).unwrap_or_else(|| panic!("nothing in {text}"));
        let named = (format!("{:?}", found.runtime), found.id);
        assert_eq!(named, (runtime.to_owned(), expand(id)), "{text}");
    }
}

/// Paths that are nobody's: the root, a person's session, the process that watches a container.
#[test]
fn no_containers() {
    for text in [
        "/",
        "",
        "/init.scope",
        "/user.slice/user-1000.slice/session-3.scope",
        "/kubepods/burstable",
        "/kubepods.slice/kubepods-burstable.slice",
        "/machine.slice/libpod-conmon-ID.scope",
        "/libpod_parent/conmon",
        "/docker/not-an-id",
        "/docker",
        "/podcasts/data",
        "/system.slice/docker-.scope",
    ] {
        assert_eq!(path::parse(&expand(text)), None, "{text}");
    }
}

/// Pod uid and class are read of either driver's paths; the outer container of a nested one too.
#[test]
fn pods_and_nesting() {
    let of = |text: &str| path::parse(&expand(text)).unwrap();
    for (text, uid, qos) in [
        ("/kubepods/burstable/podUID/ID", UID, Qos::Burstable),
        ("/kubepods/besteffort/podUID/ID", UID, Qos::BestEffort),
        ("/kubepods/podUID/ID", UID, Qos::Guaranteed),
        ("/kubepods/burstable/podSTATIC/ID", STATIC, Qos::Burstable),
        (
            "/kubepods.slice/kubepods-podUID_.slice/crio-ID.scope",
            UID,
            Qos::Guaranteed,
        ),
        (
            "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podUID_.slice/crio-ID.scope",
            UID,
            Qos::BestEffort,
        ),
        (
            "/system.slice/containerd.service/kubepods-burstable-podUID_.slice:cri-containerd:ID",
            UID,
            Qos::Burstable,
        ),
        (
            "/docker/OTHER/kubelet/kubepods/burstable/podUID/ID",
            UID,
            Qos::Burstable,
        ),
        ("/kubepods/burstable/podUID", UID, Qos::Burstable),
    ] {
        let found = of(text);
        assert_eq!(found.pod_uid.as_deref(), Some(uid), "{text}");
        assert_eq!(found.qos, Some(qos), "{text}");
    }
    assert_eq!(of("/docker/OTHER/docker/ID").outer.as_deref(), Some(OTHER));
    // The pod is the outer container's, not the inner one's.
    let inner = of("/kubepods/burstable/podUID/OTHER/docker/ID");
    assert_eq!((inner.pod_uid, inner.outer.as_deref()), (None, Some(OTHER)));
}

/// The memory controller's path counts on v1 and hybrid machines, any other where it tells more.
#[test]
fn hierarchies() {
    let hybrid = expand(
        "12:pids:/\n4:memory:/kubepods/burstable/podUID/ID\n1:name=systemd:/system.slice/containerd.service\n0::/\n",
    );
    assert_eq!(Identity::of_cgroups(&hybrid).unwrap().id, ID);
    let apart = expand("4:memory:/system.slice/x.service\n1:name=systemd:/docker/ID\n0::/\n");
    assert_eq!(
        Identity::of_cgroups(&apart).unwrap().runtime,
        Runtime::Docker
    );
    let two = expand("0::/system.slice/docker-ID.scope\n");
    assert_eq!(Identity::of_cgroups(&two).unwrap().id, ID);
    assert_eq!(Identity::of_cgroups("rubbish\n0:x\n"), None);
}

proptest! {
    /// No path makes the parser panic, and no id is longer than a component of the path.
    #[test]
    fn hostile(text in "(/|[a-z0-9_.:-]{0,12}|kubepods|docker-|libpod-|pod|\\.slice|\\.scope|\\\\x2d|é|[0-9a-f]{64}){0,12}") {
        if let Some(found) = path::parse(&text) {
            prop_assert!(!found.id.is_empty() && found.id.len() <= text.len());
        }
    }
}
