//! Machine code as text, as far as it is of interest here: what is loaded, what waits for it, and the loop that walks a tensor.

mod adreno;
mod amd;
mod apple;
mod intel;
mod nvidia;

use std::collections::{BTreeMap, BTreeSet};

/// Whose text it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    Amd,
    Nvidia,
    Apple,
    Adreno,
    Intel,
}

/// What an instruction does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Of so many bytes for an invocation, from a tensor or a like buffer.
    Load(u32),
    Store(u32),
    /// To or from an invocation's own memory, which is where arrays and spilled registers are.
    Private,
    /// Of a uniform value, once for all invocations.
    Uniform,
    /// A jump to a place, and whether what follows may come next instead.
    Jump(usize, bool),
    /// Waits, hints and what fills a slot.
    Nothing,
    Other,
}

/// For which loads an instruction waits before it does what it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    No,
    All,
    /// Until so many are left, the oldest first.
    Until(usize),
    /// Those that have one of these marks.
    Marks(u64),
}

#[derive(Clone, Copy, Debug)]
struct Instruction {
    kind: Kind,
    wait: Wait,
    /// By which others wait for this one, of up to 64.
    mark: Option<u8>,
}

impl Instruction {
    const fn of(kind: Kind) -> Self {
        Self { kind, wait: Wait::No, mark: None }
    }
}

/// A kernel's text, with the labels at which instructions begin.
#[derive(Debug, Default)]
struct Text {
    instructions: Vec<Instruction>,
    labels: Vec<(String, usize)>,
    /// Jumps, by the names of their labels.
    jumps: Vec<(usize, String)>,
}

impl Text {
    fn label(&mut self, name: &str) {
        self.labels.push((name.to_owned(), self.instructions.len()));
    }

    fn push(&mut self, instruction: Instruction) {
        self.instructions.push(instruction);
    }

    fn jump(&mut self, label: &str, conditional: bool, wait: Wait) {
        self.jumps.push((self.instructions.len(), label.to_owned()));
        self.push(Instruction { wait, ..Instruction::of(Kind::Jump(usize::MAX, conditional)) });
    }

    /// Jumps with the places of their labels; those to none are nothing of interest.
    fn resolved(mut self) -> Vec<Instruction> {
        for (at, name) in &self.jumps {
            let place = self.labels.iter().find(|(label, _)| label == name).map(|(_, place)| *place);
            let instruction = &mut self.instructions[*at];
            instruction.kind = match (place, instruction.kind) {
                (Some(place), Kind::Jump(_, conditional)) => Kind::Jump(place, conditional),
                _ => Kind::Other,
            };
        }
        threaded(self.instructions)
    }
}

/// Jumps to where they lead, through jumps that always jump on: NVIDIA's compiler in Mesa puts those that lead back to the end of the text. What is reached no more is
/// nothing.
fn threaded(mut all: Vec<Instruction>) -> Vec<Instruction> {
    let onward = |all: &[Instruction], to: usize| {
        let next = all.iter().skip(to).find(|instruction| instruction.kind != Kind::Nothing);
        match next.map(|instruction| instruction.kind) {
            Some(Kind::Jump(further, false)) if further != to => Some(further),
            _ => None,
        }
    };
    for at in 0..all.len() {
        if let Kind::Jump(mut to, conditional) = all[at].kind {
            for _ in 0..8 {
                to = onward(&all, to).unwrap_or(to);
            }
            all[at].kind = Kind::Jump(to, conditional);
        }
    }
    let (mut reached, mut open) = (BTreeSet::new(), vec![0]);
    while let Some(at) = open.pop() {
        if at < all.len() && reached.insert(at) {
            match all[at].kind {
                Kind::Jump(to, false) => open.push(to),
                Kind::Jump(to, true) => open.extend([to, at + 1]),
                _ => open.push(at + 1),
            }
        }
    }
    for at in (0..all.len()).filter(|at| !reached.contains(at)) {
        all[at] = Instruction::of(Kind::Nothing);
    }
    all
}

/// What is read out of a kernel's text: of the loop that moves most bytes, or where no loop moves any, of all of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Code {
    /// Loads that are on their way at the same time at most, counted along the text.
    pub loads_in_flight: u32,
    /// The widest load's bytes.
    pub load_bytes: u32,
    /// Bytes that an invocation loads and stores, the larger of both.
    pub bytes: u32,
    /// All that is executed, but for waits.
    pub instructions: u32,
    /// Whether it is a loop.
    pub is_loop: bool,
}

impl Code {
    /// Instructions for each 16 bytes that are moved.
    pub fn instructions_per_16_bytes(self) -> f64 {
        f64::from(self.instructions) * 16.0 / f64::from(self.bytes.max(1))
    }
}

/// Reads a kernel's text: of a map, which stores in its loop, or of a reduction.
pub fn parse(dialect: Dialect, text: &str, is_map: bool) -> Code {
    let text = match dialect {
        Dialect::Amd => amd::parse(text),
        Dialect::Nvidia => nvidia::parse(text),
        Dialect::Apple => apple::parse(text),
        Dialect::Adreno => adreno::parse(text),
        Dialect::Intel => intel::parse(text),
    };
    let all = text.resolved();
    let loops = match dialect {
        // Whose text is not in the order of its loops.
        Dialect::Nvidia => natural_loops(&all),
        _ => loops(&all),
    };
    code(&all, &loops, is_map)
}

/// What was printed between the last pipeline and this one.
pub fn printed_before<'t>(printed: &'t str, number: &str) -> Option<&'t str> {
    let end = printed.find(&format!("\npipeline {number}"))?;
    let before = &printed[..end];
    let begin = before.rfind("\npipeline ").map_or(0, |at| at + 1);
    Some(&before[begin..])
}

fn bytes(instructions: &[Instruction]) -> (u32, u32) {
    instructions.iter().fold((0, 0), |(loaded, stored), instruction| match instruction.kind {
        Kind::Load(bytes) => (loaded + bytes, stored),
        Kind::Store(bytes) => (loaded, stored + bytes),
        _ => (loaded, stored),
    })
}

/// Instructions of a loop, in the order of the text.
type Loop = Vec<usize>;

/// The loops of a kernel: the text from a place to the last jump back to it.
fn loops(all: &[Instruction]) -> Vec<Loop> {
    let mut ends: BTreeMap<usize, usize> = BTreeMap::new();
    for (at, instruction) in all.iter().enumerate() {
        if let Kind::Jump(to, _) = instruction.kind
            && to <= at
        {
            ends.insert(to, at);
        }
    }
    ends.into_iter().map(|(begin, end)| (begin..=end).collect()).collect()
}

/// The loops of a kernel as jumps make them, wherever they stand in the text: what leads to a jump back without coming by the place where it leads to, which
/// everything else has to come by.
fn natural_loops(all: &[Instruction]) -> Vec<Loop> {
    let after = |at: usize| match all[at].kind {
        Kind::Jump(to, false) => vec![to],
        Kind::Jump(to, true) => vec![at + 1, to],
        _ => vec![at + 1],
    };
    // From some places on, by edges, without a place.
    let reached = |from: &[usize], next: &dyn Fn(usize) -> Vec<usize>, without: usize| {
        let (mut reached, mut open) = (BTreeSet::new(), from.to_vec());
        while let Some(at) = open.pop() {
            if at < all.len() && at != without && reached.insert(at) {
                open.extend(next(at));
            }
        }
        reached
    };
    let mut before = vec![Vec::new(); all.len() + 1];
    for at in 0..all.len() {
        after(at).into_iter().filter(|&to| to <= all.len()).for_each(|to| before[to].push(at));
    }
    let mut heads: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
    for (at, instruction) in all.iter().enumerate() {
        let Kind::Jump(to, _) = instruction.kind else { continue };
        // Nobody comes to the jump but by the place where it leads to.
        if !reached(&[0], &after, to).contains(&at) {
            let mut body = reached(&[at], &|at| before[at].clone(), to);
            body.insert(to);
            heads.entry(to).or_default().extend(body);
        }
    }
    heads.into_values().map(|body| body.into_iter().collect()).collect()
}

fn code(all: &[Instruction], loops: &[Loop], is_map: bool) -> Code {
    let of = |places: &Loop| places.iter().map(|&at| all[at]).collect::<Vec<_>>();
    let walks = |places: &&Loop| {
        let (loaded, stored) = bytes(&of(places));
        loaded > 0 && (stored > 0 || !is_map)
    };
    // Not those around others. The walk is the one that moves most; others are over partial results or parameters.
    let walking: Vec<&Loop> = loops.iter().filter(walks).collect();
    let inside = |inner: &Loop, outer: &Loop| inner != outer && inner.iter().all(|at| outer.contains(at));
    let innermost = walking.iter().filter(|outer| !walking.iter().any(|inner| inside(inner, outer)));
    let walk = innermost.max_by_key(|places| {
        let (loaded, stored) = bytes(&of(places));
        loaded + stored
    });
    let is_loop = walk.is_some();
    let body = walk.map_or_else(|| all.to_vec(), |places| of(places));
    let (loaded, stored) = bytes(&body);
    let load_width = |instruction: &Instruction| match instruction.kind {
        Kind::Load(bytes) => Some(bytes),
        _ => None,
    };
    Code {
        loads_in_flight: in_flight(&body),
        load_bytes: body.iter().filter_map(load_width).max().unwrap_or(0),
        bytes: loaded.max(stored),
        instructions: body.iter().filter(|instruction| instruction.kind != Kind::Nothing).count() as u32,
        is_loop,
    }
}

/// The most loads that nobody has waited for yet, of the widest kind: narrow ones are of parameters.
fn in_flight(body: &[Instruction]) -> u32 {
    let wide = body.iter().filter_map(|instruction| match instruction.kind {
        Kind::Load(bytes) => Some(bytes),
        _ => None,
    });
    let wide = wide.max().unwrap_or(0);
    // Whether it is one of those that count, and its mark.
    let mut open: Vec<(bool, Option<u8>)> = Vec::new();
    let mut most = 0;
    for instruction in body {
        match instruction.wait {
            Wait::No => {}
            Wait::All => open.clear(),
            Wait::Until(left) => drop(open.drain(..open.len().saturating_sub(left))),
            Wait::Marks(marks) => open.retain(|(_, mark)| mark.is_none_or(|mark| marks >> mark & 1 == 0)),
        }
        if let Kind::Load(bytes) = instruction.kind {
            open.push((bytes == wide, instruction.mark));
            most = most.max(open.iter().filter(|(counts, _)| *counts).count());
        }
    }
    most as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(mark: u8) -> Instruction {
        Instruction { mark: Some(mark), ..Instruction::of(Kind::Load(16)) }
    }

    fn waits(wait: Wait) -> Instruction {
        Instruction { wait, ..Instruction::of(Kind::Other) }
    }

    #[test]
    fn loads_are_in_flight_until_somebody_waits() {
        assert_eq!(in_flight(&[load(0), load(1), waits(Wait::All), load(0)]), 2);
        assert_eq!(in_flight(&[load(0), waits(Wait::All), load(0), waits(Wait::All)]), 1);
        assert_eq!(in_flight(&[load(0), load(0), load(0), waits(Wait::Until(1)), load(0), load(0)]), 3);
        assert_eq!(in_flight(&[load(0), load(1), waits(Wait::Marks(1)), load(2)]), 2);
        // A parameter's load is on its way too, but is none of a tensor.
        assert_eq!(in_flight(&[load(0), Instruction::of(Kind::Load(4))]), 1);
    }

    #[test]
    fn the_loop_that_moves_most_is_the_walk_and_a_map_stores_in_it() {
        let mut text = Text::default();
        text.label("outer");
        text.label("narrow");
        text.push(Instruction::of(Kind::Load(4)));
        text.jump("narrow", true, Wait::No);
        text.label("wide");
        text.push(load(0));
        text.push(load(1));
        text.push(Instruction::of(Kind::Store(16)));
        text.jump("wide", true, Wait::No);
        text.jump("outer", true, Wait::No);
        text.label("partials");
        (0..4).for_each(|mark| text.push(load(mark)));
        text.jump("partials", true, Wait::No);
        let all = text.resolved();
        assert_eq!(code(&all, &loops(&all), false).bytes, 64);
        assert_eq!(code(&all, &natural_loops(&all), false).bytes, 64);
        let code = code(&all, &loops(&all), true);
        assert_eq!((code.loads_in_flight, code.bytes, code.instructions, code.is_loop), (2, 32, 4, true));
        assert!((code.instructions_per_16_bytes() - 2.0).abs() < 1e-9);
    }

    #[test]
    fn jumps_lead_to_where_they_lead_in_the_end() {
        let mut text = Text::default();
        text.label("head");
        text.push(load(0));
        text.jump("back", true, Wait::No);
        text.push(Instruction::of(Kind::Store(16)));
        text.jump("end", false, Wait::No);
        text.label("back");
        text.jump("head", false, Wait::No);
        text.label("end");
        text.push(Instruction::of(Kind::Other));
        assert_eq!(loops(&text.resolved()), vec![vec![0, 1]]);
        // Entered at its end.
        let mut text = Text::default();
        text.push(load(0));
        text.jump("condition", false, Wait::No);
        text.label("body");
        text.push(load(1));
        text.label("condition");
        text.jump("body", true, Wait::No);
        assert_eq!(loops(&text.resolved()), vec![vec![2, 3]]);
    }

    #[test]
    fn a_loop_is_where_its_jumps_are_wherever_it_stands() {
        // The second half of a loop stands after another loop.
        let mut text = Text::default();
        text.label("head");
        text.push(load(0));
        text.jump("far", true, Wait::No);
        text.label("other");
        text.push(load(1));
        text.jump("other", true, Wait::No);
        text.jump("end", false, Wait::No);
        text.label("far");
        text.push(Instruction::of(Kind::Store(16)));
        text.jump("head", false, Wait::No);
        text.label("end");
        text.push(Instruction::of(Kind::Other));
        let all = text.resolved();
        assert_eq!(natural_loops(&all), vec![vec![0, 1, 5, 6], vec![2, 3]]);
        let walk = code(&all, &natural_loops(&all), true);
        assert_eq!((walk.bytes, walk.instructions), (16, 4));
    }

    #[test]
    fn what_a_driver_prints_is_of_the_pipeline_that_follows() {
        let printed = "a\npipeline 0000\nb\npipeline 0001\n";
        assert_eq!(printed_before(printed, "0000"), Some("a"));
        assert_eq!(printed_before(printed, "0001"), Some("pipeline 0000\nb"));
        assert_eq!(printed_before(printed, "0002"), None);
    }
}
