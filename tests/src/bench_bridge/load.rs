//! The load: callers on one side, the model on the other, and the clock that both speak by.
//!
//! One thread does it all. A wheel of twenty slots turns once in 20 ms; in each slot some of the streams send their next
//! piece of audio, so that the load is spread evenly. What is received is read at once and timed.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use shared::AgentId;
use tokio::net::TcpListener;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::caller::Caller;
use super::frames::Numbered;
use super::measured::Measured;
use super::model;

const SLOTS: usize = 20;
const SLOT: Duration = Duration::from_millis(1);
/// Between two calls that begin: as many a second as a fleet sees in a busy hour.
const BETWEEN_CALLS: Duration = Duration::from_millis(5);
/// How long all calls may take until they talk, after the last has begun.
const BEGIN_LIMIT: Duration = Duration::from_secs(30);
/// How long they talk before the window opens.
const SETTLE: Duration = Duration::from_secs(1);
/// How long a frame may be on its way; what takes longer is lost.
const ARRIVE_LIMIT: Duration = Duration::from_secs(2);
const END_LIMIT: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(20);

/// Where callers call.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) address: SocketAddr,
    pub(super) agent: AgentId,
}

/// What was seen of some calls.
#[derive(Debug)]
pub(super) struct Window {
    pub(super) cpu_ms_per_call_second: f64,
    /// Which part of that was spent in the kernel.
    pub(super) kernel_share: f64,
    /// Which part of its processor that was.
    pub(super) busy: f64,
    /// In KiB.
    pub(super) memory: u64,
    /// From the sender's socket to the receiver's.
    pub(super) latency: Times,
    /// By how much the load itself was late.
    pub(super) load_late: Times,
    /// Over the whole life of the calls, both ways.
    pub(super) frames: u64,
    pub(super) lost: u64,
    pub(super) reordered: u64,
    /// Bytes of audio beyond those of the frames.
    pub(super) strange: u64,
}

/// Durations, to be sorted.
#[derive(Clone, Debug, Default)]
pub(super) struct Times(Vec<u32>);

impl Times {
    fn add(&mut self, time: Duration) {
        self.0.push(u32::try_from(time.as_micros()).unwrap_or(u32::MAX));
    }

    fn sorted(mut self) -> Self {
        self.0.sort_unstable();
        self
    }

    /// The time that this share of all does not exceed, in microseconds.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        reason = "small counts"
    )]
    pub(super) fn at_us(&self, share: f64) -> f64 {
        let index = (self.0.len() as f64 * share) as usize;
        self.0.get(index.min(self.0.len().saturating_sub(1))).map_or(f64::NAN, |us| f64::from(*us))
    }
}

/// A stream that sends something every 20 ms.
pub(super) trait Paced {
    fn tick(&self, load: &Load, now: Duration) -> io::Result<()>;
}

/// What a receiver expects of one stream.
#[derive(Debug, Default)]
pub(super) struct Expected(Cell<u32>);

/// Everything that callers and sessions share.
pub(super) struct Load {
    pub(super) delta_ms: u32,
    started: Instant,
    wheel: RefCell<[Vec<Rc<dyn Paced>>; SLOTS]>,
    sending: Cell<bool>,
    measuring: Cell<bool>,
    latency: RefCell<Times>,
    late: RefCell<Times>,
    sent: Cell<u64>,
    received: Cell<u64>,
    reordered: Cell<u64>,
    strange: Cell<u64>,
    /// Sessions of the model that are open.
    pub(super) sessions: Cell<usize>,
}

impl Load {
    /// Starts the clock and the model.
    pub(super) fn start(listener: TcpListener, delta_ms: u32) -> Rc<Self> {
        let load = Rc::new(Self {
            delta_ms,
            started: Instant::now(),
            wheel: RefCell::default(),
            sending: Cell::new(true),
            measuring: Cell::new(false),
            latency: RefCell::default(),
            late: RefCell::default(),
            sent: Cell::new(0),
            received: Cell::new(0),
            reordered: Cell::new(0),
            strange: Cell::new(0),
            sessions: Cell::new(0),
        });
        tokio::task::spawn_local(turn(Rc::clone(&load)));
        tokio::task::spawn_local(model::serve(listener, Rc::clone(&load)));
        load
    }

    /// Runs so many calls through a target, and measures it while all of them talk.
    #[expect(clippy::cast_precision_loss, reason = "small counts")]
    pub(super) async fn run(
        self: &Rc<Self>,
        target: &Target,
        measured: &Measured,
        calls: usize,
        during: Duration,
    ) -> anyhow::Result<Window> {
        for count in [&self.sent, &self.received, &self.reordered, &self.strange] {
            count.set(0);
        }
        self.sending.set(true);
        let mut callers = Vec::with_capacity(calls);
        for _ in 0..calls {
            callers.push(Caller::call(target, Rc::clone(self)).await?);
            sleep(BETWEEN_CALLS).await;
        }
        let talking = || callers.iter().filter(|caller| caller.hears()).count();
        let _ = timeout(BEGIN_LIMIT, until(|| talking() == calls)).await;
        ensure!(talking() == calls, "{} of {calls} callers hear the model", talking());
        sleep(SETTLE).await;

        self.latency.take();
        self.late.take();
        self.measuring.set(true);
        let (before, began) = (measured.cpu()?, Instant::now());
        sleep(during).await;
        let (after, took) = (measured.cpu()?, began.elapsed().as_secs_f64());
        self.measuring.set(false);
        let memory = measured.memory()?;

        // Nothing is lost that arrives.
        self.sending.set(false);
        let _ = timeout(ARRIVE_LIMIT, until(|| self.received.get() >= self.sent.get())).await;
        let (sent, received) = (self.sent.get(), self.received.get());
        for caller in callers {
            caller.hang_up()?;
        }
        self.wheel.borrow_mut().iter_mut().for_each(Vec::clear);
        let _ = timeout(END_LIMIT, until(|| self.sessions.get() == 0)).await;
        ensure!(self.sessions.get() == 0, "{} sessions outlive their calls", self.sessions.get());

        // By the frames that came through: a load that is late sends some of a second's in the next.
        let latency = self.latency.take().sorted();
        let call_seconds = latency.0.len() as f64 / (50.0 + 1e3 / f64::from(self.delta_ms));
        let cpu = after.total.saturating_sub(before.total).as_secs_f64();
        Ok(Window {
            cpu_ms_per_call_second: cpu * 1e3 / call_seconds,
            kernel_share: after.kernel_share(before),
            busy: cpu / took,
            memory,
            latency,
            load_late: self.late.take().sorted(),
            frames: sent,
            lost: sent.saturating_sub(received),
            reordered: self.reordered.get(),
            strange: self.strange.get(),
        })
    }

    /// The load's clock.
    pub(super) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Lets a stream send from now on, in a slot of the `index`-th stream.
    pub(super) fn pace(&self, index: usize, stream: Rc<dyn Paced>) {
        if let Some(slot) = self.wheel.borrow_mut().get_mut(index % SLOTS) {
            slot.push(stream);
        }
    }

    /// Whether audio is to be sent.
    pub(super) fn is_sending(&self) -> bool {
        self.sending.get()
    }

    /// Counts a frame that was sent.
    pub(super) fn sent(&self) {
        self.sent.set(self.sent.get() + 1);
    }

    /// Counts audio that has arrived: frames should have the given length.
    pub(super) fn received(&self, expected: &Expected, frame: Option<Numbered>, bytes: usize, frame_bytes: usize) {
        let Some(frame) = frame else { return self.strange.set(self.strange.get() + bytes as u64) };
        // A longer frame may come in several messages, each but the first without a number.
        self.strange.set((self.strange.get() + bytes as u64).saturating_sub(frame_bytes as u64));
        self.received.set(self.received.get() + 1);
        if frame.number < expected.0.get() {
            self.reordered.set(self.reordered.get() + 1);
        }
        expected.0.set(frame.number + 1);
        if self.measuring.get() {
            self.latency.borrow_mut().add(self.now().saturating_sub(frame.sent));
        }
    }
}

/// Turns the wheel.
async fn turn(load: Rc<Load>) {
    let mut clock = interval(SLOT);
    // A load that was late catches up: calls do not become fewer because a processor is short.
    clock.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for at in (0..SLOTS).cycle() {
        let due = clock.tick().await;
        if load.measuring.get() {
            load.late.borrow_mut().add(due.elapsed());
        }
        let now = load.now();
        let streams = load.wheel.borrow_mut().get_mut(at).map(std::mem::take).unwrap_or_default();
        // One that cannot send has ended.
        let going_on = streams.into_iter().filter(|stream| stream.tick(&load, now).is_ok()).collect::<Vec<_>>();
        if let Some(slot) = load.wheel.borrow_mut().get_mut(at) {
            slot.splice(0..0, going_on);
        }
    }
}

async fn until(is_so: impl Fn() -> bool) {
    while !is_so() {
        sleep(POLL).await;
    }
}
