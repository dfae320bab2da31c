//! Reading a module: declarations one after the other, and which names they refer to.

use std::ops::Range;

use super::condition::Condition;
use super::lexer::{Kind, Token};
use super::module::{Declaration, Import, Reference, What, root};
use super::{Error, Result};

pub(super) struct Parser<'t> {
    pub home: &'t str,
    pub path: &'t str,
    pub text: &'t str,
    pub tokens: Vec<Token>,
    pub next: usize,
    /// Parameters and variables of functions.
    pub locals: Vec<Range<usize>>,
}

impl<'t> Parser<'t> {
    pub fn error(&self, at: usize, what: &str) -> Error {
        Error::of(self.path, self.text, at, what)
    }

    /// Where the next token begins, or the text ends.
    fn here(&self) -> usize {
        self.tokens.get(self.next).map_or(self.text.len(), |token| token.start)
    }

    pub fn kind(&self, ahead: usize) -> Option<Kind> {
        self.tokens.get(self.next + ahead).map(|token| token.kind)
    }

    fn is(&self, ahead: usize, sign: u8) -> bool {
        self.kind(ahead) == Some(Kind::Sign(sign))
    }

    fn word_ahead(&self, ahead: usize) -> Option<&'t str> {
        let token = self.tokens.get(self.next + ahead).filter(|token| token.kind == Kind::Word)?;
        Some(&self.text[token.start..token.end])
    }

    pub fn word(&self) -> Option<&'t str> {
        self.word_ahead(0)
    }

    fn take_word(&mut self) -> Result<&'t str> {
        let word = self.word().ok_or_else(|| self.error(self.here(), "expected a name"))?;
        self.next += 1;
        Ok(word)
    }

    fn take(&mut self, sign: u8) -> bool {
        let is = self.is(0, sign);
        self.next += usize::from(is);
        is
    }

    fn expect(&mut self, sign: u8) -> Result<()> {
        let here = self.here();
        match self.take(sign) {
            true => Ok(()),
            false => Err(self.error(here, &format!("expected {:?}", char::from(sign)))),
        }
    }

    /// Past the bracket that closes the one here.
    fn skip_brackets(&mut self) -> Result<()> {
        let from = self.here();
        let mut depth = 0;
        loop {
            match self.kind(0) {
                Some(Kind::Sign(b'(' | b'[' | b'{')) => depth += 1,
                Some(Kind::Sign(b')' | b']' | b'}')) => depth -= 1,
                Some(_) => {}
                None => return Err(self.error(from, "is not closed")),
            }
            self.next += 1;
            if depth == 0 {
                return Ok(());
            }
        }
    }

    /// `@if(…)` or `@else`, if there is one; `before` is the condition of what stands before.
    pub fn condition(&mut self, before: Option<Condition>) -> Result<Option<Condition>> {
        if !self.is(0, b'@') {
            return Ok(None);
        }
        let at = self.here();
        match self.word_ahead(1) {
            Some("if") => {
                self.next += 2;
                let from = self.here();
                self.skip_brackets()?;
                let text = &self.text[from..self.tokens[self.next - 1].end];
                let condition = Condition::parse(text).ok_or_else(|| self.error(from, "is no condition"))?;
                Ok(Some(condition))
            }
            Some("else") => {
                self.next += 2;
                let before = before.ok_or_else(|| self.error(at, "nothing that this is the other of"))?;
                Ok(Some(before.negated()))
            }
            _ => Ok(None),
        }
    }

    pub fn import(&mut self, condition: &Condition, imports: &mut Vec<Import>) -> Result<()> {
        let at = self.here();
        self.next += 1;
        let root = root(self.home, self.take_word()?);
        let mut path = root.ok_or_else(|| self.error(at, "imports begin with package:: or wgnorm::"))?;
        let from_root = path.len();
        loop {
            if self.kind(0) != Some(Kind::Path) {
                break;
            }
            self.next += 1;
            if self.take(b'{') {
                while !self.take(b'}') {
                    let item = self.take_word()?.to_owned();
                    self.imported(item, &path, condition, at, imports)?;
                    if !self.is(0, b'}') {
                        self.expect(b',')?;
                    }
                }
                return self.expect(b';');
            }
            path.push(self.take_word()?.to_owned());
        }
        if path.len() == from_root {
            return Err(self.error(at, "imports nothing"));
        }
        let item = path.pop().unwrap_or_default();
        self.imported(item, &path, condition, at, imports)?;
        self.expect(b';')
    }

    fn imported(
        &mut self,
        item: String,
        of: &[String],
        condition: &Condition,
        at: usize,
        imports: &mut Vec<Import>,
    ) -> Result<()> {
        let name = match self.word() {
            Some("as") => {
                self.next += 1;
                self.take_word()?.to_owned()
            }
            _ => item.clone(),
        };
        let path = of.iter().cloned().chain([item]).collect();
        imports.push(Import { name, path, condition: condition.clone(), at });
        Ok(())
    }

    pub fn declaration(&mut self, condition: Condition) -> Result<Declaration> {
        let start = self.here();
        let mut read = Read::default();
        let (mut is_entry, mut binding) = (false, None);
        while self.is(0, b'@') {
            let attribute = self.word_ahead(1).unwrap_or_default();
            self.next += 2;
            is_entry |= attribute == "compute";
            if self.is(0, b'(') {
                let from = self.next;
                self.skip_brackets()?;
                let inside = from + 1..self.next - 1;
                if attribute == "binding" && !inside.is_empty() {
                    binding = Some(self.tokens[inside.start].start..self.tokens[inside.end - 1].end);
                }
                self.references(inside, &mut read);
            }
        }
        let keyword = self.take_word()?;
        let mut writes = false;
        if keyword == "var" && self.is(0, b'<') {
            while !self.take(b'>') {
                writes |= self.word() == Some("read_write");
                self.next += 1;
                if self.next >= self.tokens.len() {
                    return Err(self.error(start, "is not closed"));
                }
            }
        }
        let name = self.take_word()?.to_owned();
        let from = self.next;
        let named = self.tokens[from - 1].start..self.tokens[from - 1].end;
        let what = match keyword {
            "fn" => {
                self.function(&mut read)?;
                What::Function { is_entry }
            }
            "struct" => {
                self.skip_brackets()?;
                self.references(from..self.next, &mut read);
                What::Type
            }
            "alias" | "const" | "override" | "var" => {
                let value = self.value()?;
                self.references(from..self.next, &mut read);
                match keyword {
                    "alias" => What::Type,
                    "const" => What::Constant(value),
                    "override" => What::Override,
                    _ => What::Variable { binding, writes },
                }
            }
            _ => return Err(self.error(start, "is no declaration that is known here")),
        };
        let text = start..self.tokens[self.next - 1].end;
        Ok(Declaration { name, named, what, condition, text, references: read.references, cuts: read.cuts })
    }

    /// Past the semicolon, with the range of what follows the equals sign.
    fn value(&mut self) -> Result<Range<usize>> {
        let mut from = self.here();
        loop {
            match self.kind(0) {
                Some(Kind::Sign(b';')) => break,
                Some(Kind::Sign(b'(' | b'[' | b'{')) => self.skip_brackets()?,
                Some(kind) => {
                    self.next += 1;
                    if kind == Kind::Sign(b'=') {
                        from = self.here();
                    }
                }
                None => return Err(self.error(from, "is not closed")),
            }
        }
        let value = from..self.tokens[self.next - 1].end.max(from);
        self.next += 1;
        Ok(value)
    }

    /// From the parameters to the end of the body.
    fn function(&mut self, read: &mut Read) -> Result<()> {
        let from = self.next;
        self.skip_brackets()?;
        let parameters = from..self.next;
        while !self.is(0, b'{') {
            if self.next >= self.tokens.len() {
                return Err(self.error(self.here(), "has no body"));
            }
            self.next += 1;
        }
        let body = self.next;
        self.skip_brackets()?;
        let end = self.next;
        for at in parameters {
            let named = self.tokens[at].kind == Kind::Word;
            if named && self.tokens.get(at + 1).is_some_and(|token| token.kind == Kind::Sign(b':')) {
                self.locals.push(self.tokens[at].start..self.tokens[at].end);
            }
        }
        self.references(from..end, read);
        self.next = body;
        self.statements(end, read)?;
        self.next = end;
        Ok(())
    }

    /// Variables and conditions of a body.
    fn statements(&mut self, end: usize, read: &mut Read) -> Result<()> {
        let mut before = None;
        while self.next < end {
            let from = self.here();
            if let Some(condition) = self.condition(before.take())? {
                let body = self.here();
                read.cuts.push((from..body, Condition::False));
                let first = self.next;
                self.skip_statement()?;
                read.cuts.push((body..self.tokens[self.next - 1].end, condition.clone()));
                let after = std::mem::replace(&mut self.next, first);
                self.statements(after, read)?;
                before = Some(condition);
                continue;
            }
            if matches!(self.word(), Some("let" | "var" | "const")) {
                let mut ahead = 1;
                if self.is(1, b'<') {
                    ahead = 4;
                }
                if let Some(token) = self.tokens.get(self.next + ahead) {
                    self.locals.push(token.start..token.end);
                }
            }
            self.next += 1;
        }
        Ok(())
    }

    /// Past a statement: to its semicolon, or the end of its block and of those of its `else`.
    fn skip_statement(&mut self) -> Result<()> {
        loop {
            match self.kind(0) {
                Some(Kind::Sign(b';')) => {
                    self.next += 1;
                    return Ok(());
                }
                Some(Kind::Sign(b'{')) => {
                    self.skip_brackets()?;
                    if self.word() != Some("else") {
                        return Ok(());
                    }
                }
                Some(Kind::Sign(b'(' | b'[')) => self.skip_brackets()?,
                Some(_) => self.next += 1,
                None => return Err(self.error(self.here(), "a statement is not closed")),
            }
        }
    }

    /// Names among tokens that may be those of declarations: no members, no attributes, no name before a colon (of a member or parameter).
    fn references(&self, tokens: Range<usize>, read: &mut Read) {
        let kind = |at: usize| self.tokens.get(at).map(|token| token.kind);
        let word = |at: usize| &self.text[self.tokens[at].start..self.tokens[at].end];
        let mut at = tokens.start;
        while at < tokens.end {
            let first = at;
            at += 1;
            if kind(first) != Some(Kind::Word) {
                continue;
            }
            let before = first.checked_sub(1).and_then(kind);
            if before == Some(Kind::Sign(b'@')) {
                // What a built-in value is called is no name.
                if word(first) == "builtin" && kind(at) == Some(Kind::Sign(b'(')) {
                    at += 3;
                }
                continue;
            }
            let mut path = vec![word(first).to_owned()];
            while kind(at) == Some(Kind::Path) && kind(at + 1) == Some(Kind::Word) {
                path.push(word(at + 1).to_owned());
                at += 2;
            }
            if before != Some(Kind::Sign(b'.')) && kind(at) != Some(Kind::Sign(b':')) {
                let text = self.tokens[first].start..self.tokens[at - 1].end;
                read.references.push(Reference { text, path });
            }
        }
    }
}

#[derive(Default)]
struct Read {
    references: Vec<Reference>,
    cuts: Vec<(Range<usize>, Condition)>,
}
