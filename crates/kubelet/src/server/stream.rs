//! exec, attach, port-forward: the runtime gives a URL, and the upgraded connection is tunnelled to it byte for byte,
//! whatever protocol the two ends speak. `run` waits for a command and returns its output.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty};
use hyper::{body::Incoming, upgrade};
use hyper_util::rt::TokioIo;
use ironkeel_cri::v1 as cri;
use tokio::{io::copy_bidirectional, net::TcpStream};

use crate::{Error, kubelet::Kubelet, names, runtime::State};

use super::{Body, find_pod, parameters, text};

/// Answers `/exec|attach|run/<ns>/<pod>[/<uid>]/<container>` and `/portForward/<ns>/<pod>[/<uid>]`.
pub(crate) async fn handle(kubelet: &Arc<Kubelet>, parts: &[String], request: Request<Incoming>) -> Response<Body> {
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let (verb, namespace, name, uid, container) = match parts.as_slice() {
        ["portForward", namespace, name] => ("portForward", *namespace, *name, None, ""),
        ["portForward", namespace, name, uid] => ("portForward", *namespace, *name, Some(*uid), ""),
        [verb, namespace, name, container] => (*verb, *namespace, *name, None, *container),
        [verb, namespace, name, uid, container] => (*verb, *namespace, *name, Some(*uid), *container),
        _ => return text(StatusCode::NOT_FOUND, "404 page not found\n"),
    };
    let pod = find_pod(kubelet, namespace, name).filter(|pod| uid.is_none_or(|uid| uid == names::uid(pod)));
    let Some(pod) = pod else { return text(StatusCode::NOT_FOUND, "pod does not exist") };
    let view = match kubelet.runtime.pod(names::uid(&pod)).await {
        Ok(view) => view,
        Err(error) => return text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    };
    let query = parameters(request.uri().query().unwrap_or_default());
    let is = |keys: [&str; 2]| {
        query.iter().any(|(key, value)| keys.contains(&key.as_str()) && matches!(value.as_str(), "1" | "true"))
    };
    let all =
        |key: &str| query.iter().filter(|(name, _)| name == key).map(|(_, value)| value.clone()).collect::<Vec<_>>();
    let running = view.container(container).filter(|view| view.state == State::Running);
    let no_container = || {
        let status = if view.container(container).is_some() { StatusCode::BAD_REQUEST } else { StatusCode::NOT_FOUND };
        text(status, format!("container not found (\"{container}\")"))
    };
    let (stdin, stdout) = (is(["input", "stdin"]), is(["output", "stdout"]));
    let (stderr, tty) = (is(["error", "stderr"]), is(["tty", "tty"]));
    let url = match verb {
        "portForward" => {
            let Some(sandbox) = view.sandbox() else {
                return text(StatusCode::BAD_REQUEST, format!("pod {name} has no running sandbox"));
            };
            let port = all("port").iter().flat_map(|ports| ports.split(',')).filter_map(|p| p.parse().ok()).collect();
            kubelet.runtime.port_forward(cri::PortForwardRequest { pod_sandbox_id: sandbox.id.clone(), port }).await
        }
        _ if running.is_none() => return no_container(),
        "run" => {
            let cmd = all("cmd").first().map(|cmd| cmd.split(' ').map(str::to_owned).collect()).unwrap_or_default();
            return run(kubelet, running.map(|view| view.id.as_str()).unwrap_or_default(), cmd).await;
        }
        "exec" => {
            let container_id = running.map(|view| view.id.clone()).unwrap_or_default();
            // With a terminal there is no separate stderr.
            let stderr = stderr && !tty;
            let request = cri::ExecRequest { container_id, cmd: all("command"), tty, stdin, stdout, stderr };
            kubelet.runtime.exec(request).await
        }
        _ => {
            let container_id = running.map(|view| view.id.clone()).unwrap_or_default();
            let spec = crate::pods::spec::find(&pod, container).map(|(_, container)| container).unwrap_or_default();
            let tty = tty || spec.tty == Some(true);
            let request = cri::AttachRequest { container_id, stdin, tty, stdout, stderr: stderr && !tty };
            kubelet.runtime.attach(request).await
        }
    };
    match url {
        Ok(url) => tunnel(url, request).await,
        Err(Error::Cri { code: tonic::Code::InvalidArgument, message, .. }) => text(StatusCode::BAD_REQUEST, message),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

async fn run(kubelet: &Kubelet, id: &str, command: Vec<String>) -> Response<Body> {
    match kubelet.runtime.exec_sync(id, &command, Duration::ZERO).await {
        Ok(answer) => {
            let mut output = String::from_utf8_lossy(&answer.stdout).into_owned();
            output.push_str(&String::from_utf8_lossy(&answer.stderr));
            let status = if answer.exit_code == 0 { StatusCode::OK } else { StatusCode::INTERNAL_SERVER_ERROR };
            text(status, output)
        }
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

/// Sends the request on to the runtime's streaming server and joins the two connections when it agrees to upgrade.
async fn tunnel(url: String, mut request: Request<Incoming>) -> Response<Body> {
    let gateway =
        |error: &dyn std::fmt::Display| text(StatusCode::BAD_GATEWAY, format!("streaming to the runtime: {error}"));
    let uri: Uri = match url.parse() {
        Ok(uri) => uri,
        Err(error) => return gateway(&error),
    };
    let Some(authority) = uri.authority().cloned() else { return gateway(&"the runtime's URL has no host") };
    let address = (authority.host().trim_matches(['[', ']']).to_owned(), authority.port_u16().unwrap_or(80));
    let stream = match TcpStream::connect((address.0.as_str(), address.1)).await {
        Ok(stream) => stream,
        Err(error) => return gateway(&error),
    };
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "no-delay refused");
    }
    let (mut sender, connection) = match hyper::client::conn::http1::handshake(TokioIo::new(stream)).await {
        Ok(pair) => pair,
        Err(error) => return gateway(&error),
    };
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "stream to the runtime ended");
        }
    });
    let ours = upgrade::on(&mut request);
    let target = uri.path_and_query().map_or("/", |target| target.as_str()).to_owned();
    let mut forwarded = Request::builder().method(request.method().clone()).uri(target).body(Empty::<Bytes>::new());
    let Ok(forwarded_request) = &mut forwarded else { return gateway(&"the runtime's URL is malformed") };
    *forwarded_request.headers_mut() = request.headers().clone();
    forwarded_request.headers_mut().remove(header::AUTHORIZATION);
    if let Ok(host) = HeaderValue::from_str(authority.as_str()) {
        forwarded_request.headers_mut().insert(header::HOST, host);
    }
    let Ok(forwarded) = forwarded else { return gateway(&"the runtime's URL is malformed") };
    let mut answer = match sender.send_request(forwarded).await {
        Ok(answer) => answer,
        Err(error) => return gateway(&error),
    };
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        let status = answer.status();
        let body = answer.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        return text(status, String::from_utf8_lossy(&body));
    }
    let theirs = upgrade::on(&mut answer);
    tokio::spawn(async move {
        let (ours, theirs) = match tokio::try_join!(ours, theirs) {
            Ok(pair) => pair,
            Err(error) => {
                tracing::debug!(%error, "connection not upgraded");
                return;
            }
        };
        // An end of either side ends the tunnel.
        if let Err(error) = copy_bidirectional(&mut TokioIo::new(ours), &mut TokioIo::new(theirs)).await {
            tracing::debug!(%error, "tunnel ended");
        }
    });
    let mut response = Response::new(Empty::new().boxed());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *response.headers_mut() = answer.headers().clone();
    response
}
