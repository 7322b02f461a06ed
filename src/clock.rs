//! What time it is, and whether to believe it.
//!
//! A board without a clock of its own starts at some time in the past and is put right when NTP has
//! answered. Until then its records are stamped by *our* time: the wall clock as it was when the
//! process started, plus what has passed since on the clock that counts from boot. Nobody can set
//! that back or forth. When the kernel says that the wall clock is right, the difference between
//! the two is known, and with it the right time of everything stamped in this boot; an [`Anchor`]
//! keeps what is needed for that beyond a restart.
//!
//! Once believed, the clock is believed for the life of the process: one that was right and then
//! lost its servers drifts by seconds a week.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// One look at the clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// The wall clock, milliseconds since 1970.
    pub wall_ms: i64,
    /// Milliseconds since boot, sleep included.
    pub boot_ms: i64,
    /// Whether the wall clock was put right.
    pub synchronised: bool,
}

/// Where the time comes from.
pub trait ClockSource: Send + Sync + std::fmt::Debug {
    /// What the clocks show now.
    fn look(&self) -> Look;

    /// Which boot `boot_ms` counts from.
    fn boot_id(&self) -> String;
}

/// What turns time since boot into the time that records were stamped with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anchor {
    /// Which boot; times of another cannot be compared.
    pub boot_id: String,
    /// Stamped time less time since boot, in milliseconds.
    pub offset_ms: i64,
}

/// The gateway's clock.
#[derive(Debug)]
pub struct Clock {
    source: Box<dyn ClockSource>,
    boot_id: String,
    /// Our time less time since boot, while the wall clock is not believed.
    ours_ms: i64,
    /// The same once it is; written before `sure` is.
    right_ms: AtomicI64,
    sure: AtomicBool,
}

impl Clock {
    /// A clock that is believed as soon as its source says so.
    #[must_use]
    pub fn new(source: Box<dyn ClockSource>) -> Self {
        let look = source.look();
        let boot_id = source.boot_id();
        let ours_ms = look.wall_ms.saturating_sub(look.boot_ms);
        Self {
            source,
            boot_id,
            ours_ms,
            right_ms: AtomicI64::new(ours_ms),
            sure: AtomicBool::new(look.synchronised),
        }
    }

    /// The system's clock. `file`: right once this file is there; else the kernel is asked.
    #[must_use]
    pub fn system(file: Option<&Path>) -> Self {
        let sign = file.map_or(Sign::Kernel, |path| Sign::File(path.to_owned()));
        Self::new(Box::new(System(sign)))
    }

    /// The system's clock, believed whatever is said of it.
    #[must_use]
    pub fn trusted() -> Self {
        Self::new(Box::new(System(Sign::None)))
    }

    /// Whether the wall clock is believed. Costs nothing.
    #[must_use]
    pub fn is_sure(&self) -> bool {
        self.sure.load(Ordering::Acquire)
    }

    /// Looks again; gives true when this has made the clock sure. One caller only.
    pub fn check(&self) -> bool {
        if self.is_sure() {
            return false;
        }
        let look = self.source.look();
        if look.synchronised {
            let right_ms = look.wall_ms.saturating_sub(look.boot_ms);
            self.right_ms.store(right_ms, Ordering::Release);
            self.sure.store(true, Ordering::Release);
        }
        look.synchronised
    }

    /// What the clock says now.
    #[must_use]
    pub fn moment(&self) -> Moment<'_> {
        let sure = self.is_sure();
        let look = self.source.look();
        let (now_ms, offset_ms) = if sure {
            (look.wall_ms, self.right_ms.load(Ordering::Acquire))
        } else {
            (look.boot_ms.saturating_add(self.ours_ms), self.ours_ms)
        };
        Moment {
            now_ms,
            sure,
            offset_ms,
            boot_id: &self.boot_id,
        }
    }

    /// What records that are stamped by our time can be put right with.
    #[must_use]
    pub fn anchor(&self) -> Anchor {
        Anchor {
            boot_id: self.boot_id.clone(),
            offset_ms: self.ours_ms,
        }
    }
}

/// What the clock says at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Moment<'a> {
    /// Our time, milliseconds since 1970; the right one when `sure`.
    pub now_ms: i64,
    /// Whether the wall clock is believed.
    pub sure: bool,
    offset_ms: i64,
    boot_id: &'a str,
}

impl Moment<'_> {
    /// Milliseconds to add to what was stamped under an anchor to have it by our time; `None` for
    /// another boot.
    #[must_use]
    pub fn shift_ms(&self, anchor: &Anchor) -> Option<i64> {
        let same = anchor.boot_id == self.boot_id && !self.boot_id.is_empty();
        same.then(|| self.offset_ms.saturating_sub(anchor.offset_ms))
    }
}

/// By what the system's clock is known to be right.
#[derive(Debug)]
enum Sign {
    None,
    Kernel,
    File(PathBuf),
}

#[derive(Debug)]
struct System(Sign);

impl ClockSource for System {
    fn look(&self) -> Look {
        // Asked first: what was put right meanwhile is not to be read as it was before.
        let synchronised = match &self.0 {
            Sign::None => true,
            Sign::File(path) => path.exists(),
            Sign::Kernel => kernel_is_sure(),
        };
        let boot = clock_gettime(ClockId::Boottime);
        let wall = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or(Duration::ZERO);
        Look {
            wall_ms: i64::try_from(wall.as_millis()).unwrap_or(i64::MAX),
            boot_ms: boot.tv_sec.saturating_mul(1_000) + boot.tv_nsec / 1_000_000,
            synchronised,
        }
    }

    fn boot_id(&self) -> String {
        let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
        id.map_or_else(|_| String::new(), |id| id.trim().to_owned())
    }
}

/// What the kernel says (`TIME_ERROR`): chrony, ntpd and systemd-timesyncd all tell it. Where it
/// may not be asked the clock is believed.
#[cfg(target_pointer_width = "64")]
fn kernel_is_sure() -> bool {
    /// `adjtimex`'s answer while the clock is not synchronised (`<sys/timex.h>`).
    const TIME_ERROR: i32 = 5;
    let answer = rtime_clock::adjtime::adjtimex(&mut rtime_clock::adjtime::Timex::new());
    // A sandbox may forbid the question.
    answer.map_or_else(|_| timesyncd_is_sure(), |state| state != TIME_ERROR)
}

/// rtime-clock 0.15.1 does not compile for 32 bits, and without it the kernel cannot be asked but
/// by unsafe code.
#[cfg(not(target_pointer_width = "64"))]
fn kernel_is_sure() -> bool {
    timesyncd_is_sure()
}

/// What systemd-timesyncd says.
fn timesyncd_is_sure() -> bool {
    Path::new("/run/systemd/timesync/synchronized").exists()
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;

    /// A clock that is set by hand.
    #[derive(Clone, Debug)]
    pub(crate) struct Fake(pub Arc<Mutex<(Look, u32)>>);

    impl Fake {
        pub(crate) fn new(wall_ms: i64, synchronised: bool) -> Self {
            let look = Look {
                wall_ms,
                boot_ms: 1_000,
                synchronised,
            };
            Self(Arc::new(Mutex::new((look, 1))))
        }

        pub(crate) fn passes(&self, ms: i64) {
            let look = &mut self.0.lock().0;
            look.wall_ms += ms;
            look.boot_ms += ms;
        }

        pub(crate) fn is_set(&self, wall_ms: i64, synchronised: bool) {
            let look = &mut self.0.lock().0;
            (look.wall_ms, look.synchronised) = (wall_ms, synchronised);
        }

        pub(crate) fn reboots(&self, wall_ms: i64, synchronised: bool) {
            let look = Look {
                wall_ms,
                boot_ms: 0,
                synchronised,
            };
            let boot = &mut *self.0.lock();
            *boot = (look, boot.1 + 1);
        }
    }

    impl ClockSource for Fake {
        fn look(&self) -> Look {
            self.0.lock().0
        }

        fn boot_id(&self) -> String {
            self.0.lock().1.to_string()
        }
    }

    #[test]
    fn what_was_stamped_before_the_clock_was_right_can_be_put_right() {
        let fake = Fake::new(50_000, false);
        let clock = Clock::new(Box::new(fake.clone()));
        let anchor = clock.anchor();
        assert!(!clock.is_sure() && !clock.check());
        fake.passes(10_000);
        let then = clock.moment();
        assert_eq!((then.now_ms, then.shift_ms(&anchor)), (60_000, Some(0)));
        // Somebody sets it by hand: our time goes on as it was.
        fake.is_set(7_000_000, false);
        let set = clock.moment();
        assert_eq!(set.now_ms, 60_000);
        fake.passes(5_000);
        fake.is_set(9_000_000, true);
        assert!(clock.check() && clock.is_sure() && !clock.check());
        let now = clock.moment();
        let shift = now.shift_ms(&anchor).unwrap();
        assert_eq!(then.now_ms + shift, 9_000_000 - 5_000);
        assert_eq!(now.now_ms, 9_000_000);
    }

    #[test]
    fn times_of_another_boot_cannot_be_put_right() {
        let fake = Fake::new(50_000, false);
        let anchor = Clock::new(Box::new(fake.clone())).anchor();
        fake.reboots(9_000_000, true);
        let clock = Clock::new(Box::new(fake));
        assert!(clock.is_sure());
        assert_eq!(clock.moment().shift_ms(&anchor), None);
    }

    #[test]
    fn a_file_says_that_the_clock_is_right() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("synchronised");
        let clock = Clock::system(Some(&file));
        assert!(!clock.is_sure() && !clock.check());
        std::fs::write(&file, "").unwrap();
        assert!(clock.check());
        assert!(Clock::trusted().is_sure());
    }
}
