//! Turns at a name: two changes of one name never overlap within this host.
//!
//! What a change finds is written down before it begins, so that a recovery
//! can tell whether it took place. That is of use only if no other job changes
//! the name in between; so whoever changes a name holds it, from the look
//! until the outcome is known.
//!
//! The key is where the name really is: the mount's folder, with its own links
//! resolved when it was opened, and the names beneath, where no link is
//! followed. Two mounts of one folder, or one inside the other, are thus one
//! name. A bind mount, and a hard link, is another; and so is whatever is done
//! by other programs.

use std::{
    collections::{HashMap, hash_map::RandomState},
    hash::BuildHasher as _,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use leasehold_core::lease::gate::Permit;
use tokio::sync::{Mutex as Turn, OwnedMutexGuard};

use super::{Changes, Mounts};

/// The turn at one name; it ends when this is dropped, on whatever thread.
#[derive(Debug)]
#[must_use = "the name is held until this is dropped"]
pub struct Held {
    _turn: OwnedMutexGuard<()>,
}

/// The names that are held, and those that were a moment ago.
///
/// A name stands here as its hash, with a key that nobody knows: names are as
/// long as agents make them. Two names of one hash would wait for each other,
/// and nothing else.
#[derive(Debug, Default)]
pub(super) struct Names {
    turns: Mutex<HashMap<u64, Weak<Turn<()>>>>,
    keyed: RandomState,
}

impl Names {
    fn turn_at(&self, name: &str) -> Arc<Turn<()>> {
        let key = self.keyed.hash_one(name);
        // Nothing panics with it, and a table that is half changed is a table.
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(turn) = turns.get(&key).and_then(Weak::upgrade) {
            return turn;
        }
        if turns.len() == turns.capacity() {
            // Instead of growing for names that nobody holds any more.
            turns.retain(|_, turn| turn.strong_count() > 0);
            let held = turns.len();
            turns.shrink_to(2 * held);
            turns.reserve(held + 1);
        }
        let turn = Arc::default();
        turns.insert(key, Arc::downgrade(&turn));
        turn
    }
}

impl Mounts {
    /// Waits for the turn to change the name of `permit`.
    ///
    /// Those who wait for one name have it in the order in which they asked.
    /// Whoever holds a name may wait for a place among the effects under way,
    /// and not the other way round: places taken by those who wait would be
    /// missing to the one they wait for. For the same reason one job holds one name.
    pub fn hold<Op: Changes>(&self, permit: &Permit<Op>) -> impl Future<Output = Held> + Send + use<Op> {
        let path = permit.op().path();
        let name = match self.find(path) {
            Ok((root, names)) => root.real.join(names.iter().collect::<PathBuf>()),
            Err(_) => PathBuf::from(path.to_string()), // there is nothing to change
        };
        // A file system that ignores case has one file for several spellings.
        let turn = self.names.turn_at(&name.to_string_lossy().to_lowercase());
        async { Held { _turn: turn.lock_owned().await } }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use leasehold_core::lease::operation::{AppendFile, Remove, WriteFile};

    use super::super::tests::{House, mounts, permit};

    #[tokio::test]
    async fn one_name_is_held_once_by_whatever_path_it_has() {
        let house = House::new();
        let dir = house.path("dir");
        std::os::unix::fs::symlink(&dir, house.path("link")).unwrap();
        let mounts = mounts(&[
            ("/w", house.inside.path(), true),
            ("/again", house.inside.path(), true),
            ("/inner", &dir, true),
            ("/linked", &house.path("link"), true),
        ]);
        let held = mounts.hold(&permit(WriteFile::parse("/w/dir/a").unwrap())).await;
        for (path, free) in [
            ("/w/dir/a", false),
            ("/w/dir/A", false),
            ("/again/dir/a", false),
            ("/inner/a", false),
            ("/linked/a", false),
            ("/w/dir/b", true),
            ("/w/dir", true),
            ("/w/dir/a/b", true),
            ("/nowhere", true),
        ] {
            let now = futures_util::poll!(pin!(mounts.hold(&permit(Remove::parse(path).unwrap()))));
            assert_eq!(now.is_ready(), free, "{path}");
        }
        let mut next = pin!(mounts.hold(&permit(AppendFile::parse("/inner/a").unwrap())));
        let mut last = pin!(mounts.hold(&permit(AppendFile::parse("/w/dir/a").unwrap())));
        assert!(futures_util::poll!(&mut next).is_pending());
        assert!(futures_util::poll!(&mut last).is_pending());
        // An effect ends on another thread than it was asked for.
        std::thread::spawn(move || drop(held)).join().unwrap();
        assert!(futures_util::poll!(&mut last).is_pending(), "it came later");
        drop(next.await);
        drop(last.await);
    }

    #[tokio::test]
    async fn names_that_nobody_holds_are_forgotten() {
        let house = House::new();
        let mounts = house.mounts();
        let held = mounts.hold(&permit(WriteFile::parse("/w/held").unwrap())).await;
        for n in 0..10_000 {
            drop(mounts.hold(&permit(WriteFile::parse(&format!("/w/{n}")).unwrap())).await);
        }
        let known = mounts.names.turns.lock().unwrap().len();
        assert!(known < 100, "{known}");
        assert!(futures_util::poll!(pin!(mounts.hold(&permit(WriteFile::parse("/w/held").unwrap())))).is_pending());
        drop(held);
    }
}
