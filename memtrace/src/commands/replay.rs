//! `memtrace top FILE`: a recording on the screen, with a time cursor.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;

use crate::{
    cli::{exit::Exit, terminal, top::ReplayPlan},
    record::{Playback, Played, RecordError, Scene, When},
    report::output::Destination,
    session::Signals,
    tui::{self, Cursor, Key, Mark, Moment, Past, Request, Screen, Seek},
};

/// Times as fast as it was recorded.
const SPEEDS: [u32; 8] = [1, 2, 5, 10, 30, 60, 300, 1800];
/// Where in [`SPEEDS`] it begins.
const USUAL_SPEED: usize = 3;
/// Between two looks at the clock while it plays.
const TICK: Duration = Duration::from_millis(100);
/// Between two looks at a recording that is being written, and two drawings while its past is read.
const SECOND: Duration = Duration::from_secs(1);
/// Nothing happens without a reason, but a lost one must not freeze the screen for good.
const FOREVER: Duration = Duration::from_secs(60);
/// Marks that are told to the screen, the last before the cursor.
const MAX_MARKS: usize = 64;

/// Shows a recording until the user quits, or a signal.
pub(super) fn replay(plan: &ReplayPlan) -> anyhow::Result<Exit> {
    tui::require()?;
    if let Some(path) = &plan.snapshot {
        Destination::Replace(path.clone()).check()?;
    }
    let playback = Playback::open(&plan.file)?;
    let at = playback.find(plan.at.as_ref().unwrap_or(&When::End))?;
    // What is wrong with it is said before the screen is taken.
    playback.scene(at, plan.top.limit())?;
    let signals = Signals::take_over().context("cannot take signals over")?;
    let screen = Screen::open(tui::Options {
        color: terminal::color(plan.color),
        snapshot: plan.snapshot.clone(),
    })?;
    let mut replay = Replay {
        plan,
        playback,
        signals,
        screen,
        at,
        played_ms: 0.0,
        playing: None,
        speed: USUAL_SPEED,
        is_read: false,
        drawn: None,
        looked: Instant::now(),
        is_stale: true,
        since: None,
        stop: false,
        has_failed: false,
    };
    replay.run()?;
    Ok(if replay.has_failed {
        Exit::Failed
    } else {
        Exit::Done
    })
}

struct Replay<'a> {
    plan: &'a ReplayPlan,
    playback: Playback,
    signals: Signals,
    screen: Screen,
    /// The report that is shown.
    at: usize,
    /// The recording's time that playing has come to.
    played_ms: f64,
    /// When the clock was looked at last, while it plays.
    playing: Option<Instant>,
    /// In [`SPEEDS`].
    speed: usize,
    /// The past is read whole, or as far as it can be.
    is_read: bool,
    drawn: Option<Instant>,
    /// When the file was looked at for more.
    looked: Instant,
    /// What is shown is not what should be.
    is_stale: bool,
    /// A mark and its report, with what was held then.
    since: Option<(usize, Arc<Mark>)>,
    stop: bool,
    has_failed: bool,
}

impl Replay<'_> {
    fn run(&mut self) -> anyhow::Result<()> {
        while !self.stop {
            if self.is_stale {
                self.show();
            }
            self.screen.wait_at_most(&self.signals, self.patience())?;
            while let Some(signal) = self.signals.take() {
                match signal.number {
                    libc::SIGWINCH => self.screen.resized(),
                    libc::SIGCONT => self.screen.resumed(),
                    _ => self.stop |= signal.ends(),
                }
            }
            self.asked();
            self.play();
            self.read();
        }
        Ok(())
    }

    fn patience(&self) -> Duration {
        if !self.is_read {
            Duration::ZERO
        } else if self.playing.is_some() {
            TICK
        } else {
            FOREVER
        }
    }

    fn asked(&mut self) {
        for request in self.screen.requests() {
            match request {
                Request::Seek(seek) => self.seek(seek),
                Request::Mark(_) => {}
                Request::Quit | Request::Gone => self.stop = true,
                Request::Failed => {
                    self.stop = true;
                    self.has_failed = true;
                }
            }
        }
    }

    fn last(&self) -> usize {
        self.playback.moments().len().saturating_sub(1)
    }

    fn ms(&self, at: usize) -> i64 {
        let moments = self.playback.moments();
        moments.get(at).map_or(0, |moment| moment.at_ms)
    }

    /// The last report that is not after this time.
    fn until(&self, ms: i64) -> usize {
        let moments = self.playback.moments();
        let after = moments.partition_point(|moment| moment.at_ms <= ms);
        after.saturating_sub(1)
    }

    fn seek(&mut self, seek: Seek) {
        let last = self.last();
        let to = match seek {
            Seek::Step(by) => self.at.saturating_add_signed(by).min(last),
            Seek::Tenths(by) => self.tenths(by),
            Seek::Mark(towards) => self.mark(towards),
            Seek::First => 0,
            Seek::Last => {
                self.look_for_more();
                self.last()
            }
            Seek::Toggle => return self.toggle(),
            Seek::Speed(by) => {
                let speed = self.speed.saturating_add_signed(by as isize);
                self.speed = speed.min(SPEEDS.len() - 1);
                self.is_stale = true;
                return;
            }
        };
        self.go(to);
    }

    fn go(&mut self, to: usize) {
        self.is_stale |= self.at != to;
        self.at = to;
        self.played_ms = self.ms(to) as f64;
    }

    /// At least one report, if there is one.
    fn tenths(&self, by: i32) -> usize {
        let length = self.ms(self.last()) - self.ms(0);
        let to = self.until(self.ms(self.at) + length / 10 * i64::from(by));
        if by < 0 {
            to.min(self.at.saturating_sub(1))
        } else {
            to.max(self.at + 1).min(self.last())
        }
    }

    /// The report of the next mark that way; where it is when there is none.
    fn mark(&self, towards: i32) -> usize {
        let mut marked = self.marks().map(|(at, _)| at);
        let found = if towards < 0 {
            marked.filter(|at| *at < self.at).last()
        } else {
            marked.find(|at| *at > self.at)
        };
        found.unwrap_or(self.at)
    }

    /// Reports and names of all marks.
    fn marks(&self) -> impl Iterator<Item = (usize, &str)> {
        let moments = self.playback.moments().iter().enumerate();
        moments.flat_map(|(at, moment)| moment.marks.iter().map(move |name| (at, name.as_str())))
    }

    fn toggle(&mut self) {
        self.is_stale = true;
        if self.playing.take().is_some() {
            return;
        }
        // At the end it begins again; where more may come it waits for that.
        if self.at == self.last() && self.playback.is_whole() {
            self.go(0);
        }
        self.played_ms = self.ms(self.at) as f64;
        self.playing = Some(Instant::now());
    }

    /// Goes on as far as the time has.
    fn play(&mut self) {
        let Some(before) = self.playing else { return };
        let now = Instant::now();
        let speed = SPEEDS.get(self.speed).copied().unwrap_or(1);
        self.played_ms += (now - before).as_secs_f64() * 1000.0 * f64::from(speed);
        self.playing = Some(now);
        let to = self.until(self.played_ms as i64).max(self.at);
        self.is_stale |= to != self.at;
        self.at = to;
        if self.at < self.last() {
            return;
        }
        if self.playback.is_whole() {
            self.playing = None;
            self.is_stale = true;
        } else {
            // No further than there is something: it goes on from here.
            self.played_ms = self.ms(self.at) as f64;
            if now - self.looked >= SECOND {
                self.look_for_more();
            }
        }
    }

    /// Looks for what the recorder has written since.
    fn look_for_more(&mut self) {
        self.looked = Instant::now();
        if self.playback.is_whole() {
            return;
        }
        let ms = self.ms(self.at);
        match self.playback.refresh() {
            Ok(has_changed) => {
                self.at = self.until(ms);
                self.since = None;
                self.is_read &= !has_changed;
                self.is_stale |= has_changed;
            }
            Err(error) => self.screen.notice(error.to_string()),
        }
    }

    /// Reads on in the past, a bit at a time.
    fn read(&mut self) {
        if self.is_read {
            return;
        }
        match self.playback.read_on() {
            Ok(true) => {
                let due = self.drawn.is_none_or(|drawn| drawn.elapsed() >= SECOND);
                self.is_stale |= due;
            }
            Ok(false) => {
                self.is_read = true;
                self.is_stale = true;
                if self.playback.is_partial() {
                    let text = "there are more stacks than histories are kept of: some have none";
                    self.screen.notice(text.to_owned());
                }
            }
            Err(error) => {
                self.is_read = true;
                self.screen.notice(error.to_string());
            }
        }
    }

    /// Shows the report at the cursor; when it cannot be read that is said, and the screen stays.
    fn show(&mut self) {
        self.is_stale = false;
        self.drawn = Some(Instant::now());
        let shown = self.scene().and_then(|scene| {
            let marks = self.marks_until()?;
            Ok(self.moment(scene, marks))
        });
        match shown {
            Ok(moment) => self.screen.show(moment),
            Err(error) => {
                self.playing = None;
                self.screen.notice(error.to_string());
            }
        }
    }

    /// The report; another one in its place when the recorder has thinned it out meanwhile.
    fn scene(&mut self) -> Result<Scene, RecordError> {
        let top = self.plan.top.limit();
        let found = self.playback.scene(self.at, top);
        if found.is_ok() || self.playback.is_whole() {
            return found;
        }
        self.look_for_more();
        self.playback.scene(self.at, top)
    }

    /// The marks until the cursor, the last of them with what was held then.
    fn marks_until(&mut self) -> Result<Vec<Arc<Mark>>, RecordError> {
        let until: Vec<(usize, String)> = self
            .marks()
            .take_while(|(at, _)| *at <= self.at)
            .map(|(at, name)| (at, name.to_owned()))
            .collect();
        let from = until.len().saturating_sub(MAX_MARKS);
        let mut marks: Vec<Arc<Mark>> = Vec::with_capacity(until.len() - from);
        for (at, name) in until.iter().skip(from) {
            marks.push(Arc::new(Mark {
                name: name.clone(),
                at: self.ms(*at) as f64 / 1000.0,
                ..Mark::default()
            }));
        }
        if let (Some(last), Some((at, _))) = (marks.last_mut(), until.last()) {
            *last = self.held_at(*at, last)?;
        }
        Ok(marks)
    }

    fn held_at(&mut self, at: usize, mark: &Mark) -> Result<Arc<Mark>, RecordError> {
        if let Some((known, since)) = &self.since
            && *known == at
            && since.name == mark.name
        {
            return Ok(Arc::clone(since));
        }
        let holdings = self.playback.holdings(at)?.into_iter();
        let held = |one: crate::record::Holding| {
            let account = &one.account;
            let key = Key::of_stack(one.space, one.stack, account);
            (
                key,
                (account.outstanding_bytes, account.outstanding_objects),
            )
        };
        let mark = Arc::new(Mark {
            stacks: holdings.map(held).collect(),
            ..mark.clone()
        });
        self.since = Some((at, Arc::clone(&mark)));
        Ok(mark)
    }

    fn moment(&self, scene: Scene, marks: Vec<Arc<Mark>>) -> Moment {
        let Scene {
            report,
            stacks,
            processes,
        } = scene;
        let past = |key: Key, played: Played| Past {
            key,
            points: played.points,
        };
        let stacks = stacks.into_iter().zip(&report.stacks);
        let stacks = stacks
            .map(|(one, stack)| past(Key::of_stack(one.space, one.stack, stack), one))
            .collect();
        let processes = processes.into_iter();
        let processes = processes
            .map(|one| past(Key::of_process(one.space), one))
            .collect();
        Moment {
            report,
            stacks,
            processes,
            marks,
            is_recording: false,
            cursor: Some(self.cursor()),
        }
    }

    fn cursor(&self) -> Cursor {
        let seconds = |at: usize| self.ms(at) as f64 / 1000.0;
        let name = self.plan.file.file_name().unwrap_or_default();
        let speed = SPEEDS.get(self.speed).copied().unwrap_or(1);
        Cursor {
            file: name.to_string_lossy().into_owned(),
            number: self.at + 1,
            reports: self.playback.moments().len(),
            seconds: seconds(self.at),
            first: seconds(0),
            last: seconds(self.last()),
            playing: self.playing.map(|_| speed),
            speed,
            marks: self.marks().map(|(at, _)| seconds(at)).collect(),
            read: if self.is_read {
                1.0
            } else {
                self.playback.read_share()
            },
        }
    }
}
