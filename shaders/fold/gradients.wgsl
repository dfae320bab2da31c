// Partial gradient sums of a slice to its sums, and from them dgamma and dbeta (fold/sums.wgsl): the prologue of map_backward,
// or a dispatch of its own (fold/gradients_alone.wgsl).

fn fold_gradients_of(tile: Tile, zero: u32) -> GradientSums {
    let sums = fold_partials(tile, zero);
    write_sums(tile, zero, sums);
    return sums;
}
