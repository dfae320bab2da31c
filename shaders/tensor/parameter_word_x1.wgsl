// The parameters `$NAME` of a word of one value.

fn $NAME_word_of(i: WordU) -> Word {
    return $NAME_of(i);
}
