//! A measured process: its one processor, the time it uses, the memory it holds. From `/proc`, so on Linux only.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, ensure};

use crate::bench_edge::load::cpu_seconds;

/// A process that has a processor for itself.
#[derive(Debug)]
pub(super) struct Measured {
    process: i32,
}

/// Processor time used so far.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cpu {
    /// In the kernel and out of it, to the nanosecond.
    pub(super) total: Duration,
    /// In the kernel and out of it, in ticks of a hundredth of a second: for their proportion.
    ticks: (u64, u64),
}

impl Cpu {
    /// Which part of the time since `before` was spent in the kernel.
    #[expect(clippy::cast_precision_loss, reason = "small counts")]
    pub(super) fn kernel_share(self, before: Self) -> f64 {
        let (user, kernel) = (self.ticks.0 - before.ticks.0, self.ticks.1 - before.ticks.1);
        kernel as f64 / (user + kernel).max(1) as f64
    }
}

impl Measured {
    /// Moves a process, with all its threads, to this processor.
    pub(super) fn pin(process: i32, processor: usize) -> anyhow::Result<Self> {
        for thread in threads(&process.to_string())? {
            affinity::set(thread, &[processor])?;
        }
        Ok(Self { process })
    }

    /// What it has used so far.
    pub(super) fn cpu(&self) -> anyhow::Result<Cpu> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process))?;
        // "pid (name) state …"; user and kernel time are the fields 14 and 15.
        let mut fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11);
        let mut ticks = || fields.next().and_then(|ticks| ticks.parse().ok()).context("the process's times");
        let ticks = (ticks()?, ticks()?);
        Ok(Cpu { total: Duration::from_secs_f64(cpu_seconds(self.process)?), ticks })
    }

    /// Memory that is its own, in KiB: without the pages of its program, which are read as they are needed.
    pub(super) fn memory(&self) -> anyhow::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process))?;
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        line.and_then(|line| line.split_whitespace().next()?.parse().ok()).context("the process's memory")
    }
}

/// The most that a process held at each number of calls.
#[derive(Debug, Default)]
pub(super) struct Memory(Vec<(usize, u64)>);

impl Memory {
    pub(super) fn add(&mut self, calls: usize, kib: u64) {
        match self.0.iter_mut().find(|(at, _)| *at == calls) {
            Some((_, most)) => *most = kib.max(*most),
            None => self.0.push((calls, kib)),
        }
    }

    /// The slope of the line that fits best.
    #[expect(clippy::cast_precision_loss, reason = "small counts")]
    pub(super) fn kib_per_call(&self) -> Option<f64> {
        let points: Vec<(f64, f64)> = self.0.iter().map(|(calls, kib)| (*calls as f64, *kib as f64)).collect();
        let count = points.len() as f64;
        let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
        let (x, y) = (mean(|point| point.0), mean(|point| point.1));
        let spread: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
        (spread > 0.0).then(|| points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum::<f64>() / spread)
    }
}

/// Leaves this process, and whatever it starts from now on, all processors but one; gives that one.
pub(super) fn set_one_processor_apart() -> anyhow::Result<usize> {
    let mut all = affinity::get()?;
    let one = all.pop().context("no processor")?;
    ensure!(!all.is_empty(), "this needs two processors: one for what is measured, one for the load");
    for thread in threads("self")? {
        affinity::set(thread, &all)?;
    }
    Ok(one)
}

fn threads(process: &str) -> anyhow::Result<Vec<i32>> {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).context("processes are read from /proc")?;
    Ok(tasks.filter_map(|task| task.ok()?.file_name().to_str()?.parse().ok()).collect())
}

#[cfg(target_os = "linux")]
mod affinity {
    use rustix::process::Pid;
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

    pub(super) fn get() -> anyhow::Result<Vec<usize>> {
        let set = sched_getaffinity(None)?;
        Ok((0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect())
    }

    pub(super) fn set(thread: i32, processors: &[usize]) -> anyhow::Result<()> {
        let mut set = CpuSet::new();
        for processor in processors {
            set.set(*processor);
        }
        Ok(sched_setaffinity(Pid::from_raw(thread), &set)?)
    }
}

#[cfg(not(target_os = "linux"))]
mod affinity {
    pub(super) fn get() -> anyhow::Result<Vec<usize>> {
        anyhow::bail!("processors are assigned on Linux only")
    }

    pub(super) fn set(_: i32, _: &[usize]) -> anyhow::Result<()> {
        anyhow::bail!("processors are assigned on Linux only")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_costs_what_the_memory_grows_by() {
        let mut memory = Memory::default();
        for (calls, kib) in [(0, 5000), (100, 9000), (100, 8000), (200, 13_000)] {
            memory.add(calls, kib);
        }
        let slope = memory.kib_per_call().expect("there are several points");
        assert!((slope - 40.0).abs() < 1e-9, "{slope}");
        assert_eq!(Memory(vec![(0, 1)]).kib_per_call(), None);
    }
}
