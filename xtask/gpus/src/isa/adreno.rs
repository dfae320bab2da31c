//! Turnip's compiler, ir3: `isam.v.base0 (u32)(xyzw)r1.x, …`, `ldib.b.untyped.1d.u32.4…`, and `(sy)` on what waits for all loads.

use std::sync::LazyLock;

use regex::Regex;

use super::amd::pattern;
use super::{Instruction, Kind, Text, Wait};

static LABEL: LazyLock<Regex> = LazyLock::new(|| pattern(r"^(l\d+):"));
static FLAGS: LazyLock<Regex> = LazyLock::new(|| pattern(r"^((?:\([a-z0-9]+\))*)([a-z][a-z0-9._]*)"));
static COMPONENTS: LazyLock<Regex> = LazyLock::new(|| pattern(r"\(([xyzw]+)\)r"));
static TYPED: LazyLock<Regex> = LazyLock::new(|| pattern(r"\.[uf](16|32)\.(\d)"));
static TARGET: LazyLock<Regex> = LazyLock::new(|| pattern(r"#(l\d+)"));

fn typed(line: &str) -> u32 {
    let found = TYPED.captures(line);
    found.map_or(4, |found| found[1].parse::<u32>().unwrap_or(32) / 8 * found[2].parse::<u32>().unwrap_or(1))
}

pub(super) fn parse(text: &str) -> Text {
    let mut read = Text::default();
    for line in text.lines() {
        if let Some(label) = LABEL.captures(line) {
            read.label(&label[1]);
            continue;
        }
        let Some(found) = FLAGS.captures(line) else { continue };
        let (flags, name) = (&found[1], &found[2]);
        let wait = if flags.contains("(sy)") { Wait::All } else { Wait::No };
        if (name == "br" || name == "jump" || name == "brao" || name == "braa")
            && let Some(label) = TARGET.captures(line)
        {
            read.jump(&label[1], name != "jump", wait);
            continue;
        }
        let kind = match name {
            _ if name.starts_with("isam") => {
                let components = COMPONENTS.captures(line).map_or(1, |found| found[1].len());
                Kind::Load(4 * components as u32)
            }
            _ if name.starts_with("ldib") || name.starts_with("ldg") => Kind::Load(typed(line)),
            _ if name.starts_with("stib") || name.starts_with("stg") => Kind::Store(typed(line)),
            _ if name.starts_with("ldp") || name.starts_with("stp") => Kind::Private,
            _ if name.starts_with("ldc") => Kind::Uniform,
            "nop" => Kind::Nothing,
            _ => Kind::Other,
        };
        read.push(Instruction { wait, ..Instruction::of(kind) });
    }
    read
}

#[cfg(test)]
mod tests {
    use super::super::{Dialect, parse};

    #[test]
    fn loads_wait_by_a_flag() {
        let text = "; a comment\nl1:\nisam.v.base0 (u32)(xyzw)r1.x, r0.w, s#0, t#3\nldib.b.untyped.1d.u32.4.imm.base0 r10.z, r9.y, 5\n\
                    (sy)(ss)add.f r1.x, r1.y, r2.z\n(rpt3)nop\nstib.b.untyped.1d.u32.4.imm.base0 r2.y, r11.z, 5\nbr p0.x, #l1\n";
        let code = parse(Dialect::Adreno, text, true);
        assert_eq!((code.loads_in_flight, code.bytes, code.instructions, code.is_loop), (2, 32, 5, true));
    }
}
