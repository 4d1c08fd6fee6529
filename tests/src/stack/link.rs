//! A TCP link that can be broken in mid-test: it stands between two parts of the stack
//! and passes bytes on, until it is told to do otherwise.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

use super::ports;

/// Bytes read at once.
const CHUNK: usize = 16 * 1024;

/// Chunks on their way in one direction; when as many wait, the sender is not read from.
const IN_FLIGHT: usize = 64;

/// What the link does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Passes everything on at once.
    Open,
    /// As if the target's process were gone: new connections are refused, present ones dropped.
    Refuse,
    /// New connections are accepted, and nothing moves on any. What was sent meanwhile
    /// arrives when the link opens again, even if its sender has given up.
    Hang,
    /// Every byte arrives this much later, in each direction.
    Delay(Duration),
}

/// A link with an address of its own. It ends when it is dropped.
#[derive(Debug)]
pub struct Link {
    address: SocketAddr,
    commands: mpsc::Sender<Command>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
enum Command {
    Set(State, oneshot::Sender<io::Result<()>>),
    Cut(oneshot::Sender<io::Result<()>>),
    Lead(SocketAddr, oneshot::Sender<io::Result<()>>),
}

impl Link {
    /// Opens a link to `target`, which need not listen yet.
    pub async fn start(target: SocketAddr) -> io::Result<Self> {
        // Not one that the system chooses: refusing gives the port up, and it must be
        // there to take again.
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, ports::for_child()?));
        let listener = TcpListener::bind(address).await?;
        let (commands, receiver) = mpsc::channel(1);
        let task = tokio::spawn(serve(listener, address, target, receiver));
        Ok(Self { address, commands, task })
    }

    /// Where to connect instead of the target.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address as the base of `http` URLs.
    pub fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Changes the state; it is in force when this returns.
    pub async fn set(&self, state: State) -> io::Result<()> {
        let (done, answer) = oneshot::channel();
        self.command(Command::Set(state, done), answer).await
    }

    /// Drops every present connection, whatever the state; they are gone when this returns.
    pub async fn cut(&self) -> io::Result<()> {
        let (done, answer) = oneshot::channel();
        self.command(Command::Cut(done), answer).await
    }

    /// Leads new connections to another target.
    pub async fn lead_to(&self, target: SocketAddr) -> io::Result<()> {
        let (done, answer) = oneshot::channel();
        self.command(Command::Lead(target, done), answer).await
    }

    async fn command(&self, command: Command, answer: oneshot::Receiver<io::Result<()>>) -> io::Result<()> {
        let gone = || io::Error::other("the link has ended");
        self.commands.send(command).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    listener: TcpListener,
    address: SocketAddr,
    mut target: SocketAddr,
    mut commands: mpsc::Receiver<Command>,
) {
    let mut listener = Some(listener);
    let (state, watched) = watch::channel(State::Open);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            command = commands.recv() => match command {
                None => break,
                Some(Command::Cut(done)) => {
                    connections.shutdown().await;
                    let _ = done.send(Ok(()));
                }
                Some(Command::Lead(to, done)) => {
                    target = to;
                    let _ = done.send(Ok(()));
                }
                Some(Command::Set(new, done)) => {
                    if new == State::Refuse {
                        listener = None;
                        connections.shutdown().await;
                    }
                    let bound = if new != State::Refuse && listener.is_none() {
                        TcpListener::bind(address).await.map(|bound| listener = Some(bound))
                    } else {
                        Ok(())
                    };
                    state.send_replace(new);
                    let _ = done.send(bound);
                }
            },
            Some(client) = accept(listener.as_ref()) => {
                connections.spawn(connect(client, target, watched.clone()));
            }
            // Collects the ended, so that the set does not grow.
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn accept(listener: Option<&TcpListener>) -> Option<TcpStream> {
    match listener {
        Some(listener) => listener.accept().await.ok().map(|(client, _)| client),
        None => None,
    }
}

async fn connect(client: TcpStream, target: SocketAddr, mut state: watch::Receiver<State>) {
    if moving(&mut state).await.is_none() {
        return;
    }
    // A target that refuses shows as a connection that closes at once.
    let Ok(server) = TcpStream::connect(target).await else { return };
    let _ = client.set_nodelay(true);
    let _ = server.set_nodelay(true);
    let (client_read, client_write) = client.into_split();
    let (server_read, server_write) = server.into_split();
    tokio::join!(pass(client_read, server_write, state.clone()), pass(server_read, client_write, state));
}

/// One direction of a connection, until its end of file.
async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut state: watch::Receiver<State>) {
    let (sender, mut chunks) = mpsc::channel::<(Instant, Vec<u8>)>(IN_FLIGHT);
    let read = async move {
        let mut buffer = vec![0; CHUNK];
        loop {
            let length = from.read(&mut buffer).await.unwrap_or(0);
            let chunk = buffer.get(..length).unwrap_or_default().to_vec();
            if sender.send((Instant::now(), chunk)).await.is_err() || length == 0 {
                break;
            }
        }
    };
    let write = async move {
        while let Some((read_at, chunk)) = chunks.recv().await {
            let Some(delay) = moving(&mut state).await else { break };
            sleep_until(read_at + delay).await;
            if chunk.is_empty() {
                // The end of file travels like a byte.
                let _ = to.shutdown().await;
                break;
            }
            if to.write_all(&chunk).await.is_err() {
                break;
            }
        }
    };
    // The reader's end is in the channel; the writer's end, also by a fault, is that of both.
    tokio::select! {
        () = write => {}
        () = async { read.await; std::future::pending().await } => {}
    }
}

/// Waits while the link hangs. How late bytes are, or nothing if the link has ended.
async fn moving(state: &mut watch::Receiver<State>) -> Option<Duration> {
    let now = *state.wait_for(|state| *state != State::Hang).await.ok()?;
    Some(if let State::Delay(delay) = now { delay } else { Duration::ZERO })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::timeout;

    /// Long enough that only a link that is stuck reaches it.
    const STUCK: Duration = Duration::from_secs(20);
    /// Long enough to be sure that nothing comes.
    const NOTHING: Duration = Duration::from_millis(100);

    /// A server that sends back what it gets, and a link to it.
    async fn echo() -> Link {
        let listener = ports::listen().await.expect("the machine has free ports");
        let target = listener.local_addr().expect("it is bound");
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (mut read, mut write) = stream.into_split();
                tokio::spawn(async move { tokio::io::copy(&mut read, &mut write).await });
            }
        });
        Link::start(target).await.expect("the link starts")
    }

    async fn answer(stream: &mut TcpStream) -> io::Result<[u8; 4]> {
        let mut buffer = [0; 4];
        timeout(STUCK, stream.read_exact(&mut buffer)).await.expect("the link is not stuck")?;
        Ok(buffer)
    }

    async fn client(link: &Link) -> TcpStream {
        TcpStream::connect(link.address()).await.expect("the link accepts")
    }

    #[tokio::test]
    async fn passes_bytes_both_ways_and_the_end() {
        let link = echo().await;
        let mut stream = client(&link).await;
        stream.write_all(b"ping").await.expect("the link is open");
        stream.shutdown().await.expect("the link is open");
        let mut all = Vec::new();
        timeout(STUCK, stream.read_to_end(&mut all)).await.expect("it is not stuck").expect("no fault");
        assert_eq!(all, b"ping");
    }

    #[tokio::test]
    async fn refuses_and_opens_on_the_same_port() {
        let link = echo().await;
        let mut present = client(&link).await;
        present.write_all(b"ping").await.expect("the link is open");
        answer(&mut present).await.expect("the link is open");

        link.set(State::Refuse).await.expect("the link lives");
        let refused = TcpStream::connect(link.address()).await.expect_err("nobody listens");
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        answer(&mut present).await.expect_err("present connections are dropped");

        link.set(State::Open).await.expect("the port can be bound again");
        let mut stream = client(&link).await;
        stream.write_all(b"ping").await.expect("the link is open");
        assert_eq!(&answer(&mut stream).await.expect("the link is open"), b"ping");
    }

    #[tokio::test]
    async fn hangs_then_delivers() {
        let link = echo().await;
        let mut before = client(&link).await;
        before.write_all(b"ping").await.expect("the link is open");
        answer(&mut before).await.expect("the link is open");

        link.set(State::Hang).await.expect("the link lives");
        let mut during = client(&link).await;
        for stream in [&mut before, &mut during] {
            stream.write_all(b"pong").await.expect("it is accepted");
            let silence = timeout(NOTHING, stream.read_u8()).await;
            assert!(silence.is_err(), "a hanging link answered {silence:?}");
        }

        link.set(State::Open).await.expect("the link lives");
        for stream in [&mut before, &mut during] {
            assert_eq!(&answer(stream).await.expect("the link is open"), b"pong");
        }
    }

    #[tokio::test]
    async fn cuts_what_is_there_and_accepts_the_next() {
        let link = echo().await;
        let mut stream = client(&link).await;
        stream.write_all(b"ping").await.expect("the link is open");
        answer(&mut stream).await.expect("the link is open");

        link.cut().await.expect("the link lives");
        answer(&mut stream).await.expect_err("it was cut");

        let mut next = client(&link).await;
        next.write_all(b"ping").await.expect("the link is open");
        assert_eq!(&answer(&mut next).await.expect("the link is open"), b"ping");
    }

    #[tokio::test]
    async fn delays_each_direction() {
        let link = echo().await;
        link.set(State::Delay(Duration::from_millis(150))).await.expect("the link lives");
        let mut stream = client(&link).await;
        stream.write_all(b"ping").await.expect("it is accepted");
        // Neither direction alone explains a silence longer than one delay.
        let silence = timeout(Duration::from_millis(250), stream.read_u8()).await;
        assert!(silence.is_err(), "the answer came early");
        assert_eq!(timeout(STUCK, stream.read_u8()).await.expect("it is not stuck").expect("no fault"), b'p');
    }
}
