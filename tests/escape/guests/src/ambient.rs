//! Asks `std` for what a program on a machine has and an agent must not.

use std::{
    collections::hash_map::RandomState,
    env, fs,
    hash::BuildHasher,
    io::{self, Read},
    net::{TcpListener, TcpStream, ToSocketAddrs, UdpSocket},
    process, thread,
    time::{Instant, SystemTime},
};

use serde_json::{Value, json};

/// Tries everything and gives each answer.
pub fn report() -> Value {
    json!({
        "args": env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect::<Vec<_>>(),
        "env": env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned()).collect::<Vec<_>>(),
        "cwd": answer(env::current_dir().map(|dir| dir.display().to_string())),
        "stdin": answer(io::stdin().lock().take(1024).read_to_end(&mut Vec::new())),
        "read": answer(fs::read("/etc/passwd").map(|bytes| bytes.len())),
        "read_relative": answer(fs::read("Cargo.toml").map(|bytes| bytes.len())),
        "read_dir": answer(fs::read_dir("/").map(Iterator::count)),
        "read_dir_relative": answer(fs::read_dir(".").map(Iterator::count)),
        "write": answer(fs::write("/tmp/escaped", "escaped").map(|()| "written")),
        "tcp_connect": answer(TcpStream::connect("127.0.0.1:80").map(|_| "connected")),
        "tcp_listen": answer(TcpListener::bind("127.0.0.1:0").map(|_| "bound")),
        "udp_bind": answer(UdpSocket::bind("0.0.0.0:0").map(|_| "bound")),
        "dns": answer("localhost:80".to_socket_addrs().map(Iterator::count)),
        "dns_public": answer("example.com:80".to_socket_addrs().map(Iterator::count)),
        "tcp_connect_v6": answer(TcpStream::connect("[::1]:80").map(|_| "connected")),
        "tcp_listen_v6": answer(TcpListener::bind("[::1]:0").map(|_| "bound")),
        "udp_bind_v6": answer(UdpSocket::bind("[::]:0").map(|_| "bound")),
        "metadata": answer(fs::metadata("/").map(|_| "seen")),
        "symlink_metadata": answer(fs::symlink_metadata("/etc").map(|_| "seen")),
        "canonicalize": answer(fs::canonicalize("/etc").map(|path| path.display().to_string())),
        "read_link": answer(fs::read_link("/proc/self/exe").map(|path| path.display().to_string())),
        "create": answer(fs::File::create("/tmp/escaped").map(|_| "created")),
        "append": answer(fs::OpenOptions::new().append(true).create(true).open("/tmp/escaped").map(|_| "opened")),
        "create_dir": answer(fs::create_dir("/tmp/escaped").map(|()| "created")),
        "create_dir_all": answer(fs::create_dir_all("/tmp/escaped/deeper").map(|()| "created")),
        "remove_file": answer(fs::remove_file("/etc/passwd").map(|()| "removed")),
        "remove_dir": answer(fs::remove_dir("/tmp").map(|()| "removed")),
        "remove_dir_all": answer(fs::remove_dir_all("/tmp").map(|()| "removed")),
        "rename": answer(fs::rename("/etc/passwd", "/tmp/escaped").map(|()| "renamed")),
        "hard_link": answer(fs::hard_link("/etc/passwd", "/tmp/escaped").map(|()| "linked")),
        "copy": answer(fs::copy("/etc/passwd", "/tmp/escaped")),
        "current_exe": answer(env::current_exe().map(|path| path.display().to_string())),
        "spawn": answer(process::Command::new("/bin/sh").spawn().map(|_| "spawned")),
        "thread": answer(thread::Builder::new().spawn(|| ()).map(|_| "spawned")),
    })
}

/// Reads the wall clock and the monotonic clock.
pub fn clock() -> Value {
    #[expect(clippy::disallowed_methods, reason = "this is what the agent tries")]
    let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let before = Instant::now();
    json!({"unix_ns": unix.as_nanos().to_string(), "elapsed_ns": before.elapsed().as_nanos().to_string()})
}

/// Draws a number from the source that seeds std's hash maps.
pub fn random() -> Value {
    json!({"random": RandomState::new().hash_one(0_u8).to_string()})
}

fn answer<T: Into<Value>>(answer: io::Result<T>) -> Value {
    match answer {
        Ok(value) => json!({"ok": value.into()}),
        Err(error) => json!({"err": error.to_string()}),
    }
}
