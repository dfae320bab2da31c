//! NVK's compiler, NAK: `r4..8 = ld.global.a64.b128 … // wr:0 wt=000001`.

use std::sync::LazyLock;

use regex::Regex;

use super::amd::pattern;
use super::{Instruction, Kind, Text, Wait};

static BLOCK: LazyLock<Regex> = LazyLock::new(|| pattern(r"^block\S* \d+ (L\d+)?"));
static PREDICATE: LazyLock<Regex> = LazyLock::new(|| pattern(r"^@!?u?p\d+\s+"));
static MEMORY: LazyLock<Regex> = LazyLock::new(|| {
    pattern(r"^(ld|st|atom|red|ldg|stg)\.(global|local|shared)\S*?\.(b32|b64|b96|b128|u8|u16|s8|s16|b8|b16)")
});
static WRITES: LazyLock<Regex> = LazyLock::new(|| pattern(r"wr:(\d)"));
static WAITS: LazyLock<Regex> = LazyLock::new(|| pattern(r"wt=([01]+)"));
static TARGET: LazyLock<Regex> = LazyLock::new(|| pattern(r"(L\d+)"));

fn width(name: &str) -> u32 {
    match name {
        "b128" => 16,
        "b96" => 12,
        "b64" => 8,
        "b32" => 4,
        "u16" | "s16" | "b16" => 2,
        _ => 1,
    }
}

pub(super) fn parse(text: &str) -> Text {
    let mut read = Text::default();
    for line in text.lines() {
        if let Some(block) = BLOCK.captures(line) {
            if let Some(label) = block.get(1) {
                read.label(label.as_str());
            }
            continue;
        }
        let (line, schedule) = line.split_once("//").unwrap_or((line, ""));
        let line = line.trim();
        if line.is_empty() || line.starts_with('}') {
            continue;
        }
        let unguarded = PREDICATE.replace(line, "");
        let operation = unguarded.split_once(" = ").map_or(&*unguarded, |(_, right)| right);
        let wait = WAITS.captures(schedule).and_then(|found| u64::from_str_radix(&found[1], 2).ok());
        let wait = wait.map_or(Wait::No, Wait::Marks);
        if operation.starts_with("bra")
            && let Some(label) = TARGET.captures(operation)
        {
            read.jump(&label[1], unguarded.len() < line.len(), wait);
            continue;
        }
        let kind = match MEMORY.captures(operation) {
            Some(found) if &found[2] == "local" => Kind::Private,
            Some(found) if &found[2] == "global" && found[1].starts_with("ld") => {
                Kind::Load(width(&found[3]))
            }
            Some(found) if &found[2] == "global" && found[1].starts_with("st") => {
                Kind::Store(width(&found[3]))
            }
            _ if operation.starts_with("ldc") || operation.starts_with("uldc") => Kind::Uniform,
            _ if ["nop", "bclear", "bssy", "bsync"].iter().any(|name| operation.starts_with(name)) => {
                Kind::Nothing
            }
            _ => Kind::Other,
        };
        let mark = WRITES.captures(schedule).and_then(|found| found[1].parse().ok());
        read.push(Instruction { kind, wait, mark });
    }
    read
}

#[cfg(test)]
mod tests {
    use super::super::{Dialect, parse};

    #[test]
    fn loads_wait_by_scoreboards() {
        let text = "block 1 L0 [] -> {\n  r4..8 = ld.global.a64.weak.b128 [r2..4] // wr:0 wt=000000\n\
                    \x20 r8..12 = ld.global.a64.weak.b128 [r2..4+0x10] // wr:1 wt=000000\n  r4 = fadd r4 r5 // wt=000001\n\
                    \x20 @p0 bra L0 // wt=000000\n}\n";
        let code = parse(Dialect::Nvidia, text, false);
        assert_eq!((code.loads_in_flight, code.bytes, code.instructions, code.is_loop), (2, 32, 4, true));
    }
}
