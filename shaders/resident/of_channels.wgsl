// A resident backward pass of batch norm: a team has one channel, whose sums are dgamma and dbeta (fold/sums.wgsl, lib/dx.wgsl).

fn turns() -> u32 {
    return 1u;
}

fn tile_of_turn(workgroup: vec3<u32>, workgroups: vec3<u32>, lane: u32, turn: u32) -> Tile {
    return tile_of(workgroup, workgroups, lane);
}

fn sum_of_place(i: u32, dz: Word, xhat: Word) {}

fn write_places(workgroup: vec3<u32>, workgroups: vec3<u32>, lane: u32) {}

fn with_sums(tile: Tile, zero: u32, s: Statistics, sums: GradientSums) -> Statistics {
    write_sums(tile, zero, sums);
    return with_means(s, sums);
}
