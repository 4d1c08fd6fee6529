//! Sessions that are opened while the phone still connects, and wait for the call's stream.
//!
//! The edge tells of a call that it bridges before Twilio opens the stream; so the caller need not wait for OpenAI. A
//! session that nobody claims in time is closed. One that cannot be had, or dies while it waits, is forgotten: the
//! stream then opens one itself, as if nothing had been prepared.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use shared::CallSid;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

use super::sessions::{Session, Terms, Unavailable};

/// How long after the notice a session still waits for its stream.
pub const WAIT_LIMIT: Duration = Duration::from_secs(30);
/// How many wait at a time. Who comes then waits for OpenAI as if nobody had told of the call.
const LIMIT: usize = 256;
/// A closing handshake that takes longer is not waited for.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);

/// What can wait for a stream.
pub trait Waits: Send {
    /// Ends when it is of no use any more.
    fn gone(&mut self) -> impl Future<Output = ()> + Send;
    /// Ends it in order.
    fn close(self) -> impl Future<Output = ()> + Send;
}

/// What came of a session that was prepared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The stream has it.
    Claimed,
    /// No stream came.
    Expired,
    /// OpenAI ended it while it waited.
    Died,
    /// The call was over, or its stream wanted another one, or the origin stops.
    Dropped,
    /// OpenAI gave none.
    Unavailable(Unavailable),
}

impl Outcome {
    /// The word for it in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Claimed => "claimed",
            Self::Expired => "expired",
            Self::Died => "died",
            Self::Dropped => "dropped",
            Self::Unavailable(why) => why.as_str(),
        }
    }
}

/// Why nothing is prepared for a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoPlace {
    /// It has a session already.
    Known,
    /// Too many wait.
    Full,
}

/// The sessions that wait, by call.
#[derive(Debug)]
pub struct Prepared<S = Session>(Arc<Mutex<HashMap<CallSid, Waiting<S>>>>);

/// Dropping it gives the session up.
#[derive(Debug)]
struct Waiting<S> {
    terms: Terms,
    /// Who claims it sends where it goes.
    claims: oneshot::Sender<oneshot::Sender<S>>,
}

/// Where a session is expected; dropping it gives the place up.
#[derive(Debug)]
pub struct Place<S> {
    prepared: Prepared<S>,
    call: CallSid,
    claimed: oneshot::Receiver<oneshot::Sender<S>>,
}

impl<S> Default for Prepared<S> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<S> Prepared<S> {
    /// A place for the session of a call that is to come. `has_stream` says whether it has come already: a stream of
    /// which it does not know yet will find the place.
    pub fn place(&self, call: CallSid, terms: Terms, has_stream: impl FnOnce() -> bool) -> Result<Place<S>, NoPlace> {
        let (claims, claimed) = oneshot::channel();
        let mut waiting = self.lock();
        if waiting.contains_key(&call) || has_stream() {
            return Err(NoPlace::Known);
        }
        if waiting.len() >= LIMIT {
            return Err(NoPlace::Full);
        }
        waiting.insert(call.clone(), Waiting { terms, claims });
        Ok(Place { prepared: Self(Arc::clone(&self.0)), call, claimed })
    }

    /// Takes the session that was prepared for a call, if it was opened with just this; it may be on its way yet. When
    /// the answer is lost, nothing was prepared.
    pub fn claim(&self, call: &CallSid, terms: &Terms) -> Option<oneshot::Receiver<S>> {
        let waiting = self.lock().remove(call)?;
        let (claim, session) = oneshot::channel();
        (waiting.terms == *terms && waiting.claims.send(claim).is_ok()).then_some(session)
    }

    /// The call is over: nobody will claim its session.
    pub fn forget(&self, call: &CallSid) {
        self.lock().remove(call);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<CallSid, Waiting<S>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Waits> Place<S> {
    /// Opens the session and keeps it for its stream until `too_late`. `shutdown` says that no stream will come.
    pub async fn keep(
        mut self,
        opening: impl Future<Output = Result<S, Unavailable>> + Send,
        too_late: impl Future<Output = ()> + Send,
        shutdown: &CancellationToken,
    ) -> Outcome {
        let mut opening = pin!(opening);
        let opened = tokio::select! {
            biased;
            claim = &mut self.claimed => {
                let Ok(mut claim) = claim else { return Outcome::Dropped };
                let opened = tokio::select! {
                    opened = &mut opening => opened,
                    () = claim.closed() => return Outcome::Dropped,
                };
                return match opened {
                    Ok(session) => hand_over(claim, session).await,
                    Err(why) => Outcome::Unavailable(why),
                };
            }
            () = shutdown.cancelled() => return Outcome::Dropped,
            opened = &mut opening => opened,
        };
        let mut session = match opened {
            Ok(session) => session,
            Err(why) => return Outcome::Unavailable(why),
        };
        let outcome = tokio::select! {
            biased;
            claim = &mut self.claimed => match claim {
                Ok(claim) => return hand_over(claim, session).await,
                Err(_) => Outcome::Dropped,
            },
            () = session.gone() => Outcome::Died,
            () = shutdown.cancelled() => Outcome::Dropped,
            () = too_late => Outcome::Expired,
        };
        // Whoever comes now opens one without waiting for this one's end.
        drop(self);
        session.close().await;
        outcome
    }
}

async fn hand_over<S: Waits>(claim: oneshot::Sender<S>, session: S) -> Outcome {
    match claim.send(session) {
        Ok(()) => Outcome::Claimed,
        Err(unwanted) => {
            unwanted.close().await;
            Outcome::Dropped
        }
    }
}

impl<S> Drop for Place<S> {
    fn drop(&mut self) {
        self.claimed.close();
        let mut waiting = self.prepared.lock();
        // Once this one was claimed, the call may have another place.
        if waiting.get(&self.call).is_some_and(|waiting| waiting.claims.is_closed()) {
            waiting.remove(&self.call);
        }
    }
}

impl Waits for Session {
    /// Answers pings meanwhile.
    async fn gone(&mut self) {
        while let Some(Ok(message)) = self.socket.next().await {
            if matches!(message, Message::Close(_)) {
                return;
            }
        }
    }

    async fn close(mut self) {
        let _ = timeout(CLOSE_LIMIT, self.socket.close(None)).await;
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use tokio::spawn;
    use tokio::task::{JoinHandle, yield_now};

    use super::*;

    /// A session that tells when it is closed, and is never gone unless its token is cancelled.
    #[derive(Debug)]
    struct Fake {
        closed: Option<oneshot::Sender<()>>,
        gone: CancellationToken,
    }

    impl Waits for Fake {
        async fn gone(&mut self) {
            self.gone.cancelled().await;
        }

        async fn close(mut self) {
            let _ = self.closed.take().map(|closed| closed.send(()));
        }
    }

    struct Scene {
        prepared: Prepared<Fake>,
        shutdown: CancellationToken,
        gone: CancellationToken,
        too_late: CancellationToken,
        closed: Option<oneshot::Receiver<()>>,
        /// Lets the session be opened, or not.
        open: Option<oneshot::Sender<Result<(), Unavailable>>>,
        kept: JoinHandle<Outcome>,
    }

    fn sid(number: usize) -> CallSid {
        format!("CA{number:02}").parse().unwrap()
    }

    fn terms(update: &str) -> Terms {
        Terms { model: "m".into(), update: update.into() }
    }

    /// A call of which the edge has told.
    async fn told() -> Scene {
        let prepared = Prepared::<Fake>::default();
        let place = prepared.place(sid(1), terms("a"), || false).unwrap();
        let [shutdown, gone, too_late] = [(); 3].map(|()| CancellationToken::new());
        let (closed, is_closed) = oneshot::channel();
        let (open, opened) = oneshot::channel();
        let fake = Fake { closed: Some(closed), gone: gone.clone() };
        let (stopping, late) = (shutdown.clone(), too_late.clone());
        let opening = async move { opened.await.unwrap_or(Err(Unavailable::Unreachable)).map(|()| fake) };
        let kept = spawn(async move { place.keep(opening, late.cancelled(), &stopping).await });
        yield_now().await;
        Scene { prepared, shutdown, gone, too_late, closed: Some(is_closed), open: Some(open), kept }
    }

    /// The same, and its session waits.
    async fn waiting() -> Scene {
        let mut scene = told().await;
        scene.open(Ok(()));
        yield_now().await;
        assert!(!scene.kept.is_finished());
        scene
    }

    impl Scene {
        fn open(&mut self, result: Result<(), Unavailable>) {
            self.open.take().unwrap().send(result).unwrap();
        }

        /// The outcome, and that the session is closed and forgotten with it.
        async fn closed(mut self) -> Outcome {
            let outcome = (&mut self.kept).await.unwrap();
            self.closed.take().unwrap().await.expect("it is closed");
            assert!(self.prepared.lock().is_empty());
            outcome
        }
    }

    #[tokio::test]
    async fn one_that_nobody_claims_is_closed_when_it_is_too_late() {
        let scene = waiting().await;
        scene.too_late.cancel();
        assert_eq!(scene.closed().await, Outcome::Expired);
    }

    #[tokio::test]
    async fn one_is_claimed_once() {
        let scene = waiting().await;
        let claimed = scene.prepared.claim(&sid(1), &terms("a")).unwrap();
        assert!(scene.prepared.claim(&sid(1), &terms("a")).is_none());
        let session = claimed.await.expect("it is handed over");
        assert_eq!(scene.kept.await.unwrap(), Outcome::Claimed);
        assert!(session.closed.as_ref().is_some_and(|closed| !closed.is_closed()), "it is open");
        assert!(scene.prepared.lock().is_empty());
    }

    #[tokio::test]
    async fn one_that_is_on_its_way_is_claimed_too() {
        let mut scene = told().await;
        let claimed = scene.prepared.claim(&sid(1), &terms("a")).unwrap();
        yield_now().await;
        // A stream that was let in goes on while the origin stops.
        scene.shutdown.cancel();
        yield_now().await;
        scene.open(Ok(()));
        assert!(claimed.await.is_ok());
        assert_eq!(scene.kept.await.unwrap(), Outcome::Claimed);
    }

    #[tokio::test]
    async fn what_cannot_be_had_leaves_it_to_the_stream() {
        let why = Unavailable::Unreachable;
        let mut early = told().await;
        early.open(Err(why));
        assert_eq!((&mut early.kept).await.unwrap(), Outcome::Unavailable(why));
        assert!(early.prepared.claim(&sid(1), &terms("a")).is_none(), "nothing waits");

        let mut late = told().await;
        let claimed = late.prepared.claim(&sid(1), &terms("a")).unwrap();
        late.open(Err(why));
        assert!(claimed.await.is_err(), "nothing comes");
        assert_eq!(late.kept.await.unwrap(), Outcome::Unavailable(why));
    }

    #[tokio::test]
    async fn one_that_is_of_no_use_is_closed() {
        let over = waiting().await;
        over.prepared.forget(&sid(1));
        assert_eq!(over.closed().await, Outcome::Dropped);

        let changed = waiting().await;
        assert!(changed.prepared.claim(&sid(1), &terms("b")).is_none(), "the agent has changed");
        assert_eq!(changed.closed().await, Outcome::Dropped);

        let stopping = waiting().await;
        stopping.shutdown.cancel();
        assert_eq!(stopping.closed().await, Outcome::Dropped);

        let died = waiting().await;
        died.gone.cancel();
        assert_eq!(died.closed().await, Outcome::Died);

        let left = waiting().await;
        drop(left.prepared.claim(&sid(1), &terms("a")));
        assert_eq!(left.closed().await, Outcome::Dropped, "the stream is gone before it has it");
    }

    #[tokio::test]
    async fn one_that_is_of_no_use_is_not_even_opened() {
        let over = told().await;
        over.prepared.forget(&sid(1));
        assert_eq!(over.kept.await.unwrap(), Outcome::Dropped);

        let stopping = told().await;
        stopping.shutdown.cancel();
        assert_eq!(stopping.kept.await.unwrap(), Outcome::Dropped);

        let left = told().await;
        drop(left.prepared.claim(&sid(1), &terms("a")));
        assert_eq!(left.kept.await.unwrap(), Outcome::Dropped);
    }

    #[tokio::test]
    async fn a_call_has_one_place_and_there_are_so_many() {
        let prepared = Prepared::<Fake>::default();
        let place = |number: usize| prepared.place(sid(number), terms("a"), || false);
        assert_eq!(prepared.place(sid(0), terms("a"), || true).unwrap_err(), NoPlace::Known, "the stream is there");
        let mut places: Vec<Place<Fake>> = (0..LIMIT).map(|number| place(number).unwrap()).collect();
        assert_eq!(place(0).unwrap_err(), NoPlace::Known);
        assert_eq!(place(LIMIT).unwrap_err(), NoPlace::Full);
        places.pop();
        assert!(place(LIMIT).is_ok());
    }

    #[tokio::test]
    async fn a_claimed_one_does_not_take_the_next_ones_place() {
        let prepared = Prepared::<Fake>::default();
        let first = prepared.place(sid(1), terms("a"), || false).unwrap();
        let _claimed = prepared.claim(&sid(1), &terms("a"));
        let second = prepared.place(sid(1), terms("a"), || false).unwrap();
        drop(first);
        assert_eq!(prepared.lock().len(), 1);
        let kept = spawn(async move { second.keep(pending(), pending(), &CancellationToken::new()).await });
        yield_now().await;
        prepared.forget(&sid(1));
        assert_eq!(kept.await.unwrap(), Outcome::Dropped);
        let third = prepared.place(sid(1), terms("a"), || false).unwrap();
        let failed = ready(Err(Unavailable::OutOfQuota));
        assert_eq!(third.keep(failed, pending(), &CancellationToken::new()).await.as_str(), "openai_quota");
    }
}
