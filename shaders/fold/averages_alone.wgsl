// The average of the means, and that of the variances, of a channel over all samples, as moments: what PyTorch's instance norm tracks. These are
// not the moments of the channel over all samples, which batch norm tracks.
//
// Grid: one team per channel. Bindings: partials: [samples × channels], the records of slices; total: [channels], as
// `MomentsRecord` of lib/moments.wgsl in words. Overrides: WORKGROUP_SIZE, TEAM_SIZE. Features: none. Member 0 of each team writes.

@group(0) @binding(11) var<storage, read_write> total: array<u32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn fold_averages(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let tile = team_of_slice(workgroup, workgroups, lane);
    let sums = fold_partials(tile, workgroups.z - 1u);
    if (writes(tile, 0u)) {
        let samples = f32(params.partials);
        let first = 6u * tile.slice;
        total[first] = u32(params.count);
        total[first + 1u] = 0u;
        total[first + 2u] = bitcast<u32>(component(sums.mean, 0u) / samples);
        total[first + 3u] = 0u;
        total[first + 4u] = bitcast<u32>(component(sums.variance, 0u) / samples);
        total[first + 5u] = 0u;
    }
}
