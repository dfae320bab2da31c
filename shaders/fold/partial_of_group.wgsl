// The partial results of several slices that share a statistic (group norm: the channels of a group), each multiplied as
// `times` says: by gamma, where they are gradient sums (fold/times_gamma.wgsl).
//
//   slice = tile.slice·merged + i mod merged, its partial result number i / merged as in fold/partial_of_slice.wgsl
//
// Bindings: partials.

@group(0) @binding(9) var<storage, read> partials: array<Record>;

fn partial_of(tile: Tile, i: u32) -> Partial {
    let number = i / params.merged;
    let slice = tile.slice * params.merged + i - number * params.merged;
    let matrix = slice / params.record_slices;
    let first = matrix * params.record_matrix + slice - matrix * params.record_slices;
    return times(slice, with_record(identity(), 0u, partials[first + number * params.record_slices]));
}
