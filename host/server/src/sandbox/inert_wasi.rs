//! The WASI that language runtimes insist on, with nothing behind it.
//!
//! No folder, no environment, no argument, an empty standard input; sockets
//! answer access-denied; what an agent prints becomes `log` events. `wasi:http`
//! and everything else is not linked at all.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use bytes::Bytes;
use leasehold_core::{
    job::record::Record,
    protocol::event::{Event, Level},
    time::Timestamp,
};
use tokio::io::AsyncWrite;
use wasmtime::component::{HasData, Linker, Resource, ResourceTable};
use wasmtime_wasi::{
    WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView,
    cli::{IsTerminal, StdoutStream, WasiCli, WasiCliView},
    clocks::{WasiClocks, WasiClocksView},
    filesystem::{WasiFilesystem, WasiFilesystemView},
    p2::{OutputStream, Pollable, StreamResult, bindings as wasi},
    random::WasiRandom,
    sockets::{WasiSockets, WasiSocketsView},
};
use wasmtime_wasi_io::{bindings::wasi::io, poll::DynPollable};

use super::limits::Limits;
use crate::{
    capability::{JobCtx, truncate},
    clock::Clock,
    journal::Journal,
};

/// The longest line that is put together before it is cut.
const LINE_BYTES_MAX: usize = 8 << 10;

/// The WASI state of one agent.
pub struct InertWasi {
    ctx: WasiCtx,
    table: ResourceTable,
}

impl InertWasi {
    /// Makes a WASI whose standard output and error are lines in `journal`.
    #[must_use]
    pub fn new(journal: &Arc<Journal>, clock: &Clock, limits: &Limits) -> Self {
        let lines = Arc::new(Mutex::new(LineLimit { per_sec: limits.output_lines_per_sec, ..LineLimit::default() }));
        let printer = |level| Printer {
            shared: Arc::new(Mutex::new(Vec::new())),
            lines: Arc::clone(&lines),
            level,
            journal: Arc::clone(journal),
            clock: clock.clone(),
        };
        let ctx = WasiCtxBuilder::new()
            .stdout(printer(Level::Info))
            .stderr(printer(Level::Warn))
            .allow_tcp(false)
            .allow_udp(false)
            .allow_ip_name_lookup(false)
            .max_random_size(limits.random_bytes_max)
            .build();
        let mut table = ResourceTable::new();
        table.set_max_capacity(limits.handles_max);
        Self { ctx, table }
    }
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
    io::poll::add_to_linker::<JobCtx, HasPoll>(l, |job| BoundedPoll(&mut job.wasi().table))?;
    io::streams::add_to_linker::<JobCtx, Io>(l, |job| &mut job.wasi().table)?;
    wasi::clocks::wall_clock::add_to_linker::<JobCtx, WasiClocks>(l, JobCtx::clocks)?;
    wasi::clocks::monotonic_clock::add_to_linker::<JobCtx, WasiClocks>(l, JobCtx::clocks)?;
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

/// `wasi:io/poll` that waits for no more at once than an agent can hold.
///
/// A list may name the same pollable any number of times, and waiting for a million of them keeps a thread busy.
struct BoundedPoll<'a>(&'a mut ResourceTable);

struct HasPoll;

impl HasData for HasPoll {
    type Data<'a> = BoundedPoll<'a>;
}

impl io::poll::Host for BoundedPoll<'_> {
    async fn poll(&mut self, pollables: Vec<Resource<DynPollable>>) -> wasmtime::Result<Vec<u32>> {
        if pollables.len() > POLLED_MAX {
            wasmtime::bail!(
                "the agent waits for {} things at once; at most {POLLED_MAX} are waited for",
                pollables.len()
            );
        }
        io::poll::Host::poll(self.0, pollables).await
    }
}

impl io::poll::HostPollable for BoundedPoll<'_> {
    async fn block(&mut self, pollable: Resource<DynPollable>) -> wasmtime::Result<()> {
        io::poll::HostPollable::block(self.0, pollable).await
    }

    async fn ready(&mut self, pollable: Resource<DynPollable>) -> wasmtime::Result<bool> {
        io::poll::HostPollable::ready(self.0, pollable).await
    }

    fn drop(&mut self, pollable: Resource<DynPollable>) -> wasmtime::Result<()> {
        io::poll::HostPollable::drop(self.0, pollable)
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
    shared: Arc<Mutex<Vec<u8>>>,
    lines: Arc<Mutex<LineLimit>>,
    level: Level,
    journal: Arc<Journal>,
    clock: Clock,
}

/// A bucket of lines that fills up by the second.
#[derive(Default)]
struct LineLimit {
    per_sec: u32,
    second: i64,
    used: u32,
    dropped: u64,
}

impl LineLimit {
    /// Whether a line may pass now, and how many were dropped before it.
    fn admit(&mut self, now: Timestamp) -> Option<u64> {
        let second = now.as_millis().div_euclid(1000);
        if second != self.second {
            (self.second, self.used) = (second, 0);
        }
        if self.used >= self.per_sec {
            self.dropped += 1;
            return None;
        }
        self.used += 1;
        Some(std::mem::take(&mut self.dropped))
    }
}

impl Printer {
    fn print(&self, bytes: &[u8]) {
        let mut line = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            for part in piece.chunks(LINE_BYTES_MAX) {
                line.extend_from_slice(part);
                if line.ends_with(b"\n") || line.len() >= LINE_BYTES_MAX {
                    self.emit(&line);
                    line.clear();
                }
            }
        }
    }

    fn emit(&self, line: &[u8]) {
        let text = String::from_utf8_lossy(line);
        let text = text.trim_end_matches(['\n', '\r']);
        if text.is_empty() {
            return;
        }
        let at = self.clock.now();
        let Some(dropped) = self.lines.lock().unwrap_or_else(PoisonError::into_inner).admit(at) else { return };
        self.count(dropped, at);
        self.log(at, self.level, truncate(text, LINE_BYTES_MAX).into_owned());
    }

    /// Says how many lines are missing here.
    fn count(&self, dropped: u64, at: Timestamp) {
        if dropped > 0 {
            let message = format!("{dropped} printed lines were dropped: the agent prints faster than it may");
            self.log(at, Level::Warn, message);
        }
    }

    fn log(&self, at: Timestamp, level: Level, message: String) {
        // A full or failed journal ends the job by other ways; a printed line is not worth a second one.
        let _ = self.journal.append(&Record::Event { at, event: Event::Log { level, message } });
    }
}

impl Drop for Printer {
    /// The last line may lack its line feed, and what was dropped after the last one that passed is still to be counted.
    fn drop(&mut self) {
        let mut line = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        if Arc::strong_count(&self.shared) == 1 && !line.is_empty() {
            self.emit(&line);
            line.clear();
        }
        if Arc::strong_count(&self.lines) == 1 {
            let dropped = std::mem::take(&mut self.lines.lock().unwrap_or_else(PoisonError::into_inner).dropped);
            self.count(dropped, self.clock.now());
        }
    }
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

impl AsyncWrite for Printer {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        self.print(bytes);
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
    async fn ready(&mut self) {}
}

impl OutputStream for Printer {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.print(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(64 << 10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_beyond_the_limit_are_dropped_and_counted() {
        let mut limit = LineLimit { per_sec: 2, ..LineLimit::default() };
        let at = |millis| Timestamp::from_millis(millis);
        let admitted: Vec<_> = [0, 1, 2, 3, 1000, 1001].map(|millis| limit.admit(at(millis))).into();
        assert_eq!(admitted, [Some(0), Some(0), None, None, Some(2), Some(0)]);
    }
}
