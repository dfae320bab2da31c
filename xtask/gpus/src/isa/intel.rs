//! ANV's compiler: `send(16) … ` with a line `ugm MsgDesc: ( load, a32, d32, V4, …` and tokens `$N`, for which `$N.dst` waits.

use std::sync::LazyLock;

use regex::Regex;

use super::amd::pattern;
use super::{Instruction, Kind, Text, Wait};

static LABEL: LazyLock<Regex> = LazyLock::new(|| pattern(r"^(LABEL\d+):"));
static MESSAGE: LazyLock<Regex> = LazyLock::new(|| {
    pattern(r"\bugm MsgDesc: \( (load|store)(_cmask)?, a\d+, d(\d+)(?:u32)?, (V\d+|[xyzw]+)(, transpose)?")
});
/// Before Xe-HPG. Surface 254 is workgroup memory.
static OLD_MESSAGE: LazyLock<Regex> = LazyLock::new(|| {
    pattern(r"MsgDesc: \((?:DC )?untyped surface (read|write), Surface = (\d+), SIMD\d+, Mask = 0x([0-9a-f])")
});
/// What is stateless (253) is an invocation's own.
static OLD_BLOCK: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"MsgDesc: \(DC OWORD block (?:read|write), bti 253"));
static SETS: LazyLock<Regex> = LazyLock::new(|| pattern(r"[ @,]\$(\d+)(?: |,|$)"));
static WAITS: LazyLock<Regex> = LazyLock::new(|| pattern(r"\$(\d+)\.dst"));
static LOOP: LazyLock<Regex> = LazyLock::new(|| pattern(r"\bwhile\(\d+\)\s+JIP:\s+(LABEL\d+)"));

pub(super) fn parse(text: &str) -> Text {
    let mut read = Text::default();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if let Some(label) = LABEL.captures(line) {
            read.label(&label[1]);
            continue;
        }
        if line.trim().is_empty() || line.starts_with(char::is_whitespace) {
            continue;
        }
        // What a message is about is on the line that follows.
        let mut whole = line.to_owned();
        while lines
            .peek()
            .is_some_and(|next| next.starts_with(char::is_whitespace) && !next.trim().is_empty())
        {
            whole.push_str(lines.next().unwrap_or_default());
        }
        let waited = WAITS.captures_iter(&whole).filter_map(|found| found[1].parse::<u32>().ok());
        let marks = waited.fold(0_u64, |marks, token| marks | 1 << (token % 64));
        let wait = if marks == 0 { Wait::No } else { Wait::Marks(marks) };
        if let Some(label) = LOOP.captures(&whole) {
            read.jump(&label[1], true, wait);
            continue;
        }
        let kind = if whole.contains("send") { message(&whole) } else { other(&whole) };
        let mark = SETS.captures(&whole).and_then(|found| found[1].parse().ok());
        read.push(Instruction { kind, wait, mark });
    }
    read
}

fn other(line: &str) -> Kind {
    if line.starts_with("sync nop") || line.starts_with("nop") { Kind::Nothing } else { Kind::Other }
}

/// Bytes that a message moves for an invocation. Transposed it loads a block, once for all.
fn message(text: &str) -> Kind {
    if let Some(found) = MESSAGE.captures(text) {
        if found.get(5).is_some() {
            return Kind::Uniform;
        }
        let values =
            found[4].strip_prefix('V').map_or(found[4].len() as u32, |count| count.parse().unwrap_or(1));
        let bytes = found[3].parse::<u32>().unwrap_or(32) / 8 * values;
        return if &found[1] == "load" { Kind::Load(bytes) } else { Kind::Store(bytes) };
    }
    if let Some(found) = OLD_MESSAGE.captures(text) {
        // The mask is of the components that are left out.
        let left_out = u32::from_str_radix(&found[3], 16).unwrap_or(0).count_ones();
        return match (&found[1], &found[2]) {
            (_, "254") => Kind::Other,
            ("read", _) => Kind::Load(16 - 4 * left_out),
            _ => Kind::Store(16 - 4 * left_out),
        };
    }
    if text.contains("scratch") || OLD_BLOCK.is_match(text) {
        return Kind::Private;
    }
    Kind::Other
}

#[cfg(test)]
mod tests {
    use super::super::{Dialect, parse};

    #[test]
    fn loads_wait_by_tokens() {
        let text = "LABEL2:\nsend(16)        g1UD            g116UD          nullUD          0x64803500                0x00000000\n\
                    \x20               ugm MsgDesc: ( load, a32, d32, V4, L1STATE_L3MOCS dst_len = 8, src0_len = 2, src1_len = 0 bti )  BTI 1  base_offset 0  { align1 1H $4 };\n\
                    send(16)        g9UD            g117UD          nullUD          0x64803500                0x00000000\n\
                    \x20               ugm MsgDesc: ( load, a32, d32, V4, L1STATE_L3MOCS dst_len = 8, src0_len = 2, src1_len = 0 bti )  BTI 2  base_offset 0  { align1 1H $5 };\n\
                    add(16)         g1<1>F          g1<8,8,1>F      g2<8,8,1>F      { align1 1H $4.dst };\n\
                    (+f0.0) while(16) JIP:  LABEL2                                    { align1 1H };\n";
        let code = parse(Dialect::Intel, text, false);
        assert_eq!((code.loads_in_flight, code.bytes, code.instructions, code.is_loop), (2, 32, 4, true));
    }
}
