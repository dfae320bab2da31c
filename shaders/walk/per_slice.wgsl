// Every value of a word belongs to one slice, or is masked: one statistic serves the invocation.

fn spread(at: Cursor, stat: Stat) -> Word {
    return Word(stat);
}

fn spread_u(at: Cursor, stat: StatU) -> WordU {
    return WordU(stat);
}

fn gathered(word: Word) -> Stat {
    return word_sum(word);
}

// A value of the slice from the word at the cursor, something else if there is none.
fn sampled(at: Cursor, word: Word, otherwise: Stat) -> Stat {
    if (MASKED) {
        return first_in(counts(at), word, otherwise);
    }
    if (!EDGES) {
        return word_at(word, 0u);
    }
    // Where the run begins inside of the word, `first` has wrapped below zero.
    let k = select(0u - at.first, 0u, at.first < params.inner);
    return select(otherwise, word_at(word, min(k, WORD_WIDTH - 1u)), k < WORD_WIDTH);
}

// Values of `words` words, of which `counted` were counted where there are edges or a mask.
fn counted_values(words: u32, counted: StatU) -> StatU {
    return select(words * WORD_WIDTH, counted, EDGES || MASKED);
}

fn values_in(mask: WordB) -> StatU {
    return word_count(mask);
}
