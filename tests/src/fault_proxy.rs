//! An HTTP proxy between a registry and its S3 server that misbehaves on demand: refuses, stores
//! but answers an error, loses the answer, cuts bodies, changes ETags, drops conditions.
//!
//! It forwards requests byte by byte, so signatures stay good; each travels on a connection of its
//! own.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What goes wrong with a request.
#[derive(Clone, Debug)]
pub enum Fault {
    /// It is answered with this status and is not forwarded.
    Refuse(u16),
    /// It is answered with this status and this S3 error code, and is not forwarded.
    RefuseAs(u16, &'static str),
    /// It is carried out, and answered with this status all the same.
    StoreButAnswer(u16),
    /// It is carried out, and the connection is cut before the answer.
    LoseAnswer,
    /// It is answered with 200 and an error in the body, and is not forwarded.
    ErrorInBody,
    /// The connection is cut after so many bytes of the answer's body.
    CutAnswerAfter(usize),
    /// The ETag of the answer is another one.
    ChangeETag,
    /// The conditions are taken out before it is forwarded.
    DropConditions,
}

/// Which requests a fault is for: method, part of the path and query, how many of them.
#[derive(Debug)]
struct Rule {
    method: &'static str,
    part: String,
    left: usize,
    met: usize,
    fault: Fault,
}

/// What goes wrong, and what has come.
#[derive(Debug, Default)]
struct Shared {
    rules: Mutex<Vec<Rule>>,
    heads: Mutex<Vec<String>>,
}

impl Shared {
    fn note(&self, head: &str) {
        let mut heads = self.heads.lock().unwrap_or_else(PoisonError::into_inner);
        heads.push(head.to_owned());
    }
}

/// The running proxy; it ends with the value.
#[derive(Debug)]
pub struct FaultProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    /// Dropped to end the proxy.
    _stop: tokio::sync::oneshot::Sender<()>,
}

impl FaultProxy {
    /// Forwards to `target`.
    ///
    /// # Panics
    /// When no port can be had.
    #[must_use]
    pub fn start(target: &str) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        listener.set_nonblocking(true).expect("a listener");
        let shared: Arc<Shared> = Arc::default();
        let served = Arc::clone(&shared);
        let target = target.to_owned();
        let (stop, stopped) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).expect("a listener");
                tokio::select! {
                    () = accept(listener, target, served) => {}
                    _ = stopped => {}
                }
            });
        });
        Self {
            address,
            shared,
            _stop: stop,
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The next `times` requests with this method (`*` for any) whose path and query contain `part`
    /// meet the fault. Earlier faults come first.
    pub fn inject(&self, method: &'static str, part: &str, times: usize, fault: Fault) {
        let mut rules = self
            .shared
            .rules
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        rules.push(Rule {
            method,
            part: part.to_owned(),
            left: times,
            met: 0,
            fault,
        });
    }

    /// How many requests have met a fault.
    #[must_use]
    pub fn met(&self) -> usize {
        let rules = self
            .shared
            .rules
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        rules.iter().map(|rule| rule.met).sum()
    }

    /// The heads of all requests that came, as they came.
    #[must_use]
    pub fn heads(&self) -> Vec<String> {
        let heads = self.shared.heads.lock();
        heads.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Nothing goes wrong from here on.
    pub fn heal(&self) {
        let mut rules = self
            .shared
            .rules
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        rules.iter_mut().for_each(|rule| rule.left = 0);
    }
}

async fn accept(listener: TcpListener, target: String, shared: Arc<Shared>) {
    while let Ok((client, _)) = listener.accept().await {
        let target = target.clone();
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            // Either side may go at any time: that is what a proxy sees.
            let _ = forward(client, &target, &shared).await;
        });
    }
}

/// A message as it came: its head up to the empty line, and what followed.
struct Message {
    head: String,
    body: Vec<u8>,
}

impl Message {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// Rewrites the lines of the head; `None` takes one out.
    fn edit(&mut self, change: impl Fn(&str, &str) -> Option<String>) {
        let mut lines = self.head.trim_end().lines();
        let mut head = lines.next().unwrap_or_default().to_owned();
        for line in lines {
            let (name, value) = line.split_once(':').unwrap_or((line, ""));
            if let Some(line) = change(&name.to_ascii_lowercase(), value.trim()) {
                head.push_str("\r\n");
                head.push_str(&line);
            }
        }
        head.push_str("\r\nconnection: close\r\n\r\n");
        self.head = head;
    }

    async fn send(&self, to: &mut TcpStream) -> io::Result<()> {
        to.write_all(self.head.as_bytes()).await?;
        to.write_all(&self.body).await
    }
}

async fn forward(mut client: TcpStream, target: &str, shared: &Shared) -> io::Result<()> {
    let Some(mut request) = read_head(&mut client).await? else {
        return Ok(());
    };
    shared.note(&request.head);
    if request.header("expect").is_some() {
        client.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
    }
    let length = request.header("content-length").unwrap_or("0");
    let length: usize = length.parse().map_err(io::Error::other)?;
    while request.body.len() < length {
        let mut piece = vec![0; 64 * 1024];
        let count = client.read(&mut piece).await?;
        if count == 0 {
            return Ok(());
        }
        request.body.extend_from_slice(&piece[..count]);
    }
    let fault = take_fault(&request.head, &shared.rules);
    let drops_conditions = matches!(fault, Some(Fault::DropConditions));
    request.edit(|name, value| match name {
        "connection" | "expect" => None,
        "if-match" | "if-none-match" if drops_conditions => None,
        _ => Some(format!("{name}: {value}")),
    });
    match fault {
        Some(Fault::Refuse(status)) => return refuse(&mut client, status, "InjectedFault").await,
        Some(Fault::RefuseAs(status, code)) => return refuse(&mut client, status, code).await,
        Some(Fault::ErrorInBody) => return refuse(&mut client, 200, "InternalError").await,
        _ => {}
    }
    let mut server = TcpStream::connect(target).await?;
    request.send(&mut server).await?;
    match fault {
        Some(Fault::StoreButAnswer(status)) => {
            let _ = io_to_end(&mut server).await?;
            refuse(&mut client, status, "InternalError").await
        }
        Some(Fault::LoseAnswer) => io_to_end(&mut server).await.map(drop),
        Some(Fault::CutAnswerAfter(bytes)) => {
            let Some(answer) = read_head(&mut server).await? else {
                return Ok(());
            };
            client.write_all(answer.head.as_bytes()).await?;
            let mut body = answer.body;
            while body.len() < bytes && server.read_buf(&mut body).await? > 0 {}
            body.truncate(bytes);
            client.write_all(&body).await
        }
        Some(Fault::ChangeETag) => {
            let Some(mut answer) = read_head(&mut server).await? else {
                return Ok(());
            };
            answer.edit(|name, value| match name {
                "connection" => None,
                "etag" => Some("etag: \"0123456789abcdef0123456789abcdef\"".to_owned()),
                _ => Some(format!("{name}: {value}")),
            });
            answer.send(&mut client).await?;
            tokio::io::copy(&mut server, &mut client).await.map(drop)
        }
        _ => tokio::io::copy(&mut server, &mut client).await.map(drop),
    }
}

async fn io_to_end(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).await?;
    Ok(all)
}

/// The fault that this request meets, if any.
fn take_fault(head: &str, rules: &Mutex<Vec<Rule>>) -> Option<Fault> {
    let mut words = head.split(' ');
    let (method, path) = (words.next()?, words.next()?);
    let mut rules = rules.lock().unwrap_or_else(PoisonError::into_inner);
    let rule = rules.iter_mut().find(|rule| {
        rule.left > 0 && (rule.method == "*" || rule.method == method) && path.contains(&rule.part)
    })?;
    rule.left -= 1;
    rule.met += 1;
    Some(rule.fault.clone())
}

async fn refuse(client: &mut TcpStream, status: u16, code: &str) -> io::Result<()> {
    let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code></Error>");
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status} Injected\r\ncontent-type: application/xml\r\n\
         content-length: {length}\r\nconnection: close\r\n\r\n"
    );
    client.write_all(head.as_bytes()).await?;
    client.write_all(body.as_bytes()).await
}

async fn read_head(stream: &mut TcpStream) -> io::Result<Option<Message>> {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let body = bytes.split_off(end + 4);
            let head = String::from_utf8(bytes).map_err(io::Error::other)?;
            return Ok(Some(Message { head, body }));
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            return Ok(None);
        }
    }
}
