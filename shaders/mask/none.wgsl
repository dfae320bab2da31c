// Where every value counts.

const MASKED: bool = false;

fn unmasked(at: Cursor) -> WordB {
    return WordB(true);
}

// The word with 0 in place of what does not count.
fn kept(at: Cursor, word: Word) -> Word {
    return word;
}
