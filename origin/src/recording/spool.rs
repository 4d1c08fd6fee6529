//! A recording while it is made: two files of mu-law and one that says whose they are, in a directory of their own.
//!
//! The files of a process that died stay behind; whoever starts next in the same directory finds them. A lock on the
//! small file, which ends with its process, tells whether somebody is still at it.

use std::fs::{File as StdFile, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use shared::CallId;
use time::OffsetDateTime;
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _, AsyncWrite, AsyncWriteExt as _};
use uuid::Uuid;

use super::tracks::Op;
use super::wav;

/// What is collected of a track before it is written: two seconds, and all that a crash loses of it.
const BUFFER: usize = 16 * 1024;
/// Silence in mu-law.
const SILENCE: u8 = 0xff;

/// Whose recording it is, and where it goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Label {
    pub(super) id: Uuid,
    pub(super) call: CallId,
    pub(super) key: String,
    #[serde(with = "time::serde::rfc3339")]
    pub(super) started_at: OffsetDateTime,
    /// All of the stream is in it.
    pub(super) is_whole: bool,
}

/// A recording on this machine's disk.
#[derive(Debug)]
pub(super) struct Spool {
    pub(super) label: Label,
    directory: PathBuf,
    caller: Track,
    agent: Track,
    /// Locked as long as somebody is at it.
    lock: StdFile,
}

#[derive(Debug)]
struct Track {
    file: File,
    buffer: Vec<u8>,
    /// With what is in the buffer.
    length: u64,
}

impl Spool {
    /// Begins a recording.
    pub(super) async fn create(directory: &Path, label: Label) -> io::Result<Self> {
        tokio::fs::create_dir_all(directory).await?;
        let lock = OpenOptions::new().write(true).create_new(true).open(path(directory, label.id, "json"))?;
        lock.try_lock()?;
        let track = async |name| Track::open(&path(directory, label.id, name), true).await;
        let (caller, agent) = (track("caller").await?, track("agent").await?);
        let spool = Self { directory: directory.to_owned(), caller, agent, lock, label };
        spool.write_label()?;
        Ok(spool)
    }

    /// The recordings that a process has left behind.
    pub(super) async fn left_behind(directory: &Path) -> io::Result<Vec<Self>> {
        let mut found = Vec::new();
        let mut entries = match tokio::fs::read_dir(directory).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
            entries => entries?,
        };
        while let Some(entry) = entries.next_entry().await? {
            let path = entry.path();
            if path.extension().is_some_and(|extension| extension == "json")
                && let Some(spool) = Self::take_over(directory, &path).await?
            {
                found.push(spool);
            }
        }
        Ok(found)
    }

    /// `None`: somebody is at it, or its label was never written and nothing can be said about it.
    async fn take_over(directory: &Path, label: &Path) -> io::Result<Option<Self>> {
        let lock = OpenOptions::new().read(true).write(true).open(label)?;
        if lock.try_lock().is_err() {
            return Ok(None);
        }
        let Ok(label) = serde_json::from_slice::<Label>(&tokio::fs::read(label).await?) else { return Ok(None) };
        let track = async |name| Track::open(&path(directory, label.id, name), false).await;
        let (Ok(caller), Ok(mut agent)) = (track("caller").await, track("agent").await) else { return Ok(None) };
        if !label.is_whole {
            // What the agent said runs ahead of what was played.
            agent.cut(caller.length.min(agent.length)).await?;
        }
        Ok(Some(Self { directory: directory.to_owned(), caller, agent, lock, label }))
    }

    /// Adds what was heard.
    pub(super) async fn apply(&mut self, op: Op) -> io::Result<()> {
        match op {
            Op::Caller { silence, audio } => self.caller.append(silence, &audio).await,
            Op::Agent { silence, audio } => self.agent.append(silence, &audio).await,
            Op::CutAgent { to } => self.agent.cut(to).await,
        }
    }

    /// Nothing more comes.
    pub(super) async fn finish(&mut self, is_whole: bool) -> io::Result<()> {
        self.caller.flush().await?;
        self.agent.flush().await?;
        self.label.is_whole = is_whole;
        self.write_label()
    }

    /// Samples in each channel.
    pub(super) fn samples(&self) -> u64 {
        self.caller.length.max(self.agent.length)
    }

    /// Writes both tracks as one file: the caller on the left, the agent on the right.
    pub(super) async fn write_wav(&mut self, to: &mut (impl AsyncWrite + Unpin)) -> io::Result<u64> {
        let samples = self.samples();
        to.write_all(&wav::head(samples)).await?;
        self.caller.file.rewind().await?;
        self.agent.file.rewind().await?;
        let (mut left, mut right) = (vec![0; BUFFER], vec![0; BUFFER]);
        let mut both = Vec::with_capacity(2 * BUFFER);
        let mut written = 0;
        while written < samples {
            let count = usize::try_from((samples - written).min(BUFFER as u64)).unwrap_or(BUFFER);
            fill(&mut self.caller.file, &mut left[..count]).await?;
            fill(&mut self.agent.file, &mut right[..count]).await?;
            both.clear();
            both.extend(left[..count].iter().zip(&right[..count]).flat_map(|(left, right)| [*left, *right]));
            to.write_all(&both).await?;
            written += count as u64;
        }
        Ok(wav::HEAD_BYTES + 2 * samples)
    }

    /// Deletes it; the label last, as it is what finds the others.
    pub(super) async fn delete(self) -> io::Result<()> {
        for name in ["caller", "agent", "json"] {
            tokio::fs::remove_file(path(&self.directory, self.label.id, name)).await?;
        }
        Ok(())
    }

    /// A few hundred bytes, at the beginning and the end of a stream.
    fn write_label(&self) -> io::Result<()> {
        use std::io::{Seek as _, Write as _};
        let text = serde_json::to_vec(&self.label)?;
        let mut file = &self.lock;
        file.rewind()?;
        file.write_all(&text)?;
        file.set_len(text.len() as u64)?;
        file.sync_data()
    }
}

impl Track {
    async fn open(path: &Path, new: bool) -> io::Result<Self> {
        let file = File::options().read(true).write(true).create_new(new).open(path).await?;
        let length = file.metadata().await?.len();
        Ok(Self { file, buffer: Vec::new(), length })
    }

    async fn append(&mut self, silence: u64, audio: &[u8]) -> io::Result<()> {
        let mut silence = silence;
        while silence > 0 {
            let some = usize::try_from(silence).unwrap_or(BUFFER).min(BUFFER);
            self.buffer.resize(self.buffer.len() + some, SILENCE);
            self.length += some as u64;
            silence -= some as u64;
            self.flush_if_full().await?;
        }
        self.buffer.extend_from_slice(audio);
        self.length += audio.len() as u64;
        self.flush_if_full().await
    }

    async fn cut(&mut self, to: u64) -> io::Result<()> {
        self.flush().await?;
        self.file.set_len(to).await?;
        self.file.seek(io::SeekFrom::Start(to)).await?;
        self.length = to;
        Ok(())
    }

    async fn flush_if_full(&mut self) -> io::Result<()> {
        if self.buffer.len() >= BUFFER { self.flush().await } else { Ok(()) }
    }

    async fn flush(&mut self) -> io::Result<()> {
        if !self.buffer.is_empty() {
            self.file.write_all(&self.buffer).await?;
            self.buffer.clear();
        }
        self.file.flush().await
    }
}

/// Reads as much as there is, and silence beyond the end.
async fn fill(file: &mut File, buffer: &mut [u8]) -> io::Result<()> {
    let mut read = 0;
    while read < buffer.len() {
        match file.read(&mut buffer[read..]).await? {
            0 => break,
            more => read += more,
        }
    }
    buffer[read..].fill(SILENCE);
    Ok(())
}

fn path(directory: &Path, id: Uuid, name: &str) -> PathBuf {
    directory.join(format!("{id}.{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch() -> PathBuf {
        std::env::temp_dir().join(format!("tandem-spool-{}", Uuid::now_v7()))
    }

    fn label() -> Label {
        let id = Uuid::now_v7();
        Label {
            id,
            call: CallId(id),
            key: format!("{id}.wav"),
            started_at: OffsetDateTime::UNIX_EPOCH,
            is_whole: false,
        }
    }

    fn ops() -> [Op; 5] {
        [
            Op::Caller { silence: 8, audio: vec![1; 40_000] },
            Op::Agent { silence: 40_000, audio: vec![2; 20_000] },
            Op::CutAgent { to: 40_004 },
            Op::Agent { silence: 2, audio: vec![3; 2] },
            Op::Caller { silence: 0, audio: vec![4; 4] },
        ]
    }

    #[tokio::test]
    async fn two_tracks_become_one_file() {
        let directory = scratch();
        let mut spool = Spool::create(&directory, label()).await.unwrap();
        for op in ops() {
            spool.apply(op).await.unwrap();
        }
        assert!(Spool::left_behind(&directory).await.unwrap().is_empty(), "somebody is at it");
        spool.finish(true).await.unwrap();
        let mut wav = Vec::new();
        let bytes = spool.write_wav(&mut wav).await.unwrap();
        assert_eq!((wav.len() as u64, spool.samples()), (bytes, 40_012));
        let samples = &wav[58..];
        let at = |index: usize| (samples[2 * index], samples[2 * index + 1]);
        assert_eq!([at(0), at(8), at(40_000), at(40_003)], [(SILENCE, SILENCE), (1, SILENCE), (1, 2), (1, 2)]);
        assert_eq!(
            [at(40_005), at(40_006), at(40_008), at(40_011)],
            [(1, SILENCE), (1, 3), (4, SILENCE), (4, SILENCE)]
        );
        spool.delete().await.unwrap();
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 0);
        std::fs::remove_dir(&directory).unwrap();
    }

    #[tokio::test]
    async fn what_was_left_behind_is_found_and_ends_with_the_caller() {
        let directory = scratch();
        let label = label();
        let mut spool = Spool::create(&directory, label.clone()).await.unwrap();
        for op in [Op::Caller { silence: 0, audio: vec![1; 20_000] }, Op::Agent { silence: 0, audio: vec![2; 60_000] }]
        {
            spool.apply(op).await.unwrap();
        }
        // Dropped as by a crash: what was in the buffers is lost, the lock is free.
        drop(spool);
        let mut found = Spool::left_behind(&directory).await.unwrap();
        let [spool] = &mut found[..] else { panic!("one recording") };
        assert_eq!((&spool.label, spool.samples()), (&label, 20_000));
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
