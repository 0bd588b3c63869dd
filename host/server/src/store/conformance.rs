//! What every engine owes its callers, as tests an engine runs with one line.
//!
//! ```
//! # #[cfg(test)]
//! mod tests {
//!     leasehold::store::conformance::suite!(leasehold::store::memory::Memory::default());
//! }
//! ```
//!
//! The expression is evaluated once a test and has to give an empty engine, or something that dereferences to one and
//! keeps alive what the engine needs, such as its directory. It is evaluated inside a tokio runtime and may `.await`.
//! An engine may skip positions, so nothing here counts on the number of a position.

#![allow(clippy::unwrap_used, reason = "an engine that fails is to fail its suite")]

use std::{
    collections::BTreeSet,
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use tokio::task::JoinSet;

use super::{APPEND_BYTES_MAX, Begun, Position, Store, StoreError, Stored, StreamId};
/// Expands to one `#[test]` a rule, for the engine that the expression gives.
#[doc(inline)]
pub use crate::store_conformance_suite as suite;

/// Lives at the root of the crate because exported macros do; its name is [`suite!`].
#[doc(hidden)]
#[macro_export]
macro_rules! store_conformance_suite {
    ($engine:expr) => {
        $crate::store_conformance_suite! { $engine;
            the_first_append_needs_position_zero
            positions_grow
            a_lost_race_writes_nothing
            of_concurrent_appends_exactly_one_wins
            a_batch_is_all_or_nothing
            an_append_of_nothing_only_asks
            an_append_that_is_too_large_writes_nothing
            records_come_back_in_order_and_no_more_than_asked_for
            a_read_beyond_the_end_is_empty
            reading_on_gives_every_record_once
            large_and_empty_records_survive
            many_streams_keep_apart
            grown_returns_at_once_if_it_has_grown
            grown_wakes_every_waiter
            grown_wakes_only_for_its_stream
            a_waiter_may_leave
            a_follower_sees_what_is_appended_meanwhile
            streams_are_listed_by_prefix_in_pages
            trim_forgets_and_later_positions_stay
            an_append_after_a_trim_is_still_conditional
            grown_waits_for_a_record_that_can_be_read
            a_removed_stream_has_never_been
            a_stale_remove_forgets_nothing
            a_waiter_of_a_removed_stream_goes_on_waiting
            of_a_remove_and_an_append_one_wins
            streams_are_listed_in_the_order_in_which_they_began
            what_was_removed_takes_no_room
        }
    };
    ($engine:expr; $($case:ident)+) => {
        $(
            #[test]
            fn $case() {
                $crate::store::conformance::run(async {
                    $crate::store::conformance::$case(::std::sync::Arc::new($engine)).await;
                });
            }
        )+
    };
}

/// Runs one case on more than one thread, and ends it if it hangs.
#[doc(hidden)]
pub fn run(case: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a test can have a runtime").block_on(async {
        tokio::time::timeout(Duration::from_secs(120), case).await.expect("the case ends within two minutes");
    });
}

/// A stream that does not exist ends at zero, and only there can it begin.
pub async fn the_first_append_needs_position_zero(store: Arc<impl Store>) {
    let stream = id("job/a");
    let early = store.append(&stream, Position::new(1), records(["x"])).await;
    assert_eq!(early, Err(StoreError::Conflict { last: Position::ZERO }));
    assert_eq!(store.streams("", None, 9).await, Ok(vec![]), "a refused append makes no stream");

    let last = store.append(&stream, Position::ZERO, records(["x"])).await.unwrap();
    assert_eq!(last, Position::new(1));
    let again = store.append(&stream, Position::ZERO, records(["y"])).await;
    assert_eq!(again, Err(StoreError::Conflict { last }));
}

/// The position an append returns is that of its last record, and greater than any before.
pub async fn positions_grow(store: Arc<impl Store>) {
    let stream = id("job/a");
    let mut last = Position::ZERO;
    for batch in [1, 3, 2] {
        let next = store.append(&stream, last, vec![Bytes::from_static(b"x"); batch]).await.unwrap();
        assert!(next > last, "{next} follows {last}");
        last = next;
    }
    let all = everything(&*store, &stream, 100).await;
    assert_eq!(all.len(), 6);
    assert!(all.is_sorted_by(|one, other| one.position < other.position), "{all:?}");
    assert_eq!(all.last().map(|record| record.position), Some(last));
}

/// The loser learns where the stream ends, and the stream is as the winner left it.
pub async fn a_lost_race_writes_nothing(store: Arc<impl Store>) {
    let stream = id("job/a");
    let seen = store.append(&stream, Position::ZERO, records(["first"])).await.unwrap();
    let last = store.append(&stream, seen, records(["winner"])).await.unwrap();
    for expected in [Position::ZERO, seen, Position::new(last.get() + 1), Position::new(u64::MAX)] {
        let lost = store.append(&stream, expected, records(["loser", "loser"])).await;
        assert_eq!(lost, Err(StoreError::Conflict { last }), "after {expected}");
    }
    assert_eq!(texts(&everything(&*store, &stream, 100).await), ["first", "winner"]);
    assert!(store.append(&stream, last, records(["next"])).await.is_ok());
}

/// Round after round, of many who expect the same last position one is told that it won, and its record is there.
pub async fn of_concurrent_appends_exactly_one_wins(store: Arc<impl Store>) {
    let stream = id("job/a");
    let (mut last, mut winners) = (Position::ZERO, vec![]);
    for round in 0..8 {
        let mut racers = JoinSet::new();
        for racer in 0..16 {
            let (store, stream, name) = (Arc::clone(&store), stream.clone(), format!("{round}/{racer}"));
            racers.spawn(async move { (store.append(&stream, last, records([&name])).await, name) });
        }
        let (mut won, mut conflicts) = (vec![], vec![]);
        for (outcome, name) in racers.join_all().await {
            match outcome {
                Ok(position) => won.push((position, name)),
                Err(StoreError::Conflict { last }) => conflicts.push(last),
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(won.len(), 1, "{won:?}");
        let (position, name) = won.remove(0);
        assert!(conflicts.iter().all(|told| *told == position), "{conflicts:?} but {position}");
        winners.push(name);
        last = position;
    }
    assert_eq!(texts(&everything(&*store, &stream, 100).await), winners);
}

/// Batches of several writers stand in the stream one after the other, never one inside the other or in part.
pub async fn a_batch_is_all_or_nothing(store: Arc<impl Store>) {
    let stream = id("job/a");
    let mut writers = JoinSet::new();
    for writer in 0..6 {
        let (store, stream) = (Arc::clone(&store), stream.clone());
        writers.spawn(async move {
            let mut last = Position::ZERO;
            for batch in 0..5 {
                let name = format!("{writer}/{batch}");
                last = loop {
                    match store.append(&stream, last, records([&name, &name, &name])).await {
                        Ok(position) => break position,
                        Err(StoreError::Conflict { last: actual }) => last = actual,
                        Err(error) => panic!("{error}"),
                    }
                };
            }
        });
    }
    writers.join_all().await;
    let all = everything(&*store, &stream, 7).await;
    let all = texts(&all);
    let batches: BTreeSet<_> = all.chunks(3).inspect(|batch| assert_eq!(*batch, [batch[0]; 3])).collect();
    assert_eq!((all.len(), batches.len()), (90, 30));
}

/// An append of no records is the question whether a position is still the last.
pub async fn an_append_of_nothing_only_asks(store: Arc<impl Store>) {
    let stream = id("job/a");
    assert_eq!(store.append(&stream, Position::ZERO, vec![]).await, Ok(Position::ZERO));
    assert_eq!(store.streams("", None, 9).await, Ok(vec![]));
    let last = store.append(&stream, Position::ZERO, records(["x"])).await.unwrap();
    assert_eq!(store.append(&stream, last, vec![]).await, Ok(last));
    assert_eq!(store.append(&stream, Position::ZERO, vec![]).await, Err(StoreError::Conflict { last }));
}

/// [`APPEND_BYTES_MAX`] holds for the records together, and nobody else is hurt by an append that exceeds it.
pub async fn an_append_that_is_too_large_writes_nothing(store: Arc<impl Store>) {
    let (stream, other) = (id("job/a"), id("job/b"));
    let half = Bytes::from(vec![0; APPEND_BYTES_MAX / 2 + 1]);
    let (refused, taken) = tokio::join!(
        store.append(&stream, Position::ZERO, vec![half.clone(), half]),
        store.append(&other, Position::ZERO, records(["x"])),
    );
    assert_eq!(refused, Err(StoreError::TooLarge(APPEND_BYTES_MAX + 2)));
    assert!(taken.is_ok());
    assert_eq!(store.read(&stream, Position::ZERO, 9).await, Ok(vec![]));
    assert!(store.append(&stream, Position::ZERO, records(["x"])).await.is_ok());
}

/// A read gives the oldest records after a position.
pub async fn records_come_back_in_order_and_no_more_than_asked_for(store: Arc<impl Store>) {
    let stream = id("job/a");
    store.append(&stream, Position::ZERO, records(["a", "b", "c", "d"])).await.unwrap();
    let all = everything(&*store, &stream, 100).await;
    for (skipped, limit, expected) in [
        (0, 0, &[][..]),
        (0, 1, &["a"]),
        (0, 4, &["a", "b", "c", "d"]),
        (0, usize::MAX, &["a", "b", "c", "d"]),
        (1, 2, &["b", "c"]),
        (3, 2, &["d"]),
        (4, 2, &[]),
    ] {
        let after = if skipped == 0 { Position::ZERO } else { all[skipped - 1].position };
        let read = store.read(&stream, after, limit).await.unwrap();
        assert_eq!(texts(&read), expected, "{limit} after {skipped}");
    }
}

/// Neither the end of a stream nor its absence is an error.
pub async fn a_read_beyond_the_end_is_empty(store: Arc<impl Store>) {
    let stream = id("job/a");
    assert_eq!(store.read(&stream, Position::ZERO, 9).await, Ok(vec![]));
    let last = store.append(&stream, Position::ZERO, records(["x"])).await.unwrap();
    for after in [last, Position::new(last.get() + 1), Position::new(1 << 40), Position::new(u64::MAX)] {
        assert_eq!(store.read(&stream, after, 9).await, Ok(vec![]), "after {after}");
    }
}

/// A read may stop early for the size of what it found, but a reader that goes on misses nothing.
pub async fn reading_on_gives_every_record_once(store: Arc<impl Store>) {
    let stream = id("job/a");
    let mut last = Position::ZERO;
    for record in 0..24_u8 {
        last = store.append(&stream, last, vec![Bytes::from(vec![record; 700_000])]).await.unwrap();
    }
    let all = everything(&*store, &stream, 1000).await;
    assert_eq!(all.iter().map(|record| record.bytes[0]).collect::<Vec<_>>(), (0..24).collect::<Vec<_>>());
}

/// The bytes that come back are those that went in, whether none or a megabyte.
pub async fn large_and_empty_records_survive(store: Arc<impl Store>) {
    let stream = id("job/a");
    let large: Bytes = (0..1 << 20).map(|i: u32| i.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    let batch = vec![Bytes::new(), large.clone(), Bytes::from_static(&[0, 255, 0]), Bytes::new()];
    store.append(&stream, Position::ZERO, batch.clone()).await.unwrap();
    let all = everything(&*store, &stream, 100).await;
    assert!(all.iter().map(|record| &record.bytes).eq(&batch), "four records, one of them a megabyte");
}

/// Writers of different streams do not see each other.
pub async fn many_streams_keep_apart(store: Arc<impl Store>) {
    const STREAMS: usize = 1000;
    let mut writers = JoinSet::new();
    for number in 0..STREAMS {
        let store = Arc::clone(&store);
        writers.spawn(async move {
            let (stream, name) = (id(&format!("job/{number:04}")), number.to_string());
            let last = store.append(&stream, Position::ZERO, records([&name])).await.unwrap();
            store.append(&stream, last, records([&name, &name])).await.unwrap();
        });
    }
    writers.join_all().await;
    for number in 0..STREAMS {
        let all = everything(&*store, &id(&format!("job/{number:04}")), 100).await;
        assert_eq!(texts(&all), [number.to_string().as_str(); 3]);
    }
    assert_eq!(store.streams("job/", None, STREAMS + 1).await.unwrap().len(), STREAMS);
}

/// Nobody waits for what is already there.
pub async fn grown_returns_at_once_if_it_has_grown(store: Arc<impl Store>) {
    let stream = id("job/a");
    let first = store.append(&stream, Position::ZERO, records(["x"])).await.unwrap();
    store.append(&stream, first, records(["y", "z"])).await.unwrap();
    for after in [Position::ZERO, first] {
        assert_eq!(store.grown(&stream, after).await, Ok(()), "after {after}");
    }
}

/// Whoever waits for the next record is woken by it, even if the stream did not exist before.
pub async fn grown_wakes_every_waiter(store: Arc<impl Store>) {
    let stream = id("job/a");
    let mut last = Position::ZERO;
    for _ in 0..3 {
        let mut waiters = JoinSet::new();
        for _ in 0..8 {
            let (store, stream) = (Arc::clone(&store), stream.clone());
            waiters.spawn(async move { store.grown(&stream, last).await });
        }
        let mut waiting = std::pin::pin!(store.grown(&stream, last));
        assert!(!is_ready(waiting.as_mut()).await);
        last = store.append(&stream, last, records(["x"])).await.unwrap();
        assert_eq!(waiting.await, Ok(()));
        for outcome in waiters.join_all().await {
            assert_eq!(outcome, Ok(()));
        }
    }
}

/// A busy stream does not wake those who wait for a quiet one, nor does a record they have seen.
pub async fn grown_wakes_only_for_its_stream(store: Arc<impl Store>) {
    let (quiet, busy) = (id("job/a"), id("job/ab"));
    let seen = store.append(&quiet, Position::ZERO, records(["x"])).await.unwrap();
    let mut waiting = std::pin::pin!(store.grown(&quiet, seen));
    let mut last = Position::ZERO;
    for _ in 0..16 {
        assert!(!is_ready(waiting.as_mut()).await);
        last = store.append(&busy, last, records(["y"])).await.unwrap();
    }
    assert!(!is_ready(waiting.as_mut()).await);
    store.append(&quiet, seen, records(["z"])).await.unwrap();
    assert_eq!(waiting.await, Ok(()));
}

/// A waiter that is dropped takes nobody with it, and its stream goes on.
pub async fn a_waiter_may_leave(store: Arc<impl Store>) {
    let stream = id("job/a");
    let mut staying = std::pin::pin!(store.grown(&stream, Position::ZERO));
    assert!(!is_ready(staying.as_mut()).await);
    for _ in 0..8 {
        let mut leaving = Box::pin(store.grown(&stream, Position::ZERO));
        assert!(!is_ready(leaving.as_mut()).await);
    }
    store.append(&stream, Position::ZERO, records(["x"])).await.unwrap();
    assert_eq!(staying.await, Ok(()));
}

/// Reading and waiting in turn gives every record once and in order while a writer is at work.
pub async fn a_follower_sees_what_is_appended_meanwhile(store: Arc<impl Store>) {
    const RECORDS: usize = 300;
    let stream = id("job/a");
    let mut followers = JoinSet::new();
    for limit in [1, 2, 100] {
        let (store, stream) = (Arc::clone(&store), stream.clone());
        followers.spawn(async move {
            let mut seen: Vec<Stored> = vec![];
            while seen.len() < RECORDS {
                let after = seen.last().map_or(Position::ZERO, |record| record.position);
                store.grown(&stream, after).await.unwrap();
                let read = store.read(&stream, after, limit).await.unwrap();
                assert!(!read.is_empty(), "what has grown can be read");
                seen.extend(read);
            }
            seen
        });
    }
    let mut last = Position::ZERO;
    for number in 0..RECORDS {
        last = store.append(&stream, last, records([&number.to_string()])).await.unwrap();
    }
    let expected: Vec<_> = (0..RECORDS).map(|number| number.to_string()).collect();
    for seen in followers.join_all().await {
        assert_eq!(texts(&seen), expected);
    }
}

/// The list is in the order of the names' bytes, and a page starts after the last name of the one before.
pub async fn streams_are_listed_by_prefix_in_pages(store: Arc<impl Store>) {
    let names = ["job", "job-x", "job/", "job/A", "job/a", "job/a/1", "job/b", "job0", "key/a", "zzz"];
    for (number, name) in names.iter().enumerate().rev() {
        let batch = vec![Bytes::from_static(b"x"); number + 1];
        store.append(&id(name), Position::ZERO, batch).await.unwrap();
    }
    for (prefix, after, limit, expected) in [
        ("", None, 99, &names[..]),
        ("", None, 3, &names[..3]),
        ("", Some("job/A"), 2, &names[4..6]),
        ("", Some("zzz"), 2, &[]),
        ("job/", None, 99, &names[2..7]),
        ("job/", None, 0, &[]),
        ("job/", Some("job/a"), 99, &names[5..7]),
        ("job/", Some("job/aa"), 99, &names[6..7]), // no such stream
        ("job/", Some("a"), 1, &names[2..3]),       // before the prefix
        ("job/", Some("key"), 9, &[]),              // behind it
        ("job/a", None, 99, &names[4..6]),
        ("job_", None, 99, &[]), // `_` is a wildcard of SQL
        ("nothing", None, 99, &[]),
    ] {
        let listed = store.streams(prefix, after.map(id).as_ref(), limit).await.unwrap();
        let listed_names: Vec<_> = listed.iter().map(|(id, _)| id.as_str()).collect();
        assert_eq!(listed_names, expected, "{limit} of {prefix:?} after {after:?}");
        for (stream, last) in listed {
            assert_eq!(store.append(&stream, last, vec![]).await, Ok(last), "{stream} ends at {last}");
        }
    }
}

/// What is trimmed is gone for good, and the rest is as it was.
pub async fn trim_forgets_and_later_positions_stay(store: Arc<impl Store>) {
    let (stream, other) = (id("job/a"), id("job/b"));
    store.append(&stream, Position::ZERO, records(["a", "b", "c", "d"])).await.unwrap();
    store.append(&other, Position::ZERO, records(["x"])).await.unwrap();
    let all = everything(&*store, &stream, 100).await;
    for (up_to, left) in [
        (Position::ZERO, &all[..]),
        (all[1].position, &all[2..]),
        (all[0].position, &all[2..]), // already gone
        (all[2].position, &all[3..]),
    ] {
        assert_eq!(store.trim(&stream, up_to).await, Ok(()));
        assert_eq!(everything(&*store, &stream, 100).await, left, "trimmed up to {up_to}");
    }
    assert_eq!(store.trim(&id("nothing"), Position::new(1)).await, Ok(()));
    assert_eq!(texts(&everything(&*store, &other, 100).await), ["x"]);
    assert_eq!(store.streams("", None, 9).await.unwrap().len(), 2, "trimming makes no stream and removes none");
}

/// A stream that was trimmed to nothing does not begin again.
pub async fn an_append_after_a_trim_is_still_conditional(store: Arc<impl Store>) {
    let stream = id("job/a");
    let last = store.append(&stream, Position::ZERO, records(["a", "b"])).await.unwrap();
    store.trim(&stream, Position::new(u64::MAX)).await.unwrap();
    assert_eq!(store.read(&stream, Position::ZERO, 9).await, Ok(vec![]));
    assert_eq!(store.streams("", None, 9).await, Ok(vec![(stream.clone(), last)]));

    let unaware = store.append(&stream, Position::ZERO, records(["c"])).await;
    assert_eq!(unaware, Err(StoreError::Conflict { last }));
    let next = store.append(&stream, last, records(["c"])).await.unwrap();
    assert!(next > last);
    let all = everything(&*store, &stream, 100).await;
    assert_eq!(all, [Stored { position: next, bytes: Bytes::from_static(b"c") }]);
}

/// A trimmed record ends nobody's wait: a reader would read nothing, wait again, and never rest.
pub async fn grown_waits_for_a_record_that_can_be_read(store: Arc<impl Store>) {
    let stream = id("job/a");
    let last = store.append(&stream, Position::ZERO, records(["a", "b"])).await.unwrap();
    store.trim(&stream, last).await.unwrap();
    let mut waiting = std::pin::pin!(store.grown(&stream, Position::ZERO));
    for _ in 0..4 {
        assert!(!is_ready(waiting.as_mut()).await);
        store.streams("", None, 1).await.unwrap();
    }
    store.append(&stream, last, records(["c"])).await.unwrap();
    assert_eq!(waiting.await, Ok(()));
    assert_eq!(texts(&everything(&*store, &stream, 100).await), ["c"]);
}

/// Whatever is left of a stream that was removed, nobody can see it, and the stream can begin anew and be removed again.
pub async fn a_removed_stream_has_never_been(store: Arc<impl Store>) {
    let (stream, other) = (id("job/a"), id("job/b"));
    let kept = store.append(&other, Position::ZERO, records(["kept"])).await.unwrap();
    for life in 0..4 {
        let batch = vec![Bytes::from(format!("life {life}")); 1 + 1000 * life];
        let last = store.append(&stream, Position::ZERO, batch).await.unwrap();
        if life == 1 {
            store.trim(&stream, last).await.unwrap();
        }
        assert_eq!(store.remove(&stream, last).await, Ok(()));
        assert_eq!(store.read(&stream, Position::ZERO, 9).await, Ok(vec![]));
        assert_eq!(store.streams("", None, 9).await, Ok(vec![(other.clone(), kept)]));
        assert_eq!(store.append(&stream, Position::ZERO, vec![]).await, Ok(Position::ZERO));
        let stale = store.append(&stream, last, records(["x"])).await;
        assert_eq!(stale, Err(StoreError::Conflict { last: Position::ZERO }));
        assert_eq!(store.remove(&stream, Position::ZERO).await, Ok(()), "there is nothing to remove");
    }
    // What follows at once meets what is still being cleared away.
    let last = store.append(&stream, Position::ZERO, vec![Bytes::from_static(b"long"); 5000]).await.unwrap();
    let (removed, appended) =
        tokio::join!(store.remove(&stream, last), store.append(&stream, Position::ZERO, records(["a", "b"])));
    assert_eq!(removed, Ok(()));
    let last = appended.unwrap();
    assert_eq!(last, Position::new(2));
    assert_eq!(texts(&everything(&*store, &stream, 1).await), ["a", "b"]);
    assert_eq!(store.streams("", None, 9).await, Ok(vec![(stream, last), (other.clone(), kept)]));
    assert_eq!(texts(&everything(&*store, &other, 9).await), ["kept"]);
}

/// Whoever is behind removes nothing and learns where the stream ends.
pub async fn a_stale_remove_forgets_nothing(store: Arc<impl Store>) {
    let stream = id("job/a");
    let nothing = store.remove(&stream, Position::new(1)).await;
    assert_eq!(nothing, Err(StoreError::Conflict { last: Position::ZERO }));
    let seen = store.append(&stream, Position::ZERO, records(["a"])).await.unwrap();
    let last = store.append(&stream, seen, records(["b"])).await.unwrap();
    for expected in [Position::ZERO, seen, Position::new(last.get() + 1), Position::new(u64::MAX)] {
        assert_eq!(store.remove(&stream, expected).await, Err(StoreError::Conflict { last }), "{expected}");
    }
    assert_eq!(texts(&everything(&*store, &stream, 9).await), ["a", "b"]);
    assert_eq!(store.streams("", None, 9).await, Ok(vec![(stream, last)]));
}

/// A removal ends nobody's wait, nor does what was there before it; the next first record does.
pub async fn a_waiter_of_a_removed_stream_goes_on_waiting(store: Arc<impl Store>) {
    let stream = id("job/a");
    let last = store.append(&stream, Position::ZERO, records(["a", "b"])).await.unwrap();
    let mut early = std::pin::pin!(store.grown(&stream, last));
    assert!(!is_ready(early.as_mut()).await);
    let last = store.append(&stream, last, records(["c"])).await.unwrap();
    let mut beyond = std::pin::pin!(store.grown(&stream, last));
    assert!(!is_ready(beyond.as_mut()).await);
    store.remove(&stream, last).await.unwrap();
    assert!(!is_ready(beyond.as_mut()).await);
    let mut late = std::pin::pin!(store.grown(&stream, Position::ZERO));
    for _ in 0..4 {
        assert!(!is_ready(late.as_mut()).await, "it has nothing to read");
        assert!(!is_ready(beyond.as_mut()).await);
        store.streams("", None, 1).await.unwrap();
    }
    store.append(&stream, Position::ZERO, records(["x"])).await.unwrap();
    assert_eq!(late.await, Ok(()));
    assert!(!is_ready(beyond.as_mut()).await, "it waits for a fourth record");
    store.append(&stream, Position::new(1), records(["x", "y", "z"])).await.unwrap();
    assert_eq!(beyond.await, Ok(()));
}

/// Both expect the same last position, and the stream is as one of them left it.
pub async fn of_a_remove_and_an_append_one_wins(store: Arc<impl Store>) {
    let stream = id("job/a");
    for _ in 0..16 {
        let last = store.append(&stream, Position::ZERO, records(["a", "b"])).await.unwrap();
        let racer = |remove: bool| {
            let (store, stream) = (Arc::clone(&store), stream.clone());
            tokio::spawn(async move {
                match remove {
                    true => store.remove(&stream, last).await.map(|()| Position::ZERO),
                    false => store.append(&stream, last, records(["c"])).await,
                }
            })
        };
        let (removed, appended) = (racer(true), racer(false));
        let left = match (removed.await.unwrap(), appended.await.unwrap()) {
            (Ok(end), Err(StoreError::Conflict { last })) | (Err(StoreError::Conflict { last }), Ok(end)) => {
                assert_eq!(last, end);
                end
            }
            other => panic!("{other:?}"),
        };
        let expected: &[&str] = if left == Position::ZERO { &[] } else { &["a", "b", "c"] };
        assert_eq!(texts(&everything(&*store, &stream, 9).await), expected);
        store.remove(&stream, left).await.unwrap();
    }
}

/// A stream keeps its number, and one that begins anew is the newest.
pub async fn streams_are_listed_in_the_order_in_which_they_began(store: Arc<impl Store>) {
    assert_eq!(store.begun(0, 9).await, Ok(vec![]));
    for name in ["c", "a", "d", "b"] {
        store.append(&id(name), Position::ZERO, records(["x"])).await.unwrap();
    }
    let last = store.append(&id("a"), Position::new(1), records(["y"])).await.unwrap();
    let all = store.begun(0, 9).await.unwrap();
    let names = |begun: &[Begun]| begun.iter().map(|begun| begun.stream.to_string()).collect::<Vec<_>>();
    assert_eq!(names(&all), ["c", "a", "d", "b"]);
    assert!(all.is_sorted_by(|one, other| one.number < other.number), "{all:?}");
    assert_eq!(all[1].last, last);
    for (after, limit, expected) in [
        (0, 2, &all[..2]),
        (all[0].number, 2, &all[1..3]),
        (all[2].number, 9, &all[3..]),
        (all[3].number, 9, &[]),
        (0, 0, &[]),
        (u64::MAX, 9, &[]),
    ] {
        assert_eq!(store.begun(after, limit).await.as_deref(), Ok(expected), "{limit} after {after}");
    }
    // The newest goes, and its number with it.
    for name in ["b", "c"] {
        store.remove(&id(name), Position::new(1)).await.unwrap();
        store.append(&id(name), Position::ZERO, records(["x"])).await.unwrap();
        let newest = store.begun(all[3].number, 9).await.unwrap();
        assert_eq!(newest.last().map(|begun| begun.stream.as_str()), Some(name));
    }
    assert_eq!(names(&store.begun(0, 9).await.unwrap()), ["a", "d", "b", "c"]);
}

/// What is kept is counted, and what was trimmed or removed no longer is.
pub async fn what_was_removed_takes_no_room(store: Arc<impl Store>) {
    const MUCH: u64 = 8 << 20;
    const LITTLE: u64 = 256 << 10;
    let (many, large) = (id("job/many"), id("job/large"));
    let empty = store.size_bytes().await.unwrap();
    assert!(empty < LITTLE, "{empty}");
    let many_last = store.append(&many, Position::ZERO, vec![Bytes::from(vec![7; 1 << 10]); 8 << 10]).await.unwrap();
    let large_last = store.append(&large, Position::ZERO, vec![Bytes::from(vec![7; 1 << 20]); 8]).await.unwrap();
    let both = store.size_bytes().await.unwrap();
    assert!((2 * MUCH..3 * MUCH).contains(&both), "{both}");
    store.trim(&large, Position::new(large_last.get() / 2)).await.unwrap();
    let some = store.size_bytes().await.unwrap();
    assert!(both - some > MUCH / 2 - LITTLE, "{both} and then {some}");
    store.remove(&many, many_last).await.unwrap();
    store.remove(&large, large_last).await.unwrap();
    let none = store.size_bytes().await.unwrap();
    assert!(none < LITTLE, "{none} of {both}");
}

fn id(name: &str) -> StreamId {
    StreamId::new(name).expect("the suite's names are valid")
}

fn records<const N: usize>(texts: [&str; N]) -> Vec<Bytes> {
    texts.map(|text| Bytes::copy_from_slice(text.as_bytes())).to_vec()
}

fn texts(records: &[Stored]) -> Vec<&str> {
    records.iter().map(|record| str::from_utf8(&record.bytes).expect("the suite's records are text")).collect()
}

/// Reads a stream to its end, `limit` records at a time.
async fn everything(store: &impl Store, stream: &StreamId, limit: usize) -> Vec<Stored> {
    let mut all: Vec<Stored> = vec![];
    loop {
        let after = all.last().map_or(Position::ZERO, |record| record.position);
        let read = store.read(stream, after, limit).await.expect("the stream can be read");
        assert!(read.len() <= limit, "{} records, not {limit}", read.len());
        if read.is_empty() {
            return all;
        }
        all.extend(read);
    }
}

/// Polls once, as a caller does that has other things to do.
async fn is_ready(mut future: Pin<&mut impl Future>) -> bool {
    poll_fn(|context| Poll::Ready(future.as_mut().poll(context).is_ready())).await
}
