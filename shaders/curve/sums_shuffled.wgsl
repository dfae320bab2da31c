// Sums of another invocation of the subgroup. Features: SUBGROUP.

fn shuffled(sums: GradientSums, lane: u32) -> GradientSums {
    return GradientSums(
        subgroupShuffle(sums.dz, lane),
        subgroupShuffle(sums.dz_xhat, lane),
        subgroupShuffle(sums.alpha, lane),
        subgroupShuffle(sums.shift, lane),
    );
}
