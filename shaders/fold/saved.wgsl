// Statistics of a slice as the training forward pass saved them: the prologue of the backward pass.
// They include the gamma and beta that forward used, so a later optimizer step cannot mix in.
//
// Bindings: saved: [slices].

@group(0) @binding(13) var<storage, read> saved: array<StatisticsRecord>;

fn slice_statistics(tile: Tile, zero: u32) -> Statistics {
    var s = statistics_of(Stat(0.0), Stat(0.0), Stat(0.0), Stat(0.0), Stat(0.0), Stat(0.0));
    for (var k = 0u; k < STATS; k += 1u) {
        let record = saved[slice_of(tile, k)];
        s = statistics_of(
            with_component(s.shift, k, record.shift),
            with_component(s.delta, k, record.delta),
            with_component(s.inv_std, k, record.inv_std),
            with_component(s.gamma, k, record.gamma),
            with_component(s.beta, k, record.beta),
            with_component(s.count, k, record.count),
        );
    }
    return s;
}
