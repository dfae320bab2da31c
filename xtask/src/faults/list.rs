//! The faults: what each is, the text that it replaces, and where that is in the shaders, which move.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::{Failure, write};

/// Blocks with an empty line between them: what it is; the text, a line of it behind each `- `; what replaces it, behind `+ `, nothing if there
/// is no such line. Behind `? ` a part of the names of cases that show it, if few of those that reach its file do; behind `! ` why only the
/// full table finds it, if so. Lines that begin with `#` are headings.
const LIST: &str = include_str!("list.txt");

/// A deliberate fault.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fault {
    /// In words.
    pub what: String,
    /// What is replaced; all of the shaders have it once.
    pub text: String,
    pub replacement: String,
    /// What is part of the names of cases that show it; nothing if any may.
    pub shown_by: String,
    /// Why the quick table does not find it, where it does not have to.
    pub only_full: Option<String>,
}

/// All shader files by name, with their texts.
pub struct Shaders(BTreeMap<String, String>);

impl Shaders {
    pub fn read(directory: &Path) -> Result<Self, Failure> {
        let mut texts = BTreeMap::new();
        collect(directory, "", &mut texts).map_err(|error| format!("{}: {error}", directory.display()))?;
        Ok(Self(texts))
    }

    /// Writes them all to a directory that has nothing else, with a fault in one of them.
    pub fn write(&self, directory: &Path, fault: Option<(&Fault, &str)>) -> Result<(), Failure> {
        let cannot = |error| format!("{}: {error}", directory.display());
        if directory.exists() {
            fs::remove_dir_all(directory).map_err(cannot)?;
        }
        for (name, text) in &self.0 {
            let path = directory.join(name);
            fs::create_dir_all(path.parent().unwrap_or(directory)).map_err(cannot)?;
            match fault.filter(|(_, file)| file == name) {
                Some((fault, _)) => write(path, &text.replacen(&fault.text, &fault.replacement, 1))?,
                None => write(path, text)?,
            }
        }
        Ok(())
    }

    /// The file that has a text, if there is one and it has it once.
    fn file_of(&self, text: &str) -> Result<&str, String> {
        let found: Vec<_> = self
            .0
            .iter()
            .map(|(name, whole)| (name, whole.matches(text).count()))
            .filter(|(_, times)| *times > 0)
            .collect();
        match found.as_slice() {
            [(name, 1)] => Ok(name),
            [] => Err("occurs nowhere".to_owned()),
            _ => {
                let times: usize = found.iter().map(|(_, times)| times).sum();
                let places: Vec<_> = found.iter().map(|(name, times)| format!("{name} ({times})")).collect();
                Err(format!("occurs {times} times: {}", places.join(", ")))
            }
        }
    }
}

fn collect(directory: &Path, prefix: &str, texts: &mut BTreeMap<String, String>) -> std::io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        match entry.file_type()?.is_dir() {
            true => collect(&entry.path(), &format!("{name}/"), texts)?,
            false => drop(texts.insert(name, fs::read_to_string(entry.path())?)),
        }
    }
    Ok(())
}

/// All faults of the list, each with its file.
pub fn located(shaders: &Shaders) -> Result<Vec<(Fault, String)>, Failure> {
    let faults = parse(LIST)?;
    let mut wrong = Vec::new();
    let mut located = Vec::new();
    for fault in faults {
        match shaders.file_of(&fault.text) {
            Ok(file) => located.push((fault, file.to_owned())),
            Err(how) => wrong.push(format!("{}: {how}:\n{}", fault.what, fault.text)),
        }
    }
    if wrong.is_empty() { Ok(located) } else { Err(wrong.join("\n").into()) }
}

fn parse(list: &str) -> Result<Vec<Fault>, String> {
    let lines = list.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n");
    lines.split("\n\n").map(str::trim).filter(|block| !block.is_empty()).map(parse_block).collect()
}

fn parse_block(block: &str) -> Result<Fault, String> {
    let mut fault = Fault::default();
    let (mut text, mut replacement) = (Vec::new(), Vec::new());
    for line in block.lines() {
        match line.split_once(' ') {
            Some(("-", rest)) => text.push(rest),
            Some(("+", rest)) => replacement.push(rest),
            Some(("?", names)) => names.clone_into(&mut fault.shown_by),
            Some(("!", reason)) => fault.only_full = Some(reason.to_owned()),
            _ if fault.what.is_empty() => line.clone_into(&mut fault.what),
            _ => return Err(format!("{}: neither text nor replacement: {line:?}", fault.what)),
        }
    }
    (fault.text, fault.replacement) = (text.join("\n"), replacement.join("\n"));
    if fault.what.is_empty() || fault.text.is_empty() || fault.text == fault.replacement {
        return Err(format!("this changes nothing, or does not say what it is:\n{block}"));
    }
    Ok(fault)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_fault_is_found_in_the_shaders_and_has_words_of_its_own() {
        let shaders = Shaders::read(&crate::root().join("shaders")).ok().unwrap();
        let located = located(&shaders).unwrap_or_else(|failure| panic!("{}", failure.message));
        let words: HashSet<_> = located.iter().map(|(fault, _)| &fault.what).collect();
        assert_eq!(words.len(), located.len());
        assert!(located.len() >= 64, "{}", located.len());
    }

    #[test]
    fn a_block_is_a_fault_and_a_text_must_occur_once() {
        let list =
            "# Heading\n\na sum is a difference\n- a +\n-   b\n+ a -\n+   b\n\nnothing\n? it\n- c\n! why\n";
        let [sum, nothing] = parse(list).unwrap().try_into().unwrap();
        assert_eq!(
            sum,
            Fault {
                what: "a sum is a difference".to_owned(),
                text: "a +\n  b".to_owned(),
                replacement: "a -\n  b".to_owned(),
                ..Fault::default()
            }
        );
        assert_eq!((nothing.replacement.as_str(), nothing.shown_by.as_str()), ("", "it"));
        assert_eq!(nothing.only_full.as_deref(), Some("why"));
        assert!(parse("words\n- a\n+ a").is_err() && parse("words\nmore\n- a").is_err());

        let files = [("x", "a + b"), ("y", "b c b")].map(|(name, text)| (name.to_owned(), text.to_owned()));
        let shaders = Shaders(files.into());
        assert_eq!(shaders.file_of("c"), Ok("y"));
        assert_eq!(shaders.file_of("d"), Err("occurs nowhere".to_owned()));
        assert_eq!(shaders.file_of("b"), Err("occurs 3 times: x (1), y (2)".to_owned()));
    }
}
