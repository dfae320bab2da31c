// The prologue of maps and reductions with recorded statistics, one for each `merged` slices: fold/recorded.wgsl or fold/means.wgsl.

fn slice_statistics(tile: Tile, zero: u32) -> Statistics {
    var s = without_statistics();
    for (var k = 0u; k < STATS; k += 1u) {
        let recorded = record_statistics(slice_of(tile, k) / params.merged);
        s.shift = with_component(s.shift, k, component(recorded.shift, k));
        s.delta = with_component(s.delta, k, component(recorded.delta, k));
        s.inv_std = with_component(s.inv_std, k, component(recorded.inv_std, k));
        s.mean_dz = with_component(s.mean_dz, k, component(recorded.mean_dz, k));
        s.mean_dz_xhat = with_component(s.mean_dz_xhat, k, component(recorded.mean_dz_xhat, k));
    }
    return with_parameters(tile, s);
}
