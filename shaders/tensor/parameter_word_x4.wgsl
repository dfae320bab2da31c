// The parameters `$NAME` of a word of four values.

fn $NAME_word_of(i: WordU) -> Word {
    return Word($NAME_of(i.x), $NAME_of(i.y), $NAME_of(i.z), $NAME_of(i.w));
}
