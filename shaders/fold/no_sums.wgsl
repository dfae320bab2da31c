// Where a dispatch of its own writes dgamma and dbeta.

fn write_sums(tile: Tile, zero: u32, sums: GradientSums) {}
