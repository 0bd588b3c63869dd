//! What waits to be written, and what of it goes into the next commit.
//!
//! A commit takes as long as what is written in it, and whoever comes meanwhile waits for all of that. So of large appends
//! only few share a commit, and small ones go before those that are left. Commands for one stream keep their order.

use std::collections::{HashSet, VecDeque};

use tokio::sync::mpsc::{self, error::TryRecvError};

use super::{Command, Message, SqliteOptions};

/// Commands in the order in which they came.
pub(super) struct Queue {
    messages: mpsc::UnboundedReceiver<Message>,
    waiting: VecDeque<Command>,
    /// Nothing that comes now is taken.
    closing: bool,
}

impl Queue {
    pub(super) fn new(messages: mpsc::UnboundedReceiver<Message>) -> Self {
        Self { messages, waiting: VecDeque::new(), closing: false }
    }

    /// Takes what has come.
    pub(super) fn receive(&mut self) {
        while !self.closing && self.waiting.len() < WAITING_MAX {
            match self.messages.try_recv() {
                Ok(message) => self.take(message),
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Disconnected) => self.closing = true,
            }
        }
    }

    /// Waits until something has come, and takes all of that.
    pub(super) fn wait(&mut self) {
        if self.waiting.is_empty() && !self.closing {
            match self.messages.blocking_recv() {
                Some(message) => self.take(message),
                None => self.closing = true,
            }
            self.receive();
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether there is nothing to do and never will be.
    pub(super) fn is_over(&self) -> bool {
        self.closing && self.waiting.is_empty()
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Do(command) => self.waiting.push_back(command),
            Message::Close => self.closing = true,
        }
    }

    /// Takes what is to be done next, together, up to the bounds of a group; the append that reaches a bound is the last.
    pub(super) fn group(&mut self, options: &SqliteOptions) -> Vec<Command> {
        let (mut records_left, mut bytes_left, mut large_bytes_left) =
            (options.group_max_records, options.group_max_bytes, LARGE_BYTES_MAX);
        let (mut group, mut later) = (Vec::new(), VecDeque::new());
        // Streams of which something is to be done later.
        let mut later_streams = HashSet::new();
        while records_left > 0
            && bytes_left > 0
            && group.len() < GROUP_COMMANDS_MAX
            && let Some(command) = self.waiting.pop_front()
        {
            // Whoever left before the writing began is spared it.
            if command.reply.is_closed() {
                continue;
            }
            let (records, bytes) = command.size();
            let is_large = bytes > SMALL_BYTES_MAX;
            if later_streams.contains(&command.stream) || is_large && large_bytes_left == 0 {
                later_streams.insert(command.stream.clone());
                later.push_back(command);
                continue;
            }
            if is_large {
                large_bytes_left = large_bytes_left.saturating_sub(bytes);
            }
            records_left = records_left.saturating_sub(records);
            bytes_left = bytes_left.saturating_sub(bytes);
            group.push(command);
        }
        later.append(&mut self.waiting);
        self.waiting = later;
        group
    }
}

/// An append up to this size is small.
const SMALL_BYTES_MAX: usize = 16 << 10;

/// Large appends share a commit until they have so many bytes.
const LARGE_BYTES_MAX: usize = 256 << 10;

/// A group is committed once it has this many commands, of which some write nothing.
pub(super) const GROUP_COMMANDS_MAX: usize = 4096;

/// How many commands are looked through for small ones.
const WAITING_MAX: usize = 4 * GROUP_COMMANDS_MAX;

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tokio::sync::oneshot;

    use super::{
        super::{Action, Outcome},
        *,
    };
    use crate::store::{Position, StreamId};

    /// A queue in which there are appends of these sizes to these streams, and who waits for them.
    fn queue(appends: &[(&str, usize)]) -> (Queue, Vec<oneshot::Receiver<Outcome>>) {
        let (sender, messages) = mpsc::unbounded_channel();
        let mut outcomes = Vec::new();
        for (stream, bytes) in appends {
            let (reply, outcome) = oneshot::channel();
            outcomes.push(outcome);
            let action = Action::Append { last: Position::ZERO, records: vec![Bytes::from(vec![0; *bytes])] };
            let command = Command { stream: StreamId::new(stream).unwrap(), action, reply };
            assert!(sender.send(Message::Do(command)).is_ok());
        }
        let mut queue = Queue::new(messages);
        queue.receive();
        (queue, outcomes)
    }

    /// The streams of each group.
    fn groups(queue: &mut Queue) -> Vec<String> {
        let mut groups = Vec::new();
        while !queue.is_empty() {
            let group = queue.group(&SqliteOptions::default());
            groups.push(group.iter().map(|command| command.stream.as_str()).collect());
        }
        groups
    }

    #[test]
    fn small_appends_go_before_large_ones_that_have_no_room() {
        let half = LARGE_BYTES_MAX / 2;
        let (mut waiting, _outcomes) =
            queue(&[("a", half), ("b", half), ("c", half), ("d", 1), ("e", half), ("f", half), ("g", 1)]);
        assert_eq!(groups(&mut waiting), ["abdg", "ce", "f"]);
        let (mut waiting, _outcomes) = queue(&[("a", 2 * LARGE_BYTES_MAX), ("b", half), ("c", SMALL_BYTES_MAX)]);
        assert_eq!(groups(&mut waiting), ["ac", "b"]);
    }

    #[test]
    fn what_is_to_be_done_to_one_stream_keeps_its_order() {
        let large = LARGE_BYTES_MAX;
        let (mut waiting, _outcomes) = queue(&[("a", large), ("b", large), ("b", 1), ("c", 1), ("b", large)]);
        assert_eq!(groups(&mut waiting), ["ac", "bb", "b"]);
    }

    #[test]
    fn whoever_left_is_passed_over_and_the_others_wait_their_turn() {
        let (mut waiting, mut outcomes) = queue(&[("a", 1), ("b", 1), ("c", 1)]);
        drop(outcomes.remove(1));
        let options = SqliteOptions { group_max_records: 1, ..SqliteOptions::default() };
        assert_eq!(waiting.group(&options)[0].stream.as_str(), "a");
        assert_eq!(waiting.group(&options)[0].stream.as_str(), "c");
        assert!(waiting.is_empty() && !waiting.is_over());
        waiting.receive();
        assert!(waiting.is_over(), "nobody can ask any more");
    }
}
