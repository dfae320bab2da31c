// What is normalized, or copied, is x.

fn value_at(at: Cursor) -> Word {
    return x_at(at);
}
