//! Who computes for long makes room for who does not.
//!
//! An agent runs where its job's task is polled, on the threads that serve everyone, as long as it computes little. One
//! that has used up its credit is handed over, a slice at a time, to threads of low priority, where it takes turns with
//! its like. So however many agents compute without end, the host answers, and an agent that has little to do is soon done.

use std::{
    future::Future,
    io,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    task::{Context, Poll, Wake, Waker},
    thread,
    time::{Duration, Instant},
};

use futures_util::{future::BoxFuture, task::AtomicWaker};
use rustix::process::{getpriority_process, setpriority_process};
use tokio::{
    runtime::Handle,
    sync::{oneshot, watch},
};

/// How long an agent computes before it makes room.
const CREDIT_MAX: Duration = Duration::from_millis(10);

/// With less credit than this an agent computes in the slow lane.
const CREDIT_MIN: Duration = Duration::from_millis(1);

/// An agent that waits gets back its credit, so many times slower than it uses it.
const EARNING_TIMES: u32 = 4;

/// The priority of the threads of the slow lane: behind all others of this host, ahead of what is to run when nothing
/// else does.
const NICE: i32 = 10;

type Turn = Box<dyn FnOnce() + Send>;

/// An agent that computes for longer than it has credit for is in debt, by so much at most.
const DEBT_MAX: Duration = Duration::from_millis(100);

/// The threads of low priority, one for each processor. They end with it.
pub struct SlowLane {
    turns: mpsc::Sender<Turn>,
    /// How many turns are waited for or under way.
    taken: watch::Sender<usize>,
}

impl SlowLane {
    /// Starts the threads.
    ///
    /// # Errors
    ///
    /// If the system gives none.
    pub fn new() -> io::Result<Self> {
        let (turns, queue) = mpsc::channel::<Turn>();
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get) {
            let queue = Arc::clone(&queue);
            thread::Builder::new().name("slow-lane".into()).spawn(move || {
                // Of this thread only. Where it cannot be said, turns are all there is.
                let _ = setpriority_process(None, getpriority_process(None).unwrap_or(0).max(NICE));
                loop {
                    let turn = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok(turn) = turn else { return };
                    // What panics when it is dropped is one job's, too.
                    let _ = catch_unwind(AssertUnwindSafe(turn));
                }
            })?;
        }
        Ok(Self { turns, taken: watch::Sender::default() })
    }

    /// Returns once nothing computes here. What nobody waits for any more does so for one turn at most.
    pub async fn is_empty(&self) {
        // The sender lives as long as this does.
        let _ = self.taken.subscribe().wait_for(|taken| *taken == 0).await;
    }

    /// Runs an agent, and lets it compute for more than its credit only in this lane. To be polled on a Tokio runtime.
    pub fn pace<T: Send + 'static>(&self, credit: Credit, agent: impl Future<Output = T> + Send + 'static) -> Paced<T> {
        let begun = Instant::now();
        let alarm = Arc::new(Alarm { rung: Mutex::new(Some(begun)), task: AtomicWaker::new() });
        let waker = Waker::from(Arc::clone(&alarm));
        let place = Place::Here(Box::pin(agent));
        Paced { turns: self.turns.clone(), taken: self.taken.clone(), place, credit, idle_since: begun, alarm, waker }
    }
}

/// How much longer an agent may compute before it makes room, in nanoseconds; less than nothing if it did for longer.
#[derive(Debug)]
pub struct Credit(i64);

impl Credit {
    /// What an agent begins with.
    #[must_use]
    pub fn full() -> Self {
        Self(nanos(CREDIT_MAX))
    }

    /// For one of those of which another agent starts as many as it likes.
    #[must_use]
    pub fn none() -> Self {
        Self(0)
    }

    fn is_enough(&self) -> bool {
        self.0 >= nanos(CREDIT_MIN)
    }

    fn spend(&mut self, computed: Duration) {
        self.0 = self.0.saturating_sub(nanos(computed)).max(-nanos(DEBT_MAX));
    }

    fn earn(&mut self, waited: Duration) {
        self.0 = self.0.saturating_add(nanos(waited / EARNING_TIMES)).min(nanos(CREDIT_MAX));
    }
}

fn nanos(time: Duration) -> i64 {
    i64::try_from(time.as_nanos()).unwrap_or(i64::MAX)
}

/// A running agent that makes room when it computes for long.
pub struct Paced<T> {
    turns: mpsc::Sender<Turn>,
    taken: watch::Sender<usize>,
    place: Place<T>,
    credit: Credit,
    /// Since when it has computed nothing; of use while it is here.
    idle_since: Instant,
    /// What wakes the agent, wherever it is.
    alarm: Arc<Alarm>,
    waker: Waker,
}

enum Place<T> {
    Here(BoxFuture<'static, T>),
    /// In the slow lane, from where it comes back after its turn; in the first field until that begins.
    Away(Arc<Waiting<T>>, oneshot::Receiver<Back<T>>),
    /// It is over.
    Gone,
}

type Waiting<T> = Mutex<Option<BoxFuture<'static, T>>>;

/// What comes back of a turn: the agent, how far it got, and how long it took.
struct Back<T> {
    agent: BoxFuture<'static, T>,
    polled: thread::Result<Poll<T>>,
    computed: Duration,
}

/// Keeps in mind that an agent was woken, also while it is away and nobody can poll it.
struct Alarm {
    /// When it was, for the first time since it was polled, if it was.
    rung: Mutex<Option<Instant>>,
    task: AtomicWaker,
}

impl Alarm {
    fn rung(&self) -> MutexGuard<'_, Option<Instant>> {
        self.rung.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rung().get_or_insert_with(Instant::now);
        self.task.wake();
    }
}

impl<T: Send + 'static> Future for Paced<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let this = self.get_mut();
        this.alarm.task.register(context.waker());
        loop {
            match std::mem::replace(&mut this.place, Place::Gone) {
                Place::Here(mut agent) => {
                    let Some(woken) = this.alarm.rung().take() else {
                        // What else its job waits for woke the task.
                        this.place = Place::Here(agent);
                        return Poll::Pending;
                    };
                    // To wait for a thread is no waiting of its own.
                    this.credit.earn(woken.saturating_duration_since(this.idle_since));
                    if !this.credit.is_enough() {
                        this.place = this.hand_over(agent);
                        continue;
                    }
                    let begun = Instant::now();
                    let polled = agent.as_mut().poll(&mut Context::from_waker(&this.waker));
                    this.idle_since = Instant::now();
                    this.credit.spend(this.idle_since - begun);
                    if polled.is_pending() {
                        this.place = Place::Here(agent);
                    }
                    return polled;
                }
                Place::Away(waiting, mut back) => match Pin::new(&mut back).poll(context) {
                    Poll::Pending => {
                        this.place = Place::Away(waiting, back);
                        return Poll::Pending;
                    }
                    Poll::Ready(Ok(Back { agent, polled, computed })) => match polled {
                        Ok(Poll::Ready(output)) => return Poll::Ready(output),
                        Ok(Poll::Pending) => {
                            this.credit.spend(computed);
                            this.idle_since = Instant::now();
                            this.place = Place::Here(agent);
                        }
                        Err(panic) => resume_unwind(panic),
                    },
                    Poll::Ready(Err(_)) => unreachable!("every turn is taken, and its agent comes back"),
                },
                Place::Gone => unreachable!("an agent that is over is not polled"),
            }
        }
    }
}

impl<T: Send + 'static> Paced<T> {
    /// Gives the agent a turn in the slow lane. If nobody waits for it when that is over, it is dropped there.
    fn hand_over(&self, agent: BoxFuture<'static, T>) -> Place<T> {
        let (sender, receiver) = oneshot::channel();
        let waiting = Arc::new(Mutex::new(Some(agent)));
        let (runtime, waker, ours) = (Handle::current(), self.waker.clone(), Arc::clone(&waiting));
        self.taken.send_modify(|taken| *taken += 1);
        let taken = Taken(self.taken.clone());
        let turn = move || {
            let _taken = taken;
            let _entered = runtime.enter();
            let Some(mut agent) = take(&ours) else { return };
            let begun = Instant::now();
            // A panic belongs to the job, not to this thread.
            let poll = || agent.as_mut().poll(&mut Context::from_waker(&waker));
            let polled = catch_unwind(AssertUnwindSafe(poll));
            let _ = sender.send(Back { agent, polled, computed: begun.elapsed() });
        };
        // The threads live as long as there is somebody who can send.
        let _ = self.turns.send(Box::new(turn));
        Place::Away(waiting, receiver)
    }
}

/// An agent that nobody waits for any more has no more turns: one that has not begun is dropped here, with its agent.
impl<T> Drop for Paced<T> {
    fn drop(&mut self) {
        if let Place::Away(waiting, _) = &self.place {
            drop(take(waiting));
        }
    }
}

fn take<T>(waiting: &Waiting<T>) -> Option<BoxFuture<'static, T>> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// A turn that is waited for or under way.
struct Taken(watch::Sender<usize>);

impl Drop for Taken {
    fn drop(&mut self) {
        self.0.send_modify(|taken| *taken -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane() -> SlowLane {
        SlowLane::new().unwrap()
    }

    fn here() -> bool {
        thread::current().name() != Some("slow-lane")
    }

    #[test]
    fn credit_is_spent_by_computing_and_comes_back_slower_up_to_where_it_was() {
        let mut credit = Credit::full();
        let ms = |ms: i64| ms * 1_000_000;
        credit.spend(Duration::from_millis(7));
        assert_eq!(credit.0, ms(3));
        credit.earn(Duration::from_millis(8));
        assert_eq!(credit.0, ms(5));
        credit.spend(Duration::from_millis(9));
        assert_eq!(credit.0, ms(-4), "what was too much is paid for");
        credit.earn(Duration::from_millis(19));
        assert!(!credit.is_enough());
        credit.earn(Duration::from_millis(2));
        assert!(credit.is_enough());
        credit.spend(Duration::from_secs(9));
        assert_eq!(credit.0, ms(-100));
        credit.earn(Duration::from_secs(9));
        assert_eq!(credit.0, ms(10));
    }

    /// Gives its thread away a few times, as an agent that computes does at every tick.
    struct Busy {
        turns: u32,
        away: u32,
    }

    impl Future for Busy {
        type Output = u32;

        fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<u32> {
            self.away += u32::from(!here());
            if self.turns == 0 {
                return Poll::Ready(self.away);
            }
            self.turns -= 1;
            context.waker().wake_by_ref();
            Poll::Pending
        }
    }

    #[tokio::test]
    async fn an_agent_computes_here_until_its_credit_is_spent_and_then_in_the_slow_lane() {
        let lane = lane();
        assert!(lane.pace(Credit::full(), async { here() }).await);
        let busy = lane.pace(Credit::none(), Busy { turns: 1000, away: 0 });
        assert_eq!(busy.await, 1001);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn whatever_wakes_an_agent_that_is_away_is_not_lost() {
        let lane = lane();
        for _ in 0..1000 {
            let (sender, receiver) = oneshot::channel();
            let agent = tokio::spawn(lane.pace(Credit::none(), receiver));
            tokio::spawn(async { sender.send(7) });
            assert_eq!(agent.await.unwrap().unwrap(), 7);
        }
    }

    #[tokio::test]
    async fn a_panic_in_the_slow_lane_is_the_jobs_and_the_lane_goes_on() {
        let lane = lane();
        for _ in 0..8 {
            let agent = lane.pace(Credit::none(), async { panic!("of the agent") });
            assert!(tokio::spawn(agent).await.unwrap_err().is_panic());
        }
        assert_eq!(lane.pace(Credit::none(), async { 7 }).await, 7);
    }

    /// Says when it is dropped.
    struct Dropped(Option<oneshot::Sender<()>>);

    impl Drop for Dropped {
        fn drop(&mut self) {
            let _ = self.0.take().unwrap().send(());
        }
    }

    #[tokio::test]
    async fn an_agent_nobody_waits_for_any_more_is_dropped_after_its_turn() {
        let lane = lane();
        let (sender, receiver) = oneshot::channel();
        let dropped = Dropped(Some(sender));
        let mut agent = lane.pace(Credit::none(), async move {
            let _dropped = dropped;
            std::future::pending::<()>().await;
        });
        assert!(futures_util::poll!(&mut agent).is_pending());
        drop(agent);
        receiver.await.unwrap();
        lane.is_empty().await;
    }
}
