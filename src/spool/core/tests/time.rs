//! Records that came in while nobody knew what time it was.

use serde_json::json;

use super::*;
use crate::clock::tests::Fake;
use crate::metrics::Gauge;
use crate::record::mark;

/// A board without a clock of its own starts in 1970.
const THEN_MS: i64 = 100_000;

impl World {
    /// Starts the spool again, by this clock.
    fn by(&mut self, fake: &Fake) {
        self.time = Arc::new(Clock::new(Box::new(fake.clone())));
        self.crash(false);
    }

    /// A record stamped by the wall clock as it is.
    fn send(&mut self, topic: &str, ttl: Option<Duration>, fake: &Fake) {
        // Its lock must be free: the spool looks at the clock too.
        let now_ms = fake.0.lock().0.wall_ms;
        self.send_stamped(topic, ttl, now_ms);
    }

    fn send_stamped(&mut self, topic: &str, ttl: Option<Duration>, now_ms: i64) {
        let id = self.spool.topic(topic, &TopicOptions { priority: 0, ttl });
        let value = self.next_id.to_le_bytes();
        let record = RecordWriter::new(Some(b"k"), Some(&value)).finish(now_ms);
        self.append(id, (topic.to_owned(), 0), record);
    }

    /// What can be handed out next.
    fn next(&mut self) -> Vec<Taken> {
        self.facts(1);
        self.resolve();
        self.write();
        self.load();
        self.spool.take(&LIMITS, &mut |_, _| true)
    }

    /// Everything that can be handed out, in order.
    fn hand_out(&mut self) -> Vec<Record> {
        let mut all = Vec::new();
        for _ in 0..50 {
            for taken in self.next() {
                all.extend(taken.records.iter().cloned());
                self.acknowledge(&taken, false);
            }
        }
        all
    }
}

/// Timestamp, `tidegate.clock` and `tidegate.timestamp`.
fn said(record: &Record) -> (i64, String, Option<String>) {
    let text = |name: &[u8]| {
        let headers = record.headers().unwrap();
        let found = headers.iter().find(|(n, _)| *n == name)?.1?;
        Some(String::from_utf8(found.to_vec()).unwrap())
    };
    let clock = text(mark::CLOCK).unwrap_or_else(|| "none".into());
    (record.timestamp_ms, clock, text(mark::TIMESTAMP))
}

/// A gateway that knew the time, and rebooted with Kafka away and a clock that is not right; and
/// what it has taken since: one record a minute, of topics whose partitions are known (`t`) and not
/// (`u`).
fn unsure() -> (World, Fake) {
    let fake = Fake::new(super::super::wall_ms(), true);
    let mut world = World::new(30, config());
    world.send("t", None, &fake);
    world.hand_out();
    world.spool.shared.store();
    fake.reboots(THEN_MS, false);
    world.by(&fake);
    world.spool.uplink(false);
    for _ in 0..3 {
        fake.passes(60_000);
        world.send("t", None, &fake);
        world.send("u", Some(Duration::from_secs(3_600)), &fake);
    }
    world.write();
    (world, fake)
}

/// The last record came in half a minute before this.
fn right_now(fake: &Fake, world: &World) -> i64 {
    fake.passes(30_000);
    let now = super::super::wall_ms();
    fake.is_set(now, true);
    assert!(world.time.check());
    now
}

#[test]
fn what_was_stamped_as_the_wall_clock_was_set_is_put_right_all_the_same() {
    let (mut world, fake) = unsure();
    let stamped = fake.0.lock().0.wall_ms;
    fake.is_set(stamped + 86_400_000, false);
    world.send_stamped("t", None, stamped);
    let now = right_now(&fake, &world);
    world.spool.uplink(true);
    let times = world.hand_out();
    let newest = times.iter().map(|record| record.timestamp_ms).max();
    assert_eq!(newest, Some(now - 30_000));
}

#[test]
fn what_is_buffered_is_put_right_once_the_clock_is() {
    let (mut world, fake) = unsure();
    let now = right_now(&fake, &world);
    world.spool.uplink(true);
    let mut times: Vec<_> = world.hand_out().iter().map(said).collect();
    times.sort();
    let right = |minutes: i64| {
        (
            now - 30_000 - minutes * 60_000,
            "corrected".to_owned(),
            None,
        )
    };
    let wanted: Vec<_> = [2, 2, 1, 1, 0, 0].into_iter().map(right).collect();
    assert_eq!(times, wanted);
    // What comes in now is as ever.
    world.send("t", None, &fake);
    assert_eq!(said(&world.hand_out()[0]), (now, "none".into(), None));
    world.check(30);
}

#[test]
fn a_restart_in_the_same_boot_still_puts_them_right() {
    let (mut world, fake) = unsure();
    fake.passes(30_000);
    let now = super::super::wall_ms();
    fake.is_set(now, true);
    world.by(&fake);
    let mut times: Vec<_> = world.hand_out().iter().map(said).collect();
    times.sort();
    assert_eq!(times.len(), 6);
    assert_eq!(times[0], (now - 150_000, "corrected".into(), None));
    assert_eq!(times[5], (now - 30_000, "corrected".into(), None));
    world.spool.shared.store();
    world.crash(false);
    assert!(world.spool.shared.state.lock().anchors.is_none());
    world.check(30);
}

#[test]
fn what_cannot_be_put_right_goes_with_the_time_of_sending_and_keeps_its_own() {
    // Before it is known what time it is …
    let (mut world, _) = unsure();
    world.spool.uplink(true);
    let own = |minutes: i64| Some((THEN_MS + minutes * 60_000).to_string());
    for record in world.hand_out() {
        let (sent, clock, kept) = said(&record);
        assert_eq!(
            (sent, clock.as_str()),
            (THEN_MS + 180_000, "unsynchronised")
        );
        assert!([own(1), own(2), own(3)].contains(&kept), "{kept:?}");
    }
    world.check(30);
    // … and after a reboot, though the clock is right by then.
    let (mut world, fake) = unsure();
    let now = super::super::wall_ms();
    fake.reboots(now, true);
    world.by(&fake);
    let all = world.hand_out();
    assert_eq!(all.len(), 6);
    for record in &all {
        let (sent, clock, kept) = said(record);
        assert_eq!((sent, clock.as_str()), (now, "unsynchronised"));
        assert!([own(1), own(2), own(3)].contains(&kept), "{kept:?}");
    }
    world.check(30);
}

#[test]
fn a_clock_that_jumps_expires_nothing_that_is_young() {
    let (mut world, fake) = unsure();
    // Half a century between the wrong time and the right one, an hour to live.
    right_now(&fake, &world);
    world.spool.uplink(true);
    assert_eq!(world.hand_out().len(), 6);
    assert_eq!(world.metrics.count(Counter::DroppedExpired), 0);
    // What is old by the clock that counts from boot goes, before the clock is right and after.
    for right in [false, true] {
        let (mut world, fake) = unsure();
        fake.passes(7_200_000);
        if right {
            right_now(&fake, &world);
        }
        world.spool.uplink(true);
        assert_eq!(world.hand_out().len(), 3);
        assert_eq!(world.metrics.count(Counter::DroppedExpired), 3);
    }
}

#[test]
fn a_reboot_or_a_lost_index_expires_nothing_of_which_nobody_knows_when_it_came_in() {
    for lose_meta in [false, true] {
        let (mut world, fake) = unsure();
        let now = super::super::wall_ms();
        if lose_meta {
            fake.is_set(now, true);
        } else {
            fake.reboots(now, true);
        }
        world.time = Arc::new(Clock::new(Box::new(fake.clone())));
        world.crash(lose_meta);
        let all = world.hand_out();
        assert_eq!(all.len(), 6);
        for record in &all {
            let (sent, clock, kept) = said(record);
            assert_eq!((sent, clock.as_str()), (now, "unsynchronised"));
            assert!(kept.is_some());
        }
        assert_eq!(world.metrics.count(Counter::DroppedExpired), 0);
    }
}

/// What `/metrics` and `tidegate buffer ls` say of the oldest record, in milliseconds of age.
fn ages(world: &World, now_ms: i64) -> (u64, Option<i64>) {
    world.spool.show_figures();
    let oldest = world.spool.streams().into_iter();
    let oldest = oldest.filter_map(|stream| stream.oldest_ms).min();
    let age = world.metrics.level(Gauge::BufferedAgeMs);
    (age, oldest.map(|oldest| now_ms - oldest))
}

#[test]
fn ages_follow_the_clock_that_counts_from_boot() {
    let (mut world, fake) = unsure();
    fake.passes(30_000);
    // By our time, whatever somebody makes of the wall clock.
    fake.is_set(7_000_000_000_000, false);
    assert_eq!(ages(&world, THEN_MS + 210_000), (150_000, Some(150_000)));
    let now = super::super::wall_ms();
    fake.is_set(now, true);
    assert!(world.time.check());
    assert_eq!(ages(&world, now), (150_000, Some(150_000)));
    // Found on disk, in the same boot.
    world.by(&fake);
    assert_eq!(ages(&world, now), (150_000, Some(150_000)));
    // Nobody knows, after a reboot: no age rather than one of fifty years. What is left is the
    // segment of the record that came in by a right clock.
    fake.reboots(now, true);
    world.by(&fake);
    let (age, oldest) = ages(&world, now);
    assert!(age < 60_000 && oldest.is_none_or(|age| age < 60_000));
    // A clock that is wrong again says nothing of what is older than itself.
    fake.reboots(THEN_MS, false);
    world.by(&fake);
    assert_eq!(ages(&world, THEN_MS), (0, None));
}

#[test]
fn times_that_are_guessed_are_told_as_such_until_the_clock_is_right() {
    let (mut world, fake) = unsure();
    world.spool.uplink(true);
    let taken = world.next();
    assert!(!taken.is_empty() && taken.iter().all(|taken| taken.guessed));
    // Kafka will not have it for its time.
    for taken in &taken {
        world.spool.put_back(taken.stream);
    }
    right_now(&fake, &world);
    let again = world.next();
    assert!(again.len() >= taken.len());
    for taken in &again {
        assert!(!taken.guessed);
        assert!(taken.records.iter().all(|it| said(it).1 == "corrected"));
    }
}

#[test]
fn tools_show_marked_records_and_a_retry_keeps_what_is_known_of_their_times() {
    let (mut world, fake) = unsure();
    world.spool.uplink(true);
    let page = world.spool.records(None, None).unwrap();
    let marked = json!([{"name": "tidegate.clock", "value": "unsynchronised"}]);
    for record in &page.records {
        assert_eq!(record["headers"], marked, "{record}");
    }
    let taken = world.next();
    let taken = taken.iter().find(|taken| &*taken.to.topic == "t").unwrap();
    let own = THEN_MS + 60_000;
    world
        .spool
        .quarantine(taken.stream, taken.run, taken.first, "no");
    world.write();
    let kept = world.spool.quarantine_page(None).unwrap().records;
    let shown = world.spool.quarantined_record(&kept[0].id).unwrap();
    assert_eq!(
        (&shown["headers"], &shown["timestamp_ms"]),
        (&marked, &json!(own))
    );
    // Tried again in a later run, by the right clock.
    fake.passes(30_000);
    let now = super::super::wall_ms();
    fake.is_set(now, true);
    world.by(&fake);
    let spool = world.spool.clone();
    let ids = [kept[0].id.clone()];
    let retry = std::thread::spawn(move || spool.quarantine_retry(&ids).unwrap());
    while !retry.is_finished() {
        world.write();
        std::thread::yield_now();
    }
    assert_eq!(retry.join().unwrap(), 1);
    let mut times: Vec<_> = world.hand_out().iter().map(said).collect();
    times.sort();
    let right = |age| (now - age, "corrected".to_owned(), None);
    let ages = [150_000, 150_000, 90_000, 90_000, 30_000, 30_000];
    assert_eq!(times, ages.map(right));
}

#[test]
fn what_is_too_old_for_its_topic_goes_with_the_time_of_sending() {
    let (mut world, fake) = unsure();
    fake.passes(7_200_000);
    let now = right_now(&fake, &world);
    world.spool.uplink(true);
    let id = world.spool.topic("t", &TopicOptions::default());
    let facts = TopicFacts {
        partitions: 1,
        message_bytes_max: None,
        timestamp_before_max_ms: Some(3_600_000),
    };
    world.spool.topic_facts(id, facts);
    let late: Vec<_> = world.hand_out().iter().map(said).collect();
    let own = now - 7_200_000 - 30_000;
    assert_eq!(
        late.last().unwrap(),
        &(now, "unsynchronised".into(), Some(own.to_string()))
    );
    assert_eq!(late.len(), 3);
}
