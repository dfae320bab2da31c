// The gradient of what is normalized has another part: that of a sum which was written out (lib/emit_sum.wgsl).
//
// Bindings: d_sum: tensor/input.wgsl.

fn with_d_sum(at: Cursor, dx: Word) -> Word {
    return dx + d_sum_at(at);
}
