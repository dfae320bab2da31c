//! What is said of each dispatch of each operation, and the table of it.

use std::fmt::Write as _;

use crate::Refusal;
use crate::isa::Code;
use crate::run::{Compiled, Dispatch, Operation};
use crate::statistics::Statistics;
use crate::targets::Target;

/// Seconds from a dispatch to the next that waits for it. Assumed.
const LAUNCH: f64 = 4e-6;

/// A dispatch on a target.
#[derive(Clone, Debug)]
pub struct Row {
    pub target: &'static Target,
    /// The problem, and what is done of it.
    pub operation: String,
    pub kernel: String,
    pub workgroups: u64,
    pub statistics: Statistics,
    pub code: Option<Code>,
    /// Bytes that all invocations have asked for at the same time, at most.
    pub in_flight: Option<u64>,
    /// What the device does nothing for while the last workgroups run: 0.1 is a tenth of the time.
    pub tail: Option<f64>,
    /// Bytes that any implementation of the operation moves.
    pub floor_bytes: u64,
    /// Bytes that the dispatch binds.
    pub bytes: u64,
}

impl Row {
    fn new(
        target: &'static Target,
        operation: &Operation,
        dispatch: &Dispatch,
        compiled: &Compiled,
    ) -> Result<Self, Refusal> {
        let kernel = compiled.plans.kernels.get(dispatch.kernel).ok_or("a dispatch of no kernel")?;
        let &(statistics, code) =
            compiled.kernels.get(&kernel.name).ok_or("a kernel that was not compiled")?;
        let workgroups = dispatch.workgroups[0] * dispatch.workgroups[1];
        let size = kernel.workgroup_size.max(1);
        // Workgroups that are on the device at the same time.
        let resident =
            statistics.waves.map(|waves| (target.device.units * waves * statistics.subgroup / size).max(1));
        let in_flight = resident.zip(code).map(|(resident, code)| {
            resident.min(workgroups) * size * u64::from(code.loads_in_flight) * u64::from(code.load_bytes)
        });
        let tail =
            resident.map(|resident| 1.0 - workgroups as f64 / workgroups.next_multiple_of(resident) as f64);
        Ok(Self {
            target,
            operation: format!("{}: {}", operation.problem, operation.operation),
            kernel: kernel.name.clone(),
            workgroups,
            statistics,
            code,
            in_flight,
            tail,
            floor_bytes: operation.floor_bytes,
            bytes: dispatch.bytes,
        })
    }

    /// Seconds, by Little's law: no faster than memory, nor than what is in flight each time that its latency passes.
    pub fn estimate(&self) -> Option<f64> {
        let device = &self.target.device;
        let in_flight = self.in_flight? as f64;
        let rate = device.bandwidth.min(in_flight / device.latency);
        Some(LAUNCH + self.bytes as f64 / rate)
    }

    pub fn floor(&self) -> f64 {
        self.floor_bytes as f64 / self.target.device.bandwidth
    }
}

/// Those of all dispatches, in order.
pub fn rows(target: &'static Target, compiled: &Compiled) -> Result<Vec<Row>, Refusal> {
    let all = compiled.plans.operations.iter();
    let dispatches =
        all.flat_map(|operation| operation.dispatches.iter().map(move |dispatch| (operation, dispatch)));
    dispatches.map(|(operation, dispatch)| Row::new(target, operation, dispatch, compiled)).collect()
}

const COLUMNS: [&str; 15] = [
    "target",
    "operation",
    "kernel",
    "workgroups",
    "registers",
    "spills",
    "workgroup_memory",
    "waves",
    "subgroup",
    "loads_in_flight",
    "bytes_in_flight",
    "instructions_per_16_bytes",
    "tail",
    "floor_us",
    "estimate_us",
];

/// The rows as text, with tabs between columns; what is not known is `-`.
pub fn table(rows: &[Row]) -> String {
    let known = |value: Option<u64>| value.map_or("-".to_owned(), |value| value.to_string());
    let mut text = COLUMNS.join("\t") + "\n";
    for row in rows {
        let Statistics { registers, spills, workgroup_memory, waves, subgroup } = row.statistics;
        let per_16 =
            row.code.map_or("-".to_owned(), |code| format!("{:.1}", code.instructions_per_16_bytes()));
        let cells = [
            row.target.name.to_owned(),
            row.operation.clone(),
            row.kernel.clone(),
            row.workgroups.to_string(),
            known(registers),
            known(spills),
            known(workgroup_memory),
            known(waves),
            subgroup.to_string(),
            known(row.code.map(|code| code.loads_in_flight.into())),
            known(row.in_flight),
            per_16,
            row.tail.map_or("-".to_owned(), |tail| format!("{tail:.2}")),
            format!("{:.1}", 1e6 * row.floor()),
            row.estimate().map_or("-".to_owned(), |seconds| format!("{:.1}", 1e6 * seconds)),
        ];
        let _ = writeln!(text, "{}", cells.join("\t"));
    }
    text
}
