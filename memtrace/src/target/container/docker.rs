//! The Docker Engine API, which Podman serves too, as far as names need it.

use std::{collections::HashMap, path::Path};

use serde::Deserialize;

use super::{
    http::{self, CallError},
    names::Named,
};

/// One of `GET /containers/json`.
#[derive(Debug, Deserialize)]
struct Container {
    #[serde(rename = "Id")]
    id: String,
    #[serde(rename = "Names", default)]
    names: Option<Vec<String>>,
    #[serde(rename = "Image", default)]
    image: Option<String>,
    #[serde(rename = "Labels", default)]
    labels: Option<HashMap<String, String>>,
}

/// Every container that runs.
pub(super) async fn list(socket: &Path, runtime: &str) -> Result<Vec<Named>, CallError> {
    let bytes = http::get(socket, "/containers/json").await?;
    parse(&bytes, runtime)
}

fn parse(bytes: &[u8], runtime: &str) -> Result<Vec<Named>, CallError> {
    let all: Vec<Container> =
        serde_json::from_slice(bytes).map_err(|error| CallError::Content(error.to_string()))?;
    let named = |one: Container| {
        let labels = one.labels.unwrap_or_default();
        // Kubernetes by way of cri-dockerd.
        let label = |name: &str| labels.get(&format!("io.kubernetes.{name}")).cloned();
        let name = one.names.unwrap_or_default().into_iter().next();
        Named {
            runtime: runtime.to_owned(),
            id: one.id,
            name: label("container.name")
                .or_else(|| name.map(|name| name.trim_start_matches('/').to_owned())),
            pod: label("pod.name"),
            namespace: label("pod.namespace"),
            image: one.image,
            labels: labels.into_iter().collect(),
        }
    };
    Ok(all.into_iter().map(named).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names lose their slash, missing fields are missing, unknown ones are skipped.
    #[test]
    fn answers() {
        let text =
            br#"[{"Id":"ab12","Names":["/web"],"Image":"nginx:1","Labels":{"a":"b"},"Ports":[]},
            {"Id":"cd34","Names":null,"Labels":null}]"#;
        let found = parse(text, "docker").unwrap();
        assert_eq!(found[0].name.as_deref(), Some("web"));
        assert_eq!(found[0].image.as_deref(), Some("nginx:1"));
        assert_eq!(found[0].labels["a"], "b");
        assert_eq!((found[1].id.as_str(), &found[1].name), ("cd34", &None));
    }

    /// What is no list of containers is an error, never a panic.
    #[test]
    fn rubbish() {
        for text in [&b""[..], b"{}", b"[1]", b"[{\"Id\":3}]", b"\xff\xfe"] {
            assert!(parse(text, "docker").is_err());
        }
    }
}
