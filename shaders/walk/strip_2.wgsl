// Words of a row that an invocation walks at once, TEAMS words apart: 2.

const STRIP: u32 = 2u;
