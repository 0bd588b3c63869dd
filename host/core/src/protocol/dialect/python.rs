//! PyPI `agentruntimecontrolprotocol` 1.1.
//!
//! Its model of `job.accepted` takes counters as amount texts, and its model
//! of `job.error` knows no other `final_status` than `error`: either one ends
//! the client's reader.

use std::time::Duration;

use super::{
    BudgetForm, Dialect, StoppedForm,
    generic::{self, BY_SESSION_ERROR},
};

pub const DIALECT: Dialect = Dialect {
    name: "python",
    refusals: BY_SESSION_ERROR,
    budget: BudgetForm::Amount,
    stopped: StoppedForm::Result,
    // Its reader drops what comes before the task that subscribed has run again.
    subscribe_pause: Duration::from_millis(50),
    only_bearer: true,
    ..generic::DIALECT
};
