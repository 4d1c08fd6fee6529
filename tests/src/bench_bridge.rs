//! `sim bench-bridge`: what the bridge costs beside the barest proxy that could stand in its place.
//!
//! The origin runs as it is deployed: `tandem serve` with all features on, writing to a real Postgres. Calls come
//! straight to its audio socket, each frame numbered and timed in its payload, both ways at the pace of speech. The
//! same calls go through [`bare`], which knows nothing but how to re-wrap a frame. Both are loaded in turn, round by
//! round, so that whatever else the machine does falls on both alike. The measured processes have one processor for
//! themselves; the load, Postgres and everything else share the others.

pub mod bare;
mod caller;
mod frames;
mod line;
mod load;
mod measured;
mod model;

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use tokio::net::TcpListener;
use tokio::task::LocalSet;

use self::load::{Load, Target, Window};
use self::measured::{Measured, Memory};
use crate::stack::ports;
use crate::tandem::{Options, Tandem};

/// Calls of a first, uncounted round: what the processes set up once for all calls is no cost of a call.
const WARM_UP_CALLS: usize = 10;

/// What to measure.
#[derive(Clone, Debug, clap::Args)]
pub struct Plan {
    /// How many calls at a time; several numbers, growing, are measured one after the other.
    #[arg(long, value_delimiter = ',', default_value = "50,150")]
    calls: Vec<usize>,
    /// How often bridge and bare proxy are loaded in turn.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How long one is loaded in one round, after its calls have begun.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// How much audio the model sends at a time, in milliseconds.
    #[arg(long, default_value_t = 20)]
    delta_ms: u32,
}

/// Measures and prints.
pub async fn run(plan: Plan) -> anyhow::Result<()> {
    ensure!(plan.delta_ms > 0 && plan.delta_ms.is_multiple_of(20), "--delta-ms is a multiple of 20");
    let one = measured::set_one_processor_apart()?;
    // The load is one thread: it must not cost more than what it measures.
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        LocalSet::new().block_on(&runtime, measure(&plan, one))
    });
    tokio::task::spawn_blocking(move || thread.join()).await?.map_err(|_| anyhow::anyhow!("the load panicked"))?
}

/// One of the two that are compared, with what was seen of it.
struct Peer {
    name: &'static str,
    target: Target,
    measured: Measured,
    memory: Memory,
    windows: Vec<Window>,
}

async fn measure(plan: &Plan, processor: usize) -> anyhow::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let model: SocketAddr = listener.local_addr()?;
    let load = Load::start(listener, plan.delta_ms);

    let origin_env = [
        ("OPENAI_REALTIME_URL".to_owned(), format!("ws://{model}/v1/realtime")),
        // As it would choose by itself where it has one processor.
        ("TOKIO_WORKER_THREADS".to_owned(), "1".to_owned()),
    ];
    let mut tandem = Tandem::start(Options { origin_env: origin_env.into(), ..Options::default() }).await?;
    let port = ports::for_child()?;
    let bare = bare::start(port, model).await?;

    let origin: SocketAddr = tandem.origin.base_url().trim_start_matches("http://").parse()?;
    let agent = tandem.agent("Night line")?.id.parse().context("the agent's id")?;
    let peer = |name, process, address| {
        let measured = Measured::pin(process, processor)?;
        let memory = Memory::default();
        anyhow::Ok(Peer { name, target: Target { address, agent }, measured, memory, windows: Vec::new() })
    };
    let mut peers = [
        peer("bare proxy", bare.id(), SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?,
        peer("bridge", tandem.origin.id().context("the origin runs")?, origin)?,
    ];
    let measuring = async {
        for peer in &mut peers {
            let second = Duration::from_secs(1);
            load.run(&peer.target, &peer.measured, WARM_UP_CALLS, second).await?;
            peer.memory.add(0, peer.measured.memory()?);
        }
        for &calls in &plan.calls {
            measure_step(plan, &load, &mut peers, calls).await?;
            print(plan, calls, &peers);
        }
        anyhow::Ok(())
    };
    let outcome = told(measuring, &tandem).await;
    print_memory(&peers);
    tandem.stop().await?;
    outcome
}

/// An error of a measurement, with what the origin said meanwhile.
async fn told(measuring: impl Future<Output = anyhow::Result<()>>, tandem: &Tandem) -> anyhow::Result<()> {
    measuring.await.with_context(|| tandem.origin.log_tail())
}

async fn measure_step(plan: &Plan, load: &Rc<Load>, peers: &mut [Peer], calls: usize) -> anyhow::Result<()> {
    for peer in peers.iter_mut() {
        peer.windows.clear();
    }
    for _ in 0..plan.rounds {
        for peer in peers.iter_mut() {
            let during = Duration::from_secs(plan.seconds);
            let window = load.run(&peer.target, &peer.measured, calls, during).await.context(peer.name)?;
            peer.memory.add(calls, window.memory);
            peer.windows.push(window);
        }
    }
    Ok(())
}

fn print(plan: &Plan, calls: usize, peers: &[Peer]) {
    println!(
        "\n{calls} calls, 20 ms frames from the phone, {} ms from the model; median of {} rounds of {} s:",
        plan.delta_ms, plan.rounds, plan.seconds
    );
    for Peer { name, windows, .. } in peers {
        let middle = |figure: fn(&Window) -> f64| median(windows.iter().map(figure));
        let (p50, p99) = (middle(|w| w.latency.at_us(0.5)) / 1e3, middle(|w| w.latency.at_us(0.99)) / 1e3);
        let max = windows.iter().map(|w| w.latency.at_us(1.0)).fold(0.0, f64::max) / 1e3;
        let sum = |figure: fn(&Window) -> u64| windows.iter().map(figure).sum::<u64>();
        println!(
            "  {name:<10} {:.3} ms of processor a call-second ({:.0} % in the kernel, {:.0} % of the processor); \
             added latency p50 {p50:.2} ms, p99 {p99:.2} ms, max {max:.1} ms; of {} frames {} lost, {} reordered",
            middle(|w| w.cpu_ms_per_call_second),
            middle(|w| w.kernel_share) * 100.0,
            middle(|w| w.busy) * 100.0,
            sum(|w| w.frames),
            sum(|w| w.lost),
            sum(|w| w.reordered),
        );
        let (late, filled) = (middle(|w| w.load_late.at_us(0.99)) / 1e3, sum(|w| w.strange));
        if late > 5.0 || filled > 0 {
            println!(
                "             the load itself was up to {late:.1} ms late (p99); {filled} frames of others' making"
            );
        }
    }
    if let [bare, bridge, ..] = peers {
        let pairs = bridge.windows.iter().zip(&bare.windows);
        let ratio = median(pairs.map(|(own, bare)| own.cpu_ms_per_call_second / bare.cpu_ms_per_call_second));
        println!("  bridge ÷ bare proxy: {ratio:.2}");
    }
}

fn print_memory(peers: &[Peer]) {
    println!("\nMemory of one more call:");
    for Peer { name, memory, .. } in peers {
        if let Some(slope) = memory.kib_per_call() {
            println!("  {name:<10} {slope:.1} KiB");
        }
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
