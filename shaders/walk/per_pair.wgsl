// A word in which a run ends also holds values of the next slice, and its owner writes both: two
// statistics per invocation, the slice's own and the next one's. Only the slice's own values are
// summed.

fn spread(at: Cursor, stat: Stat) -> Word {
    return select(Word(stat.x), Word(stat.y), past_run(at));
}

fn spread_u(at: Cursor, stat: StatU) -> WordU {
    return select(WordU(stat.x), WordU(stat.y), past_run(at));
}

fn gathered(word: Word) -> Stat {
    return Stat(word_sum(word), 0.0);
}
