// The parameters of a channel from one record (curve/fold_parameters.wgsl): for a backward pass whose tensors leave no binding
// for each of them.
//
// Bindings: saved: [slices].

@group(0) @binding(13) var<storage, read> saved: array<FoldedRecord>;

fn slice_statistics(tile: Tile, zero: u32) -> Statistics {
    var s = Statistics(0.0, 0.0, Stat(0.0), Stat(0.0));
    for (var k = 0u; k < STATS; k += 1u) {
        let record = saved[slice_of(tile, k)];
        s = Statistics(
            record.alpha,
            record.shift,
            with_component(s.gamma, k, record.gamma),
            with_component(s.beta, k, record.beta),
        );
    }
    return s;
}
