//! The Kubernetes container runtime interface, `runtime.v1`, as far as names need it.
//!
//! The messages are those of its `api.proto` (github.com/kubernetes/cri-api), the fields that are
//! read: others are skipped by the decoder. Field numbers never change.

use std::{collections::HashMap, path::Path};

use super::{
    http::{self, CallError},
    names::Named,
};

const SERVICE: &str = "/runtime.v1.RuntimeService";
/// Labels that the kubelet puts on every container.
const POD: &str = "io.kubernetes.pod.name";
const NAMESPACE: &str = "io.kubernetes.pod.namespace";
const CONTAINER: &str = "io.kubernetes.container.name";

/// A message without fields that are used.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Empty {}

/// `VersionResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct VersionResponse {
    #[prost(string, tag = "2")]
    pub runtime_name: String,
}

/// `ListContainersResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ListContainersResponse {
    #[prost(message, repeated, tag = "1")]
    pub containers: Vec<Container>,
}

/// `Container`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Container {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(string, tag = "2")]
    pub pod_sandbox_id: String,
    #[prost(message, optional, tag = "3")]
    pub metadata: Option<Metadata>,
    #[prost(message, optional, tag = "4")]
    pub image: Option<ImageSpec>,
    #[prost(map = "string, string", tag = "8")]
    pub labels: HashMap<String, String>,
}

/// `ContainerMetadata`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Metadata {
    #[prost(string, tag = "1")]
    pub name: String,
}

/// `ImageSpec`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ImageSpec {
    #[prost(string, tag = "1")]
    pub image: String,
    #[prost(string, tag = "18")]
    pub user_specified_image: String,
}

/// `ListPodSandboxResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ListPodSandboxResponse {
    #[prost(message, repeated, tag = "1")]
    pub items: Vec<PodSandbox>,
}

/// `PodSandbox`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct PodSandbox {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(message, optional, tag = "2")]
    pub metadata: Option<PodMetadata>,
    #[prost(map = "string, string", tag = "5")]
    pub labels: HashMap<String, String>,
}

/// `PodSandboxMetadata`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct PodMetadata {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "3")]
    pub namespace: String,
}

/// Every container and pod that the runtime knows.
pub(super) async fn list(socket: &Path) -> Result<Vec<Named>, CallError> {
    let call = |method: &str| format!("{SERVICE}/{method}");
    let version: VersionResponse = http::unary(socket, &call("Version"), &Empty {}).await?;
    let pods: ListPodSandboxResponse =
        http::unary(socket, &call("ListPodSandbox"), &Empty {}).await?;
    let containers: ListContainersResponse =
        http::unary(socket, &call("ListContainers"), &Empty {}).await?;
    Ok(named(&version.runtime_name, pods, containers))
}

fn named(runtime: &str, pods: ListPodSandboxResponse, all: ListContainersResponse) -> Vec<Named> {
    let pods: HashMap<String, PodSandbox> = pods
        .items
        .into_iter()
        .map(|pod| (pod.id.clone(), pod))
        .collect();
    let mut found: Vec<Named> = all
        .containers
        .into_iter()
        .map(|one| container(runtime, one, &pods))
        .collect();
    // The container that only holds a pod's namespaces.
    found.extend(pods.into_values().map(|pod| {
        let metadata = pod.metadata.unwrap_or_default();
        Named {
            runtime: runtime.to_owned(),
            id: pod.id,
            name: None,
            pod: some(metadata.name),
            namespace: some(metadata.namespace),
            image: None,
            labels: pod.labels.into_iter().collect(),
        }
    }));
    found
}

fn container(runtime: &str, one: Container, pods: &HashMap<String, PodSandbox>) -> Named {
    let pod = pods
        .get(&one.pod_sandbox_id)
        .and_then(|pod| pod.metadata.as_ref());
    let label = |name: &str| one.labels.get(name).cloned().and_then(some);
    let image = one.image.unwrap_or_default();
    Named {
        runtime: runtime.to_owned(),
        id: one.id,
        name: one
            .metadata
            .and_then(|metadata| some(metadata.name))
            .or_else(|| label(CONTAINER)),
        pod: pod
            .and_then(|pod| some(pod.name.clone()))
            .or_else(|| label(POD)),
        namespace: pod
            .and_then(|pod| some(pod.namespace.clone()))
            .or_else(|| label(NAMESPACE)),
        image: some(image.user_specified_image).or_else(|| some(image.image)),
        labels: one.labels.into_iter().collect(),
    }
}

fn some(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}
