//! Load on one HTTP server of this machine, and what it costs that server's process.
//!
//! Threads and blocking sockets: so little code of our own runs for a request that it need not even be optimized.

use std::fs;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::stack::workerd::Workerd;

/// Requests under way at a time.
pub(super) const CONNECTIONS: usize = 16;
/// How long one answer may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// One round of one server.
#[derive(Clone, Copy, Debug)]
pub(super) struct Measured {
    /// Requests answered in a second.
    pub(super) per_second: f64,
    /// Processor time of the whole process for one request, in microseconds.
    pub(super) cpu_us: f64,
}

/// A request as it goes over the wire.
pub(super) fn request(path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let headers: Vec<_> = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let headers = headers.concat();
    let head =
        format!("POST {path} HTTP/1.1\r\nhost: edge.tandem.test\r\ncontent-length: {}\r\n{headers}\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// Status and body of one answer.
pub(super) fn answer(port: u16, request: &[u8]) -> io::Result<(u16, String)> {
    Connection::open(port)?.exchange(request)
}

/// Sends the same request over all connections for so long. Any answer but 200 is an error.
pub(super) fn measure(server: &Workerd, request: &[u8], during: Duration) -> anyhow::Result<Measured> {
    let (cpu, started) = (cpu_seconds(server.id())?, Instant::now());
    let counts: Vec<io::Result<u32>> = thread::scope(|scope| {
        let threads: Vec<_> =
            (0..CONNECTIONS).map(|_| scope.spawn(|| repeat(server.port(), request, started + during))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or(Err(io::Error::other("a thread panicked")))).collect()
    });
    let (elapsed, cpu) = (started.elapsed().as_secs_f64(), cpu_seconds(server.id())? - cpu);
    let mut sent = 0.0;
    for count in counts {
        sent += f64::from(count.with_context(|| server.log_tail())?);
    }
    Ok(Measured { per_second: sent / elapsed, cpu_us: cpu * 1e6 / sent })
}

fn repeat(port: u16, request: &[u8], until: Instant) -> io::Result<u32> {
    let mut connection = Connection::open(port)?;
    let mut count = 0;
    while Instant::now() < until {
        let (status, body) = connection.exchange(request)?;
        if status != 200 {
            return Err(io::Error::other(format!("answered {status}: {body}")));
        }
        count += 1;
    }
    Ok(count)
}

struct Connection(BufReader<TcpStream>);

impl Connection {
    fn open(port: u16) -> io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        Ok(Self(BufReader::new(stream)))
    }

    fn exchange(&mut self, request: &[u8]) -> io::Result<(u16, String)> {
        self.0.get_mut().write_all(request)?;
        let malformed = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(|| malformed(&line))?;
        let mut length = None;
        loop {
            line.clear();
            self.0.read_line(&mut line)?;
            if line.trim_end().is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').ok_or_else(|| malformed(&line))?;
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse().ok();
            }
        }
        let mut body = vec![0; length.ok_or_else(|| malformed("the answer has no length"))?];
        self.0.read_exact(&mut body)?;
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    }
}

/// Processor time that the threads of a process have used, in the kernel and out of it. The kernel's scheduler counts it
/// in nanoseconds; the times in `stat` are of hundredths of a second.
pub(crate) fn cpu_seconds(process: i32) -> anyhow::Result<f64> {
    let mut total = Duration::ZERO;
    for thread in fs::read_dir(format!("/proc/{process}/task")).context("the process's threads")? {
        // One that has just ended was no busy one.
        let Ok(schedstat) = fs::read_to_string(thread?.path().join("schedstat")) else { continue };
        let ns = schedstat.split_whitespace().next().and_then(|ns| ns.parse().ok());
        total += Duration::from_nanos(ns.context("the kernel counts a thread's time")?);
    }
    Ok(total.as_secs_f64())
}
