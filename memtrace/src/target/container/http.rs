//! One request to a unix socket, over HTTP/1.1 or HTTP/2, with a deadline and a limit on the size
//! of the answer. Whoever listens there is not trusted.

use std::{path::Path, time::Duration};

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    Request, StatusCode,
    body::{Bytes, Incoming},
    client::conn,
    header::{CONTENT_TYPE, HOST, TE},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::UnixStream;

/// Longest time for one call, connecting included.
pub(super) const CALL: Duration = Duration::from_secs(2);
/// Longest answer: a node's hundreds of containers are a megabyte.
pub(super) const ANSWER_BYTES: usize = 8 << 20;

/// Why a socket gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Not reached.
    #[error("cannot connect: {0}")]
    Connect(#[source] std::io::Error),
    /// It did not answer in time.
    #[error("no answer within {} s", CALL.as_secs())]
    Slow,
    /// What it said is no HTTP.
    #[error("it does not speak the protocol: {0}")]
    Protocol(#[source] hyper::Error),
    /// It broke off, or said more than the limit.
    #[error("its answer cannot be read: {0}")]
    Body(String),
    /// It refused.
    #[error("it answered with status {0}")]
    Status(u16),
    /// gRPC refused.
    #[error("it answered with gRPC status {0}")]
    Grpc(String),
    /// The content makes no sense.
    #[error("its answer makes no sense: {0}")]
    Content(String),
}

async fn connect(path: &Path) -> Result<TokioIo<UnixStream>, CallError> {
    let stream = UnixStream::connect(path).await;
    stream.map(TokioIo::new).map_err(CallError::Connect)
}

async fn collect(body: Incoming) -> Result<(Bytes, Option<hyper::HeaderMap>), CallError> {
    let collected = Limited::new(body, ANSWER_BYTES)
        .collect()
        .await
        .map_err(|error| CallError::Body(error.to_string()))?;
    let trailers = collected.trailers().cloned();
    Ok((collected.to_bytes(), trailers))
}

/// `GET target` over HTTP/1.1.
pub(super) async fn get(socket: &Path, target: &str) -> Result<Bytes, CallError> {
    let call = async {
        let io = connect(socket).await?;
        let (mut sender, connection) = conn::http1::handshake(io)
            .await
            .map_err(CallError::Protocol)?;
        let driver = tokio::spawn(connection);
        let request = Request::get(target)
            .header(HOST, "localhost")
            .body(Full::<Bytes>::default())
            .map_err(|error| CallError::Content(error.to_string()))?;
        let answer = sender
            .send_request(request)
            .await
            .map_err(CallError::Protocol)?;
        if answer.status() != StatusCode::OK {
            return Err(CallError::Status(answer.status().as_u16()));
        }
        let (bytes, _) = collect(answer.into_body()).await?;
        driver.abort();
        Ok(bytes)
    };
    tokio::time::timeout(CALL, call)
        .await
        .unwrap_or(Err(CallError::Slow))
}

/// A gRPC call with one message each way.
pub(super) async fn unary<Q: prost::Message, A: prost::Message + Default>(
    socket: &Path,
    method: &str,
    message: &Q,
) -> Result<A, CallError> {
    let call = async {
        let io = connect(socket).await?;
        let (mut sender, connection) = conn::http2::handshake(TokioExecutor::new(), io)
            .await
            .map_err(CallError::Protocol)?;
        let driver = tokio::spawn(connection);
        let request = Request::post(format!("http://localhost{method}"))
            .header(CONTENT_TYPE, "application/grpc")
            .header(TE, "trailers")
            .body(Full::new(framed(message)))
            .map_err(|error| CallError::Content(error.to_string()))?;
        let answer = sender
            .send_request(request)
            .await
            .map_err(CallError::Protocol)?;
        if answer.status() != StatusCode::OK {
            return Err(CallError::Status(answer.status().as_u16()));
        }
        refused(answer.headers())?;
        let (bytes, trailers) = collect(answer.into_body()).await?;
        driver.abort();
        refused(&trailers.unwrap_or_default())?;
        unframed(&bytes)
    };
    tokio::time::timeout(CALL, call)
        .await
        .unwrap_or(Err(CallError::Slow))
}

/// gRPC's own status, which an answer without a message has in its first headers.
fn refused(headers: &hyper::HeaderMap) -> Result<(), CallError> {
    match headers.get("grpc-status").map(|status| status.as_bytes()) {
        None | Some(b"0") => Ok(()),
        Some(status) => {
            let text = headers.get("grpc-message").map(|text| text.as_bytes());
            let text = crate::target::printable(text.unwrap_or_default());
            let status = crate::target::printable(status);
            let text: String = format!("{status} {text}").chars().take(200).collect();
            Err(CallError::Grpc(text.trim_end().to_owned()))
        }
    }
}

/// Not compressed, the length, the message.
fn framed<M: prost::Message>(message: &M) -> Bytes {
    let body = message.encode_to_vec();
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    let mut bytes = vec![0];
    bytes.extend(length.to_be_bytes());
    bytes.extend(body);
    bytes.into()
}

fn unframed<M: prost::Message + Default>(bytes: &[u8]) -> Result<M, CallError> {
    let content = |what: &str| CallError::Content(what.to_owned());
    let (head, rest) = bytes
        .split_at_checked(5)
        .ok_or_else(|| content("no message"))?;
    let [0, a, b, c, d] = head else {
        return Err(content("a compressed message nobody asked for"));
    };
    let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
    let body = rest
        .get(..length)
        .ok_or_else(|| content("a message cut short"))?;
    M::decode(body).map_err(|error| CallError::Content(error.to_string()))
}
