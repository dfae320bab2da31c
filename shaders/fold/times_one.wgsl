// Moments of slices are merged as they are.

fn times(slice: u32, partial: Partial) -> Partial {
    return partial;
}
