//! A containerd of the test's own, and pods by its Kubernetes interface.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use http_body_util::{BodyExt as _, Full};
use hyper::{Request, body::Bytes, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};

use crate::process::{Running, deadline};

/// Makes an image archive of the files in a folder: NAME, archive, folder, command….
const MAKE_IMAGE: &str = r#"
import sys, json, hashlib, tarfile, io, os
name, out, root, *command = sys.argv[1:]
layer = io.BytesIO()
with tarfile.open(fileobj=layer, mode='w') as tar:
    for entry in sorted(os.listdir(root)): tar.add(os.path.join(root, entry), arcname=entry)
layer = layer.getvalue()
digest = lambda data: hashlib.sha256(data).hexdigest()
machine = {'x86_64': 'amd64', 'aarch64': 'arm64'}[os.uname().machine]
config = json.dumps({'architecture': machine, 'os': 'linux', 'config': {'Entrypoint': command},
    'rootfs': {'type': 'layers', 'diff_ids': ['sha256:' + digest(layer)]}}).encode()
oci = 'application/vnd.oci.image.'
part = lambda kind, data: {'mediaType': oci + kind, 'digest': 'sha256:' + digest(data), 'size': len(data)}
manifest = json.dumps({'schemaVersion': 2, 'mediaType': oci + 'manifest.v1+json',
    'config': part('config.v1+json', config), 'layers': [part('layer.v1.tar', layer)]}).encode()
index = part('manifest.v1+json', manifest) | {'annotations': {'io.containerd.image.name': name}}
with tarfile.open(out, 'w') as tar:
    def put(path, data):
        info = tarfile.TarInfo(path); info.size = len(data); tar.addfile(info, io.BytesIO(data))
    put('oci-layout', b'{"imageLayoutVersion":"1.0.0"}')
    put('index.json', json.dumps({'schemaVersion': 2, 'manifests': [index]}).encode())
    for data in (config, manifest, layer): put('blobs/sha256/' + digest(data), data)
"#;

macro_rules! messages {
    ($($name:ident { $($(#[$meta:meta])* $field:ident: $kind:ty,)* })+) => {$(
        #[derive(Clone, PartialEq, prost::Message)]
        struct $name { $($(#[$meta])* $field: $kind,)* }
    )+};
}

messages! {
    PodMetadata {
        #[prost(string, tag = "1")] name: String,
        #[prost(string, tag = "2")] uid: String,
        #[prost(string, tag = "3")] namespace: String,
    }
    NamespaceOption { #[prost(int32, tag = "1")] network: i32, #[prost(int32, tag = "2")] pid: i32, }
    SandboxSecurity { #[prost(message, optional, tag = "1")] namespaces: Option<NamespaceOption>, }
    LinuxPod {
        #[prost(string, tag = "1")] cgroup_parent: String,
        #[prost(message, optional, tag = "2")] security: Option<SandboxSecurity>,
    }
    PodConfig {
        #[prost(message, optional, tag = "1")] metadata: Option<PodMetadata>,
        #[prost(string, tag = "3")] log_directory: String,
        #[prost(map = "string, string", tag = "6")] labels: HashMap<String, String>,
        #[prost(message, optional, tag = "8")] linux: Option<LinuxPod>,
    }
    RunPod { #[prost(message, optional, tag = "1")] config: Option<PodConfig>, }
    Id { #[prost(string, tag = "1")] id: String, }
    ContainerMetadata { #[prost(string, tag = "1")] name: String, }
    Resources { #[prost(int64, tag = "4")] memory: i64, }
    LinuxContainer { #[prost(message, optional, tag = "1")] resources: Option<Resources>, }
    ContainerConfig {
        #[prost(message, optional, tag = "1")] metadata: Option<ContainerMetadata>,
        #[prost(message, optional, tag = "2")] image: Option<Id>,
        #[prost(string, repeated, tag = "3")] command: Vec<String>,
        #[prost(map = "string, string", tag = "9")] labels: HashMap<String, String>,
        #[prost(string, tag = "11")] log_path: String,
        #[prost(message, optional, tag = "15")] linux: Option<LinuxContainer>,
    }
    CreateContainer {
        #[prost(string, tag = "1")] pod: String,
        #[prost(message, optional, tag = "2")] config: Option<ContainerConfig>,
        #[prost(message, optional, tag = "3")] pod_config: Option<PodConfig>,
    }
}

/// A containerd with its own root, state and socket; it ends with its handle.
pub struct Containerd {
    folder: tempfile::TempDir,
    daemon: Running,
    pods: Vec<String>,
}

/// A pod with one container.
pub struct Pod {
    /// The container's id.
    pub container: String,
    /// Its process, as the host sees it.
    pub pid: u32,
}

impl Containerd {
    /// Starts it and waits until it answers.
    #[track_caller]
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().display();
        let config = format!(
            "version = 2\nroot = \"{at}/root\"\nstate = \"{at}/state\"\n\
             [grpc]\naddress = \"{at}/containerd.sock\"\n\
             [ttrpc]\naddress = \"{at}/containerd.sock.ttrpc\"\n\
             [plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = \"localhost/pause:1\"\n\
             restrict_oom_score_adj = true\ndisable_tcp_service = true\n\
             [plugins.\"io.containerd.grpc.v1.cri\".containerd]\nsnapshotter = \"native\"\n\
             [plugins.\"io.containerd.grpc.v1.cri\".cni]\n\
             bin_dir = \"{at}/cni\"\nconf_dir = \"{at}/cni\"\n\
             [plugins.\"io.containerd.internal.v1.opt\"]\npath = \"{at}/opt\"\n"
        );
        std::fs::write(folder.path().join("config.toml"), config).unwrap();
        let mut command = Command::new("containerd");
        command
            .arg("--config")
            .arg(folder.path().join("config.toml"));
        let daemon = Running::spawn(&mut command);
        let mut this = Self {
            folder,
            daemon,
            pods: Vec::new(),
        };
        let until = deadline(30);
        while this.ctr(&["version"]).is_err() {
            assert!(Instant::now() < until, "containerd does not answer");
            assert!(this.daemon.try_wait().is_none(), "containerd has ended");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        this
    }

    /// Where it listens.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("containerd.sock")
    }

    fn ctr(&self, args: &[&str]) -> Result<String, String> {
        let output = Command::new("ctr")
            .arg("--address")
            .arg(self.socket())
            .args(["--namespace", "k8s.io"])
            .args(args)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match output.status.success() {
            true => Ok(text(&output.stdout)),
            false => Err(text(&output.stderr)),
        }
    }

    /// An image of one static program.
    #[track_caller]
    pub fn image(&self, name: &str, program: &Path, args: &[&str]) {
        let root = self.folder.path().join(format!("image-{name}"));
        std::fs::create_dir(&root).unwrap();
        std::fs::copy(program, root.join("program")).unwrap();
        let archive = root.with_extension("tar");
        let made = Command::new("python3")
            .args(["-c", MAKE_IMAGE, &format!("localhost/{name}:1")])
            .args([&archive, &root])
            .arg("/program")
            .args(args)
            .status()
            .unwrap();
        assert!(made.success());
        let archive = archive.display().to_string();
        self.ctr(&["images", "import", "--snapshotter", "native", &archive])
            .unwrap();
    }

    /// Runs a container of an image in a pod of its own. `parent` is the pod's cgroup.
    #[track_caller]
    pub fn pod(&mut self, name: &str, uid: &str, parent: &str, image: &str, limit: u64) -> Pod {
        let labels = HashMap::from([("app".to_owned(), name.to_owned())]);
        let namespaces = NamespaceOption { network: 2, pid: 1 };
        let config = PodConfig {
            metadata: Some(PodMetadata {
                name: name.to_owned(),
                uid: uid.to_owned(),
                namespace: "shop".to_owned(),
            }),
            log_directory: self.folder.path().join("logs").display().to_string(),
            labels: labels.clone(),
            linux: Some(LinuxPod {
                cgroup_parent: parent.to_owned(),
                security: Some(SandboxSecurity {
                    namespaces: Some(namespaces),
                }),
            }),
        };
        let pod = RunPod {
            config: Some(config.clone()),
        };
        let pod = self.call("RunPodSandbox", &pod).id;
        self.pods.push(pod.clone());
        let container = CreateContainer {
            pod,
            config: Some(ContainerConfig {
                metadata: Some(ContainerMetadata {
                    name: "app".to_owned(),
                }),
                image: Some(Id {
                    id: format!("localhost/{image}:1"),
                }),
                command: Vec::new(),
                labels,
                log_path: "app.log".to_owned(),
                linux: Some(LinuxContainer {
                    resources: Some(Resources {
                        memory: i64::try_from(limit).unwrap(),
                    }),
                }),
            }),
            pod_config: Some(config),
        };
        let container = self.call("CreateContainer", &container).id;
        self.call(
            "StartContainer",
            &Id {
                id: container.clone(),
            },
        );
        let tasks = self.ctr(&["tasks", "list"]).unwrap();
        let line = tasks.lines().find(|line| line.starts_with(&container));
        let pid = line.and_then(|line| line.split_whitespace().nth(1));
        Pod {
            pid: pid.unwrap_or_else(|| panic!("{tasks}")).parse().unwrap(),
            container,
        }
    }

    #[track_caller]
    fn call<M: prost::Message>(&self, method: &str, message: &M) -> Id {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let answer = runtime.block_on(unary(&self.socket(), method, message.encode_to_vec()));
        answer.unwrap_or_else(|error| panic!("{method}: {error}"))
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        for pod in &self.pods {
            for method in ["StopPodSandbox", "RemovePodSandbox"] {
                let message = prost::Message::encode_to_vec(&Id { id: pod.clone() });
                let _ = runtime.block_on(unary(&self.socket(), method, message));
            }
        }
        self.daemon.signal(libc::SIGTERM);
        let until = deadline(20);
        while self.daemon.try_wait().is_none() && Instant::now() < until {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

async fn unary(socket: &Path, method: &str, message: Vec<u8>) -> Result<Id, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let io = tokio::net::UnixStream::connect(socket).await;
    let io = TokioIo::new(io.map_err(|e| text(&e))?);
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io)
        .await
        .map_err(|e| text(&e))?;
    tokio::spawn(connection);
    let mut body = vec![0];
    body.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
    body.extend(message);
    let request = Request::post(format!(
        "http://localhost/runtime.v1.RuntimeService/{method}"
    ))
    .header("content-type", "application/grpc")
    .header("te", "trailers")
    .body(Full::<Bytes>::from(body))
    .unwrap();
    let answer = sender.send_request(request).await.map_err(|e| text(&e))?;
    let head = answer.headers().clone();
    let body = answer.into_body().collect().await.map_err(|e| text(&e))?;
    let trailers = body.trailers().cloned().unwrap_or(head);
    if trailers
        .get("grpc-status")
        .is_some_and(|status| status != "0")
    {
        return Err(format!("{:?}", trailers.get("grpc-message")));
    }
    let bytes = body.to_bytes();
    prost::Message::decode(bytes.get(5..).unwrap_or_default()).map_err(|e| text(&e))
}
