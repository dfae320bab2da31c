//! Pinned plans as text, a line per problem, to be kept in a file:
//!
//! ```text
//! # wgnorm tunings 1
//! adapter = llvmpipe (LLVM 15.0.6, 256 bits) (vulkan)
//! driver = llvmpipe Mesa 22.3.6 (LLVM 15.0.6)
//! kernels = 0f3c6b1d2a4e5f60
//! inference f32 channels_first 8x64x3136 relu = policy # 0.842 ms, kept among 8 that were measured
//! train_forward f32 channels_first 8x64x3136 = splits 4, team_size 2 # 1.2 ms, fastest of 9; the policy's 1.6 ms
//! ```
//!
//! `kernels` stands for the shaders and the policy: with others, another plan may be the fastest, and 'policy' another plan. The header holds for the lines below it, so that one file can hold the plans of several adapters. What follows ` # ` is a
//! comment. A line that cannot be used is left out and reported; a text that does not begin with the first line is an error.

use super::pins::{Pin, PinnedTuning, TuningSource};
use crate::base::error::{Error, Result};
use crate::engine::fingerprint;
use crate::plan::{parse_tuning, tuning_text};

const FIRST_LINE: &str = "# wgnorm tunings 1";

/// What came of reading pinned plans.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoadedTunings {
    /// Problems that are pinned now and were not before.
    pub pinned: usize,
    /// Problems that were pinned before, and stay as they were.
    pub known: usize,
    /// Lines that are of no use here.
    pub ignored: Vec<IgnoredTuning>,
}

/// A line of no use, from [`LoadedTunings`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct IgnoredTuning {
    /// Its number; the first is 1.
    pub line: usize,
    /// Why: it is of another adapter, driver or other kernels, or malformed.
    pub reason: String,
}

/// Whom measured plans are of use to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Header {
    adapter: String,
    driver: String,
    kernels: String,
}

impl Header {
    pub fn of(device: &wgpu::Device) -> Self {
        let info = device.adapter_info();
        let driver = match info.backend {
            wgpu::Backend::BrowserWebGpu => behind_a_browser(device),
            _ => format!("{} {}", info.driver, info.driver_info),
        };
        Self::new(&format!("{} ({})", info.name, info.backend), &driver)
    }

    fn new(adapter: &str, driver: &str) -> Self {
        let line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let kernels = format!("{:016x}", fingerprint::plans());
        Self { adapter: line(adapter), driver: line(driver), kernels }
    }

    fn parts(&self) -> [(&'static str, &str); 3] {
        [("adapter", &self.adapter), ("driver", &self.driver), ("kernels", &self.kernels)]
    }

    /// Takes a line of a header. A new adapter begins a new one.
    fn read(&mut self, key: &str, value: &str) -> bool {
        match key {
            "adapter" => *self = Self { adapter: value.to_owned(), ..Self::default() },
            "driver" => value.clone_into(&mut self.driver),
            "kernels" => value.clone_into(&mut self.kernels),
            _ => return false,
        }
        true
    }

    /// The first thing in which another differs.
    fn difference(&self, expected: &Self) -> Option<String> {
        let mut pairs = self.parts().into_iter().zip(expected.parts());
        let ((what, got), (_, expected)) = pairs.find(|((_, got), (_, expected))| got != expected)?;
        Some(match got {
            "" => format!("of no {what}: a header is missing"),
            got => format!("of the {what} {got:?}, this is {expected:?}"),
        })
    }
}

/// A browser tells no driver, and often no name: what it does tell of the adapter, and what plans depend on.
fn behind_a_browser(device: &wgpu::Device) -> String {
    let info = device.adapter_info();
    let (vendor, architecture) = told(device);
    let limits = format!("{:?} {:?}", device.limits(), device.features());
    format!(
        "vendor {vendor:?}, architecture {architecture:?}, subgroups of {} to {}, limits {:016x}",
        info.subgroup_min_size,
        info.subgroup_max_size,
        fingerprint::fnv([limits.as_str()].into_iter())
    )
}

/// Vendor and architecture, which wgpu does not pass on.
#[cfg(all(target_family = "wasm", feature = "webgpu"))]
fn told(device: &wgpu::Device) -> (String, String) {
    let info = device.as_webgpu().map(|device| device.adapter_info());
    info.map(|info| (info.vendor(), info.architecture())).unwrap_or_default()
}

#[cfg(not(all(target_family = "wasm", feature = "webgpu")))]
fn told(_: &wgpu::Device) -> (String, String) {
    (String::new(), String::new())
}

/// All that was measured or loaded, as text, followed by the lines of `others`.
pub(crate) fn export(header: &Header, pins: &[PinnedTuning], others: &str) -> String {
    let mut text = format!("{FIRST_LINE}\n");
    for (key, value) in header.parts() {
        text += &format!("{key} = {value}\n");
    }
    for PinnedTuning { problem, tuning, source } in pins {
        let comment = match source {
            TuningSource::Unmeasured { .. } => continue,
            TuningSource::Loaded { remark } if remark.is_empty() => String::new(),
            TuningSource::Loaded { remark } => format!(" # {remark}"),
            TuningSource::Measured { ns, policy_ns, plans } => {
                format!(" # {:.3} ms, best of {plans}; the policy's {:.3} ms", ns / 1e6, policy_ns / 1e6)
            }
        };
        text += &format!("{problem} = {}{comment}\n", tuning_text(tuning));
    }
    text + others
}

/// The lines of a text that are of other adapters, for a file that is written anew.
///
/// # Errors
/// [`Error::Tunings`] if the text is something else.
#[cfg(not(target_family = "wasm"))]
pub(crate) fn others(text: &str, header: &Header) -> Result<String> {
    check_first(text)?;
    let mut others = String::new();
    let mut of = Header::default();
    for line in text.lines().skip(1) {
        if let Some((key, value)) = line.split_once('=') {
            of.read(key.trim(), value.trim());
        }
        if !of.adapter.is_empty() && of.adapter != header.adapter {
            others += &format!("{line}\n");
        }
    }
    Ok(others)
}

/// Reads pinned plans; `insert` takes each and tells whether it is new.
///
/// # Errors
/// [`Error::Tunings`] if the text is something else.
pub(crate) fn import(
    text: &str,
    header: &Header,
    mut insert: impl FnMut(String, Pin) -> bool,
) -> Result<LoadedTunings> {
    check_first(text)?;
    let mut loaded = LoadedTunings::default();
    let mut of = Header::default();
    for (number, line) in text.lines().enumerate().skip(1) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match read_line(line, &mut of, header) {
            Ok(None) => {}
            Ok(Some((problem, pin))) => match insert(problem, pin) {
                true => loaded.pinned += 1,
                false => loaded.known += 1,
            },
            Err(reason) => loaded.ignored.push(IgnoredTuning { line: number + 1, reason }),
        }
    }
    Ok(loaded)
}

/// A problem and its plan; nothing from a line of the header.
fn read_line(line: &str, of: &mut Header, header: &Header) -> Result<Option<(String, Pin)>, String> {
    let (key, value) = line.split_once('=').ok_or("no `key = value`")?;
    let (key, value) = (key.trim(), value.trim());
    if of.read(key, value) {
        return Ok(None);
    }
    if let Some(difference) = of.difference(header) {
        return Err(difference);
    }
    let (value, remark) = value.split_once(" #").unwrap_or((value, ""));
    if key.is_empty() {
        return Err("no problem before the `=`".to_owned());
    }
    let source = TuningSource::Loaded { remark: remark.trim().to_owned() };
    Ok(Some((key.to_owned(), Pin { tuning: parse_tuning(value.trim())?, source })))
}

fn check_first(text: &str) -> Result<()> {
    let first = text.lines().next().unwrap_or_default();
    if first.trim_end() == FIRST_LINE {
        return Ok(());
    }
    let got = first.chars().take(80).collect();
    Err(Error::Tunings { expected: FIRST_LINE, got })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::plan::Tuning;

    fn header(adapter: &str) -> Header {
        Header { adapter: adapter.to_owned(), driver: "a driver".to_owned(), kernels: "1.2.3".to_owned() }
    }

    fn tuning() -> Tuning {
        Tuning { splits: Some(4), team_size: Some(2), ..Tuning::default() }
    }

    fn loaded() -> TuningSource {
        TuningSource::Loaded { remark: String::new() }
    }

    fn pin(problem: &str, tuning: Tuning, source: TuningSource) -> PinnedTuning {
        PinnedTuning { problem: problem.to_owned(), tuning, source }
    }

    /// What is read, and the report.
    fn read(text: &str, header: &Header) -> Result<(Vec<(String, Tuning)>, LoadedTunings)> {
        let mut all = Vec::new();
        let loaded = import(text, header, |problem, pin| {
            all.push((problem, pin.tuning));
            true
        })?;
        Ok((all, loaded))
    }

    #[test]
    fn what_is_written_is_read() {
        let measured = TuningSource::Measured { ns: 1e6, policy_ns: 2e6, plans: 9 };
        let unmeasured = TuningSource::Unmeasured { reason: "no memory".to_owned() };
        let pins = [
            pin("a problem", tuning(), measured),
            pin("another", Tuning::default(), loaded()),
            pin("a third", Tuning::default(), unmeasured),
        ];
        let text = export(&header("here"), &pins, "");
        let (all, loaded) = read(&text, &header("here")).unwrap();
        let wanted = [("a problem".to_owned(), tuning()), ("another".to_owned(), Tuning::default())];
        assert_eq!(all, wanted);
        assert_eq!((loaded.pinned, loaded.known, loaded.ignored), (2, 0, vec![]));

        // Written again, what was read is the same text.
        let mut again = Vec::new();
        let insert = |problem: String, Pin { tuning, source }| {
            again.push(PinnedTuning { problem, tuning, source });
            true
        };
        import(&text, &header("here"), insert).unwrap();
        assert_eq!(export(&header("here"), &again, ""), text);
    }

    #[test]
    fn lines_of_others_are_told_and_left_out() {
        let here = export(&header("here"), &[pin("p", tuning(), loaded())], "");
        for other in [
            header("there"),
            Header { driver: "newer".to_owned(), ..header("here") },
            Header { kernels: "9.9.9".to_owned(), ..header("here") },
        ] {
            let (all, loaded) = read(&here, &other).unwrap();
            assert!(all.is_empty());
            let [IgnoredTuning { line: 5, reason }] = loaded.ignored.as_slice() else { panic!("{loaded:?}") };
            let (_, wanted) =
                header("here").parts().into_iter().zip(other.parts()).find(|(a, b)| a != b).unwrap();
            assert!(reason.contains(wanted.0) && reason.contains(wanted.1), "{reason}");
        }
    }

    #[test]
    fn a_file_holds_several_adapters() {
        let there = export(&header("there"), &[pin("p", Tuning::default(), loaded())], "");
        let kept = others(&there, &header("here")).unwrap();
        let both = export(&header("here"), &[pin("p", tuning(), loaded())], &kept);
        assert_eq!(read(&both, &header("here")).unwrap().0, [("p".to_owned(), tuning())]);
        assert_eq!(read(&both, &header("there")).unwrap().0, [("p".to_owned(), Tuning::default())]);
        // Written anew for one of them, it has the other still, and its own once.
        let again = export(&header("here"), &[], &others(&both, &header("here")).unwrap());
        assert_eq!(read(&again, &header("here")).unwrap().0, []);
        assert_eq!(read(&again, &header("there")).unwrap().0.len(), 1);
        // An older driver of the same adapter is not kept.
        let newer = Header { driver: "newer".to_owned(), ..header("there") };
        assert_eq!(others(&there, &newer).unwrap(), "");
    }

    #[test]
    fn malformed_lines_are_told_and_left_out() {
        let lines = [
            "nothing of use",
            "p = splits",
            "p = splits four",
            "p = splits -1",
            "p = splits 0",
            "p = strip 17",
            "p = splits 4294967296",
            "p = splits 1, splits 2",
            "p = speed 11",
            "p =",
            "= policy",
        ];
        let text =
            export(&header("here"), &[], &(lines.join("\n") + "\n\n# a comment\np = policy # another\n"));
        let (all, loaded) = read(&text, &header("here")).unwrap();
        assert_eq!(all, [("p".to_owned(), Tuning::default())]);
        let numbers: Vec<_> = loaded.ignored.iter().map(|ignored| ignored.line).collect();
        assert_eq!(numbers, (5..5 + lines.len()).collect::<Vec<_>>(), "{loaded:?}");
    }

    #[test]
    fn lines_without_a_header_are_left_out() {
        let (all, loaded) = read(&format!("{FIRST_LINE}\np = policy\n"), &header("here")).unwrap();
        assert!(all.is_empty() && loaded.ignored[0].reason.contains("header is missing"), "{loaded:?}");
    }

    #[test]
    fn something_else_is_an_error_and_never_written_over() {
        for text in ["", "hello\n", "# wgnorm tunings 2\n", "\u{0}\u{1}"] {
            assert!(matches!(read(text, &header("here")), Err(Error::Tunings { .. })), "{text:?}");
            assert!(matches!(others(text, &header("here")), Err(Error::Tunings { .. })), "{text:?}");
        }
    }

    /// A file with everything that one can have.
    fn whole() -> String {
        let measured = TuningSource::Measured { ns: 1e6, policy_ns: 2e6, plans: 9 };
        let pins = [pin("a problem", tuning(), measured), pin("another", Tuning::default(), loaded())];
        let others = export(&header("there"), &[pin("p", tuning(), loaded())], "");
        export(&header("here"), &pins, others.split_once('\n').unwrap().1)
    }

    /// What is read of any text is as good as what was written: again it is read the same.
    fn exercise(text: &str) {
        let Ok((all, loaded)) = read(text, &header("here")) else { return };
        assert!(all.len() == loaded.pinned && loaded.ignored.len() <= text.lines().count());
        let pins: Vec<_> =
            all.iter().map(|(problem, tuning)| pin(problem, *tuning, self::loaded())).collect();
        let again = export(&header("here"), &pins, &others(text, &header("here")).unwrap());
        assert_eq!(read(&again, &header("here")).unwrap().0, all, "{text:?}");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_text_is_a_file_or_an_error(text in "[a-z0-9 =,#\n\\-.]{0,200}") {
            exercise(&text);
            exercise(&format!("{FIRST_LINE}\n{text}"));
            exercise(&(whole() + &text));
        }

        #[test]
        fn a_file_with_other_characters_is_one_or_an_error(
            changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<char>()), 1..6),
            kept in any::<prop::sample::Index>(),
        ) {
            let mut text: Vec<char> = whole().chars().collect();
            for (at, value) in changes {
                let at = at.index(text.len());
                text[at] = value;
            }
            exercise(&text.iter().collect::<String>());
            text.truncate(kept.index(text.len()));
            exercise(&text.iter().collect::<String>());
        }
    }
}
