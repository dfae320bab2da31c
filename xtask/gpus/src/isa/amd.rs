//! RADV's compiler, ACO: `buffer_load_dwordx4 …`, `s_waitcnt vmcnt(N)`.

use std::sync::LazyLock;

use regex::Regex;

use super::{Instruction, Kind, Text, Wait};

static LABEL: LazyLock<Regex> = LazyLock::new(|| pattern(r"^(BB\d+):"));
static MEMORY: LazyLock<Regex> = LazyLock::new(|| {
    pattern(r"^(buffer|global|flat|scratch)_(load|store|atomic)_(?:format_)?(?:d16_)?(?:hi_)?([a-z0-9]+)")
});
static COUNTER: LazyLock<Regex> = LazyLock::new(|| pattern(r"vmcnt\((\d+)\)"));
static NEW_COUNTER: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"^s_wait_loadcnt(_dscnt)? (0x[0-9a-f]+|\d+)"));
static BRANCH: LazyLock<Regex> = LazyLock::new(|| pattern(r"^s_c?branch\S* (BB\d+)"));
static REPEATED: LazyLock<Regex> = LazyLock::new(|| pattern(r"^\(then repeated (\d+) times\)"));

pub(super) fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("a pattern of this program's")
}

fn width(name: &str) -> u32 {
    match name {
        "dwordx4" | "b128" => 16,
        "dwordx3" | "b96" => 12,
        "dwordx2" | "b64" => 8,
        "ubyte" | "sbyte" | "u8" | "i8" | "b8" => 1,
        "ushort" | "sshort" | "short" | "u16" | "i16" | "b16" | "d16" => 2,
        _ => 4,
    }
}

fn counted(line: &str) -> Option<usize> {
    if let Some(found) = COUNTER.captures(line) {
        return found[1].parse().ok();
    }
    let found = NEW_COUNTER.captures(line)?;
    let count = match found[2].strip_prefix("0x") {
        Some(digits) => usize::from_str_radix(digits, 16).ok()?,
        None => found[2].parse().ok()?,
    };
    Some(if found.get(1).is_some() { count >> 8 } else { count })
}

pub(super) fn parse(text: &str) -> Text {
    let mut read = Text::default();
    for line in text.lines() {
        if let Some(label) = LABEL.captures(line) {
            read.label(&label[1]);
            continue;
        }
        let line = line.split(';').next().unwrap_or("").trim();
        if let Some(times) = REPEATED.captures(line).and_then(|found| found[1].parse::<usize>().ok()) {
            let last = read.instructions.last().copied();
            read.instructions.extend(last.into_iter().cycle().take(times));
            continue;
        }
        let name = line.split_whitespace().next().unwrap_or("");
        let kind = match MEMORY.captures(line) {
            _ if name.is_empty() || name.starts_with('(') => continue,
            Some(found) if &found[1] == "scratch" => Kind::Private,
            Some(found) if &found[2] == "load" => Kind::Load(width(&found[3])),
            Some(found) if &found[2] == "store" => Kind::Store(width(&found[3])),
            _ if name.starts_with("s_load") || name.starts_with("s_buffer_load") => Kind::Uniform,
            _ if name.starts_with("s_wait")
                || name == "s_nop"
                || name == "s_clause"
                || name == "s_delay_alu" =>
            {
                Kind::Nothing
            }
            _ => Kind::Other,
        };
        if let Some(label) = BRANCH.captures(line) {
            read.jump(&label[1], line.starts_with("s_c"), Wait::No);
            continue;
        }
        let wait = counted(line).map_or(Wait::No, Wait::Until);
        // Two in one word count as two.
        let dual = line.matches(" :: ").count();
        read.push(Instruction { wait, ..Instruction::of(kind) });
        read.instructions.extend(std::iter::repeat_n(Instruction::of(Kind::Other), dual));
    }
    read
}

#[cfg(test)]
mod tests {
    use super::super::{Dialect, parse};

    #[test]
    fn loads_wait_by_a_counter() {
        let text = "BB0:\n\ts_mov_b32 s0, 1 ; be80\nBB1:\n\tbuffer_load_dwordx4 v[0:3], v9, s[0:3], 0 offen ; x\n\
                    \tbuffer_load_b128 v[4:7], v9, s[0:3], 0 offen\n\ts_waitcnt vmcnt(1)\n\tv_add_f32 v0, v1, v2\n\
                    \tbuffer_store_dwordx4 v[0:3], v9, s[0:3], 0 offen\n\ts_cbranch_scc1 BB1\n\ts_endpgm\n";
        let code = parse(Dialect::Amd, text, true);
        assert_eq!((code.loads_in_flight, code.load_bytes, code.bytes, code.instructions), (2, 16, 32, 5));
    }
}
