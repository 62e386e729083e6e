//! Outstanding bytes over time in bounded memory: the distant past thinned, the recent past whole.

/// Outstanding bytes at one moment. 16 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Point {
    /// Seconds since the session began.
    pub at: f64,
    /// Outstanding bytes.
    pub bytes: u64,
}

const _: () = assert!(size_of::<Point>() == 16);

/// Fewest points a history can be limited to; less carries no verdict.
pub const MIN_HISTORY_POINTS: usize = 32;

/// A bounded series of [`Point`]s.
///
/// Two parts share the cap. The *recent* part (three eighths) holds every point of the last
/// intervals. The *past* (five eighths) covers everything since the first point evenly: one point
/// for every `stride` observations, and when it is full every second one goes and the stride
/// doubles. Which point of a group stays is drawn (deterministically) and not always the first, so
/// that a sawtooth whose period is near a multiple of the stride turns into noise and not into a
/// slow ramp.
///
/// Memory: at most `cap` points of 16 bytes, plus the growth slack of the vectors (none once full).
#[derive(Clone, Debug)]
pub struct History {
    past: Vec<Point>,
    /// A ring once full; `head` is the oldest point.
    recent: Vec<Point>,
    head: usize,
    past_cap: usize,
    recent_cap: usize,
    stride: u64,
    pushed: u64,
    /// The point drawn so far for the group being filled.
    candidate: Point,
}

impl History {
    /// An empty history of at most `cap` points (never less than [`MIN_HISTORY_POINTS`]).
    #[must_use]
    pub fn new(cap: usize) -> Self {
        let cap = cap.max(MIN_HISTORY_POINTS);
        let recent_cap = cap * 3 / 8;
        Self {
            past: Vec::new(),
            recent: Vec::new(),
            head: 0,
            past_cap: cap - recent_cap,
            recent_cap,
            stride: 1,
            pushed: 0,
            candidate: Point::default(),
        }
    }

    /// Adds the next point. Times must not go back.
    pub fn push(&mut self, point: Point) {
        self.push_past(point);
        if self.recent.len() < self.recent_cap {
            reserve_bounded(&mut self.recent, self.recent_cap);
            self.recent.push(point);
        } else if let Some(slot) = self.recent.get_mut(self.head) {
            *slot = point;
            self.head = (self.head + 1) % self.recent_cap;
        }
    }

    /// Points pushed so far, also those that went since.
    #[must_use]
    pub fn observed(&self) -> u64 {
        self.pushed
    }

    /// Every point held, oldest first, none twice.
    #[must_use]
    pub fn points(&self) -> Vec<Point> {
        let mut all = Vec::with_capacity(self.past.len() + self.recent.len());
        let from = self.recent_from();
        all.extend(
            self.past
                .iter()
                .take_while(|p| from.is_none_or(|from| p.at < from)),
        );
        all.extend(self.recent());
        all
    }

    /// Bytes per second between the ends of the recent part; 0 for fewer than two points.
    ///
    /// Cheap enough to rank by, not fit to judge by.
    #[must_use]
    pub fn recent_rate(&self) -> f64 {
        let mut recent = self.recent();
        let (Some(first), Some(last)) = (recent.next(), recent.last()) else {
            return 0.0;
        };
        let seconds = last.at - first.at;
        if seconds <= 0.0 {
            0.0
        } else {
            (last.bytes as f64 - first.bytes as f64) / seconds
        }
    }

    /// Bytes of memory the points take.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        (self.past.capacity() + self.recent.capacity()) * size_of::<Point>()
    }

    fn recent(&self) -> impl Iterator<Item = Point> {
        let (newer, older) = self.recent.split_at(self.head.min(self.recent.len()));
        older.iter().chain(newer).copied()
    }

    fn recent_from(&self) -> Option<f64> {
        self.recent().next().map(|p| p.at)
    }

    /// One point of each group of `stride` is kept; the `k`-th replaces the drawn one with
    /// probability 1/k, so that each is as likely.
    fn push_past(&mut self, point: Point) {
        let in_group = self.pushed % self.stride + 1;
        self.pushed += 1;
        if draw(self.pushed).is_multiple_of(in_group) {
            self.candidate = point;
        }
        if in_group < self.stride {
            return;
        }
        if self.past.len() >= self.past_cap {
            self.thin();
            // The group just ended is only the first half of a group of the new stride.
            if !self.pushed.is_multiple_of(self.stride) {
                return;
            }
        }
        reserve_bounded(&mut self.past, self.past_cap);
        self.past.push(self.candidate);
    }

    /// Keeps one of each pair, and the very first point.
    fn thin(&mut self) {
        let salt = self.pushed;
        let mut pair = 0;
        let kept = self.past.chunks(2).filter_map(|two| {
            pair += 1;
            let second = pair > 1 && draw(salt.wrapping_add(pair)).is_multiple_of(2);
            two.get(usize::from(second)).or(two.first()).copied()
        });
        let kept: Vec<Point> = kept.collect();
        self.past.clear();
        self.past.extend(kept);
        self.stride = self.stride.saturating_mul(2);
    }
}

/// Grows by doubling, but never past the cap (a plain push could reserve twice of it).
fn reserve_bounded(points: &mut Vec<Point>, cap: usize) {
    if points.len() == points.capacity() {
        let wanted = (points.len() * 2).clamp(4, cap.max(4));
        points.reserve_exact(wanted.saturating_sub(points.len()));
    }
}

/// A fixed scramble of `n` (splitmix64): as good as a draw, and the same in every run.
fn draw(n: u64) -> u64 {
    let mut z = n
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .wrapping_add(0x1234_5678_9abc_def1);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)) >> 8
}
