//! Control groups: executors and zygote are put into theirs, which are killed as a whole and
//! removed once they are empty.

use std::io;
use std::sync::Arc;

use super::{Deployed, Supervisor};
use crate::cgroup::{Group, Limits};

impl Supervisor {
    /// Makes a control group for a version's executors, where there are any, and it has none.
    pub(super) fn group_executors(&mut self, deployed: &mut Deployed) {
        if deployed.group.is_some() {
            return;
        }
        let version = &deployed.version;
        let name = format!("app-{}.{}", version.name(), version.number);
        match self.cgroups.group(&name, &deployed.limits) {
            Ok(group) => deployed.group = group,
            Err(error) => {
                let text =
                    format!("its executors have no control group, so no limits in common: {error}");
                self.outlet.notice(version.name(), None, text);
            }
        }
    }

    /// Puts a new zygote, which has not forked yet, into a control group.
    pub(super) fn group_zygote(&mut self) {
        let Some(zygote) = &self.zygote else { return };
        let group = self.cgroups.group("zygote", &Limits::default());
        let placed = group.and_then(|group| {
            let place = |group: &Group| group.take(zygote.child().pid());
            group.as_ref().map_or(Ok(()), place).map(|()| group)
        });
        match placed {
            Ok(group) => self.zygote_group = group,
            Err(error) => self.give_up_groups(&error),
        }
    }

    /// Where processes cannot be put into groups, executors go on without.
    fn give_up_groups(&mut self, error: &io::Error) {
        let text = format!("processes cannot be put into control groups: {error}");
        self.outlet.notice("", None, text);
        self.kill_groups();
        self.emptying.clear();
        self.cgroups.give_up(error);
    }

    /// Kills whatever is in the node's control groups. They are not used again: what is started
    /// from a group that has been killed into one that has not, or the other way round, is killed
    /// at its start (Linux 6.18 counts kills group by group, and compares the two).
    pub(super) fn kill_groups(&mut self) {
        let apps = self.apps.values_mut();
        let groups = apps.filter_map(|deployed| {
            let version = Some(Arc::clone(&deployed.version));
            Some((deployed.group.take()?, version))
        });
        self.emptying.extend(groups);
        self.emptying
            .extend(self.zygote_group.take().map(|group| (group, None)));
        self.emptying.iter_mut().for_each(|(group, _)| group.kill());
    }

    pub(super) fn remove_empty_groups(&mut self) {
        self.emptying.retain_mut(|(group, _)| !group.is_gone());
    }
}
