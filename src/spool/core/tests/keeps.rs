//! Records that come with a key that is kept: after any power cut both are there or neither.

use super::*;

/// Whose changes were synced, by what was asked.
#[derive(Default)]
struct Model {
    gone: Arc<Acks>,
    /// Ids whose keys are to go.
    going: HashSet<u64>,
    /// Ids that came with a key.
    with_key: HashSet<u64>,
    /// Ids whose keys a power cut took: whoever sent them sends them again, so they may not be in
    /// Kafka.
    vanished: HashSet<u64>,
    witnessed: u64,
}

impl Model {
    /// Somebody has released a message whose record is safe.
    fn release(&mut self, world: &mut World) {
        let safe: Vec<u64> = {
            let acks = world.acks.0.lock();
            let open = |id: &&u64| self.with_key.contains(id) && !self.going.contains(id);
            acks.iter().filter(open).copied().collect()
        };
        for id in safe.into_iter().take(3) {
            self.going.insert(id);
            let to = Arc::clone(&self.gone) as Arc<dyn Settle>;
            let gone = |copy| Change {
                key: [&id.to_le_bytes()[..], &[copy]].concat().into(),
                value: None,
            };
            let ticket = Some(Ticket { to, token: id });
            let gone = (0..kept_with(id)).map(gone).collect();
            world.spool.keep(gone, ticket);
        }
    }

    fn crash(&mut self, world: &mut World) {
        world.kept.no_failure();
        world.crash(false);
        let mut kept: HashMap<u64, u8> = HashMap::new();
        for (key, value) in world.spool.kept() {
            assert_eq!(key[..8], value);
            *kept.entry(id_of(&key)).or_default() += 1;
        }
        for id in self.with_key.clone() {
            let keys = kept.get(&id).copied().unwrap_or(0);
            let is_kept = keys > 0;
            let is_whole = keys == kept_with(id) || self.going.contains(&id);
            assert!(!is_kept || is_whole, "{id}: one key without the other");
            let is_gone = self.gone.0.lock().contains(&id);
            assert!(!(is_kept && is_gone), "{id} is back");
            assert!(
                !(is_kept && self.vanished.contains(&id)),
                "{id} is back from nowhere"
            );
            if is_kept {
                self.witnessed += u64::from(world.acks.0.lock().insert(id));
                self.going.remove(&id);
            } else if !self.going.contains(&id) {
                assert!(!world.acks.0.lock().contains(&id), "{id} was safe");
                self.vanished.insert(id);
            }
        }
    }

    fn check(&self, world: &World) {
        for (_, id) in &world.broker.1 {
            assert!(
                !self.vanished.contains(id),
                "{id} is in Kafka, and its sender sends it again"
            );
        }
    }
}

#[test]
fn a_record_and_what_is_kept_with_it_are_both_there_or_neither() {
    let (seeds, counts) = each_seed(
        "TIDEGATE_KEEPS_SEEDS",
        150,
        |seed, counts: &mut [u64; 4]| {
            let mut world = World::new(seed, config());
            world.keeps = true;
            let mut model = Model::default();
            for _ in 0..300 {
                let first = world.next_id;
                match world.random.below(12) {
                    0..=2 => world.spool.shared.keep_step(),
                    3 => model.release(&mut world),
                    4 if world.random.one_in(4) => {
                        let at = world.random.below(4);
                        world.kept.fail_in(at, Fail::Eio);
                    }
                    5 if world.random.one_in(6) => model.crash(&mut world),
                    _ if world.random.one_in(40) => model.crash(&mut world),
                    // Without the power cuts of its own.
                    _ => step_but_crash(&mut world),
                }
                let entries = world.spool.shared.state.lock();
                let held = entries.streams.iter().flat_map(|s| &s.hot);
                let held = held.filter(|entry| entry.hold.is_some());
                let ids = held.map(|entry| id_of(entry.record.value().unwrap().unwrap()));
                model.with_key.extend(ids.filter(|id| *id >= first));
            }
            world.kept.no_failure();
            world.drain();
            world.check(seed);
            model.check(&world);
            let more = [
                world.crashes,
                model.with_key.len() as u64,
                model.vanished.len() as u64,
                model.witnessed,
            ];
            for (sum, more) in counts.iter_mut().zip(more) {
                *sum += more;
            }
        },
    );
    let sum = |i: usize| counts.iter().map(|core| core[i]).sum::<u64>();
    let (crashes, with_key, vanished, witnessed) = (sum(0), sum(1), sum(2), sum(3));
    println!(
        "seeds {seeds:?}: {crashes} power cuts, {with_key} records with a key, {vanished} keys \
         went with their records, {witnessed} were there unacknowledged"
    );
    assert!(vanished > 0 && witnessed > 0, "the cuts did not bite");
}
