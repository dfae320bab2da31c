// The mask of a word of a run (walk/segments.wgsl): its values are at consecutive positions.

fn unmasked(at: Cursor) -> WordB {
    let place = select(at.at * WORD_WIDTH, at.first, EDGES);
    // Where the run begins inside of the word, `place` has wrapped below zero; before the first sample that is in the word of
    // the mask that comes before its bits.
    let position = params.mask_first + at.run * params.inner + place;
    let own = word_of_bits(mask_bits(position));
    if (!EDGES) {
        return own;
    }
    // What follows the run is the next slice of the same sample, or after the last slice the next sample, whose positions
    // follow.
    let slice_start = at.start - params.phase - at.run * params.run_stride;
    let is_last = slice_start == (params.window_slices - 1u) * params.slice_stride;
    let next = word_of_bits(mask_bits(position - params.inner));
    return select(own, next, past_run(at) & WordB(!is_last));
}
