//! The WASI that language runtimes insist on, with nothing behind it.
//!
//! No folder, no environment, no argument, an empty standard input; sockets
//! answer access-denied; what an agent prints becomes `log` events. `wasi:http`
//! and everything else is not linked at all.
//!
//! Time and chance are the job's own, so that a replay finds them as they were:
//! both clocks show the time of its [`Tape`], in whole milliseconds and never
//! going back, and all randomness comes from the seed it was accepted with.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use chacha20::{ChaCha20Rng, rand_core::SeedableRng as _};
use leasehold_core::{
    job::record::{Accepted, Seed},
    protocol::event::Level,
    time::Timestamp,
};
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncWrite;
use wasmtime::{
    StoreContextMut,
    component::{HasData, Linker, LinkerInstance, Resource, ResourceTable},
};
use wasmtime_wasi::{
    WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView,
    cli::{IsTerminal, StdoutStream, WasiCli, WasiCliView},
    filesystem::{WasiFilesystem, WasiFilesystemView},
    p2::{OutputStream, Pollable, StreamError, StreamResult, bindings as wasi, bindings::clocks::wall_clock::Datetime},
    random::WasiRandom,
    sockets::{WasiSockets, WasiSocketsView},
};
use wasmtime_wasi_io::{
    bindings::wasi::io,
    poll::{DynPollable, subscribe},
};

use super::limits::Limits;
use crate::{capability::JobCtx, tape::Tape};

/// The clocks tick in milliseconds: finer ones would tell an agent about its neighbours.
const TICK_NANOS: u64 = 1_000_000;

/// The WASI state of one agent.
pub struct InertWasi {
    ctx: WasiCtx,
    table: ResourceTable,
    tape: Arc<Tape>,
    /// When the monotonic clock began.
    began: Timestamp,
    /// The moments that pollables wait for. What is not among them waits for nothing.
    timers: HashMap<u32, Timestamp>,
}

impl InertWasi {
    /// Makes a WASI whose time, standard output and standard error are those of `tape`.
    #[must_use]
    pub fn new(tape: &Arc<Tape>, accepted: &Accepted, limits: &Limits) -> Self {
        let printer = |level| Printer { tape: Arc::clone(tape), level };
        let ctx = WasiCtxBuilder::new()
            .stdout(printer(Level::Info))
            .stderr(printer(Level::Warn))
            .allow_tcp(false)
            .allow_udp(false)
            .allow_ip_name_lookup(false)
            .max_random_size(limits.random_bytes_max)
            .secure_random(generator(&accepted.seed, "random"))
            .insecure_random(generator(&accepted.seed, "insecure"))
            .insecure_random_seed(number(&accepted.seed))
            .build();
        let mut table = ResourceTable::new();
        table.set_max_capacity(limits.handles_max);
        Self { ctx, table, tape: Arc::clone(tape), began: beginning(accepted.at), timers: HashMap::new() }
    }

    /// Makes a pollable that is ready at `moment`.
    fn timer(&mut self, moment: Timestamp) -> wasmtime::Result<Resource<DynPollable>> {
        let timer = self.table.push(Timer)?;
        let pollable = subscribe(&mut self.table, timer)?;
        self.timers.insert(pollable.rep(), moment);
        Ok(pollable)
    }

    /// Waits until at least one of the pollables is ready, and says which are.
    ///
    /// What is ready follows from the time alone, so the time is all that has to be written down of it.
    async fn wait(&mut self, pollables: &[Resource<DynPollable>]) -> wasmtime::Result<Vec<u32>> {
        let mut moments = Vec::with_capacity(pollables.len());
        for pollable in pollables {
            self.table.get(pollable)?;
            moments.push(self.timers.get(&pollable.rep()).copied());
        }
        loop {
            let ready = self.ready(&moments).await;
            match moments.iter().flatten().min() {
                Some(first) if ready.is_empty() => self.tape.wait_until(*first).await,
                _ => return Ok(ready),
            }
        }
    }

    async fn ready(&mut self, moments: &[Option<Timestamp>]) -> Vec<u32> {
        self.tape.flush().await;
        let timed = moments.iter().any(Option::is_some);
        let now = if timed { self.tape.now().await } else { self.began };
        let is_ready = |moment: &Option<Timestamp>| moment.is_none_or(|moment| moment <= now);
        (0..).zip(moments).filter(|(_, moment)| is_ready(moment)).map(|(index, _)| index).collect()
    }
}

/// A stream of randomness that belongs to one purpose.
fn generator(seed: &Seed, purpose: &str) -> ChaCha20Rng {
    ChaCha20Rng::from_seed(Sha256::digest([purpose.as_bytes(), &seed.0].concat()).into())
}

fn number(seed: &Seed) -> u128 {
    let digest = Sha256::digest([b"insecure-seed", &seed.0[..]].concat());
    digest.iter().take(16).fold(0, |number, byte| number << 8 | u128::from(*byte))
}

/// Holds a place in the table; [`InertWasi::wait`] knows its moment.
struct Timer;

#[wasmtime_wasi::async_trait]
impl Pollable for Timer {
    async fn ready(&mut self) {}
}

impl WasiView for JobCtx {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let wasi = self.wasi();
        WasiCtxView { ctx: &mut wasi.ctx, table: &mut wasi.table }
    }
}

/// Links the interfaces that [`crate::agents::audit`] calls inert, one by one:
/// the library's own all-in-one would bring whatever it brings next.
///
/// # Errors
///
/// If the library defines one of them twice.
pub fn add_to_linker(linker: &mut Linker<JobCtx>) -> wasmtime::Result<()> {
    struct Io;
    impl HasData for Io {
        type Data<'a> = &'a mut ResourceTable;
    }
    let l = linker;
    io::error::add_to_linker::<JobCtx, Io>(l, |job| &mut job.wasi().table)?;
    io::poll::add_to_linker::<JobCtx, HasPoll>(l, |job| JobPoll(job.wasi()))?;
    io::streams::add_to_linker::<JobCtx, Io>(l, |job| &mut job.wasi().table)?;
    wall_clock(&mut l.instance("wasi:clocks/wall-clock@0.2.12")?)?;
    monotonic_clock(&mut l.instance("wasi:clocks/monotonic-clock@0.2.12")?)?;
    wasi::random::random::add_to_linker::<JobCtx, WasiRandom>(l, |job| job.wasi().ctx.random())?;
    wasi::random::insecure::add_to_linker::<JobCtx, WasiRandom>(l, |job| job.wasi().ctx.random())?;
    wasi::random::insecure_seed::add_to_linker::<JobCtx, WasiRandom>(l, |job| job.wasi().ctx.random())?;
    wasi::cli::exit::add_to_linker::<JobCtx, WasiCli>(l, JobCtx::cli)?;
    wasi::cli::environment::add_to_linker::<JobCtx, WasiCli>(l, JobCtx::cli)?;
    wasi::cli::stdin::add_to_linker::<JobCtx, WasiCli>(l, JobCtx::cli)?;
    wasi::cli::stdout::add_to_linker::<JobCtx, WasiCli>(l, JobCtx::cli)?;
    wasi::cli::stderr::add_to_linker::<JobCtx, WasiCli>(l, JobCtx::cli)?;
    wasi::cli::terminal_input::add_to_linker::<JobCtx, WasiCli>(l, JobCtx::cli)?;
    wasi::cli::terminal_output::add_to_linker::<JobCtx, WasiCli>(l, JobCtx::cli)?;
    wasi::cli::terminal_stdin::add_to_linker::<JobCtx, WasiCli>(l, JobCtx::cli)?;
    wasi::cli::terminal_stdout::add_to_linker::<JobCtx, WasiCli>(l, JobCtx::cli)?;
    wasi::cli::terminal_stderr::add_to_linker::<JobCtx, WasiCli>(l, JobCtx::cli)?;
    wasi::filesystem::types::add_to_linker::<JobCtx, WasiFilesystem>(l, JobCtx::filesystem)?;
    wasi::filesystem::preopens::add_to_linker::<JobCtx, WasiFilesystem>(l, JobCtx::filesystem)?;
    // CPython imports these whatever a program does, so they are there and refuse.
    wasi::sockets::network::add_to_linker::<JobCtx, WasiSockets>(l, &Default::default(), JobCtx::sockets)?;
    wasi::sockets::instance_network::add_to_linker::<JobCtx, WasiSockets>(l, JobCtx::sockets)?;
    wasi::sockets::ip_name_lookup::add_to_linker::<JobCtx, WasiSockets>(l, JobCtx::sockets)?;
    wasi::sockets::tcp::add_to_linker::<JobCtx, WasiSockets>(l, JobCtx::sockets)?;
    wasi::sockets::tcp_create_socket::add_to_linker::<JobCtx, WasiSockets>(l, JobCtx::sockets)?;
    wasi::sockets::udp::add_to_linker::<JobCtx, WasiSockets>(l, JobCtx::sockets)?;
    wasi::sockets::udp_create_socket::add_to_linker::<JobCtx, WasiSockets>(l, JobCtx::sockets)?;
    Ok(())
}

/// The library's own clocks answer without waiting, and a replay may have to read on before it knows what time it was.
fn wall_clock(clock: &mut LinkerInstance<'_, JobCtx>) -> wasmtime::Result<()> {
    clock.func_wrap_async("now", |mut store: StoreContextMut<'_, JobCtx>, (): ()| {
        Box::new(async move {
            let now = store.data_mut().wasi().tape.now().await.as_millis();
            let (seconds, millis) = (now.div_euclid(1000), now.rem_euclid(1000));
            let nanoseconds = u32::try_from(millis).unwrap_or(0) * 1_000_000;
            Ok((Datetime { seconds: u64::try_from(seconds).unwrap_or(0), nanoseconds },))
        })
    })?;
    clock.func_wrap("resolution", |_: StoreContextMut<'_, JobCtx>, (): ()| {
        Ok((Datetime { seconds: 0, nanoseconds: 1_000_000 },))
    })
}

fn monotonic_clock(clock: &mut LinkerInstance<'_, JobCtx>) -> wasmtime::Result<()> {
    clock.func_wrap_async("now", |mut store: StoreContextMut<'_, JobCtx>, (): ()| {
        Box::new(async move {
            let wasi = store.data_mut().wasi();
            Ok((elapsed(wasi.began, wasi.tape.now().await),))
        })
    })?;
    clock.func_wrap("resolution", |_: StoreContextMut<'_, JobCtx>, (): ()| Ok((TICK_NANOS,)))?;
    clock.func_wrap("subscribe-instant", |mut store: StoreContextMut<'_, JobCtx>, (instant,): (u64,)| {
        let wasi = store.data_mut().wasi();
        let moment = after(wasi.began, instant);
        Ok((wasi.timer(moment)?,))
    })?;
    clock.func_wrap_async("subscribe-duration", |mut store: StoreContextMut<'_, JobCtx>, (duration,): (u64,)| {
        Box::new(async move {
            let wasi = store.data_mut().wasi();
            let moment = after(wasi.tape.now().await, duration);
            Ok((wasi.timer(moment)?,))
        })
    })
}

/// When the monotonic clock of a job that was accepted at `accepted` stood at zero.
///
/// One tick before: there are runtimes, Go's among them, that take a clock that shows zero for a broken one.
fn beginning(accepted: Timestamp) -> Timestamp {
    Timestamp::from_millis(accepted.as_millis().saturating_sub(1))
}

/// What a clock that began at `began` shows at `now`, in nanoseconds.
fn elapsed(began: Timestamp, now: Timestamp) -> u64 {
    u64::try_from(now.saturating_since(began).as_millis()).unwrap_or(u64::MAX).saturating_mul(TICK_NANOS)
}

/// The first tick that is at least so many nanoseconds after `since`.
fn after(since: Timestamp, nanos: u64) -> Timestamp {
    since.saturating_add(std::time::Duration::from_millis(nanos.div_ceil(TICK_NANOS)))
}

/// `wasi:io/poll` by the time of the job, for no more at once than an agent can hold.
///
/// A list may name the same pollable any number of times, and waiting for a million of them keeps a thread busy.
struct JobPoll<'a>(&'a mut InertWasi);

struct HasPoll;

impl HasData for HasPoll {
    type Data<'a> = JobPoll<'a>;
}

impl io::poll::Host for JobPoll<'_> {
    async fn poll(&mut self, pollables: Vec<Resource<DynPollable>>) -> wasmtime::Result<Vec<u32>> {
        if pollables.is_empty() {
            wasmtime::bail!("the agent waits for nothing");
        }
        if pollables.len() > POLLED_MAX {
            wasmtime::bail!(
                "the agent waits for {} things at once; at most {POLLED_MAX} are waited for",
                pollables.len()
            );
        }
        self.0.wait(&pollables).await
    }
}

impl io::poll::HostPollable for JobPoll<'_> {
    async fn block(&mut self, pollable: Resource<DynPollable>) -> wasmtime::Result<()> {
        self.0.wait(&[pollable]).await.map(drop)
    }

    async fn ready(&mut self, pollable: Resource<DynPollable>) -> wasmtime::Result<bool> {
        self.0.table.get(&pollable)?;
        let moment = self.0.timers.get(&pollable.rep()).copied();
        Ok(!self.0.ready(&[moment]).await.is_empty())
    }

    fn drop(&mut self, pollable: Resource<DynPollable>) -> wasmtime::Result<()> {
        self.0.timers.remove(&pollable.rep());
        io::poll::HostPollable::drop(&mut self.0.table, pollable)
    }
}

/// The most things one call waits for.
const POLLED_MAX: usize = 4096;

/// Standard output or error: bytes that become lines that become `log` events.
///
/// The library's own pipes trap the agent when they are full or grow without
/// end; this one drops lines beyond the limit and says how many.
#[derive(Clone)]
struct Printer {
    tape: Arc<Tape>,
    level: Level,
}

impl IsTerminal for Printer {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Printer {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

/// Not on any path of an agent's: its streams are those of [`OutputStream`].
impl AsyncWrite for Printer {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        self.tape.print(self.level, bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Printer {
    /// Tells what was printed, so that there is room for more.
    async fn ready(&mut self) {
        self.tape.flush().await;
    }
}

impl OutputStream for Printer {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        if bytes.len() > self.tape.may_print() {
            return Err(StreamError::trap("the agent printed more than `check-write` allowed"));
        }
        self.tape.print(self.level, &bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(self.tape.may_print())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn randomness_follows_from_the_seed_and_its_purpose() {
        use chacha20::rand_core::Rng as _;
        let draw = |seed: u8, purpose| generator(&Seed([seed; 32]), purpose).next_u64();
        assert_eq!(draw(1, "random"), draw(1, "random"));
        assert_ne!(draw(1, "random"), draw(2, "random"));
        assert_ne!(draw(1, "random"), draw(1, "insecure"));
        assert_ne!(number(&Seed([1; 32])), number(&Seed([2; 32])));
    }

    #[test]
    fn the_monotonic_clock_never_shows_zero_and_timers_go_by_it() {
        let accepted = Timestamp::from_millis(1000);
        let began = beginning(accepted);
        for (now, nanos) in [(1000, TICK_NANOS), (1001, 2 * TICK_NANOS), (1500, 501 * TICK_NANOS)] {
            let now = Timestamp::from_millis(now);
            assert_eq!(elapsed(began, now), nanos);
            assert_eq!(after(began, nanos), now);
        }
    }

    #[test]
    fn a_timer_is_never_early() {
        let since = Timestamp::from_millis(1000);
        for (nanos, expected) in [(0, 1000), (1, 1001), (1_000_000, 1001), (1_000_001, 1002)] {
            assert_eq!(after(since, nanos), Timestamp::from_millis(expected), "{nanos}");
        }
    }
}
