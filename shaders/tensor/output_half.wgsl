// A tensor of 16-bit values that a map writes one by one, `$NAME`. Two values share 4 bytes and belong to different
// invocations, perhaps of different workgroups: each replaces its half by atomic operations, which leave the other as it is.
//
// Bindings: $NAME: any rank, walked as words of one value.

@group(0) @binding($SLOT) var<storage, read_write> $NAME: array<atomic<u32>>;

fn store_$NAME(at: Cursor, word: Word) {
    let i = $NAME_word(at);
    atomicAnd(&$NAME[place(i)], ~half_mask(i));
    atomicOr(&$NAME[place(i)], narrowed(word) << half_shift(i));
}

fn store_part_$NAME(at: Cursor, word: Word) {}
