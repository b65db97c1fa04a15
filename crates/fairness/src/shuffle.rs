//! Shuffle sharding: a flow's hash deals it a hand of queues, so that two flows seldom share all.

/// Largest hand (upstream's limit: 60 bits of entropy are enough for no more).
pub(crate) const MAX_HAND: usize = 15;

/// Deals `hand` different cards of `deck` by the hash; answers how many were dealt.
pub(crate) fn deal(mut hash: u64, deck: usize, hand: usize, cards: &mut [usize; MAX_HAND]) -> usize {
    let hand = hand.clamp(1, MAX_HAND).min(deck.max(1));
    let mut remainders = [0usize; MAX_HAND];
    for (i, r) in remainders.iter_mut().enumerate().take(hand) {
        let left = (deck.max(1) - i) as u64;
        *r = (hash % left) as usize;
        hash /= left;
    }
    for i in 0..hand {
        let mut card = remainders[i];
        for earlier in remainders[..i].iter().rev() {
            if card >= *earlier {
                card += 1;
            }
        }
        cards[i] = card;
    }
    hand
}

/// Bits of the hash that a hand consumes, rounded up.
pub(crate) fn entropy_bits(deck: usize, hand: usize) -> u32 {
    ((deck.max(1) as f64).log2() * hand as f64).ceil() as u32
}

/// The hash of a flow.
pub(crate) fn flow_hash(schema: &str, distinguisher: &str) -> u64 {
    use std::hash::{DefaultHasher, Hasher};
    let mut hasher = DefaultHasher::new();
    hasher.write(schema.as_bytes());
    hasher.write_u8(0);
    hasher.write(distinguisher.as_bytes());
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hands_hold_different_cards_and_use_all_queues() {
        let mut seen = [0u32; 16];
        for i in 0..4_000u32 {
            let mut cards = [0; MAX_HAND];
            let n = deal(flow_hash("s", &i.to_string()), 16, 4, &mut cards);
            let mut hand = cards[..n].to_vec();
            hand.iter().for_each(|c| seen[*c] += 1);
            hand.sort_unstable();
            hand.dedup();
            assert_eq!(hand.len(), 4);
            assert!(hand.iter().all(|c| *c < 16));
        }
        assert!(seen.iter().all(|n| (700..1_300).contains(n)), "{seen:?}");
        assert_eq!(entropy_bits(64, 8), 48);
    }
}
