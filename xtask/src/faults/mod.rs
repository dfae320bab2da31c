//! `cargo xtask faults`: puts deliberate faults into the shaders, one at a time, and says whether `wgnorm check` finds each.
//!
//! What a check lets pass it does not guard: a fault that is not found is a hole in the table of cases.

mod check;
mod list;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::{Failure, root, target};
use check::{Program, Verdict};
use list::{Fault, Shaders};

/// What is asked for.
#[derive(Debug, Default, PartialEq)]
struct Options {
    /// Also faults that only the full table finds, by that.
    full: bool,
    /// Faults in whose words, text or file this occurs.
    text: String,
}

impl Options {
    fn parse(args: &[String]) -> Result<Self, Failure> {
        let mut options = Self::default();
        for arg in args {
            match arg.as_str() {
                "--full" => options.full = true,
                _ if arg.starts_with('-') || !options.text.is_empty() => {
                    let message = format!("faults takes --full and one text, not {arg:?}");
                    return Err(Failure { message, code: 2 });
                }
                text => text.clone_into(&mut options.text),
            }
        }
        Ok(options)
    }

    fn asks_for(&self, fault: &Fault, file: &str) -> bool {
        [&fault.what, &fault.text, file].iter().any(|part| part.contains(&self.text))
    }
}

/// A fault that was tried.
struct Tried {
    fault: Fault,
    file: String,
    verdict: Verdict,
    seconds: f64,
}

pub fn run(args: &[String]) -> Result<(), Failure> {
    let options = Options::parse(args)?;
    let shaders = Shaders::read(&root().join("shaders"))?;
    let faults = list::located(&shaders)?;
    let all = faults.len();
    let asked: Vec<_> = faults.into_iter().filter(|(fault, file)| options.asks_for(fault, file)).collect();
    if asked.is_empty() {
        return Err(format!("none of {all} faults has {:?}", options.text).into());
    }
    let work = target()?.join("faults");
    fs::create_dir_all(&work).map_err(|error| format!("{}: {error}", work.display()))?;
    let program = Program::build(&work)?;
    let directory = work.join("shaders");
    shaders.write(&directory, None)?;
    program.reach(&directory)?;

    let started = Instant::now();
    let mut tried = Vec::new();
    for (fault, file) in asked {
        if let (Some(reason), false) = (&fault.only_full, options.full) {
            println!("left to --full  {}: {reason}", fault.what);
            continue;
        }
        shaders.write(&directory, Some((&fault, file.as_str())))?;
        let began = Instant::now();
        let verdict = program.try_out(&directory, &fault, &file)?;
        let one = Tried { fault, file, verdict, seconds: began.elapsed().as_secs_f64() };
        println!("{}", one.line());
        tried.push(one);
        // After each, so that an end before the last leaves what was found.
        report(&work.join("report.tsv"), &tried)?;
    }
    print_table(&tried, started.elapsed().as_secs_f64() / 60.0);
    match tried.iter().filter(|one| !one.verdict.is_caught()).count() {
        0 => Ok(()),
        1 => Err("1 fault was not caught".to_owned().into()),
        more => Err(format!("{more} faults were not caught").into()),
    }
}

impl Tried {
    fn line(&self) -> String {
        let Self { fault, file, verdict, seconds } = self;
        let head = format!("{seconds:6.1} s  {:<10}  {}  ({file})", verdict.word(), fault.what);
        match verdict {
            Verdict::NotCaught => head,
            Verdict::Caught { case, how } => format!("{head}\n{:10}by {case}: {how}", ""),
            Verdict::Mistake(what) => format!("{head}\n{what}"),
        }
    }
}

/// How many were caught, which cases were first to do so, and what was not caught.
fn print_table(tried: &[Tried], minutes: f64) {
    let mut cases: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for one in tried {
        if let Verdict::Caught { case, .. } = &one.verdict {
            cases.entry(case).or_default().push(&one.fault.what);
        }
    }
    let mut cases: Vec<_> = cases.into_iter().collect();
    cases.sort_by_key(|(_, faults)| std::cmp::Reverse(faults.len()));
    println!("\ncaught  by");
    for (case, faults) in &cases {
        println!("{:6}  {case}", faults.len());
    }
    let caught: usize = cases.iter().map(|(_, faults)| faults.len()).sum();
    println!("\n{caught} of {} faults caught in {minutes:.1} min", tried.len());
    for one in tried.iter().filter(|one| !one.verdict.is_caught()) {
        println!("{}", one.line());
    }
}

fn report(path: &Path, tried: &[Tried]) -> Result<(), Failure> {
    let mut lines = "what\tfile\ttext\tcaught by\tseconds\n".to_owned();
    for Tried { fault, file, verdict, seconds } in tried {
        let by = match verdict {
            Verdict::Caught { case, .. } => case,
            other => other.word(),
        };
        let text = fault.text.replace('\n', "\\n");
        lines += &format!("{}\t{file}\t{text}\t{by}\t{seconds:.1}\n", fault.what);
    }
    write(path.to_owned(), &lines)
}

fn write(path: PathBuf, text: &str) -> Result<(), Failure> {
    Ok(fs::write(&path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_text_and_full_in_any_order() {
        let parse =
            |args: &[&str]| Options::parse(&args.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>());
        for args in [&["mask", "--full"][..], &["--full", "mask"]] {
            assert_eq!(parse(args).ok().unwrap(), Options { full: true, text: "mask".to_owned() });
        }
        for wrong in [&["--all"][..], &["mask", "fold"]] {
            assert!(parse(wrong).is_err_and(|failure| failure.code == 2), "{wrong:?}");
        }
    }
}
