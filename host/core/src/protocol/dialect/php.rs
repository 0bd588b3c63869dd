//! The PHP SDK of the 1.1 draft.
//!
//! It finds every answer by `correlation_id`, is refused by `nack`, and reads
//! events in no other wrapping than that of a subscription.

use super::{
    Dialect, EventForm,
    RefusalForm::{Nack, SessionRejected},
    Refusals, generic,
};

pub const DIALECT: Dialect = Dialect {
    name: "php",
    refusals: Refusals { session: SessionRejected, submit: Nack, list: Nack, subscribe: Nack, other: Nack },
    event: EventForm::Wrapped,
    ..generic::DIALECT
};
