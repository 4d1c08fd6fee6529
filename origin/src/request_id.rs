//! The id of the request that is being worked on, for whatever is said or logged about it on the way. A job and a command
//! have one too, which names their events.

use tokio::task_local;

task_local! {
    static CURRENT: String;
}

/// Works with this id.
pub async fn scope<F: Future>(id: String, work: F) -> F::Output {
    CURRENT.scope(id, work).await
}

/// The id of this task's request; `None` outside of one, and in a task that was spawned.
pub fn current() -> Option<String> {
    CURRENT.try_with(Clone::clone).ok()
}
