//! What is forced of a plan, as text: `splits 4, team_size 2` in files, `splits=4` in lines.

use super::Tuning;
use crate::base::error::Result;

/// A field of [`Tuning`] as text.
struct Field {
    name: &'static str,
    get: fn(&Tuning) -> Option<String>,
    /// Fails for what the field cannot be.
    set: fn(&mut Tuning, &str) -> Option<()>,
}

macro_rules! fields {
    ($($name:ident),*) => {
        &[$(Field {
            name: stringify!($name),
            get: |tuning| tuning.$name.map(|value| value.to_string()),
            set: |tuning, value| {
                tuning.$name = Some(value.parse().ok()?);
                Some(())
            },
        }),*]
    };
}

/// All that a measured plan may force: numbers, or true and false. `integer_f16` is no choice of a plan, but of a conversion.
const FIELDS: &[Field] = fields!(
    width,
    workgroup_size,
    team_size,
    splits,
    rows,
    strip,
    depth,
    tile,
    window_bytes,
    binding_bytes,
    resident,
    subgroups,
    group_bytes,
    along_columns,
    folds_apart
);

/// The values of a tuning, or `policy` if it forces nothing.
pub(crate) fn tuning_text(tuning: &Tuning) -> String {
    let forced = FIELDS.iter().filter_map(|field| Some((field.name, (field.get)(tuning)?)));
    let forced: Vec<_> = forced.map(|(name, value)| format!("{name} {value}")).collect();
    if forced.is_empty() { "policy".to_owned() } else { forced.join(", ") }
}

/// What is forced, as words `name=value`.
pub(crate) fn tuning_words(tuning: &Tuning) -> impl Iterator<Item = String> {
    FIELDS.iter().filter_map(|field| Some(format!("{}={}", field.name, (field.get)(tuning)?)))
}

/// Forces what a name says; `None` if there is no such name, an error if it cannot be the value.
pub(crate) fn force(tuning: &mut Tuning, name: &str, value: &str) -> Option<Result<(), String>> {
    let field = FIELDS.iter().find(|field| field.name == name)?;
    let forced = (field.set)(tuning, value);
    Some(forced.ok_or_else(|| format!("{value:?} is not a value that {name} can be")))
}

pub(crate) fn parse_tuning(text: &str) -> Result<Tuning, String> {
    let mut tuning = Tuning::default();
    if text == "policy" {
        return Ok(tuning);
    }
    for forced in text.split(',').map(str::trim) {
        let (name, value) = forced.split_once(' ').ok_or_else(|| format!("{forced:?} is no `name value`"))?;
        let field = FIELDS.iter().find(|field| field.name == name);
        let field = field.ok_or_else(|| format!("{name:?} is nothing that a plan can be forced to"))?;
        if (field.get)(&tuning).is_some() {
            return Err(format!("{name} is given twice"));
        }
        (field.set)(&mut tuning, value.trim())
            .ok_or_else(|| format!("{forced:?}: not a value that {name} can be"))?;
    }
    tuning.check().map_err(|error| error.to_string())?;
    Ok(tuning)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_of_a_tuning_is_written() {
        // A new field does not compile here before it is in `FIELDS`, or is known not to be a choice of a plan.
        let all = Tuning {
            width: Some(4),
            workgroup_size: Some(64),
            team_size: Some(8),
            splits: Some(3),
            rows: Some(2),
            strip: Some(4),
            depth: Some(2),
            tile: Some(128),
            window_bytes: Some(1 << 40),
            binding_bytes: Some(1 << 20),
            resident: Some(true),
            subgroups: Some(false),
            group_bytes: Some(1 << 24),
            along_columns: Some(false),
            folds_apart: Some(true),
            integer_f16: false,
        };
        assert_eq!(parse_tuning(&tuning_text(&all)), Ok(all));
        assert_eq!(tuning_text(&all).split(',').count(), FIELDS.len());
    }
}
