//! A small layered layout, left to right: ranks by longest path, order within a rank by barycentre,
//! heights by least squares. Pure geometry; it knows neither apps nor SVG.
//!
//! Arrows against the flow (loops) take no part in the ranks; they run through lanes of their own
//! below everything.

/// Sweeps over the ranks to order them; more change nothing on real apps.
const ORDER_SWEEPS: usize = 12;
/// Sweeps to settle the heights.
const HEIGHT_SWEEPS: usize = 16;
/// Way points of long arrows in all; a larger picture draws them straight.
const WAY_POINTS_MAX: usize = 100_000;

/// Lanes that run down and up in places of their own, before the first place is used again.
const LANES_APART: usize = 5;

/// Distances.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spacing {
    /// Between ranks.
    pub across: f64,
    /// Between boxes of a rank.
    pub down: f64,
    /// Height that an arrow passing a rank takes.
    pub passage: f64,
    /// Between lanes.
    pub lane: f64,
}

/// A placed box; `x` and `y` are its left upper corner.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Placed {
    pub x: f64,
    pub y: f64,
    pub width: f64,
    pub height: f64,
}

impl Placed {
    pub(super) fn right(&self) -> f64 {
        self.x + self.width
    }

    pub(super) fn middle(&self) -> f64 {
        self.y + self.height / 2.0
    }
}

/// How an arrow runs.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Route {
    /// From left to right over these stretches, each passed from its first to its second x.
    Forward {
        /// Height at the start.
        from_y: f64,
        /// The ranks in between: left x, right x, y.
        through: Vec<(f64, f64, f64)>,
        /// Height at the end.
        to_y: f64,
    },
    /// Around, below everything, at this height.
    Around {
        /// Height at the start.
        from_y: f64,
        /// Where it goes down, right of everything in its rank.
        right_x: f64,
        /// Of the lane.
        lane_y: f64,
        /// Where it goes up, left of everything in the rank of its end.
        left_x: f64,
        /// Height at the end.
        to_y: f64,
    },
}

/// Where everything is.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    pub boxes: Vec<Placed>,
    /// In the order of the arrows given.
    pub routes: Vec<Route>,
    pub width: f64,
    pub height: f64,
}

/// Places boxes of these sizes (width, height), joined by these arrows, `starts` foremost.
pub(super) fn lay_out(
    sizes: &[(f64, f64)],
    arrows: &[(usize, usize)],
    starts: &[usize],
    spacing: Spacing,
) -> Layout {
    let forward = forward_arrows(sizes.len(), arrows, starts);
    let ranks = ranks(sizes.len(), arrows, &forward);
    let mut net = Net::new(sizes, arrows, &forward, &ranks, spacing);
    net.order();
    net.heights(spacing);
    net.draw(sizes, arrows, &forward, spacing)
}

/// Which arrows go with the flow: those that a depth-first walk does not find to close a loop.
fn forward_arrows(count: usize, arrows: &[(usize, usize)], starts: &[usize]) -> Vec<bool> {
    #[derive(Clone, Copy, PartialEq)]
    enum Mark {
        New,
        Open,
        Done,
    }
    let mut out = vec![Vec::new(); count];
    for (number, (from, _)) in arrows.iter().enumerate() {
        out[*from].push(number);
    }
    let mut has_arrow_in = vec![false; count];
    arrows
        .iter()
        .filter(|(from, to)| from != to)
        .for_each(|(_, to)| has_arrow_in[*to] = true);
    let roots = (0..count).filter(|node| !has_arrow_in[*node]);
    let mut marks = vec![Mark::New; count];
    let mut forward = vec![true; arrows.len()];
    for start in starts.iter().copied().chain(roots).chain(0..count) {
        if marks[start] != Mark::New {
            continue;
        }
        marks[start] = Mark::Open;
        let mut stack = vec![(start, 0)];
        while let Some((node, next)) = stack.last_mut() {
            let Some(&number) = out[*node].get(*next) else {
                marks[*node] = Mark::Done;
                stack.pop();
                continue;
            };
            *next += 1;
            let to = arrows[number].1;
            match marks[to] {
                Mark::New => {
                    marks[to] = Mark::Open;
                    stack.push((to, 0));
                }
                Mark::Open => forward[number] = false,
                Mark::Done => {}
            }
        }
    }
    forward
}

/// The longest way to each box; one that nothing leads to stands just before what it leads to.
fn ranks(count: usize, arrows: &[(usize, usize)], forward: &[bool]) -> Vec<usize> {
    let mut out = vec![Vec::new(); count];
    let mut waits_for = vec![0usize; count];
    for ((from, to), _) in arrows.iter().zip(forward).filter(|(_, forward)| **forward) {
        out[*from].push(*to);
        waits_for[*to] += 1;
    }
    let is_source: Vec<_> = waits_for.iter().map(|waits| *waits == 0).collect();
    let mut ranks = vec![0; count];
    let mut ready: Vec<_> = (0..count).filter(|node| is_source[*node]).collect();
    while let Some(node) = ready.pop() {
        for &to in &out[node] {
            ranks[to] = ranks[to].max(ranks[node] + 1);
            waits_for[to] -= 1;
            if waits_for[to] == 0 {
                ready.push(to);
            }
        }
    }
    for node in (0..count).filter(|node| is_source[*node]) {
        if let Some(nearest) = out[node].iter().map(|to| ranks[*to]).min() {
            ranks[node] = nearest - 1;
        }
    }
    ranks
}

/// Boxes and way points by rank.
struct Net {
    /// Per rank, its points in order.
    ranks: Vec<Vec<usize>>,
    /// Height of each point; boxes first.
    heights: Vec<f64>,
    /// Upper edge of each point.
    tops: Vec<f64>,
    /// Neighbours in the rank before and after.
    before: Vec<Vec<usize>>,
    after: Vec<Vec<usize>>,
    /// Per arrow, its way points.
    way_points: Vec<Vec<usize>>,
    rank_of: Vec<usize>,
}

impl Net {
    fn new(
        sizes: &[(f64, f64)],
        arrows: &[(usize, usize)],
        forward: &[bool],
        ranks: &[usize],
        spacing: Spacing,
    ) -> Self {
        let count = ranks.iter().max().map_or(0, |last| last + 1);
        let mut net = Self {
            ranks: vec![Vec::new(); count],
            heights: sizes.iter().map(|size| size.1).collect(),
            tops: Vec::new(),
            before: vec![Vec::new(); sizes.len()],
            after: vec![Vec::new(); sizes.len()],
            way_points: vec![Vec::new(); arrows.len()],
            rank_of: ranks.to_vec(),
        };
        for (node, rank) in ranks.iter().enumerate() {
            net.ranks[*rank].push(node);
        }
        let mut left = WAY_POINTS_MAX;
        for (number, (from, to)) in arrows.iter().enumerate() {
            if !forward[number] {
                continue;
            }
            let mut last = *from;
            let between = ranks[*from] + 1..ranks[*to];
            if between.len() <= left {
                left -= between.len();
                for rank in between {
                    let point = net.heights.len();
                    net.heights.push(spacing.passage);
                    net.before.push(Vec::new());
                    net.after.push(Vec::new());
                    net.rank_of.push(rank);
                    net.ranks[rank].push(point);
                    net.join(last, point);
                    net.way_points[number].push(point);
                    last = point;
                }
            }
            net.join(last, *to);
        }
        net
    }

    fn join(&mut self, from: usize, to: usize) {
        self.after[from].push(to);
        self.before[to].push(from);
    }

    /// Orders each rank by where its neighbours are, keeping the order with the fewest crossings.
    fn order(&mut self) {
        let mut best = (self.crossings(), self.ranks.clone());
        for sweep in 0..ORDER_SWEEPS {
            let down = sweep % 2 == 0;
            let count = self.ranks.len();
            for step in 1..count {
                let rank = if down { step } else { count - 1 - step };
                let beside = if down { rank - 1 } else { rank + 1 };
                let mut position = vec![0.0; self.heights.len()];
                for (at, point) in self.ranks[beside].iter().enumerate() {
                    position[*point] = at as f64;
                }
                let neighbours = if down { &self.before } else { &self.after };
                let mut keyed: Vec<(f64, usize)> = Vec::with_capacity(self.ranks[rank].len());
                for (at, point) in self.ranks[rank].iter().enumerate() {
                    let near = &neighbours[*point];
                    let sum: f64 = near.iter().map(|near| position[*near]).sum();
                    let key = if near.is_empty() {
                        at as f64
                    } else {
                        sum / near.len() as f64
                    };
                    keyed.push((key, *point));
                }
                keyed.sort_by(|a, b| a.0.total_cmp(&b.0));
                self.ranks[rank] = keyed.into_iter().map(|(_, point)| point).collect();
            }
            let crossings = self.crossings();
            if crossings < best.0 {
                best = (crossings, self.ranks.clone());
            }
        }
        self.ranks = best.1;
    }

    /// Crossings between all ranks, counted with a Fenwick tree.
    fn crossings(&self) -> u64 {
        let mut position = vec![0; self.heights.len()];
        for rank in &self.ranks {
            rank.iter()
                .enumerate()
                .for_each(|(at, point)| position[*point] = at);
        }
        let mut crossings = 0;
        for pair in self.ranks.windows(2) {
            let mut tree = vec![0u64; pair[1].len() + 1];
            let mut seen = 0;
            for point in &pair[0] {
                let mut ends: Vec<_> = self.after[*point]
                    .iter()
                    .filter(|to| self.rank_of[**to] == self.rank_of[*point] + 1)
                    .map(|to| position[*to])
                    .collect();
                ends.sort_unstable();
                for end in &ends {
                    let mut not_above = 0;
                    let mut at = end + 1;
                    while at > 0 {
                        not_above += tree[at];
                        at &= at - 1;
                    }
                    crossings += seen - not_above;
                }
                for end in ends {
                    let mut at = end + 1;
                    while at < tree.len() {
                        tree[at] += 1;
                        at += at & at.wrapping_neg();
                    }
                    seen += 1;
                }
            }
        }
        crossings
    }

    /// Gives each point the height nearest to its neighbours' that its rank's order allows.
    fn heights(&mut self, spacing: Spacing) {
        self.tops = vec![0.0; self.heights.len()];
        for rank in &self.ranks {
            let mut top = 0.0;
            for point in rank {
                self.tops[*point] = top;
                top += self.heights[*point] + spacing.down;
            }
        }
        for sweep in 0..HEIGHT_SWEEPS {
            let count = self.ranks.len();
            for step in 0..count {
                let rank = if sweep % 2 == 0 {
                    step
                } else {
                    count - 1 - step
                };
                let points = &self.ranks[rank];
                let mut offset = 0.0;
                let mut wishes = Vec::with_capacity(points.len());
                for point in points {
                    let near = self.before[*point].iter().chain(&self.after[*point]);
                    let middles: Vec<_> = near
                        .map(|near| self.tops[*near] + self.heights[*near] / 2.0)
                        .collect();
                    let wish = if middles.is_empty() {
                        self.tops[*point]
                    } else {
                        let sum: f64 = middles.iter().sum();
                        sum / middles.len() as f64 - self.heights[*point] / 2.0
                    };
                    wishes.push((wish - offset, 1.0 + middles.len() as f64));
                    offset += self.heights[*point] + spacing.down;
                }
                let mut offset = 0.0;
                for (point, top) in points.iter().zip(rising(&wishes)) {
                    self.tops[*point] = top + offset;
                    offset += self.heights[*point] + spacing.down;
                }
            }
        }
    }

    fn draw(
        &self,
        sizes: &[(f64, f64)],
        arrows: &[(usize, usize)],
        forward: &[bool],
        spacing: Spacing,
    ) -> Layout {
        let highest = self
            .tops
            .iter()
            .copied()
            .fold(f64::INFINITY, f64::min)
            .min(f64::MAX);
        let widths: Vec<f64> = self
            .ranks
            .iter()
            .map(|rank| {
                rank.iter()
                    .filter_map(|at| sizes.get(*at))
                    .fold(0.0, |w, s| s.0.max(w))
            })
            .collect();
        let mut lefts = Vec::with_capacity(widths.len());
        let mut x = 0.0;
        for width in &widths {
            lefts.push(x);
            x += width + spacing.across;
        }
        let boxes: Vec<Placed> = sizes
            .iter()
            .enumerate()
            .map(|(node, (width, height))| Placed {
                x: lefts[self.rank_of[node]] + (widths[self.rank_of[node]] - width) / 2.0,
                y: self.tops[node] - highest,
                width: *width,
                height: *height,
            })
            .collect();
        let bottom = boxes
            .iter()
            .map(|placed| placed.y + placed.height)
            .fold(0.0, f64::max);
        let ports = Ports::new(&boxes, arrows, forward);
        let mut lane = lanes(arrows, forward, &self.rank_of);
        let routes: Vec<Route> = (0..arrows.len())
            .map(|number| {
                let (from_y, to_y) = ports.of[number];
                if let Some(lane) = lane[number].take() {
                    let lane_y = bottom + spacing.lane * (lane as f64 + 1.5);
                    let (from, to) = (
                        self.rank_of[arrows[number].0],
                        self.rank_of[arrows[number].1],
                    );
                    // Neighbouring lanes do not run down and up in the same place.
                    let aside = spacing.across * (0.28 + 0.08 * (lane % LANES_APART) as f64);
                    let right_x = lefts[from] + widths[from] + aside;
                    let left_x = lefts[to] - aside;
                    return Route::Around {
                        from_y,
                        right_x,
                        lane_y,
                        left_x,
                        to_y,
                    };
                }
                let through = self.way_points[number].iter().map(|point| {
                    let left = lefts[self.rank_of[*point]];
                    let right = left + widths[self.rank_of[*point]];
                    (
                        left,
                        right,
                        self.tops[*point] - highest + self.heights[*point] / 2.0,
                    )
                });
                Route::Forward {
                    from_y,
                    through: through.collect(),
                    to_y,
                }
            })
            .collect();
        let reach = |route: &Route| match route {
            Route::Forward { through, .. } => through.iter().fold(0.0, |y: f64, s| y.max(s.2)),
            Route::Around { lane_y, .. } => *lane_y,
        };
        let height = routes.iter().map(reach).fold(bottom, f64::max);
        Layout {
            boxes,
            routes,
            width: (x - spacing.across).max(0.0),
            height,
        }
    }
}

/// The numbers nearest to these (wish, weight) that never fall: pool adjacent violators.
fn rising(wishes: &[(f64, f64)]) -> Vec<f64> {
    let mut pools: Vec<(f64, f64, usize)> = Vec::with_capacity(wishes.len());
    for (wish, weight) in wishes {
        let mut pool = (*wish, *weight, 1);
        while let Some(last) = pools.last().copied().filter(|last| last.0 > pool.0) {
            pools.pop();
            let weight = last.1 + pool.1;
            pool = (
                (last.0 * last.1 + pool.0 * pool.1) / weight,
                weight,
                last.2 + pool.2,
            );
        }
        pools.push(pool);
    }
    pools
        .iter()
        .flat_map(|(value, _, count)| std::iter::repeat_n(*value, *count))
        .collect()
}

/// The lane of each arrow against the flow: the shortest innermost.
fn lanes(arrows: &[(usize, usize)], forward: &[bool], rank_of: &[usize]) -> Vec<Option<usize>> {
    let mut back: Vec<usize> = (0..arrows.len())
        .filter(|number| !forward[*number])
        .collect();
    back.sort_by_key(|number| {
        let (from, to) = arrows[*number];
        rank_of[from].saturating_sub(rank_of[to])
    });
    let mut lanes = vec![None; arrows.len()];
    for (lane, number) in back.into_iter().enumerate() {
        lanes[number] = Some(lane);
    }
    lanes
}

/// Where arrows leave and enter boxes: spread along the side, in the order of their other ends.
struct Ports {
    of: Vec<(f64, f64)>,
}

/// Distance of two arrows at a box, where there is room.
const PORT_DISTANCE: f64 = 9.0;

impl Ports {
    fn new(boxes: &[Placed], arrows: &[(usize, usize)], forward: &[bool]) -> Self {
        // What runs around below leaves and enters below.
        let other = |number: usize, end: usize| {
            if forward[number] {
                boxes[end].middle()
            } else {
                f64::INFINITY
            }
        };
        let mut of = vec![(0.0, 0.0); arrows.len()];
        let mut leaving = vec![Vec::new(); boxes.len()];
        let mut entering = vec![Vec::new(); boxes.len()];
        for (number, (from, to)) in arrows.iter().enumerate() {
            leaving[*from].push(number);
            entering[*to].push(number);
        }
        for (node, placed) in boxes.iter().enumerate() {
            leaving[node]
                .sort_by(|a, b| other(*a, arrows[*a].1).total_cmp(&other(*b, arrows[*b].1)));
            entering[node]
                .sort_by(|a, b| other(*a, arrows[*a].0).total_cmp(&other(*b, arrows[*b].0)));
            let spread = |count: usize, at: usize| {
                let room = (placed.height - 14.0).max(0.0);
                let gaps = count.saturating_sub(1).max(1) as f64;
                let distance = PORT_DISTANCE.min(room / gaps);
                placed.middle() + (at as f64 - (count.saturating_sub(1)) as f64 / 2.0) * distance
            };
            for (at, number) in leaving[node].iter().enumerate() {
                of[*number].0 = spread(leaving[node].len(), at);
            }
            for (at, number) in entering[node].iter().enumerate() {
                of[*number].1 = spread(entering[node].len(), at);
            }
        }
        Self { of }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SPACING: Spacing = Spacing {
        across: 50.0,
        down: 20.0,
        passage: 8.0,
        lane: 12.0,
    };

    type Sizes = Vec<(f64, f64)>;
    type Ends = Vec<(usize, usize)>;

    /// Sizes and arrows of any picture.
    fn picture() -> impl Strategy<Value = (Sizes, Ends)> {
        (1usize..24).prop_flat_map(|count| {
            let sizes = prop::collection::vec((20.0..200.0f64, 20.0..80.0f64), count);
            (sizes, prop::collection::vec((0..count, 0..count), 0..60))
        })
    }

    proptest! {
        #[test]
        fn boxes_never_overlap_and_arrows_go_right((sizes, arrows) in picture()) {
            let layout = lay_out(&sizes, &arrows, &[0], SPACING);
            for (at, a) in layout.boxes.iter().enumerate() {
                prop_assert!(a.x >= -0.01 && a.y >= -0.01);
                prop_assert!(a.right() <= layout.width + 0.01);
                prop_assert!(a.y + a.height <= layout.height + 0.01);
                for b in &layout.boxes[at + 1..] {
                    let apart = a.right() <= b.x + 0.01
                        || b.right() <= a.x + 0.01
                        || a.y + a.height <= b.y + 0.01
                        || b.y + b.height <= a.y + 0.01;
                    prop_assert!(apart, "{a:?} and {b:?}");
                }
            }
            for ((from, to), route) in arrows.iter().zip(&layout.routes) {
                let (from, to) = (&layout.boxes[*from], &layout.boxes[*to]);
                match route {
                    Route::Forward { from_y, through, to_y } => {
                        prop_assert!(from.right() < to.x);
                        prop_assert!(through.iter().all(|(left, right, _)| left <= right));
                        prop_assert!((from.y..=from.y + from.height).contains(from_y));
                        prop_assert!((to.y..=to.y + to.height).contains(to_y));
                    }
                    Route::Around { lane_y, right_x, left_x, .. } => {
                        prop_assert!(layout.boxes.iter().all(|at| at.y + at.height < *lane_y));
                        prop_assert!(from.right() < *right_x && *left_x < to.x);
                    }
                }
            }
        }

        #[test]
        fn rising_numbers_rise_and_stay_near(wishes in prop::collection::vec(-1e3..1e3f64, 1..40)) {
            let weighted: Vec<_> = wishes.iter().map(|wish| (*wish, 1.0)).collect();
            let found = rising(&weighted);
            prop_assert_eq!(found.len(), wishes.len());
            prop_assert!(found.windows(2).all(|pair| pair[0] <= pair[1] + 1e-9));
            let sum = |numbers: &[f64]| numbers.iter().sum::<f64>();
            prop_assert!((sum(&found) - sum(&wishes)).abs() < 1e-6, "the mean is kept");
        }
    }

    #[test]
    fn a_chain_is_a_straight_line() {
        let sizes = [(80.0, 40.0), (60.0, 30.0), (80.0, 40.0)];
        let layout = lay_out(&sizes, &[(0, 1), (1, 2)], &[0], SPACING);
        let middles: Vec<_> = layout.boxes.iter().map(Placed::middle).collect();
        assert!(
            middles
                .windows(2)
                .all(|pair| (pair[0] - pair[1]).abs() < 0.01),
            "{middles:?}"
        );
        assert_eq!(layout.width, 80.0 + 60.0 + 80.0 + 2.0 * SPACING.across);
    }

    #[test]
    fn nothing_is_laid_out_as_nothing() {
        let layout = lay_out(&[], &[], &[], SPACING);
        assert_eq!(
            (layout.boxes.len(), layout.width, layout.height),
            (0, 0.0, 0.0)
        );
    }
}
