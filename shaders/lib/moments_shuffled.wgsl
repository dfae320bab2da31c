// Moments of another invocation of the subgroup. Features: SUBGROUP.

fn shuffled(m: Moments, lane: u32) -> Moments {
    return Moments(
        subgroupShuffle(m.count, lane),
        subgroupShuffle(m.count_high, lane),
        subgroupShuffle(m.shift, lane),
        subgroupShuffle(m.delta, lane),
        subgroupShuffle(m.variance, lane),
    );
}
