// Each component of a word belongs to a slice of its own, and stays so all along the walk: one
// statistic per component.

fn spread(at: Cursor, stat: Stat) -> Word {
    return stat;
}

fn spread_u(at: Cursor, stat: StatU) -> WordU {
    return stat;
}

fn gathered(word: Word) -> Stat {
    return word;
}

// Values of the slices from the word at the cursor, something else where there are none.
fn sampled(at: Cursor, word: Word, otherwise: Stat) -> Stat {
    if (!EDGES && !MASKED) {
        return word;
    }
    return select(otherwise, word, counts(at));
}

// Values of `words` words, of which `counted` were counted where there are edges or a mask.
fn counted_values(words: u32, counted: StatU) -> StatU {
    return select(StatU(words), counted, EDGES || MASKED);
}

fn values_in(mask: WordB) -> StatU {
    return select(StatU(0u), StatU(1u), mask);
}
