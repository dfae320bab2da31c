//! Honeykrisp's compiler for AGX, which prints a kernel after each of its passes: the last that allocates registers is what is packed.
//! `r0...r3 = device_load …, xyzw, #0x0, slot 0`, `wait #0x0, slot 0`, blocks with their successors.

use std::sync::LazyLock;

use regex::Regex;

use super::amd::pattern;
use super::{Instruction, Kind, Text, Wait};

static BLOCK: LazyLock<Regex> = LazyLock::new(|| pattern(r"^(block\d+) \{"));
static SUCCESSORS: LazyLock<Regex> = LazyLock::new(|| pattern(r"^\} ->((?: block\d+)+)"));
static MEMORY: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"\b(device_load|device_store|stack_load|stack_store|uniform_store) .*?\b([xyzw]{1,4}), .*?slot (\d)",
    )
});
static STACK: LazyLock<Regex> = LazyLock::new(|| pattern(r"\bstack_(load|store)\b"));
static WAIT: LazyLock<Regex> = LazyLock::new(|| pattern(r"^wait .*slot (\d)"));

/// The main program after the last pass: of those that have waits, which are put in at the end, the longest; the preamble is short.
fn packed(text: &str) -> &str {
    let programs = text.split("\nblock0 {").skip(1).filter(|program| program.contains("   wait "));
    programs.max_by_key(|program| program.len()).unwrap_or_default()
}

pub(super) fn parse(text: &str) -> Text {
    let mut read = Text::default();
    read.label("block0");
    for line in packed(text).lines() {
        if let Some(block) = BLOCK.captures(line) {
            read.label(&block[1]);
            continue;
        }
        if let Some(found) = SUCCESSORS.captures(line) {
            let successors: Vec<&str> = found[1].split_whitespace().collect();
            for (at, successor) in successors.iter().enumerate() {
                read.jump(successor, at + 1 < successors.len(), Wait::No);
            }
            continue;
        }
        let line = line.trim();
        if line.is_empty() || line.starts_with('}') {
            continue;
        }
        if let Some(slot) = WAIT.captures(line).and_then(|found| found[1].parse::<u8>().ok()) {
            read.push(Instruction { wait: Wait::Marks(1 << slot), ..Instruction::of(Kind::Nothing) });
            continue;
        }
        if STACK.is_match(line) {
            read.push(Instruction::of(Kind::Private));
            continue;
        }
        let instruction = match MEMORY.captures(line) {
            Some(found) if &found[1] == "device_load" => Instruction {
                mark: found[3].parse().ok(),
                ..Instruction::of(Kind::Load(4 * found[2].len() as u32))
            },
            Some(found) if &found[1] == "device_store" => {
                Instruction::of(Kind::Store(4 * found[2].len() as u32))
            }
            _ => Instruction::of(Kind::Other),
        };
        read.push(instruction);
    }
    read
}

#[cfg(test)]
mod tests {
    use super::super::{Dialect, parse};

    #[test]
    fn loads_wait_by_slots_and_successors_are_jumps() {
        let text = "shader: X\n\nblock0 {\n   mov r0\n} -> block1 \n\nblock1 {\n   r0...r3 = device_load r8:r9, #0, xyzw, #0x0, slot 0\n\
                    \x20  r4...r7 = device_load r8:r9, #0, xyzw, #0x0, slot 1\n   wait #0x0, slot 0\n   wait #0x0, slot 1\n\
                    \x20  device_store r0...r3, r8:r9, #0, xyzw, #0x0, slot 0\n} -> block1 block2  from block0 block1\n\nblock2 {\n   stop \n}\n";
        let code = parse(Dialect::Apple, text, true);
        assert_eq!((code.loads_in_flight, code.load_bytes, code.bytes, code.is_loop), (2, 16, 32, true));
    }
}
