// Walking slices that are the columns of a row-major matrix (channels-last batch norm: a row per
// sample and position; rank 2).
//
// An invocation stays in a strip of columns, STRIP words that are TEAMS apart, and walks down the rows, a step for each. So
// each component of its words belongs to one slice all along (walk/per_component.wgsl); neighbouring invocations take
// neighbouring columns, so loads coalesce, and no transposition is ever needed.
//
// Where the number of channels is no multiple of the word, several rows are taken as one: 4 rows of
// 5 channels are a row of 5 words. A channel then has several components, each with partial results
// of its own, that the fold merges. With EDGES the tensor begins or ends inside of such a row.
//
//   slices              channels
//   records             values of a row: a multiple of slices
//   run_words           words of a row: records / WORD_WIDTH
//   blocks              workgroups that the window's words of a row are divided into, from first_column on:
//                       ceil(run_words / (TEAMS·STRIP)) for all of them
//   slice_words         rows of the window
//   tile_words          rows of one split
//   inner               rows of a sample
//   step_stride         words that TEAM_SIZE rows have
//   matrix_splits       splits of a sample, where each is a matrix of its own; else more than there are
//
// Grid: splits × blocks workgroups, row-major, folded to two dimensions where it exceeds one.
// Invocations past the last column have an empty range and `live = false`. A strip may reach past the end
// of the row, with EDGES only: `strand_tile` says which of its words are live.

// Words of a strip whose statistics differ: each is of other slices.
const STRANDS: u32 = STRIP;
// Rows that a step of a team takes.
override STEP: u32 = TEAM_SIZE;

struct Tile {
    column: u32,
    // Among those of all windows.
    split: u32,
    // Rows [begin, end).
    begin: u32,
    end: u32,
    // The invocation's team within the workgroup, and its place in the team.
    team: u32,
    member: u32,
    live: bool,
}

struct Cursor {
    // Row.
    index: u32,
    // Index of the word within the tensor, and where it can be read: the last row may be incomplete,
    // and lie at the end of the buffer.
    at: u32,
    word: u32,
    // Words from here to the end of the row.
    left: u32,
}

fn tile_of(workgroup: vec3<u32>, workgroups: vec3<u32>, lane: u32) -> Tile {
    let flat = workgroup.y * workgroups.x + workgroup.x;
    let split = flat / params.blocks;
    let member = lane / TEAMS;
    let team = lane - member * TEAMS;
    let column = params.first_column + (flat - split * params.blocks) * TEAMS * STRIP + team;
    if (column >= params.run_words || split >= params.splits) {
        return Tile(0u, 0u, 0u, 0u, team, member, false);
    }
    let begin = split * params.tile_words;
    let end = min(begin + params.tile_words, params.slice_words);
    return Tile(column, params.first_split + split, begin, end, team, member, true);
}

// The place of a component's partial result, and its slice.
fn record_of(tile: Tile, k: u32) -> u32 {
    let place = tile.column * WORD_WIDTH + k;
    return select(place - params.phase, place + params.records - params.phase, place < params.phase);
}

// Where every sample is a matrix of its own, so are its slices: tiles do not reach over the end of a sample.
fn slice_of(tile: Tile, k: u32) -> u32 {
    return record_of(tile, k) % params.slices + tile.split / params.matrix_splits * params.slices;
}

// Whether the sums of a component are this team's result.
fn owns(tile: Tile, k: u32) -> bool {
    return tile.live && tile.member == 0u;
}

// Whether the invocation is the one that writes what there is once per slice.
fn writes(tile: Tile, k: u32) -> bool {
    return owns(tile, k) && tile.split == 0u && record_of(tile, k) < params.slices;
}

// Where an invocation is in its workgroup, and how far from the next member of its team.
override MEMBER_DISTANCE: u32 = TEAMS;

fn lane_of(tile: Tile) -> u32 {
    return tile.member * TEAMS + tile.team;
}

// A strand is a word of the strip. The last strip of a row may be longer than what is left of the row: only
// with EDGES, and its words are then past the end of the tensor.
fn strand_tile(tile: Tile, strand: u32) -> Tile {
    var moved = tile;
    moved.column += strand * TEAMS;
    moved.live = tile.live & (moved.column < params.run_words);
    return moved;
}

fn strand_cursor(at: Cursor, strand: u32) -> Cursor {
    // Past every value of a window: a binding has fewer than 2^31 bytes.
    let beyond = EDGES & (strand * TEAMS >= at.left);
    return cursor_of(at.index, select(at.at + strand * TEAMS, 0x3fffffffu, beyond), at.left);
}

fn strand_of(j: u32) -> u32 {
    return j;
}

fn cursor_of(index: u32, at: u32, left: u32) -> Cursor {
    return Cursor(index, at, select(at, min(at, params.last_word), EDGES), left);
}

fn cursor_first(tile: Tile) -> Cursor {
    let row = tile.begin + tile.member;
    return cursor_of(row, row * params.run_words + tile.column, params.run_words - tile.column);
}

fn cursor_next(cursor: Cursor) -> Cursor {
    return cursor_of(cursor.index + TEAM_SIZE, cursor.at + params.step_stride, cursor.left);
}

fn strip_next(at: Cursor, here: Cursor, j: u32) -> Cursor {
    return strand_cursor(at, j + 1u);
}

fn step_next(at: Cursor, beyond: Cursor) -> Cursor {
    return cursor_next(at);
}

fn skipped(at: Cursor, row_skip: u32, sample_skip: u32) -> u32 {
    return at.index * row_skip + (params.first_row + at.index) / params.inner * sample_skip;
}

// The window's first word and last word if they belong to others in part, for the one invocation that
// walks them: past the end for all others.
fn cursor_of_edge(tile: Tile, edge: u32) -> Cursor {
    let head = edge == 0u;
    let at = select(params.last_word, 0u, head);
    let part = select(params.before + params.elements, params.before, head) % WORD_WIDTH != 0u;
    let row = at / params.run_words;
    let here = tile.live & (tile.column == at - row * params.run_words) & (row >= tile.begin) & (row < tile.end)
        & (tile.member == (row - tile.begin) % TEAM_SIZE);
    // A word that is both counts as the first.
    let twice = !head & (params.last_word == 0u) & (params.before % WORD_WIDTH != 0u);
    return cursor_of(select(0xffffffffu, row, part & here & !twice), at, 1u);
}

// The components that hold values of the tensor.
fn inside(at: Cursor) -> WordB {
    return WordU(at.at * WORD_WIDTH - params.before) + WORD_PLACES < WordU(params.elements);
}

// Whether all of the word is the window's.
fn whole(at: Cursor) -> bool {
    let first = at.at * WORD_WIDTH - params.before;
    return first < params.elements && params.elements - first >= WORD_WIDTH;
}
