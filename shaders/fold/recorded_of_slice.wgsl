// The prologue of maps and reductions whose statistics have been recorded, one for each `merged` slices.

fn slice_statistics(tile: Tile, zero: u32) -> Statistics {
    var s = without_statistics();
    for (var k = 0u; k < STATS; k += 1u) {
        let record = saved[slice_of(tile, k) / params.merged];
        s.shift = with_component(s.shift, k, record.shift);
        s.delta = with_component(s.delta, k, record.delta);
        s.inv_std = with_component(s.inv_std, k, record.inv_std);
    }
    return with_parameters(tile, s);
}
