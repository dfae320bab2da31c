// What an invocation takes at once.

// Words of a step: as many words of a row, TEAMS words apart (columns), or as many words of a slice, TEAM_SIZE words apart
// (segments). A loop over them has a fixed length, so compilers unroll it.
const STRIP: u32 = $STRIPu;
