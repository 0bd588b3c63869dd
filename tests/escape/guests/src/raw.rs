//! Every function of the WASI that is linked, called by itself and not through `std`.
//!
//! Some can be called by anybody: [`report`]. The others need something to be called on, a descriptor or a socket, and an
//! agent has none; it can only claim to: [`on_a_forged_handle`].

use std::mem::ManuallyDrop;

use serde_json::{Value, json};
use wasip2::{
    cli::{environment, stderr, stdin, stdout, terminal_stderr, terminal_stdin, terminal_stdout},
    clocks::{monotonic_clock, wall_clock},
    filesystem::{
        preopens,
        types::{
            Advice, Descriptor, DescriptorFlags, DirectoryEntryStream, NewTimestamp, OpenFlags, PathFlags,
            filesystem_error_code,
        },
    },
    io::{error::Error, poll, streams::InputStream},
    random::{insecure, insecure_seed, random},
    sockets::{
        instance_network::instance_network,
        ip_name_lookup::{ResolveAddressStream, resolve_addresses},
        network::{IpAddressFamily, IpSocketAddress, Ipv4SocketAddress, Network},
        tcp::{ShutdownType, TcpSocket},
        tcp_create_socket::create_tcp_socket,
        udp::{IncomingDatagramStream, OutgoingDatagram, OutgoingDatagramStream, UdpSocket},
        udp_create_socket::create_udp_socket,
    },
};

/// Nobody was ever given it.
const FORGED: u32 = 4000;

fn answer<T, E: std::fmt::Debug>(answer: Result<T, E>, show: impl FnOnce(T) -> Value) -> Value {
    match answer {
        Ok(value) => json!({ "ok": show(value) }),
        Err(error) => json!({ "err": format!("{error:?}") }),
    }
}

/// Calls what can be called without anything, and gives each answer.
pub fn report() -> Value {
    let (input, output, errors) = (stdin::get_stdin(), stdout::get_stdout(), stderr::get_stderr());
    let network = instance_network();
    let size = |bytes: Vec<u8>| json!(bytes.len());
    let none = |()| Value::Null;
    let count = |count: u64| json!(count);
    let resolved = |name: &str| answer(resolve_addresses(&network, name), |_| json!("resolving"));
    let moment = monotonic_clock::now();
    let soon = [monotonic_clock::subscribe_duration(1), monotonic_clock::subscribe_instant(moment)];
    let ready = poll::poll(&[&soon[0], &soon[1]]).len();
    soon.iter().for_each(poll::Pollable::block);
    output.subscribe().block();
    errors.subscribe().block();
    input.subscribe().block();
    let mut report = json!({
        "get-environment": environment::get_environment(),
        "get-arguments": environment::get_arguments(),
        "initial-cwd": environment::initial_cwd(),
        "get-directories": preopens::get_directories().len(),
        "get-terminal-stdin": terminal_stdin::get_terminal_stdin().is_some(),
        "get-terminal-stdout": terminal_stdout::get_terminal_stdout().is_some(),
        "get-terminal-stderr": terminal_stderr::get_terminal_stderr().is_some(),
        "input.read": answer(input.read(1024), size),
        "input.blocking-read": answer(input.blocking_read(1024), size),
        "input.skip": answer(input.skip(1024), count),
        "input.blocking-skip": answer(input.blocking_skip(1024), count),
        "output.splice": answer(output.splice(&input, 1024), count),
        "output.blocking-splice": answer(output.blocking_splice(&input, 1024), count),
        "create-tcp-socket ipv4": answer(create_tcp_socket(IpAddressFamily::Ipv4), |_| json!("a socket")),
        "create-tcp-socket ipv6": answer(create_tcp_socket(IpAddressFamily::Ipv6), |_| json!("a socket")),
        "create-udp-socket ipv4": answer(create_udp_socket(IpAddressFamily::Ipv4), |_| json!("a socket")),
        "create-udp-socket ipv6": answer(create_udp_socket(IpAddressFamily::Ipv6), |_| json!("a socket")),
        "resolve-addresses localhost": resolved("localhost"),
        "resolve-addresses example.com": resolved("example.com"),
        "resolve-addresses 127.0.0.1": resolved("127.0.0.1"),
        "resolve-addresses ::1": resolved("::1"),
        "resolve-addresses nothing": resolved(""),
    });
    // What these give is the job's own: its time, its chance, its log.
    report["own"] = json!({
        "output.check-write": answer(output.check_write(), count),
        "output.write": answer(output.write(b"a"), none),
        "output.flush": answer(output.flush(), none),
        "output.blocking-flush": answer(output.blocking_flush(), none),
        "output.blocking-write-and-flush": answer(output.blocking_write_and_flush(b"b"), none),
        "output.write-zeroes": answer(errors.write_zeroes(1), none),
        "output.blocking-write-zeroes-and-flush": answer(errors.blocking_write_zeroes_and_flush(1), none),
        "poll": ready,
        "pollable.ready": soon.iter().all(poll::Pollable::ready),
        "monotonic-clock.resolution": monotonic_clock::resolution(),
        "wall-clock.resolution": wall_clock::resolution().nanoseconds,
        "wall-clock.now": wall_clock::now().seconds > 0,
        "get-random-bytes": random::get_random_bytes(8).len(),
        "get-random-u64": random::get_random_u64().to_string(),
        "get-insecure-random-bytes": insecure::get_insecure_random_bytes(8).len(),
        "get-insecure-random-u64": insecure::get_insecure_random_u64().to_string(),
        "insecure-seed": insecure_seed::insecure_seed().0.to_string(),
    });
    report
}

/// Makes the functions that are called on something, by their names.
macro_rules! functions {
    ($($name:literal => $call:expr,)*) => {
        /// Their names.
        pub fn names() -> Vec<&'static str> {
            vec![$($name),*]
        }

        /// Calls one of them on what nobody was given; gives whatever it says, should it ever come back.
        pub fn on_a_forged_handle(name: &str) -> Option<Value> {
            match name {
                $($name => Some(json!(format!("{:?}", $call))),)*
                _ => None,
            }
        }
    };
}

/// Claims to have been given something.
macro_rules! forged {
    ($what:ty) => {
        // SAFETY: a handle is a number to the guest; that this one is nobody's is the host's to find out.
        ManuallyDrop::new(unsafe { <$what>::from_handle(FORGED) })
    };
}

fn address() -> IpSocketAddress {
    IpSocketAddress::Ipv4(Ipv4SocketAddress { port: 80, address: (127, 0, 0, 1) })
}

functions! {
    "descriptor.read-via-stream" => forged!(Descriptor).read_via_stream(0).is_ok(),
    "descriptor.write-via-stream" => forged!(Descriptor).write_via_stream(0).is_ok(),
    "descriptor.append-via-stream" => forged!(Descriptor).append_via_stream().is_ok(),
    "descriptor.advise" => forged!(Descriptor).advise(0, 1, Advice::Normal),
    "descriptor.sync-data" => forged!(Descriptor).sync_data(),
    "descriptor.get-flags" => forged!(Descriptor).get_flags(),
    "descriptor.get-type" => forged!(Descriptor).get_type(),
    "descriptor.set-size" => forged!(Descriptor).set_size(0),
    "descriptor.set-times" => forged!(Descriptor).set_times(NewTimestamp::Now, NewTimestamp::Now),
    "descriptor.read" => forged!(Descriptor).read(1024, 0),
    "descriptor.write" => forged!(Descriptor).write(b"escaped", 0),
    "descriptor.read-directory" => forged!(Descriptor).read_directory().is_ok(),
    "descriptor.sync" => forged!(Descriptor).sync(),
    "descriptor.create-directory-at" => forged!(Descriptor).create_directory_at("/tmp/escaped"),
    "descriptor.stat" => forged!(Descriptor).stat(),
    "descriptor.stat-at" => forged!(Descriptor).stat_at(PathFlags::empty(), "/etc/passwd"),
    "descriptor.set-times-at" =>
        forged!(Descriptor).set_times_at(PathFlags::empty(), "/etc", NewTimestamp::Now, NewTimestamp::Now),
    "descriptor.link-at" =>
        forged!(Descriptor).link_at(PathFlags::empty(), "/etc/passwd", &forged!(Descriptor), "/tmp/escaped"),
    "descriptor.open-at" =>
        forged!(Descriptor).open_at(PathFlags::empty(), "/etc", OpenFlags::empty(), DescriptorFlags::READ).is_ok(),
    "descriptor.readlink-at" => forged!(Descriptor).readlink_at("/proc/self/exe"),
    "descriptor.remove-directory-at" => forged!(Descriptor).remove_directory_at("/tmp"),
    "descriptor.rename-at" => forged!(Descriptor).rename_at("/etc/passwd", &forged!(Descriptor), "/tmp/escaped"),
    "descriptor.symlink-at" => forged!(Descriptor).symlink_at("/etc/passwd", "/tmp/escaped"),
    "descriptor.unlink-file-at" => forged!(Descriptor).unlink_file_at("/etc/passwd"),
    "descriptor.is-same-object" => forged!(Descriptor).is_same_object(&forged!(Descriptor)),
    "descriptor.metadata-hash" => forged!(Descriptor).metadata_hash(),
    "descriptor.metadata-hash-at" => forged!(Descriptor).metadata_hash_at(PathFlags::empty(), "/etc"),
    "directory-entry-stream.read-directory-entry" => forged!(DirectoryEntryStream).read_directory_entry(),
    "filesystem-error-code" => filesystem_error_code(&forged!(Error)),
    "error.to-debug-string" => forged!(Error).to_debug_string(),
    "input-stream.read" => forged!(InputStream).read(1024),
    "input-stream.subscribe" => { forged!(InputStream).subscribe().block(); },
    "resolve-addresses" => resolve_addresses(&forged!(Network), "localhost").is_ok(),
    "resolve-address-stream.resolve-next-address" => forged!(ResolveAddressStream).resolve_next_address(),
    "resolve-address-stream.subscribe" => { forged!(ResolveAddressStream).subscribe().block(); },
    "tcp-socket.start-bind" => forged!(TcpSocket).start_bind(&instance_network(), address()),
    "tcp-socket.finish-bind" => forged!(TcpSocket).finish_bind(),
    "tcp-socket.start-connect" => forged!(TcpSocket).start_connect(&instance_network(), address()),
    "tcp-socket.finish-connect" => forged!(TcpSocket).finish_connect().is_ok(),
    "tcp-socket.start-listen" => forged!(TcpSocket).start_listen(),
    "tcp-socket.finish-listen" => forged!(TcpSocket).finish_listen(),
    "tcp-socket.accept" => forged!(TcpSocket).accept().is_ok(),
    "tcp-socket.local-address" => forged!(TcpSocket).local_address(),
    "tcp-socket.remote-address" => forged!(TcpSocket).remote_address(),
    "tcp-socket.is-listening" => forged!(TcpSocket).is_listening(),
    "tcp-socket.address-family" => forged!(TcpSocket).address_family(),
    "tcp-socket.set-listen-backlog-size" => forged!(TcpSocket).set_listen_backlog_size(1),
    "tcp-socket.keep-alive-enabled" => forged!(TcpSocket).keep_alive_enabled(),
    "tcp-socket.set-keep-alive-enabled" => forged!(TcpSocket).set_keep_alive_enabled(true),
    "tcp-socket.keep-alive-idle-time" => forged!(TcpSocket).keep_alive_idle_time(),
    "tcp-socket.set-keep-alive-idle-time" => forged!(TcpSocket).set_keep_alive_idle_time(1),
    "tcp-socket.keep-alive-interval" => forged!(TcpSocket).keep_alive_interval(),
    "tcp-socket.set-keep-alive-interval" => forged!(TcpSocket).set_keep_alive_interval(1),
    "tcp-socket.keep-alive-count" => forged!(TcpSocket).keep_alive_count(),
    "tcp-socket.set-keep-alive-count" => forged!(TcpSocket).set_keep_alive_count(1),
    "tcp-socket.hop-limit" => forged!(TcpSocket).hop_limit(),
    "tcp-socket.set-hop-limit" => forged!(TcpSocket).set_hop_limit(1),
    "tcp-socket.receive-buffer-size" => forged!(TcpSocket).receive_buffer_size(),
    "tcp-socket.set-receive-buffer-size" => forged!(TcpSocket).set_receive_buffer_size(1),
    "tcp-socket.send-buffer-size" => forged!(TcpSocket).send_buffer_size(),
    "tcp-socket.set-send-buffer-size" => forged!(TcpSocket).set_send_buffer_size(1),
    "tcp-socket.subscribe" => { forged!(TcpSocket).subscribe().block(); },
    "tcp-socket.shutdown" => forged!(TcpSocket).shutdown(ShutdownType::Both),
    "udp-socket.start-bind" => forged!(UdpSocket).start_bind(&instance_network(), address()),
    "udp-socket.finish-bind" => forged!(UdpSocket).finish_bind(),
    "udp-socket.stream" => forged!(UdpSocket).stream(None).is_ok(),
    "udp-socket.local-address" => forged!(UdpSocket).local_address(),
    "udp-socket.remote-address" => forged!(UdpSocket).remote_address(),
    "udp-socket.address-family" => forged!(UdpSocket).address_family(),
    "udp-socket.unicast-hop-limit" => forged!(UdpSocket).unicast_hop_limit(),
    "udp-socket.set-unicast-hop-limit" => forged!(UdpSocket).set_unicast_hop_limit(1),
    "udp-socket.receive-buffer-size" => forged!(UdpSocket).receive_buffer_size(),
    "udp-socket.set-receive-buffer-size" => forged!(UdpSocket).set_receive_buffer_size(1),
    "udp-socket.send-buffer-size" => forged!(UdpSocket).send_buffer_size(),
    "udp-socket.set-send-buffer-size" => forged!(UdpSocket).set_send_buffer_size(1),
    "udp-socket.subscribe" => { forged!(UdpSocket).subscribe().block(); },
    "incoming-datagram-stream.receive" => forged!(IncomingDatagramStream).receive(1).is_ok(),
    "incoming-datagram-stream.subscribe" => { forged!(IncomingDatagramStream).subscribe().block(); },
    "outgoing-datagram-stream.check-send" => forged!(OutgoingDatagramStream).check_send(),
    "outgoing-datagram-stream.send" => {
        let datagram = OutgoingDatagram { data: b"escaped".to_vec(), remote_address: Some(address()) };
        forged!(OutgoingDatagramStream).send(&[datagram])
    },
    "outgoing-datagram-stream.subscribe" => { forged!(OutgoingDatagramStream).subscribe().block(); },
}
