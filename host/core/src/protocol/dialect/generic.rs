//! The draft's own spelling, which most clients read.

use std::time::Duration;

use super::{BudgetForm, Dialect, StoppedForm};

pub const DIALECT: Dialect = Dialect {
    name: "generic",
    budget: BudgetForm::Number,
    stopped: StoppedForm::Error,
    subscribe_pause: Duration::ZERO,
};
