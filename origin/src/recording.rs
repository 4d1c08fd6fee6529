//! Sound recordings of bridged calls: stereo, the caller on the left and the agent on the right as the caller heard it,
//! in mu-law as it passed (WAV, tag 7): nothing is converted.
//!
//! The audio path hands over the messages themselves, which costs it a reference or one copy; a task of the recording's
//! own reads them and spools both tracks to disk ([`spool`]). After the stream the file is put into the store, a
//! directory or S3, tried again until it is there. What an origin leaves behind when it dies is brought by the next that
//! starts in the same spool directory, up to the last two seconds; what nobody brings within a week is noted as lost.
//! Memory is bounded: a queue of messages and two small buffers for each call, and one part of an upload at a time.

mod spool;
mod store;
mod tracks;
mod wav;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use shared::{CallId, ProjectId};
use time::OffsetDateTime;
use tokio::sync::{Semaphore, mpsc};
use tokio_tungstenite::tungstenite::Utf8Bytes;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use self::spool::{Label, Spool};
pub use self::store::StoreFault;
use self::tracks::{Op, Tracks};
use crate::calls::{Entry, Recorder};
use crate::config;
use crate::store::recordings::{Place, Recording, RecordingState};
use crate::telemetry::{Metrics, OutcomeLabels};

/// How long a recording that is not brought is waited for, in days.
pub const GIVE_UP_DAYS: i32 = 7;

/// Messages of a call that may wait to be spooled: ten seconds of both sides.
const QUEUE: usize = 1024;
/// Messages taken at once.
const BATCH: usize = 64;
/// Uploads at a time; each holds a part of several megabytes.
const UPLOADS: usize = 2;
/// How long one attempt may take.
const UPLOAD_LIMIT: Duration = Duration::from_mins(10);
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_mins(1);

/// Where recordings are made, if anywhere.
#[derive(Clone, Debug)]
pub struct Recordings(Option<Arc<Studio>>);

#[derive(Debug)]
struct Studio {
    store: store::Store,
    spool: std::path::PathBuf,
    uploads: Semaphore,
    recorder: Recorder,
    metrics: Arc<Metrics>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

/// A message between Twilio and the bridge, and when it passed, in milliseconds since the stream began.
#[derive(Debug)]
enum Passed {
    FromTwilio(u64, Utf8Bytes),
    ToTwilio(u64, String),
}

/// The ear in a stream. The recording ends when it is dropped.
#[derive(Debug)]
pub struct Tap {
    passed: mpsc::Sender<Passed>,
    began: Instant,
    fell_behind: Arc<AtomicBool>,
}

impl Tap {
    /// Twilio says something.
    pub fn twilio_said(&self, message: &Utf8Bytes) {
        self.pass(Passed::FromTwilio(self.now_ms(), message.clone()));
    }

    /// Twilio is told something.
    pub fn twilio_told(&self, message: &str) {
        self.pass(Passed::ToTwilio(self.now_ms(), message.to_owned()));
    }

    fn pass(&self, passed: Passed) {
        if self.passed.try_send(passed).is_err() {
            self.fell_behind.store(true, Ordering::Relaxed);
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Recordings {
    /// Opens the store.
    pub fn open(
        config: Option<&config::Recording>,
        recorder: Recorder,
        metrics: Arc<Metrics>,
        tasks: TaskTracker,
        shutdown: CancellationToken,
    ) -> Result<Self, StoreFault> {
        let Some(config) = config else { return Ok(Self(None)) };
        let (store, spool) = (store::Store::open(&config.store)?, config.spool.clone());
        let uploads = Semaphore::new(UPLOADS);
        Ok(Self(Some(Arc::new(Studio { store, spool, uploads, recorder, metrics, tasks, shutdown }))))
    }

    /// Begins the recording of a stream that begins now. `None`: there is nowhere to put it.
    pub fn begin(&self, project: ProjectId, call: CallId) -> Option<Tap> {
        let studio = Arc::clone(self.0.as_ref()?);
        let (passed, messages) = mpsc::channel(QUEUE);
        let id = Uuid::now_v7();
        let label = Label {
            id,
            call,
            key: format!("{project}/{call}/{id}.wav"),
            started_at: OffsetDateTime::now_utc(),
            is_whole: false,
        };
        let fell_behind = Arc::new(AtomicBool::new(false));
        let tap = Tap { passed, began: Instant::now(), fell_behind: Arc::clone(&fell_behind) };
        studio.clone().tasks.spawn(async move { studio.record(label, messages, &fell_behind).await });
        Some(tap)
    }

    /// Brings what processes before this one have left behind.
    pub fn recover(&self) {
        let Some(studio) = self.0.clone() else { return };
        studio.clone().tasks.spawn(async move {
            match Spool::left_behind(&studio.spool).await {
                Ok(found) => {
                    for spool in found {
                        tracing::warn!(call_id = %spool.label.call, "a recording that was left behind is brought");
                        studio.bring(spool).await;
                    }
                }
                Err(error) => tracing::error!(%error, "the spool of recordings cannot be read"),
            }
        });
    }
}

impl Studio {
    async fn record(&self, label: Label, messages: mpsc::Receiver<Passed>, fell_behind: &AtomicBool) {
        let unfinished = label.clone();
        self.note(&unfinished, RecordingState::Recording, None);
        match self.spool(label, messages, fell_behind).await {
            Ok(spool) => self.bring(spool).await,
            Err(error) => {
                tracing::error!(%error, call_id = %unfinished.call, "a call cannot be recorded");
                self.note(&unfinished, RecordingState::Lost, None);
            }
        }
    }

    /// Until the stream ends.
    async fn spool(
        &self,
        label: Label,
        mut messages: mpsc::Receiver<Passed>,
        fell_behind: &AtomicBool,
    ) -> std::io::Result<Spool> {
        let mut spool = Spool::create(&self.spool, label).await?;
        let mut tracks = Tracks::default();
        let mut batch = Vec::with_capacity(BATCH);
        let mut last_ms = 0;
        while messages.recv_many(&mut batch, BATCH).await > 0 {
            for message in batch.drain(..) {
                let (Passed::FromTwilio(at_ms, _) | Passed::ToTwilio(at_ms, _)) = &message;
                last_ms = *at_ms;
                if let Some(op) = take_in(&mut tracks, &message) {
                    spool.apply(op).await?;
                }
            }
        }
        if let Some(op) = tracks.clear(last_ms) {
            spool.apply(op).await?;
        }
        spool.finish(!fell_behind.load(Ordering::Relaxed)).await?;
        Ok(spool)
    }

    /// Puts a recording into the store, however often it takes. What is not there when the process stops is brought by
    /// the next.
    async fn bring(&self, mut spool: Spool) {
        let mut wait = FIRST_RETRY;
        loop {
            match self.put(&mut spool).await {
                Ok(bytes) => return self.brought(spool, bytes).await,
                Err(error) => {
                    let (error, call_id) = (&error as &dyn std::error::Error, spool.label.call);
                    tracing::warn!(error, %call_id, "a recording is not stored yet");
                    self.count("failed");
                }
            }
            if self.shutdown.is_cancelled() {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => wait = (wait * 2).min(LAST_RETRY),
                // One more attempt, as this process may be the last that sees this disk.
                () = self.shutdown.cancelled() => {}
            }
        }
    }

    async fn put(&self, spool: &mut Spool) -> std::io::Result<u64> {
        // Never closed.
        let _one_of_few = self.uploads.acquire().await.map_err(std::io::Error::other)?;
        let key = spool.label.key.clone();
        let putting = self.store.put(&key, spool);
        tokio::time::timeout(UPLOAD_LIMIT, putting).await.map_err(|_| std::io::ErrorKind::TimedOut)?
    }

    /// Only what is noted in the database is deleted here.
    async fn brought(&self, spool: Spool, bytes: u64) {
        let state = if spool.label.is_whole { RecordingState::Stored } else { RecordingState::Partial };
        self.note(&spool.label, state, Some((spool.samples(), bytes)));
        self.recorder.flush().await;
        if let Err(error) = spool.delete().await {
            tracing::error!(%error, "a recording that is stored cannot be deleted from the spool");
        }
    }

    fn note(&self, label: &Label, state: RecordingState, size: Option<(u64, u64)>) {
        if state != RecordingState::Recording {
            self.count(state.as_str());
        }
        let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let recording = Recording {
            id: label.id,
            state,
            place: Place::Key(label.key.clone()),
            started_at: label.started_at,
            duration_ms: size.map(|(samples, _)| signed(samples / 8)),
            bytes: size.map(|(_, bytes)| signed(bytes)),
        };
        self.recorder.record(label.call, Entry::Recording(recording));
    }

    fn count(&self, outcome: &'static str) {
        self.metrics.recordings.get_or_create(&OutcomeLabels { outcome }).inc();
    }
}

/// What a message between Twilio and the bridge does to the tracks.
#[derive(Deserialize)]
struct Frame<'a> {
    event: &'a str,
    #[serde(borrow)]
    media: Option<Media<'a>>,
    #[serde(borrow)]
    mark: Option<Mark<'a>>,
}

#[derive(Deserialize)]
struct Media<'a> {
    payload: &'a str,
    /// Milliseconds since the stream began, as text; only in what Twilio says.
    timestamp: Option<&'a str>,
}

#[derive(Deserialize)]
struct Mark<'a> {
    name: &'a str,
}

fn take_in(tracks: &mut Tracks, message: &Passed) -> Option<Op> {
    let (Passed::FromTwilio(..) | Passed::ToTwilio(..)) = message;
    let (at_ms, text): (u64, &str) = match message {
        Passed::FromTwilio(at_ms, text) => (*at_ms, text.as_str()),
        Passed::ToTwilio(at_ms, text) => (*at_ms, text.as_str()),
    };
    // The bridge has read it before, or has written it.
    let frame: Frame<'_> = serde_json::from_str(text).ok()?;
    let from_twilio = matches!(message, Passed::FromTwilio(..));
    match (frame.event, frame.media, frame.mark) {
        ("media", Some(media), _) => {
            let audio = STANDARD.decode(media.payload).ok()?;
            Some(if from_twilio {
                let timestamp_ms = media.timestamp.and_then(|timestamp| timestamp.parse().ok()).unwrap_or(at_ms);
                tracks.caller(at_ms, timestamp_ms, audio)
            } else {
                tracks.agent(at_ms, audio)
            })
        }
        ("mark", _, Some(mark)) => {
            if from_twilio {
                tracks.mark_returned(at_ms, mark.name);
            } else {
                tracks.mark_sent(mark.name);
            }
            None
        }
        ("clear", ..) => tracks.clear(at_ms),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_both_sides_are_told_apart() {
        let mut tracks = Tracks::default();
        let from = |text: &str| Passed::FromTwilio(100, Utf8Bytes::from(text.to_owned()));
        let to = |text: &str| Passed::ToTwilio(100, text.to_owned());
        let media = r#"{"event":"media","sequenceNumber":"3","media":{"track":"inbound","chunk":"1","timestamp":"60","payload":"AQID"},"streamSid":"MZ1"}"#;
        assert_eq!(take_in(&mut tracks, &from(media)), Some(Op::Caller { silence: 800, audio: vec![1, 2, 3] }));
        let media = r#"{"event":"media","streamSid":"MZ1","media":{"payload":"BAUG"}}"#;
        assert_eq!(take_in(&mut tracks, &to(media)), Some(Op::Agent { silence: 800, audio: vec![4, 5, 6] }));
        assert_eq!(take_in(&mut tracks, &to(r#"{"event":"mark","streamSid":"MZ1","mark":{"name":"a"}}"#)), None);
        assert_eq!(take_in(&mut tracks, &to(r#"{"event":"clear","streamSid":"MZ1"}"#)), Some(Op::CutAgent { to: 800 }));
        assert_eq!(take_in(&mut tracks, &from(r#"{"event":"stop"}"#)), None);
        assert_eq!(take_in(&mut tracks, &from("not json")), None);
    }
}
