//! The partition that Java's default partitioner would choose for a key:
//! `toPositive(murmur2(key)) % partitions`
//! (`org.apache.kafka.clients.producer.internals.BuiltInPartitioner`).

/// Kafka's 32-bit murmur2 (`org.apache.kafka.common.utils.Utils.murmur2`).
#[must_use]
pub fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
    let mut hash = 0x9747_b28c ^ length;
    let (words, rest) = data.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !rest.is_empty() {
        for (i, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * i);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

/// The partition of a keyed record in a topic of `partitions` (0 counts as 1).
#[must_use]
pub fn partition(key: &[u8], partitions: u32) -> u32 {
    (murmur2(key) & 0x7fff_ffff) % partitions.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 10,000 keys hashed by Kafka's Java client; the file says how they were made.
    #[test]
    fn hashes_are_those_of_the_java_client() {
        let vectors = include_str!("../../tests/data/murmur2.txt");
        let hashes: String = vectors
            .lines()
            .filter(|line| !line.starts_with('#'))
            .collect();
        let (hashes, rest) = hashes.as_bytes().as_chunks::<8>();
        assert_eq!((hashes.len(), rest.len()), (10_000, 0));
        let mut state = 1u64;
        for (n, wanted) in hashes.iter().enumerate() {
            let mut key = Vec::new();
            for _ in 0..n % 41 {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                key.push((state >> 56) as u8);
            }
            let wanted = u32::from_str_radix(std::str::from_utf8(wanted).unwrap(), 16).unwrap();
            assert_eq!(murmur2(&key), wanted, "key {n}: {key:?}");
            assert_eq!(partition(&key, 7), (wanted & 0x7fff_ffff) % 7);
        }
    }

    #[test]
    fn no_partitions_count_as_one() {
        assert_eq!(partition(b"key", 0), 0);
    }
}
