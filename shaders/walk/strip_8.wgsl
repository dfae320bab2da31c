// Words of a row that an invocation walks at once, TEAMS words apart: 8.

const STRIP: u32 = 8u;
