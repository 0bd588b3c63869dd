//! One job, from acceptance to its one end (ARCP §7).

pub mod balance;
pub mod charges;
pub mod chunks;
pub mod key_calls;
pub mod record;
pub mod seen;
