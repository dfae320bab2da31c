//! Covering arrays of strength 2: few rows of choices in which each pair of values of two factors occurs.
//!
//! Greedy, one row at a time, after AETG (Cohen, Dalal, Fredman & Patton, "The AETG system", 1997): of some candidates for
//! the next row, the one with the most new pairs is taken. Nothing is random but the order in which a candidate's factors
//! are chosen, and that by a fixed seed.

use std::collections::HashSet;

use super::random;

/// A value of each factor, by index.
pub type Row = Vec<usize>;
/// Two factors, the first before the second, with a value of each.
type Pair = (usize, usize, usize, usize);

/// Candidates per row.
const CANDIDATES: usize = 40;

/// Rows with every pair of values of two factors that is allowed and occurs in an allowed row; `levels` are the numbers of
/// values of the factors. `forbidden` says whether value `a` of factor `i` and `b` of `j` exclude each other, for i < j.
pub fn pairwise(levels: &[usize], forbidden: impl Fn(usize, usize, usize, usize) -> bool) -> Vec<Row> {
    let clash = |i: usize, a: usize, j: usize, b: usize| match i < j {
        true => forbidden(i, a, j, b),
        false => forbidden(j, b, i, a),
    };
    let mut open: Vec<Pair> = Vec::new();
    for i in 0..levels.len() {
        for j in i + 1..levels.len() {
            let pairs = (0..levels[i]).flat_map(|a| (0..levels[j]).map(move |b| (i, a, j, b)));
            open.extend(pairs.filter(|&(i, a, j, b)| !forbidden(i, a, j, b)));
        }
    }
    let mut random = random::uniform(random::seed_of("covering"));
    let mut rows = Vec::new();
    while let Some(&first) = open.first() {
        let uncovered: HashSet<Pair> = open.iter().copied().collect();
        let candidates = (0..CANDIDATES).filter_map(|_| {
            let mut order: Vec<_> = (0..levels.len()).map(|factor| (random.next(), factor)).collect();
            order.sort_by(|a, b| a.partial_cmp(b).expect("numbers"));
            let order: Vec<_> = order.into_iter().map(|(_, factor)| factor).collect();
            candidate(levels, first, &order, &uncovered, clash)
        });
        // The first of the best, so that the result does not depend on how ties are broken.
        let best = candidates.fold(None, |best: Option<(usize, Row)>, row| {
            let gain = open.iter().filter(|pair| covers(&row, pair)).count();
            match best {
                Some((most, _)) if most >= gain => best,
                _ => Some((gain, row)),
            }
        });
        match best {
            Some((_, row)) => {
                open.retain(|pair| !covers(&row, pair));
                rows.push(row);
            }
            // No allowed row has the pair.
            None => drop(open.remove(0)),
        }
    }
    rows
}

fn covers(row: &Row, &(i, a, j, b): &Pair) -> bool {
    row[i] == a && row[j] == b
}

/// A row with the pair `first`; the other factors, in order, take the allowed value that covers most.
fn candidate(
    levels: &[usize],
    first: Pair,
    order: &[usize],
    uncovered: &HashSet<Pair>,
    clash: impl Fn(usize, usize, usize, usize) -> bool,
) -> Option<Row> {
    let mut row: Vec<Option<usize>> = vec![None; levels.len()];
    (row[first.0], row[first.2]) = (Some(first.1), Some(first.3));
    for &factor in order {
        if row[factor].is_some() {
            continue;
        }
        let chosen = || row.iter().enumerate().filter_map(|(other, value)| Some((other, (*value)?)));
        let gain = |value: usize| {
            chosen()
                .filter(|&(other, b)| {
                    uncovered.contains(&match factor < other {
                        true => (factor, value, other, b),
                        false => (other, b, factor, value),
                    })
                })
                .count()
        };
        let allowed =
            (0..levels[factor]).filter(|&value| !chosen().any(|(other, b)| clash(factor, value, other, b)));
        let best = allowed.max_by_key(|&value| (gain(value), std::cmp::Reverse(value)))?;
        row[factor] = Some(best);
    }
    row.into_iter().collect()
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Every allowed pair is in some row, and no other is.
    pub fn assert_covers(
        levels: &[usize],
        forbidden: impl Fn(usize, usize, usize, usize) -> bool,
        rows: &[Row],
    ) {
        for i in 0..levels.len() {
            for j in i + 1..levels.len() {
                for a in 0..levels[i] {
                    for b in 0..levels[j] {
                        let covered = rows.iter().any(|row| row[i] == a && row[j] == b);
                        assert_eq!(covered, !forbidden(i, a, j, b), "{i}={a} {j}={b}");
                    }
                }
            }
        }
    }

    /// Values of different factors exclude each other here and there.
    fn forbidden(i: usize, a: usize, j: usize, b: usize) -> bool {
        (i, j) == (0, 1) && a == 1 && b != 2 || (i, j) == (2, 4) && a + b == 5
    }

    #[test]
    fn every_allowed_pair_is_covered_and_no_other() {
        let levels = [2, 3, 5, 2, 7];
        let rows = pairwise(&levels, forbidden);
        assert_covers(&levels, forbidden, &rows);
        // The two largest factors alone need 35 less one per sum of 5.
        assert!(rows.len() <= 45, "{}", rows.len());
        assert_eq!(rows, pairwise(&levels, forbidden));
    }

    #[test]
    fn a_pair_that_no_row_can_have_is_left_out() {
        // Value 0 of the first factor goes with no value of the third.
        let rows = pairwise(&[2, 2, 2], |i, a, j, _| (i, j) == (0, 2) && a == 0);
        assert!(rows.iter().all(|row| row[0] == 1));
        assert_eq!(rows.len(), 4);
    }
}
