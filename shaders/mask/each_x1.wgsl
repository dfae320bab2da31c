// The bit of one position: words of one value.

fn bits_at(positions: WordU) -> WordB {
    return mask_bit(positions) != 0u;
}
