//! A module: what one file imports and declares, in WESL's syntax (<https://wesl-lang.dev/spec>), as far as it is used here.
//!
//! `import package::a::b::{c, d as e};` and `import package::a::b;`, after which `b::c` names what b declares; `@if(feature)` and `@else`
//! before imports, declarations and statements. What a module declares may not be named again by a parameter or variable, so that a name
//! means the same wherever it stands.

use std::collections::HashSet;
use std::ops::Range;

use super::condition::Condition;
use super::lexer::tokens;
use super::parser::Parser;
use super::{Error, Result};

/// What one file says.
#[derive(Debug)]
pub(super) struct Module {
    pub path: String,
    /// What `package` is in it: the folder that its package is in.
    pub home: String,
    pub text: String,
    pub imports: Vec<Import>,
    pub declarations: Vec<Declaration>,
    /// Names of parameters and variables, which mean nothing outside of their functions.
    pub locals: HashSet<String>,
}

/// A name that stands for an item of another module, or for that module.
#[derive(Debug)]
pub(super) struct Import {
    pub name: String,
    /// From the root, which has no name.
    pub path: Vec<String>,
    pub condition: Condition,
    pub at: usize,
}

/// A declaration at module scope.
#[derive(Debug)]
pub(super) struct Declaration {
    pub name: String,
    /// Where it has its name.
    pub named: Range<usize>,
    pub what: What,
    pub condition: Condition,
    /// From its first attribute to its end.
    pub text: Range<usize>,
    pub references: Vec<Reference>,
    /// Ranges that are not part of it unless their condition holds.
    pub cuts: Vec<(Range<usize>, Condition)>,
}

#[cfg(feature = "eval")]
impl Declaration {
    /// Where the value of a constant is.
    pub fn value(&self) -> Option<Range<usize>> {
        match &self.what {
            What::Constant(range) => Some(range.clone()),
            _ => None,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    Function {
        is_entry: bool,
    },
    /// A constant, with the range of its value.
    Constant(Range<usize>),
    Override,
    /// A variable, with what `@binding` says and whether it is written, where it is a binding.
    Variable {
        binding: Option<Range<usize>>,
        writes: bool,
    },
    Type,
}

/// A name in a declaration that may be that of another.
#[derive(Debug)]
pub(super) struct Reference {
    pub text: Range<usize>,
    pub path: Vec<String>,
}

impl Module {
    pub fn parse(home: &str, path: &str, text: &str) -> Result<Self> {
        let tokens = tokens(text).map_err(|at| Error::of(path, text, at, "no WGSL"))?;
        let mut parser = Parser { home, path, text, tokens, next: 0, locals: Vec::new() };
        let (mut imports, mut declarations) = (Vec::new(), Vec::<Declaration>::new());
        let mut before = None;
        while parser.next < parser.tokens.len() {
            let condition = parser.condition(before.take())?;
            before.clone_from(&condition);
            let condition = condition.unwrap_or(Condition::True);
            match parser.word() {
                Some("import") => parser.import(&condition, &mut imports)?,
                _ => declarations.push(parser.declaration(condition)?),
            }
        }
        let scope: HashSet<&str> = imports.iter().map(|import| &import.name[..]).collect();
        let scope = &scope | &declarations.iter().map(|declaration| &declaration.name[..]).collect();
        let shadow = parser.locals.iter().find(|local| scope.contains(&text[(*local).clone()]));
        if let Some(local) = shadow {
            return Err(parser.error(local.start, "a name of the module is given to something else"));
        }
        let locals = parser.locals.iter().map(|local| text[local.clone()].to_owned()).collect();
        let (home, path, text) = (home.to_owned(), path.to_owned(), text.to_owned());
        Ok(Self { home, path, text, imports, declarations, locals })
    }

    /// The folder that a name at the start of a path stands for, if it is a package.
    pub fn root(&self, name: &str) -> Option<Vec<String>> {
        root(&self.home, name)
    }

    pub fn declares(&self, name: &str) -> bool {
        self.declarations.iter().any(|declaration| declaration.name == name)
    }

    /// The value of a constant that is a number.
    pub fn constant(&self, name: &str) -> Option<u32> {
        let found = self.declarations.iter().find(|declaration| declaration.name == name)?;
        let What::Constant(value) = &found.what else { return None };
        self.text[value.clone()].trim().trim_end_matches(['u', 'i']).parse().ok()
    }
}

/// `package` is the package that a module is of, `wgnorm` this crate.
pub(super) fn root(home: &str, name: &str) -> Option<Vec<String>> {
    match name {
        "package" if !home.is_empty() => Some(vec![home.to_owned()]),
        "package" | "wgnorm" => Some(Vec::new()),
        _ => None,
    }
}
