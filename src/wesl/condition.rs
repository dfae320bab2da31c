//! What `@if` asks for: features, and `!`, `&&`, `||` of them.

use std::collections::BTreeSet;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    True,
    False,
    Feature(String),
    Not(Box<Condition>),
    And(Box<Condition>, Box<Condition>),
    Or(Box<Condition>, Box<Condition>),
}

impl Condition {
    /// Of an expression, brackets and all.
    pub fn parse(text: &str) -> Option<Self> {
        let mut rest = text.trim();
        let condition = Self::any(&mut rest)?;
        rest.is_empty().then_some(condition)
    }

    pub fn negated(self) -> Self {
        Self::Not(Box::new(self))
    }

    pub fn holds(&self, features: &BTreeSet<String>) -> bool {
        match self {
            Self::True => true,
            Self::False => false,
            Self::Feature(name) => features.contains(name),
            Self::Not(one) => !one.holds(features),
            Self::And(one, other) => one.holds(features) && other.holds(features),
            Self::Or(one, other) => one.holds(features) || other.holds(features),
        }
    }

    fn any(rest: &mut &str) -> Option<Self> {
        let mut one = Self::all(rest)?;
        while take(rest, "||") {
            one = Self::Or(Box::new(one), Box::new(Self::all(rest)?));
        }
        Some(one)
    }

    fn all(rest: &mut &str) -> Option<Self> {
        let mut one = Self::one(rest)?;
        while take(rest, "&&") {
            one = Self::And(Box::new(one), Box::new(Self::one(rest)?));
        }
        Some(one)
    }

    fn one(rest: &mut &str) -> Option<Self> {
        if take(rest, "!") {
            return Some(Self::one(rest)?.negated());
        }
        if take(rest, "(") {
            let inside = Self::any(rest)?;
            return take(rest, ")").then_some(inside);
        }
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        *rest = after.trim_start();
        match name {
            "" => None,
            "true" => Some(Self::True),
            "false" => Some(Self::False),
            name => Some(Self::Feature(name.to_owned())),
        }
    }
}

fn take(rest: &mut &str, sign: &str) -> bool {
    let after = rest.strip_prefix(sign).map(str::trim_start);
    *rest = after.unwrap_or(rest);
    after.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_read_and_hold() {
        let features = ["a", "b"].map(str::to_owned).into();
        for (text, expected) in [
            ("(a)", Some(true)),
            ("(c)", Some(false)),
            ("(!a || b)", Some(true)),
            ("(!(a && c))", Some(true)),
            ("(c || a && !b)", Some(false)),
            ("(true && !false)", Some(true)),
            ("(a b)", None),
            ("()", None),
            ("(a", None),
        ] {
            let held = Condition::parse(text).map(|condition| condition.holds(&features));
            assert_eq!(held, expected, "{text}");
        }
    }
}
