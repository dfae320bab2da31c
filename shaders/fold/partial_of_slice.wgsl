// The partial results of a slice: every record_slices-th record, of its matrix where there are several.
//
//   partials[slice / record_slices · record_matrix + slice mod record_slices + i·record_slices]
//
// Bindings: partials.

@group(0) @binding(9) var<storage, read> partials: array<Record>;

fn partial_of(tile: Tile, i: u32) -> Partial {
    var partial = identity();
    for (var k = 0u; k < STATS; k += 1u) {
        let slice = slice_of(tile, k);
        let matrix = slice / params.record_slices;
        let first = matrix * params.record_matrix + slice - matrix * params.record_slices;
        partial = with_record(partial, k, partials[first + i * params.record_slices]);
    }
    return partial;
}
