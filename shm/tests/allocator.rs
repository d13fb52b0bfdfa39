//! The allocator against a naive oracle that remembers every unit: nothing is lent twice, nothing
//! is lent unpopulated, nothing is lost, and what is given back is joined again.

mod common;

use std::collections::BTreeMap;

use common::{Random, extent};
use pheromone_shm::allocator::{AllocError, Allocator, Pages, PagesError, whole_pages};
use pheromone_shm::limits::{HUGE_PAGE_UNITS, PAGE_UNITS, QUICK_UNITS_MAX, WARM_UNITS_MAX};
use pheromone_shm::message::Extent;
use proptest::prelude::*;

/// 8 MiB: more than stays warm.
const SPAN_UNITS: u32 = (8 << 20) / 64;

/// What a page is, and a machine that may run out of them.
#[derive(Debug)]
struct FakePages {
    populated: Vec<bool>,
    /// Huge pages that were populated by one call: only those can be one page.
    huge: Vec<bool>,
    left: usize,
    refuses_punches: bool,
}

impl FakePages {
    fn new() -> Self {
        Self {
            populated: vec![false; (SPAN_UNITS / PAGE_UNITS) as usize],
            huge: vec![false; (SPAN_UNITS / HUGE_PAGE_UNITS) as usize],
            left: usize::MAX,
            refuses_punches: false,
        }
    }

    fn touched(extent: Extent) -> std::ops::Range<usize> {
        let first = extent.offset_units / PAGE_UNITS;
        first as usize..extent.end_units().div_ceil(u64::from(PAGE_UNITS)) as usize
    }
}

impl Pages for FakePages {
    fn populate(&mut self, extent: Extent) -> Result<(), PagesError> {
        let first = extent.offset_units.div_ceil(HUGE_PAGE_UNITS) as usize;
        let end = (extent.end_units() / u64::from(HUGE_PAGE_UNITS)) as usize;
        self.huge[first.min(end)..end].fill(true);
        for page in Self::touched(extent) {
            if !self.populated[page] {
                self.left = self.left.checked_sub(1).ok_or(PagesError(libc::ENOMEM))?;
                self.populated[page] = true;
            }
        }
        Ok(())
    }

    fn punch(&mut self, extent: Extent) -> Result<(), PagesError> {
        assert!(extent.offset_units.is_multiple_of(PAGE_UNITS), "{extent:?}");
        assert!(extent.len_units.is_multiple_of(PAGE_UNITS), "{extent:?}");
        if self.refuses_punches {
            return Err(PagesError(libc::EPERM));
        }
        for page in Self::touched(extent) {
            self.left = self.left.saturating_add(usize::from(self.populated[page]));
            self.populated[page] = false;
        }
        Ok(())
    }
}

/// The allocator, and beside it which extents are lent.
struct World {
    allocator: Allocator<FakePages>,
    /// Length by offset.
    lent: BTreeMap<u32, u32>,
}

impl World {
    fn new() -> Self {
        Self {
            allocator: Allocator::new(SPAN_UNITS, FakePages::new()),
            lent: BTreeMap::new(),
        }
    }

    fn lend(&mut self, units: u64) -> Result<Extent, AllocError> {
        let got = self.allocator.allocate(units)?;
        assert_eq!(u64::from(got.len_units), units);
        assert!(got.end_units() <= u64::from(SPAN_UNITS));
        let before = self.lent.range(..=got.offset_units).next_back();
        assert!(
            before.is_none_or(|(at, len)| at + len <= got.offset_units),
            "{got:?}"
        );
        let after = self.lent.range(got.offset_units..).next();
        assert!(
            after.is_none_or(|(at, _)| u64::from(*at) >= got.end_units()),
            "{got:?}"
        );
        let populated = &self.allocator.pages().populated;
        assert!(
            FakePages::touched(got).all(|page| populated[page]),
            "{got:?}"
        );
        self.lent.insert(got.offset_units, got.len_units);
        Ok(got)
    }

    fn nth(&self, at: usize) -> Option<Extent> {
        let at = at % self.lent.len().max(1);
        let (offset, len) = self.lent.iter().nth(at)?;
        Some(extent(*offset, *len))
    }

    fn give_back(&mut self, extent: Extent) {
        self.lent.remove(&extent.offset_units);
        self.allocator.free(extent);
    }

    /// Every unit is in one place only, and none is lost.
    fn check(&self) {
        let stats = self.allocator.stats();
        let lent: u64 = self.lent.values().map(|len| u64::from(*len)).sum();
        assert_eq!(stats.live_units, lent);
        assert_eq!(stats.refused_frees, 0);
        let free = stats.quick_units + stats.warm_units + stats.cold_units;
        assert_eq!(free + lent, u64::from(SPAN_UNITS), "{stats:?}");
        // What is lent stays populated whatever is given back around it.
        let populated = &self.allocator.pages().populated;
        for (offset, len) in &self.lent {
            assert!(FakePages::touched(extent(*offset, *len)).all(|page| populated[page]));
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Lend(u64),
    GiveBack(usize),
    Shrink(usize, u32),
    Successor,
}

fn step() -> impl Strategy<Value = Step> {
    let units = prop_oneof![
        6 => 1..=8_u64,
        4 => 1..=u64::from(QUICK_UNITS_MAX) + 2,
        2 => 1..=4096_u64,
        1 => 1..=u64::from(SPAN_UNITS),
    ];
    prop_oneof![
        10 => units.prop_map(Step::Lend),
        9 => any::<usize>().prop_map(Step::GiveBack),
        2 => (any::<usize>(), 0..5000_u32).prop_map(|(at, len)| Step::Shrink(at, len)),
        1 => Just(Step::Successor),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 64, failure_persistence: None, ..ProptestConfig::default()
    })]

    #[test]
    fn nothing_is_lent_twice_or_lost(steps in prop::collection::vec(step(), 1..300)) {
        let mut world = World::new();
        for step in steps {
            match step {
                Step::Lend(units) => drop(world.lend(units)),
                Step::GiveBack(at) => {
                    if let Some(extent) = world.nth(at) {
                        world.give_back(extent);
                    }
                }
                Step::Shrink(at, len) => {
                    if let Some(extent) = world.nth(at) {
                        let kept = world.allocator.shrink(extent, len);
                        prop_assert_eq!(kept.offset_units, extent.offset_units);
                        prop_assert_eq!(kept.len_units, len.clamp(1, extent.len_units));
                        world.lent.insert(kept.offset_units, kept.len_units);
                    }
                }
                Step::Successor => world = succeed(world),
            }
            world.check();
        }
    }

    #[test]
    fn what_is_given_back_is_one_extent_again(
        units in prop::collection::vec(1..2000_u64, 1..60), order in any::<u64>(),
    ) {
        let mut world = World::new();
        let mut lent: Vec<_> = units.iter().filter_map(|units| world.lend(*units).ok()).collect();
        let mut random = Random(order);
        while !lent.is_empty() {
            let at = random.below(lent.len() as u64) as usize;
            world.give_back(lent.swap_remove(at));
        }
        world.check();
        // All of the region in one piece: nothing was left apart.
        let whole = world.lend(u64::from(SPAN_UNITS)).unwrap();
        prop_assert_eq!(whole, extent(0, SPAN_UNITS));
    }
}

/// The owner dies; its successor has the list of live extents and the region's pages.
fn succeed(world: World) -> World {
    let mut live: Vec<Extent> = world
        .lent
        .iter()
        .map(|(at, len)| extent(*at, *len))
        .collect();
    live.reverse();
    let World {
        mut allocator,
        lent,
    } = world;
    let pages = std::mem::replace(allocator.pages_mut(), FakePages::new());
    let allocator = Allocator::rebuild(SPAN_UNITS, pages, &live);
    World { allocator, lent }
}

#[test]
fn what_was_used_last_is_used_first() {
    let mut world = World::new();
    let extents: Vec<_> = (0..4).map(|_| world.lend(5).unwrap()).collect();
    for extent in &extents {
        world.give_back(*extent);
    }
    for extent in extents.iter().rev() {
        assert_eq!(world.lend(5).unwrap(), *extent);
    }
}

#[test]
fn a_successor_knows_what_lives_and_gives_the_rest_back() {
    let mut world = World::new();
    let lent: Vec<_> = (0..40).map(|_| world.lend(700).unwrap()).collect();
    for extent in lent.iter().step_by(2) {
        world.give_back(*extent);
    }
    let world = succeed(world);
    world.check();
    let populated = world.allocator.pages().populated.iter();
    let populated = populated.filter(|populated| **populated).count();
    let needed: usize = world
        .lent
        .iter()
        .map(|(at, len)| FakePages::touched(extent(*at, *len)).len())
        .sum();
    assert!(populated <= needed, "{populated} pages for {needed}");
}

#[test]
fn a_successor_of_a_liar_lends_no_unit_twice() {
    let live = [
        extent(100, 50),
        extent(120, 10),
        extent(90, 20),
        extent(SPAN_UNITS - 5, 50),
        extent(u32::MAX, u32::MAX),
        extent(7, 0),
    ];
    let mut allocator = Allocator::rebuild(SPAN_UNITS, FakePages::new(), &live);
    assert_eq!(allocator.stats().live_units, 60 + 5);
    let mut units = vec![false; SPAN_UNITS as usize];
    while let Ok(got) = allocator.allocate(1) {
        assert!(!std::mem::replace(
            &mut units[got.offset_units as usize],
            true
        ));
    }
    assert!(units[90..150].iter().all(|lent| !lent));
    assert_eq!(units.iter().filter(|lent| !**lent).count(), 60 + 5);
}

#[test]
fn memory_beyond_the_warm_limit_goes_back_to_the_machine() {
    let mut world = World::new();
    let lent: Vec<_> = std::iter::from_fn(|| world.lend(1025).ok()).collect();
    assert!(lent.len() > 100);
    for extent in lent {
        world.give_back(extent);
    }
    let stats = world.allocator.stats();
    assert!(stats.warm_units <= WARM_UNITS_MAX, "{stats:?}");
    let populated = world.allocator.pages().populated.iter();
    let pages = populated.filter(|populated| **populated).count() as u64;
    assert_eq!(pages * u64::from(PAGE_UNITS), stats.warm_units);
    world.check();
}

#[test]
fn what_somebody_else_has_punched_is_cold_and_populated_before_it_is_lent_again() {
    let mut world = World::new();
    let before = world.lend(3).unwrap();
    let large = world.lend(20 * u64::from(PAGE_UNITS) + 5).unwrap();
    let after = world.lend(3).unwrap();
    let whole = whole_pages(large).unwrap();
    world.allocator.pages_mut().punch(whole).unwrap();
    let cold_units = world.allocator.stats().cold_units;
    world.lent.remove(&large.offset_units);
    world.allocator.free_punched(large);
    let stats = world.allocator.stats();
    assert_eq!(stats.cold_units, cold_units + u64::from(whole.len_units));
    world.check();
    // The fake machine lends no page that is not populated.
    while world.lend(1024).is_ok() {}
    world.give_back(before);
    world.give_back(after);
    world.allocator.free_punched(extent(0, 0));
    world.allocator.free_punched(extent(SPAN_UNITS - 1, 2));
    assert_eq!(world.allocator.stats().refused_frees, 2);
}

#[test]
fn a_machine_without_memory_is_an_error_and_changes_nothing() {
    let mut world = World::new();
    world.allocator.pages_mut().left = 20;
    let extent = world.lend(10 * u64::from(PAGE_UNITS)).unwrap();
    let error = world.lend(11 * u64::from(PAGE_UNITS)).unwrap_err();
    assert_eq!(error, AllocError::Pages(PagesError(libc::ENOMEM)));
    assert!(error.to_string().contains("errno 12"));
    world.check();
    world.allocator.pages_mut().left = 100;
    world.lend(11 * u64::from(PAGE_UNITS)).unwrap();
    world.give_back(extent);
    world.check();
}

#[test]
fn a_short_extent_is_had_where_a_whole_batch_of_pages_is_not() {
    let mut world = World::new();
    world.allocator.pages_mut().left = 3;
    world.lend(1).unwrap();
    world.check();
}

#[test]
fn long_extents_made_in_a_row_lie_without_gaps_in_huge_pages() {
    // A mebibyte and its zero byte: no two of them fit a huge page.
    for units in [16_385, 16_384, 24_000, 40_000] {
        let mut world = World::new();
        let lent: Vec<_> = std::iter::from_fn(|| world.lend(units).ok()).collect();
        for (at, extent) in lent.iter().enumerate() {
            assert_eq!(u64::from(extent.offset_units), at as u64 * units);
        }
        assert_eq!(lent.len() as u64, u64::from(SPAN_UNITS) / units);
        let in_use = lent.len() as u64 * units / u64::from(HUGE_PAGE_UNITS);
        let huge = &world.allocator.pages().huge;
        if units <= u64::from(HUGE_PAGE_UNITS) {
            assert!(huge[..in_use as usize].iter().all(|huge| *huge), "{units}");
        }
        world.check();
    }
}

#[test]
fn a_machine_that_takes_no_pages_back_leaves_them_usable() {
    let mut world = World::new();
    world.allocator.pages_mut().refuses_punches = true;
    for _ in 0..3 {
        let all = world.lend(u64::from(SPAN_UNITS)).unwrap();
        world.give_back(all);
        world.check();
    }
}

#[test]
fn what_no_region_has_is_refused_with_its_numbers() {
    let mut world = World::new();
    assert_eq!(world.lend(0), Err(AllocError::Empty));
    for units in [u64::from(SPAN_UNITS) + 1, u64::from(u32::MAX) + 2, u64::MAX] {
        let span_units = SPAN_UNITS;
        assert_eq!(
            world.lend(units),
            Err(AllocError::TooLarge { units, span_units })
        );
    }
    world.lend(u64::from(SPAN_UNITS)).unwrap();
    let (units, free_units) = (1, 0);
    assert_eq!(world.lend(1), Err(AllocError::NoRoom { units, free_units }));
}

#[test]
fn what_was_never_lent_is_not_taken_back() {
    let mut world = World::new();
    let lent = world.lend(1000).unwrap();
    for foreign in [
        extent(SPAN_UNITS - 1, 2),
        extent(0, 0),
        extent(u32::MAX, u32::MAX),
        extent(5000, 900),
    ] {
        world.allocator.free(foreign);
    }
    assert_eq!(world.allocator.stats().refused_frees, 4);
    world.give_back(lent);
    world.allocator.free(lent);
    let stats = world.allocator.stats();
    assert_eq!((stats.refused_frees, stats.live_units), (5, 0));
}

#[test]
fn a_region_of_two_to_the_32_units_lends_all_but_its_last_page() {
    struct NoPages;
    impl Pages for NoPages {
        fn populate(&mut self, _: Extent) -> Result<(), PagesError> {
            Ok(())
        }
        fn punch(&mut self, _: Extent) -> Result<(), PagesError> {
            Ok(())
        }
    }
    let mut allocator = Allocator::new(u32::MAX, NoPages);
    let most = u32::MAX / PAGE_UNITS * PAGE_UNITS;
    let whole = allocator.allocate(u64::from(most)).unwrap();
    assert_eq!(whole, extent(0, most));
    allocator.free(whole);
    let two = [1_u64, 1 << 31].map(|units| allocator.allocate(units).unwrap());
    for extent in two {
        allocator.free(extent);
    }
    assert_eq!(allocator.allocate(u64::from(most)).unwrap(), whole);
}
