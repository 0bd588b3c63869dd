//! What came of the calls of a job's key, as the job's journal tells it (ARCP §9.8, §14).

use std::collections::BTreeMap;

use rust_decimal::{Decimal, prelude::ToPrimitive as _};

use crate::{
    error::ErrorCode,
    id::CredentialId,
    lease::{Namespace, target::ModelName},
    protocol::event::Event,
};

const CREDENTIAL: &str = "credential_id";
const MODEL: &str = "model";
const DECISION: &str = "decision";
const OUTCOME: &str = "outcome";
const DONE: &str = "done";

/// Whether the lease let a call through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Decision {
    /// It did, whatever came of the call.
    Allowed,
    /// It did not.
    Refused,
}

impl Decision {
    fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Refused => "denied",
        }
    }
}

/// Calls of which there is nothing to tell apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kind {
    /// Which model was asked for.
    pub model: ModelName,
    /// What was decided.
    pub decision: Decision,
    /// Why there was no answer, or not all of it.
    pub problem: Option<&'static str>,
}

impl Kind {
    /// A call that was refused.
    #[must_use]
    pub fn denied(model: &ModelName, code: ErrorCode) -> Self {
        Self { model: model.clone(), decision: Decision::Refused, problem: Some(code.as_str()) }
    }

    /// A call that was let through, and is over.
    #[must_use]
    pub fn allowed(model: &ModelName, problem: Option<ErrorCode>) -> Self {
        Self { model: model.clone(), decision: Decision::Allowed, problem: problem.map(ErrorCode::as_str) }
    }

    /// The same of whatever models, where there are too many to tell them apart.
    #[must_use]
    pub fn of_any_model(self) -> Self {
        Self { model: ModelName::parse("*").expect("a name of one character is one"), ..self }
    }

    /// The event that tells of `count` such calls of a key.
    #[must_use]
    pub fn told(&self, credential: CredentialId, count: u64) -> Event {
        let dimensions = [
            (CREDENTIAL, credential.to_string()),
            (MODEL, self.model.to_string()),
            (DECISION, self.decision.as_str().to_owned()),
            (OUTCOME, self.problem.unwrap_or(DONE).to_owned()),
        ];
        Event::Metric {
            name: Namespace::ModelUse.to_string(),
            value: Decimal::from(count),
            unit: Some("calls".to_owned()),
            dimensions: dimensions.map(|(key, value)| (key.to_owned(), value)).into_iter().collect::<BTreeMap<_, _>>(),
        }
    }
}

/// How many calls of a key an event tells of, and what was decided about them.
///
/// An agent may say the same of itself: it is evidence only where the host says it, in an `aside`.
#[must_use]
pub fn told_by(event: &Event) -> Option<(Decision, u64)> {
    let Event::Metric { name, value, dimensions, .. } = event else { return None };
    let said = dimensions.get(DECISION).filter(|_| name == Namespace::ModelUse.as_str())?;
    let decision = [Decision::Allowed, Decision::Refused].into_iter().find(|decision| decision.as_str() == said)?;
    Some((decision, value.to_u64()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Ulid;

    #[test]
    fn what_is_told_of_a_key_is_read_back() {
        let (id, model) = (CredentialId::new(Ulid::from_parts(0, 1)), ModelName::parse("fast/small").unwrap());
        for (kind, outcome, expected) in [
            (Kind::denied(&model, ErrorCode::PermissionDenied), "PERMISSION_DENIED", Decision::Refused),
            (Kind::allowed(&model, Some(ErrorCode::Timeout)), "TIMEOUT", Decision::Allowed),
            (Kind::allowed(&model, None), "done", Decision::Allowed),
        ] {
            let event = kind.told(id, 3);
            let Event::Metric { dimensions, .. } = &event else { panic!("{event:?}") };
            assert_eq!((dimensions[OUTCOME].as_str(), told_by(&event)), (outcome, Some((expected, 3))), "{kind:?}");
        }
        let other = Event::Status { phase: "allowed".into(), message: None };
        assert_eq!(told_by(&other), None);
    }
}
