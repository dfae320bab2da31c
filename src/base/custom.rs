//! Activations of one's own: what is known of one, kept once for each text and as long as the program runs.

use std::fmt;
use std::sync::{Mutex, PoisonError};

/// An activation of one's own: made by [`Activation::custom`](crate::Activation::custom).
///
/// Cheap to copy. Two are equal if they were made of the same name, text and functions.
#[derive(Clone, Copy)]
pub struct CustomActivation(&'static Definition);

/// The f64 twins of a custom activation's WGSL, which `reference` and `eval` hold kernels against, and what else is to be known of it.
///
/// ```
/// use wgnorm::ActivationFunctions;
/// let squared_relu = ActivationFunctions::new(|z| z.max(0.0).powi(2), |z| 2.0 * z.max(0.0));
/// assert_eq!(squared_relu.value(3.0), 9.0);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct ActivationFunctions {
    pub(crate) value: fn(f64) -> f64,
    pub(crate) derivative: fn(f64) -> f64,
    pub(crate) second_derivative: Option<fn(f64) -> f64>,
    pub(crate) inverse: Option<fn(f64) -> f64>,
    pub(crate) least_slope: f32,
    pub(crate) kinks: &'static [f64],
    pub(crate) error: f64,
}

impl ActivationFunctions {
    /// Twins of `activate` and `derivative`.
    pub const fn new(value: fn(f64) -> f64, derivative: fn(f64) -> f64) -> Self {
        Self {
            value,
            derivative,
            second_derivative: None,
            inverse: None,
            least_slope: 0.0,
            kinks: &[],
            error: 16.0,
        }
    }

    /// The twin of `second_derivative`.
    #[must_use]
    pub const fn second_derivative(mut self, function: fn(f64) -> f64) -> Self {
        self.second_derivative = Some(function);
        self
    }

    /// The twin of `inverse`, of an activation whose derivative is nowhere less than `least_slope`, above 0: training forward may then write y over x
    /// where `least_slope` is at least [`Saved::least_slope`](crate::Saved::least_slope).
    #[must_use]
    pub const fn inverse(mut self, function: fn(f64) -> f64, least_slope: f32) -> Self {
        self.inverse = Some(function);
        self.least_slope = least_slope;
        self
    }

    /// Where the derivative jumps: there what is computed in f32 and in f64 may be on different sides.
    #[must_use]
    pub const fn kinks(mut self, kinks: &'static [f64]) -> Self {
        self.kinks = kinks;
        self
    }

    /// How far the WGSL may be from its twins, in units of 2^-24 times the value, or 1 if that is more (of the derivative), or |z| up to 1 (of the
    /// value). The default is 16, what the activations of this crate are held to: WGSL leaves exp that many.
    #[must_use]
    pub const fn error(mut self, units: f64) -> Self {
        self.error = units;
        self
    }

    /// `act(z)` in f64.
    pub fn value(&self, z: f64) -> f64 {
        (self.value)(z)
    }

    /// `act'(z)` in f64.
    pub fn derivative(&self, z: f64) -> f64 {
        (self.derivative)(z)
    }

    /// What makes them other functions.
    fn identity(&self) -> [usize; 6] {
        let of = |function: Option<fn(f64) -> f64>| function.map_or(0, |function| function as usize);
        let error = self.error.to_bits() as usize ^ (self.error.to_bits() >> 32) as usize;
        let Self { value, derivative, second_derivative, inverse, least_slope, .. } = *self;
        let slope = least_slope.to_bits() as usize;
        [of(Some(value)), of(Some(derivative)), of(second_derivative), of(inverse), slope, error]
    }
}

pub(crate) struct Definition {
    name: &'static str,
    /// Name and text as one word: what kernels and plans are kept by.
    key: &'static str,
    wgsl: &'static str,
    functions: ActivationFunctions,
}

/// All that there are, in the order in which they were made.
static DEFINED: Mutex<Vec<&'static Definition>> = Mutex::new(Vec::new());

impl CustomActivation {
    /// The one of these, which is made if there is none. What it is made of stays for as long as the program runs.
    pub(crate) fn interned(name: &str, wgsl: &str, functions: ActivationFunctions) -> Self {
        let mut defined = DEFINED.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |one: &&&'static Definition| {
            let Definition { functions: of_one, .. } = one;
            let alike = of_one.identity() == functions.identity() && of_one.kinks == functions.kinks;
            one.name == name && one.wgsl == wgsl && alike
        };
        if let Some(one) = defined.iter().find(same) {
            return Self(one);
        }
        let leaked = |text: String| &*String::leak(text);
        // Of the same text the same: kernels do not depend on its twins.
        let key = match defined.iter().find(|one| one.name == name && one.wgsl == wgsl) {
            Some(one) => one.key,
            None => leaked(format!("{name}_{:016x}", fnv(wgsl))),
        };
        let definition =
            Definition { name: leaked(name.to_owned()), key, wgsl: leaked(wgsl.to_owned()), functions };
        let one: &'static Definition = Box::leak(Box::new(definition));
        defined.push(one);
        Self(one)
    }

    /// The last that was made of a name, else one with that key.
    pub(crate) fn named(name: &str) -> Option<Self> {
        let defined = DEFINED.lock().unwrap_or_else(PoisonError::into_inner);
        let last = defined.iter().rev().find(|one| one.name == name).map(|one| Self(one));
        drop(defined);
        last.or_else(|| Self::of_key(name))
    }

    /// One with this key: all of them have one text.
    pub(crate) fn of_key(key: &str) -> Option<Self> {
        let defined = DEFINED.lock().unwrap_or_else(PoisonError::into_inner);
        defined.iter().find(|one| one.key == key).map(|one| Self(one))
    }

    /// The name that it was given.
    pub const fn name(self) -> &'static str {
        self.0.name
    }

    /// The WGSL that it was made of.
    pub const fn wgsl(self) -> &'static str {
        self.0.wgsl
    }

    /// Its twins.
    pub const fn functions(self) -> &'static ActivationFunctions {
        &self.0.functions
    }

    pub(crate) const fn key(self) -> &'static str {
        self.0.key
    }
}

impl PartialEq for CustomActivation {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self.0, other.0)
    }
}

impl fmt::Debug for CustomActivation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CustomActivation").field(&self.0.key).finish()
    }
}

/// FNV-1a.
fn fnv(text: &str) -> u64 {
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}
