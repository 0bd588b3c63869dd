//! Calls that are under way while the agent goes on.
//!
//! What comes in of them is written down as it comes, in the order in which it comes, and given to the agent when it
//! asks. All the agent can learn of that order is which of some calls had something first, and that follows from the
//! order of the journal: more that came in later changes nothing about it. So no look at a pending call needs a record.

use std::collections::{BTreeMap, VecDeque};

use leasehold_core::{
    job::record::{Answer, Concluded, Outcome},
    lease::amount::Budget,
    time::Timestamp,
};

/// What came in of a call.
#[derive(Clone, Debug, PartialEq)]
pub enum News {
    /// A part of its answer.
    Part(Answer),
    /// Its end. There is nothing after it.
    Over(Concluded),
}

/// All calls of one job that have begun and of which the agent has not taken the end.
#[derive(Debug, Default)]
pub(super) struct Pending {
    calls: BTreeMap<u64, Call>,
    /// How much has come in so far.
    arrived: u64,
}

#[derive(Debug)]
struct Call {
    /// With its place in the order of everything that came in.
    news: VecDeque<(u64, News)>,
    over: bool,
    /// Only its end is wanted.
    skips: bool,
    /// How many parts have come in.
    parts: usize,
    /// What it costs if nobody learns what it did.
    reserved: Budget,
}

impl Pending {
    pub(super) fn begin(&mut self, call: u64, reserved: Budget) {
        let call_under_way = Call { news: VecDeque::new(), over: false, skips: false, parts: 0, reserved };
        self.calls.insert(call, call_under_way);
    }

    /// Whether more may come in of a call.
    pub(super) fn is_open(&self, call: u64) -> bool {
        self.calls.get(&call).is_some_and(|call| !call.over)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.calls.values().all(|call| call.over)
    }

    /// Takes what came in, unless the call is over.
    pub(super) fn push(&mut self, number: u64, news: News) {
        let Some(call) = self.calls.get_mut(&number).filter(|call| !call.over) else { return };
        if let News::Part(_) = &news {
            call.parts += 1;
            if call.skips {
                return;
            }
        }
        self.arrived += 1;
        call.over = matches!(news, News::Over(_));
        call.news.push_back((self.arrived, news));
    }

    /// Which of `calls` had something first that the agent has not taken, as an index into them.
    pub(super) fn first(&self, calls: &[u64]) -> Option<usize> {
        let arrival = |number: &u64| Some(self.calls.get(number)?.news.front()?.0);
        let first = calls.iter().enumerate().filter_map(|(index, call)| Some((arrival(call)?, index))).min();
        first.map(|(_, index)| index)
    }

    /// How many parts of a call wait for its agent, or `None` if it wants none.
    pub(super) fn waiting(&self, number: u64) -> Option<usize> {
        let call = self.calls.get(&number).filter(|call| !call.over && !call.skips)?;
        Some(call.news.len())
    }

    /// How many parts of a call have ever come in.
    pub(super) fn parts(&self, number: u64) -> usize {
        self.calls.get(&number).map_or(0, |call| call.parts)
    }

    /// Wants no parts of a call any more, but its end.
    pub(super) fn skip_parts(&mut self, number: u64) {
        if let Some(call) = self.calls.get_mut(&number) {
            call.skips = true;
            call.news.retain(|(_, news)| matches!(news, News::Over(_)));
        }
    }

    /// The next part of a call, if it is a part that came in next.
    pub(super) fn take_part(&mut self, number: u64) -> Option<Answer> {
        let call = self.calls.get_mut(&number)?;
        match call.news.pop_front()? {
            (_, News::Part(answer)) => Some(answer),
            end => {
                call.news.push_front(end);
                None
            }
        }
    }

    /// How a call failed whose end came in next.
    pub(super) fn failure(&self, number: u64) -> Option<(Timestamp, Outcome)> {
        match self.calls.get(&number)?.news.front() {
            Some((_, News::Over(Concluded { at, outcome: outcome @ Outcome::Failed { .. }, .. }))) => {
                Some((*at, outcome.clone()))
            }
            _ => None,
        }
    }

    /// What came in next of a call.
    pub(super) fn take(&mut self, number: u64) -> Option<News> {
        let (_, news) = self.calls.get_mut(&number)?.news.pop_front()?;
        if matches!(news, News::Over(_)) {
            self.calls.remove(&number);
        }
        Some(news)
    }

    /// Forgets a call that is over, whatever else came in of it, and gives its end.
    pub(super) fn take_end(&mut self, number: u64) -> Option<Concluded> {
        match self.calls.get_mut(&number)?.news.pop_back()? {
            (_, News::Over(end)) => {
                self.calls.remove(&number);
                Some(end)
            }
            part => {
                self.calls.get_mut(&number)?.news.push_back(part);
                None
            }
        }
    }

    pub(super) fn reserved(&self, call: u64) -> Budget {
        self.calls.get(&call).map(|call| call.reserved.clone()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use leasehold_core::{job::record::Outcome, protocol::json::Json, time::Timestamp};

    use super::*;

    fn over_of(call: u64) -> Concluded {
        let outcome = Outcome::Done { summary: Json::default(), answer: None };
        Concluded { at: Timestamp::from_millis(0), call, outcome, cost: Budget::new() }
    }

    fn over(call: u64) -> News {
        News::Over(over_of(call))
    }

    fn part() -> News {
        News::Part(Answer::Json(Json::default()))
    }

    #[test]
    fn the_first_is_whichever_had_something_first_that_was_not_taken() {
        let mut pending = Pending::default();
        for call in 1..=3 {
            pending.begin(call, Budget::new());
        }
        assert_eq!(pending.first(&[1, 2, 3]), None);
        for (call, news) in [(3, part()), (1, over(1)), (3, part()), (2, over(2)), (3, over(3))] {
            pending.push(call, news);
        }
        for (calls, first) in [
            (vec![1, 2, 3], Some(2)),
            (vec![1, 2], Some(0)),
            (vec![2, 1], Some(1)),
            (vec![2], Some(0)),
            (vec![9], None),
        ] {
            assert_eq!(pending.first(&calls), first, "{calls:?}");
        }
        assert_eq!(pending.take(3), Some(part()));
        assert_eq!(pending.first(&[3, 1]), Some(1)); // its next part came after
        assert_eq!(pending.take(1), Some(over(1)));
        assert_eq!(pending.first(&[1, 3, 2]), Some(1));
    }

    #[test]
    fn what_comes_after_the_end_or_of_a_call_nobody_wants_is_nothing() {
        let mut pending = Pending::default();
        pending.begin(1, Budget::new());
        pending.begin(2, Budget::new());
        pending.push(1, over(1));
        pending.push(1, part());
        assert_eq!((pending.take(1), pending.take(1)), (Some(over(1)), None));
        pending.push(2, part());
        assert_eq!(pending.take_end(2), None);
        assert!(pending.is_open(2) && pending.waiting(2) == Some(1), "a part is no end");
        pending.push(2, over(2));
        assert_eq!((pending.take_end(2), pending.take_end(2)), (Some(over_of(2)), None));
        assert!(!pending.is_open(2) && pending.is_empty() && pending.first(&[2]).is_none());
    }
}
