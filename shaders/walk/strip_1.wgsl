// Words of a row that an invocation walks at once, TEAMS words apart: 1.

const STRIP: u32 = 1u;
