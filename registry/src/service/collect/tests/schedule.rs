//! A scheduler that decides itself which of several futures goes on at every point where one
//! waits: in every possible order, or in a random one.
//!
//! The test stores wait once before everything they do ([`step`]), so between any two operations
//! on shared state every other future can come in. A future that waits for a lock is not woken and
//! so not chosen; when nobody can go on and somebody is not done, that is a deadlock.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures::future::BoxFuture;

/// One of the futures that race.
pub(super) type Task = BoxFuture<'static, ()>;

/// Lets the others come in.
pub(super) async fn step() {
    let mut has_waited = false;
    poll_fn(|context| {
        if has_waited {
            return Poll::Ready(());
        }
        has_waited = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Runs all tasks to their end. `choose` picks one of so many that can go on.
pub(super) fn run(tasks: Vec<Task>, mut choose: impl FnMut(usize) -> usize) {
    let mut open: Vec<(Option<Task>, Arc<Woken>)> = tasks
        .into_iter()
        .map(|task| (Some(task), Arc::new(Woken(AtomicBool::new(true)))))
        .collect();
    loop {
        let can_go_on: Vec<usize> = (0..open.len())
            .filter(|at| open[*at].0.is_some() && open[*at].1.0.load(Ordering::SeqCst))
            .collect();
        let at = match can_go_on.len() {
            0 => {
                assert!(open.iter().all(|(task, _)| task.is_none()), "a deadlock");
                return;
            }
            1 => can_go_on[0],
            several => can_go_on[choose(several)],
        };
        let (task, woken) = &mut open[at];
        woken.0.store(false, Ordering::SeqCst);
        let waker = Waker::from(Arc::clone(woken));
        let mut context = Context::from_waker(&waker);
        let polled = task.as_mut().map(|task| task.as_mut().poll(&mut context));
        if matches!(polled, Some(Poll::Ready(()))) {
            *task = None;
        }
    }
}

/// Runs a scenario once for every sequence of choices that it can meet; gives how many there are.
/// The scenario asks for each choice, and ends the search with `false`.
pub(super) fn every_order(mut scenario: impl FnMut(&mut dyn FnMut(usize) -> usize) -> bool) -> u64 {
    /// More than this is a scenario that is too large for a test.
    const MOST: u64 = 2_000_000;
    let mut path: Vec<(usize, usize)> = Vec::new();
    let mut runs = 0;
    loop {
        let mut depth = 0;
        let goes_on = scenario(&mut |of| {
            if depth == path.len() {
                path.push((0, of));
            }
            let (chosen, before) = path[depth];
            assert_eq!(before, of, "a scenario must go the same way each time");
            depth += 1;
            chosen
        });
        runs += 1;
        assert!(runs < MOST, "too many orders");
        // The last choice that has an alternative left takes it; those after it begin anew.
        while let Some((chosen, of)) = path.last_mut() {
            if *chosen + 1 < *of {
                *chosen += 1;
                break;
            }
            path.pop();
        }
        if path.is_empty() || !goes_on {
            return runs;
        }
    }
}

#[test]
fn two_futures_of_two_steps_have_six_orders() {
    let mut seen = std::collections::BTreeSet::new();
    let runs = every_order(|choose| {
        let told = Arc::new(std::sync::Mutex::new(String::new()));
        let task = |name: &'static str| -> Task {
            let told = Arc::clone(&told);
            Box::pin(async move {
                for _ in 0..2 {
                    step().await;
                    told.lock().unwrap().push_str(name);
                }
            })
        };
        run(vec![task("a"), task("b")], choose);
        seen.insert(told.lock().unwrap().clone());
        true
    });
    // The first step of each only waits, so some sequences of choices tell the same.
    assert_eq!(seen.len(), 6);
    assert!(runs >= 6, "{runs}");
}
