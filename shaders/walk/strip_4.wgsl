// Words of a row that an invocation walks at once, TEAMS words apart: 4.

const STRIP: u32 = 4u;
