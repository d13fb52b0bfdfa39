//! Mistakes to be switched on, one at a time, so that tests can show that the simulation finds
//! them. Each is a few lines at the place where it would be made, marked by the feature's name.

/// One mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// An attempt after a crash has lost its first input.
    InputLostInCrash,
    /// What a further attempt sends again fires again.
    FiresAgain,
    /// A session's end leaves its request held.
    LeftAtSessionEnd,
    /// A group that closes `after` a function does not wait for the last one upstream.
    ClosesTooEarly,
    /// A session that has gathered from others keeps the first one waiting for ever.
    ContributorForgotten,
    /// What an executor has offered is started elsewhere although it has been taken already.
    TakenBackTooLate,
    /// An invocation that its executor has gone on from gives its input back twice.
    ReleasedTwice,
    /// What a killed executor may have begun unheard is started again.
    BegunUnheard,
}
