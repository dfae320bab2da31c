// The prologue of map_backward for batch norm: what forward saved, with means from partial gradient sums, whose totals are dgamma and dbeta.

fn dx_statistics(tile: Tile, zero: u32) -> Statistics {
    let s = slice_statistics(tile, zero);
    return with_means(s, fold_gradients_of(tile, zero));
}
