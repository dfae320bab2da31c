// The prologue of map_backward for batch norm: the means of a channel from partial gradient sums, whose totals are dgamma and dbeta.

fn slice_means(tile: Tile, zero: u32, s: Statistics) -> GradientSums {
    return means_of(fold_gradients_of(tile, zero), s);
}
