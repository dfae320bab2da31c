//! What drivers say of a kernel in numbers, by the names that each has for them.

use std::collections::HashMap;

/// Statistics of a compiled kernel; what a driver does not tell is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    pub subgroup: u64,
    /// Of an invocation, as the driver counts them; on Apple halves of them.
    pub registers: Option<u64>,
    /// Registers that go to memory.
    pub spills: Option<u64>,
    pub workgroup_memory: Option<u64>,
    /// Subgroups at a time in one of the units that [`Device`](crate::targets::Device) counts.
    pub waves: Option<u64>,
}

impl Statistics {
    pub fn parse(text: &str) -> Self {
        let all: HashMap<&str, u64> = text
            .lines()
            .filter_map(|line| line.split_once('\t'))
            .filter_map(|(name, value)| Some((name, value.parse::<f64>().ok()? as u64)))
            .collect();
        let first = |names: &[&str]| names.iter().find_map(|name| all.get(name).copied());
        let subgroup = first(&["subgroup"]).unwrap_or(0);
        let registers = first(&["VGPRs", "Number of GPRs", "GPRs", "Registers used", "Max live registers"]);
        let spills = first(&["Spilled VGPRs", "Spills to memory", "STP Count", "Spills"]);
        let workgroup_memory = first(&["LDS size", "SLM size", "Workgroup Memory Size"]);
        let waves = first(&["Subgroups per SIMD", "Max warps/SM", "Max Waves Per Core"]);
        // Apple counts invocations in a core, Intel nothing: an execution unit has eight threads, or with twice the registers four.
        let of_threads = first(&["Threads"]).map(|threads| threads / subgroup.max(1));
        let of_unit = all.contains_key("Max dispatch width").then_some(8);
        Self { subgroup, registers, spills, workgroup_memory, waves: waves.or(of_threads).or(of_unit) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_driver_has_names_of_its_own() {
        let radv = Statistics::parse(
            "subgroup\t64\nSGPRs\t108\nVGPRs\t12\nSpilled VGPRs\t0\nLDS size\t512\nSubgroups per SIMD\t32\n",
        );
        let expected = Statistics {
            subgroup: 64,
            registers: Some(12),
            spills: Some(0),
            workgroup_memory: Some(512),
            waves: Some(32),
        };
        assert_eq!(radv, expected);
        let nvk =
            Statistics::parse("subgroup\t32\nNumber of GPRs\t24\nMax warps/SM\t48\nSpills to memory\t3\n");
        assert_eq!((nvk.registers, nvk.waves, nvk.spills), (Some(24), Some(48), Some(3)));
        let apple = Statistics::parse("subgroup\t32\nGPRs\t27\nThreads\t1024\nSpills\t0\n");
        assert_eq!((apple.registers, apple.waves), (Some(27), Some(32)));
        let intel =
            Statistics::parse("subgroup\t16\nMax live registers\t27\nMax dispatch width\t16\nSpills\t1\n");
        assert_eq!((intel.registers, intel.waves, intel.spills), (Some(27), Some(8), Some(1)));
    }
}
