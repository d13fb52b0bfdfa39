//! Which scheduler a request goes to.
//!
//! A session stays with the scheduler that opened it, its home, and so do its invocations: an
//! executor's rings are polled by one scheduler. So load is spread when a session is opened, by
//! what each of the app's schedulers has open of that app.

use crate::app::Version;

/// The scheduler that made a session's id.
pub fn home_of(session: u64) -> u8 {
    (session >> 56) as u8
}

/// An app's schedulers, each with its open requests.
pub struct Homes(Vec<Home>);

struct Home {
    scheduler: u8,
    /// How many invocations it can run at once.
    executors: u64,
    open: u64,
}

/// Schedulers that have refused a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tried(u32);

impl Tried {
    /// One more.
    pub fn note(&mut self, scheduler: u8) {
        self.0 |= 1 << scheduler;
    }

    fn has(self, scheduler: u8) -> bool {
        self.0 >> scheduler & 1 == 1
    }
}

impl Homes {
    /// Of a version of which nothing is open.
    pub fn new(version: &Version) -> Self {
        let home = |scheduler| {
            let share = version.division.share(&version.spec, scheduler)?;
            Some(Home {
                scheduler,
                executors: share.executors.max.into(),
                open: 0,
            })
        };
        Self(version.division.homes().filter_map(home).collect())
    }

    /// The scheduler with the least open for its executors among those not tried yet; the first of
    /// equals, so that a caller who comes alone finds warm executors.
    pub fn lightest(&self, tried: Tried) -> Option<u8> {
        let left = self.0.iter().filter(|home| !tried.has(home.scheduler));
        let lightest = left.reduce(|best, home| {
            // (a + 1) / x < (b + 1) / y, without division.
            let is_lighter = (home.open + 1) * best.executors < (best.open + 1) * home.executors;
            if is_lighter { home } else { best }
        });
        lightest.map(|home| home.scheduler)
    }

    /// A request has gone to a scheduler.
    pub fn opened(&mut self, scheduler: u8) {
        self.change(scheduler, |open| open + 1);
    }

    /// A request is finished, or was refused.
    pub fn closed(&mut self, scheduler: u8) {
        self.change(scheduler, |open| open.saturating_sub(1));
    }

    fn change(&mut self, scheduler: u8, change: impl FnOnce(u64) -> u64) {
        let home = self.0.iter_mut().find(|home| home.scheduler == scheduler);
        if let Some(home) = home {
            home.open = change(home.open);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn homes(executors: &[u64]) -> Homes {
        let home = |(scheduler, &executors)| Home {
            scheduler,
            executors,
            open: 0,
        };
        Homes((0..).zip(executors).map(home).collect())
    }

    #[test]
    fn requests_are_spread_by_what_is_open_for_each_executor() {
        let mut homes = homes(&[2, 1, 1]);
        let mut open = [0; 3];
        for _ in 0..4000 {
            let home = homes.lightest(Tried::default()).unwrap();
            homes.opened(home);
            open[usize::from(home)] += 1;
        }
        assert_eq!(open, [2000, 1000, 1000]);
        for _ in 0..300 {
            homes.closed(2);
        }
        for _ in 0..299 {
            assert_eq!(homes.lightest(Tried::default()), Some(2));
            homes.opened(2);
        }
    }

    #[test]
    fn who_comes_alone_is_served_by_the_same_scheduler() {
        let mut homes = homes(&[1, 1]);
        for _ in 0..10 {
            assert_eq!(homes.lightest(Tried::default()), Some(0));
            homes.opened(0);
            homes.closed(0);
        }
    }

    #[test]
    fn who_has_refused_is_not_asked_again() {
        let homes = homes(&[4, 1, 1]);
        let mut tried = Tried::default();
        for expected in [Some(0), Some(1), Some(2), None] {
            let home = homes.lightest(tried);
            assert_eq!(home, expected);
            home.into_iter().for_each(|home| tried.note(home));
        }
    }

    #[test]
    fn a_session_names_its_home() {
        assert_eq!(home_of(1), 0);
        assert_eq!(home_of(15 << 56 | 7), 15);
    }
}
