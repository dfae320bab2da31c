// A walk along columns over values whose statistics are those of their row (layer norm, RMS norm): the parameters are the slice's, the
// statistics the row's. Each row is one row of the walk.
//
// Bindings: saved: lib/slice_record.wgsl, or means: lib/means_record.wgsl, by row.

fn slice_statistics(tile: Tile, zero: u32) -> Statistics {
    return with_parameters(tile, without_statistics());
}

fn statistics_at(at: Cursor, s: Statistics) -> Statistics {
    var t = record_statistics(params.window_row + at.index);
    t.gamma = s.gamma;
    t.beta = s.beta;
    return t;
}
