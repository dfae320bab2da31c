// Statistics of a slice from partial moments of the batch: the prologue of map_forward in training. Every team of a slice
// folds the same partials in the same order.

fn slice_statistics(tile: Tile, zero: u32) -> Statistics {
    return batch_statistics(tile, zero, fold_partials(tile, zero));
}
