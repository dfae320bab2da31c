// Statistics of a slice as the training forward pass saved them: the prologue of the backward pass.
// They include the gamma and beta that forward used, so a later optimizer step cannot mix in.
//
// Bindings: saved: [slices].

@group(0) @binding(13) var<storage, read> saved: array<Statistics>;

fn slice_statistics(tile: Tile, lane: u32) -> Statistics {
    return saved[tile.slice];
}
