// Values of 4 bytes, one or four per word, stored as they are.

alias Stored = Word;

fn place(i: u32) -> u32 {
    return i;
}

fn widened(stored: Stored, i: u32) -> Word {
    return stored;
}

fn narrowed(word: Word) -> Stored {
    return word;
}

// As bits: nothing that belongs to others is taken for a number.
fn replaced(before: Stored, after: Stored, mask: WordB) -> Stored {
    return bitcast<Stored>(select(bitcast<WordU>(before), bitcast<WordU>(after), mask));
}
