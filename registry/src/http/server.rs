//! Connections: accept, greet, serve within limits, and let them finish at shutdown.

use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http::{HeaderMap, HeaderValue, header};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use rustix::net::sockopt::set_socket_send_buffer_size;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::config::Limits;
use crate::error::Error;
use crate::http::connection::{Connection, LEAST_IDLE, Place, Places};
use crate::http::tls::Tls;
use crate::http::{TooMuch, too_much};
use crate::metrics::Metrics;

/// What a connection buffers of requests and of answers each: large, because blobs are, but not so
/// large that a hundred pulls at once take much memory. It bounds request heads too.
const BUFFER_BYTES: usize = 256 * 1024;
/// What the kernel holds of an answer to a client on this machine (it takes twice this number). By
/// default it would take megabytes, which fall out of the processor's cache before the client reads
/// them; so a blob arrives half as fast again. Farther clients need the room: much is under way.
const SEND_BUFFER_HERE: usize = 256 * 1024;
/// Streams that one HTTP/2 connection may have open.
const MAX_STREAMS: u32 = 128;
/// A dead HTTP/2 connection is found out by asking this often...
const PING_PAUSE: Duration = Duration::from_secs(60);
/// ... and waiting so long for the answer.
const PING_WAIT: Duration = Duration::from_secs(20);
/// After a failed accept, for instance because no file descriptor is free.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// After the grace time, uploads that are cut off have so long to be made durable.
const SETTLE_TIME: Duration = Duration::from_secs(5);
/// The first byte of a TLS connection: a handshake record.
const TLS_HANDSHAKE: u8 = 22;

/// How connections are served.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// What one client may ask of the server.
    pub(crate) limits: Limits,
    /// How TLS connections are greeted; `None` for plain HTTP.
    pub(crate) tls: Option<Tls>,
    /// How long running requests may go on after shutdown has begun.
    pub(crate) grace: Duration,
    /// Cuts request bodies off, when that time is over.
    pub(crate) closing: CancellationToken,
    /// Where connections are counted.
    pub(crate) metrics: Metrics,
}

/// Serves `router` on `listener` until `shutdown`, then lets running requests finish.
pub(crate) async fn serve(
    router: Router,
    listener: TcpListener,
    options: Options,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), Error> {
    let server = Arc::new(Server {
        builder: builder(&options.limits),
        router,
        options,
    });
    let connections = GracefulShutdown::new();
    let places = Places::new(server.options.limits.connections, LEAST_IDLE);
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &places) => accepted,
            () = &mut shutdown => break,
        };
        let Some((stream, place)) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let watcher = connections.watcher();
        let server = Arc::clone(&server);
        tokio::spawn(async move { server.greet(stream, place, watcher).await });
    }
    drop(listener);
    finish(connections, &server.options).await;
    Ok(())
}

/// Lets requests finish within the grace time; then ends uploads where they stand, durably, so
/// that their clients can go on from there.
async fn finish(connections: GracefulShutdown, options: &Options) {
    let running = connections.count();
    if running > 0 {
        tracing::info!(connections = running, "waiting for requests to finish");
    }
    let mut finished = pin!(connections.shutdown());
    if tokio::time::timeout(options.grace, &mut finished)
        .await
        .is_ok()
    {
        return;
    }
    options.closing.cancel();
    if tokio::time::timeout(SETTLE_TIME, finished).await.is_err() {
        tracing::warn!("requests were still running at the end of the grace time");
    }
}

async fn accept(listener: &TcpListener, places: &Places) -> Option<(TcpStream, Place)> {
    places.free().await;
    match listener.accept().await {
        Ok((stream, client)) => {
            // Answers are small or written in large pieces: nothing is gained by waiting.
            let _ = stream.set_nodelay(true);
            if is_here(&stream, client.ip()) {
                let _ = set_socket_send_buffer_size(&stream, SEND_BUFFER_HERE);
            }
            Some((stream, places.take()))
        }
        Err(error) => {
            tracing::warn!(%error, "cannot accept a connection");
            None
        }
    }
}

/// Whether the client is on this machine.
fn is_here(stream: &TcpStream, client: IpAddr) -> bool {
    let here = stream.local_addr().map(|address| address.ip());
    client.is_loopback() || here.is_ok_and(|here| here == client)
}

fn builder(limits: &Limits) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_time)
        .max_buf_size(BUFFER_BYTES.max(limits.header_bytes));
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
        .keep_alive_interval(PING_PAUSE)
        .keep_alive_timeout(PING_WAIT)
        .adaptive_window(true);
    builder
}

/// What all connections share.
struct Server {
    builder: Builder<TokioExecutor>,
    router: Router,
    options: Options,
}

impl Server {
    /// Does the TLS handshake, where there is one, and serves the connection to its end.
    async fn greet(self: Arc<Self>, stream: TcpStream, place: Place, watcher: Watcher) {
        let _counted = self.options.metrics.connected();
        if place.has_displaced || place.connection.is_spare() {
            self.options.metrics.displaced();
        }
        let connection = &place.connection;
        let Some(tls) = &self.options.tls else {
            return self.converse(stream, connection, watcher).await;
        };
        let shake = tokio::time::timeout(self.options.limits.header_time, shake_hands(tls, stream));
        let shaken = tokio::select! {
            shaken = shake => shaken.unwrap_or_else(|late| Err(late.into())),
            () = connection.displaced() => return,
        };
        match shaken {
            Ok(stream) => self.converse(stream, connection, watcher).await,
            Err(error) => tracing::debug!(%error, "a TLS handshake failed"),
        }
    }

    async fn converse<S>(
        self: &Arc<Self>,
        stream: S,
        connection: &Arc<Connection>,
        watcher: Watcher,
    ) where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let service = hyper::service::service_fn(|request: hyper::Request<Incoming>| {
            let (server, connection) = (Arc::clone(self), Arc::clone(connection));
            async move { Ok::<_, Infallible>(server.answer(request, &connection).await) }
        });
        let served = self.builder.serve_connection(TokioIo::new(stream), service);
        tokio::select! {
            outcome = watcher.watch(served) => {
                if let Err(error) = outcome {
                    tracing::debug!(error, "a connection ended early");
                }
            }
            () = connection.displaced() => tracing::debug!("an idle connection made room"),
            () = stuck(connection, self.options.limits.write_idle) => {
                tracing::debug!("a connection ended whose client takes nothing, or asks nothing");
            }
        }
    }

    async fn answer(
        &self,
        request: hyper::Request<Incoming>,
        connection: &Arc<Connection>,
    ) -> Response {
        let running = connection.begin();
        let request: Request = request.map(Body::new);
        let refused = if connection.is_spare() && !is_about_health(&request) {
            Some(TooMuch::Connections)
        } else if head_bytes(&request) > self.options.limits.header_bytes {
            Some(TooMuch::Head)
        } else {
            None
        };
        let (parts, body) = request.into_parts();
        let mut response = match refused {
            Some(reason) => too_much(reason, &parts),
            None => {
                let request = Request::from_parts(parts, body);
                match self.router.clone().oneshot(request).await {
                    Ok(response) => response,
                    Err(never) => match never {},
                }
            }
        };
        if refused.is_some() || connection.is_spare() {
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(header::CONNECTION, close);
        }
        response.map(|body| running.answered(body))
    }
}

/// Ends when the client has taken nothing of its answers for `patience`, or has asked for nothing.
/// One timer for the whole connection, not one for each piece: so it may take up to twice as long.
async fn stuck(connection: &Connection, patience: Duration) {
    loop {
        let before = connection.standing();
        tokio::time::sleep(patience).await;
        if connection.standing().is_stuck_since(before) {
            return;
        }
    }
}

/// The size of a request's head, about as it came over the line.
fn head_bytes(request: &Request) -> usize {
    let uri = request.uri();
    let target = uri.path().len() + uri.query().map_or(0, str::len);
    let fields = |headers: &HeaderMap| {
        let lengths = headers
            .iter()
            .map(|(name, value)| name.as_str().len() + value.len() + 4);
        lengths.sum::<usize>()
    };
    target + fields(request.headers())
}

fn is_about_health(request: &Request) -> bool {
    matches!(request.uri().path(), "/healthz" | "/readyz")
}

/// The TLS handshake. A client that speaks plain HTTP is told so, as far as it can read it.
async fn shake_hands(
    tls: &Tls,
    mut stream: TcpStream,
) -> io::Result<tokio_rustls::server::TlsStream<TcpStream>> {
    let mut first = [0];
    if stream.peek(&mut first).await? == 1 && first[0] != TLS_HANDSHAKE {
        let text = "this registry is reached by https, not by http\n";
        let answer = format!(
            "HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{text}",
            text.len()
        );
        // Read what came, or closing would reset the connection and take the answer along.
        let _ = stream.read(&mut [0; 4096]).await?;
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await?;
        return Err(io::Error::other("plain HTTP on a TLS address"));
    }
    tls.acceptor().accept(stream).await
}
