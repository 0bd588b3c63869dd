//! A host that is killed, a disk that fails: what was shown is kept, and what was accepted has an end.

mod calls;
mod damage;
mod full;
mod idle;
mod killed;
mod recovery;
mod replay;
mod retention;
mod sessions;
mod sockets;
mod store;
