// What is normalized, or copied, is the sum of x and an addend, as it is stored.
//
// Bindings: addend: tensor/input.wgsl.

fn value_at(at: Cursor) -> Word {
    return widened(narrowed(x_at(at) + addend_at(at)), 0u);
}
