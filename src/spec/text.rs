//! A problem as one line, and back.

use std::cell::Cell;
use std::fmt;
use std::str::FromStr;

use super::{AsInt8, Norm, Passes, Place, Spec, Statistics, Wanted};
use crate::base::activation::Activation;
use crate::base::dtype::DType;
use crate::base::error::{Error, Result};
use crate::base::gate::GateOrder;
use crate::base::shape::Layout;
use crate::base::variance::RunningVariance;
use crate::family::Epsilon;
use crate::norm::Momentum;
use crate::pass::Affine;
use crate::plan;
use crate::spectral::PowerOrder;

const AFFINE: [(&str, Affine); 4] =
    [("both", Affine::Both), ("weight", Affine::Weight), ("bias", Affine::Bias), ("none", Affine::None)];

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words().join(" "))
    }
}

impl FromStr for Spec {
    type Err = Error;

    /// # Errors
    /// [`Error::Spec`] for what is no line, and those of [`Spec::check`].
    fn from_str(line: &str) -> Result<Self> {
        let spec = parse(line).map_err(|reason| Error::Spec { reason: format!("{line:?}: {reason}") })?;
        spec.check()?;
        Ok(spec)
    }
}

fn list<T: fmt::Display>(values: &[T], separator: &str) -> String {
    values.iter().map(ToString::to_string).collect::<Vec<_>>().join(separator)
}

impl Norm {
    fn word(&self) -> String {
        match self {
            Norm::Batch => "batch".to_owned(),
            Norm::FrozenBatch => "frozen".to_owned(),
            Norm::Layer(1) => "layer".to_owned(),
            Norm::Layer(axes) => format!("layer:{axes}"),
            Norm::Rms(1) => "rms".to_owned(),
            Norm::Rms(axes) => format!("rms:{axes}"),
            Norm::Group(groups) => format!("group:{groups}"),
            Norm::Instance => "instance".to_owned(),
            Norm::Graph => "graph".to_owned(),
            Norm::Switchable(RunningVariance::Biased) => "switchable".to_owned(),
            Norm::Switchable(RunningVariance::Unbiased) => "switchable:unbiased".to_owned(),
            Norm::TrackedInstance => "tracked".to_owned(),
            Norm::MeanVariance(axes) => format!("mvn:{}", list(axes, ",")),
            Norm::L2(axes) => format!("l2:{}", list(axes, ",")),
            Norm::Scale => "scale".to_owned(),
            Norm::Weight => "weight".to_owned(),
            Norm::WeightStandardization => "standardization".to_owned(),
            Norm::Spectral(axis, order) => {
                let name = if *order == PowerOrder::VFirst { "spectral" } else { "spectral_u" };
                if *axis == 0 { name.to_owned() } else { format!("{name}:{axis}") }
            }
            Norm::DynamicTanh => "tanh".to_owned(),
            Norm::Derf => "derf".to_owned(),
        }
    }

    fn parse(word: &str) -> Result<Self, String> {
        let (name, argument) = word.split_once(':').map_or((word, None), |(name, rest)| (name, Some(rest)));
        let taken = Cell::new(false);
        let take = || {
            taken.set(true);
            argument
        };
        let count = || match take() {
            Some(argument) => number(argument),
            None if name == "group" => Err("group:GROUPS is needed".to_owned()),
            None => Ok(1),
        };
        let axis = || take().map_or(Ok(0), number);
        let axes = || numbers(take().ok_or_else(|| format!("{name}:AXIS,AXIS,.. is needed"))?, ',');
        let norm = match name {
            "batch" => Norm::Batch,
            "frozen" => Norm::FrozenBatch,
            "layer" => Norm::Layer(count()?),
            "rms" => Norm::Rms(count()?),
            "group" => Norm::Group(count()?),
            "instance" => Norm::Instance,
            "graph" => Norm::Graph,
            "switchable" => Norm::Switchable(match take() {
                None => RunningVariance::Biased,
                Some("unbiased") => RunningVariance::Unbiased,
                Some(_) => return Err("switchable:unbiased is all that there is behind it".to_owned()),
            }),
            "tracked" => Norm::TrackedInstance,
            "mvn" => Norm::MeanVariance(axes()?),
            "l2" => Norm::L2(axes()?),
            "scale" => Norm::Scale,
            "weight" => Norm::Weight,
            "standardization" => Norm::WeightStandardization,
            "spectral" => Norm::Spectral(axis()?, PowerOrder::VFirst),
            "spectral_u" => Norm::Spectral(axis()?, PowerOrder::UFirst),
            "tanh" => Norm::DynamicTanh,
            "derf" => Norm::Derf,
            _ => return Err(format!("{name:?} is no norm")),
        };
        if argument.is_some() && !taken.get() {
            Err(format!("{name} takes nothing behind a colon"))
        } else {
            Ok(norm)
        }
    }
}

impl Spec {
    fn words(&self) -> Vec<String> {
        let plain = Spec::new(self.norm.clone(), &self.shape);
        let mut words = vec![self.norm.word(), list(&self.shape, "x")];
        let mut flag = |is: bool, word: &str| words.extend(is.then(|| word.to_owned()));
        flag(self.dtype != DType::F32, self.dtype.short());
        flag(self.layout == Layout::ChannelsLast, "last");
        let affine =
            AFFINE.iter().find(|(_, affine)| *affine == self.affine).map_or("both", |(name, _)| name);
        flag(self.affine != plain.affine, &format!("affine={affine}"));
        flag(self.parameters != DType::F32, &format!("parameters={}", self.parameters.short()));
        flag(self.unit_offset, "offset");
        match self.int8 {
            None => {}
            Some(AsInt8::PerRow) => flag(true, "int8"),
            Some(AsInt8::PerTensor { scale, zero_point }) => {
                flag(true, &format!("int8={scale},{zero_point}"))
            }
        }
        flag(self.groups != 1, &format!("groups={}", self.groups));
        match &self.axes {
            None => {}
            Some(axes) if axes.is_empty() => flag(true, "axes=none"),
            Some(axes) => flag(true, &format!("axes={}", list(axes, ","))),
        }
        if let Some(lengths) = &self.segments {
            flag(true, &format!("segments={}", repeated(lengths)));
        }
        flag(self.modulated, "modulated");
        match self.eps {
            eps if eps == plain.eps => {}
            Epsilon::Value(eps) => flag(true, &format!("eps={eps:e}")),
            Epsilon::OfType => flag(true, "eps=type"),
        }
        match self.activation {
            Activation::LeakyRelu { slope } if slope != DEFAULT_SLOPE => {
                flag(true, &format!("leaky_relu={slope}"))
            }
            activation => flag(activation != Activation::None, activation.word()),
        }
        flag(self.residual, "residual");
        flag(self.gate == Some(GateOrder::NormFirst), "gate=last");
        flag(self.gate == Some(GateOrder::GateFirst), "gate=first");
        flag(self.sum, "sum");
        flag(self.mask.is_some(), &format!("mask={}", self.mask.unwrap_or(0)));
        flag(self.in_place, "in_place");
        match &self.statistics {
            Statistics::Own => {}
            Statistics::Given => flag(true, "given"),
            Statistics::Synchronised(samples) => flag(true, &format!("sync={}", list(samples, "+"))),
            Statistics::Accumulated(parts) => flag(true, &format!("accumulated={parts}")),
            Statistics::Ghost(size) => flag(true, &format!("ghost={size}")),
            Statistics::Renorm(r_max, d_max) => flag(true, &format!("renorm={r_max},{d_max}")),
            Statistics::Sequence(steps) => flag(true, &format!("steps={steps}")),
        }
        match self.momentum {
            momentum if momentum == plain.momentum => {}
            Momentum::WeightOfNew(weight) => flag(true, &format!("new={weight}")),
            Momentum::WeightOfOld(weight) => flag(true, &format!("old={weight}")),
            Momentum::Cumulative => flag(true, "cumulative"),
        }
        flag(self.running_variance == RunningVariance::Biased, "biased");
        flag(self.passes == Passes::Backward, "backward");
        flag(self.passes == Passes::Second, "second");
        flag(self.wanted == Wanted::Added, "added");
        flag(self.wanted == Wanted::Alone, "alone");
        match self.place {
            Place::Apart => {}
            Place::Phase(phase) => flag(true, &format!("phase={phase}")),
            Place::Shifted => flag(true, "shifted"),
            Place::Shared => flag(true, "shared"),
            Place::Parts => flag(true, "parts"),
            Place::View(before, behind) => flag(true, &format!("view={before},{behind}")),
            Place::Gaps(gap) => flag(true, &format!("gaps={gap}")),
            Place::Mixed => flag(true, "mixed"),
        }
        flag(self.tuning.integer_f16, "integer_f16");
        words.extend(plan::tuning_words(&self.tuning));
        words
    }

    /// Takes one word behind norm and shape.
    fn take(&mut self, word: &str) -> Result<(), String> {
        if let Some(dtype) = DType::ALL.into_iter().find(|dtype| dtype.short() == word) {
            self.dtype = dtype;
            return Ok(());
        }
        if let Some(activation) = Activation::named(word) {
            self.activation = activation;
            return Ok(());
        }
        if let Some((name, value)) = word.split_once('=') {
            return self.set(name, value);
        }
        match word {
            "last" => self.layout = Layout::ChannelsLast,
            "offset" => self.unit_offset = true,
            "modulated" => self.modulated = true,
            "residual" => self.residual = true,
            "int8" => self.int8 = Some(AsInt8::PerRow),
            "sum" => self.sum = true,
            "in_place" => self.in_place = true,
            "given" => self.statistics = Statistics::Given,
            "cumulative" => self.momentum = Momentum::Cumulative,
            "biased" => self.running_variance = RunningVariance::Biased,
            "forward" => self.passes = Passes::Forward,
            "backward" => self.passes = Passes::Backward,
            "second" => self.passes = Passes::Second,
            "added" => self.wanted = Wanted::Added,
            "alone" => self.wanted = Wanted::Alone,
            "shifted" => self.place = Place::Shifted,
            "shared" => self.place = Place::Shared,
            "parts" => self.place = Place::Parts,
            "mixed" => self.place = Place::Mixed,
            "integer_f16" => self.tuning.integer_f16 = true,
            _ => return Err(format!("{word:?} is nothing that can be asked for")),
        }
        Ok(())
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        match name {
            "affine" => {
                let found = AFFINE.iter().find(|(name, _)| *name == value);
                self.affine =
                    found.ok_or_else(|| format!("affine={value}: expected both, weight, bias or none"))?.1;
            }
            "parameters" => {
                let found = DType::ALL.into_iter().find(|dtype| dtype.short() == value);
                self.parameters = found.ok_or_else(|| {
                    format!("parameters={value}: expected one of {}", DType::ALL.map(DType::short).join(", "))
                })?;
            }
            "eps" if value == "type" => self.eps = Epsilon::OfType,
            "eps" => self.eps = Epsilon::Value(number(value)?),
            "leaky_relu" => self.activation = Activation::LeakyRelu { slope: number(value)? },
            "int8" => {
                let (scale, zero_point) = value.split_once(',').unwrap_or((value, "0"));
                let (scale, zero_point) = (number(scale)?, number(zero_point)?);
                self.int8 = Some(AsInt8::PerTensor { scale, zero_point });
            }
            "groups" => self.groups = number(value)?,
            "axes" if value == "none" => self.axes = Some(Vec::new()),
            "axes" => self.axes = Some(numbers(value, ',')?),
            "segments" => self.segments = Some(repetitions(value)?),
            "gate" => {
                self.gate = Some(match value {
                    "last" => GateOrder::NormFirst,
                    "first" => GateOrder::GateFirst,
                    _ => return Err(format!("gate={value}: expected last or first")),
                });
            }
            "mask" => self.mask = Some(number(value)?),
            "sync" => self.statistics = Statistics::Synchronised(numbers(value, '+')?),
            "accumulated" => self.statistics = Statistics::Accumulated(number(value)?),
            "ghost" => self.statistics = Statistics::Ghost(number(value)?),
            "renorm" => {
                let (r_max, d_max) = pair(value)?;
                self.statistics = Statistics::Renorm(r_max, d_max);
            }
            "steps" => self.statistics = Statistics::Sequence(number(value)?),
            "new" => self.momentum = Momentum::WeightOfNew(number(value)?),
            "old" => self.momentum = Momentum::WeightOfOld(number(value)?),
            "phase" => self.place = Place::Phase(number(value)?),
            "gaps" => self.place = Place::Gaps(number(value)?),
            "view" => {
                let (before, behind) = pair(value)?;
                self.place = Place::View(before, behind);
            }
            _ => {
                let forced = plan::force(&mut self.tuning, name, value);
                return forced.unwrap_or_else(|| Err(format!("{name:?} is nothing that can be set")));
            }
        }
        Ok(())
    }
}

/// PyTorch's, which the word `leaky_relu` alone has.
const DEFAULT_SLOPE: f32 = 0.01;

fn parse(line: &str) -> Result<Spec, String> {
    let mut words = line.split_whitespace();
    let norm = Norm::parse(words.next().ok_or("expected a norm, as in \"layer 4096x1024 bf16 backward\"")?)?;
    let shape = numbers(words.next().ok_or("expected a shape behind the norm, as in 8x64x56x56")?, 'x')?;
    let mut spec = Spec::new(norm, &shape);
    let mut seen = Vec::new();
    for word in words {
        let name = word.split('=').next().unwrap_or(word);
        if seen.contains(&name) {
            return Err(format!("{name} is given twice"));
        }
        seen.push(name);
        spec.take(word)?;
    }
    Ok(spec)
}

fn number<T: FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{text:?} is not a number that is possible here"))
}

fn numbers(text: &str, separator: char) -> Result<Vec<usize>, String> {
    text.split(separator).map(number).collect()
}

/// Lengths, those that follow each other as one: `3,1*20,0`; of none, `none`.
fn repeated(lengths: &[usize]) -> String {
    if lengths.is_empty() {
        return "none".to_owned();
    }
    let of_run = |run: &[usize]| match run.len() {
        1 => run[0].to_string(),
        times => format!("{}*{times}", run[0]),
    };
    list(&lengths.chunk_by(|a, b| a == b).map(of_run).collect::<Vec<_>>(), ",")
}

/// Most segments of a line: what comes from elsewhere must not ask for all memory there is.
const MOST_SEGMENTS: usize = 1 << 24;

fn repetitions(text: &str) -> Result<Vec<usize>, String> {
    let mut lengths = Vec::new();
    for item in text.split(',').filter(|_| text != "none") {
        let (length, times) = match item.split_once('*') {
            Some((length, times)) => (number(length)?, number(times)?),
            None => (number(item)?, 1),
        };
        if times > MOST_SEGMENTS - lengths.len() {
            return Err(format!("segments={text}: expected at most {MOST_SEGMENTS} segments"));
        }
        lengths.extend(std::iter::repeat_n::<usize>(length, times));
    }
    Ok(lengths)
}

fn pair<T: FromStr>(text: &str) -> Result<(T, T), String> {
    let (first, second) =
        text.split_once(',').ok_or_else(|| format!("{text:?}: expected two numbers and a comma"))?;
    Ok((number(first)?, number(second)?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_are_the_same_when_they_come_back() {
        for line in [
            "batch 8x64x56x56",
            "switchable:unbiased 3x4x5 last relu backward",
            "graph 29x4 segments=3,1*20,0,6 backward",
            "instance 0x4 segments=none",
            "batch 3x4x7x5 f16 last parameters=f16 relu residual in_place backward added phase=3 splits=2",
            "batch 8x4x7x5 sync=2+0+5+1 new=0.3 biased",
            "batch 5x3x4 steps=6 cumulative",
            "batch 3x5x130 renorm=1.2,0.4 eps=1e-30 backward",
            "frozen 4x5x6 bf16 affine=none leaky_relu=0.2 view=1,2",
            "layer 4096x1024 bf16 relu sum backward",
            "layer:3 2x3x4x5 affine=weight offset modulated alone backward shared",
            "group:2 2x8x5x3 gelu second added",
            "rms 9x256 eps=1e-6",
            "group:32 2x64x7x7 last window_bytes=1024 resident=false integer_f16",
            "mvn:0,2,3 2x3x4x5 shifted",
            "l2:1 2x5x4x3 parts",
            "layer 2x96x7x7 axes=1 gelu backward",
            "rms 2x3x4x5 affine=both axes=3,1",
            "layer 2x3 axes=none",
            "tracked 2x3x7x5 old=0.99",
            "tanh 3x5x7x3 f16 gelu residual mask=2 gaps=4",
            "frozen 3x5x7x3 mask=2 mixed",
        ] {
            let spec: Spec = line.parse().unwrap();
            let again: Spec = spec.to_string().parse().unwrap();
            assert_eq!((&spec, spec.to_string()), (&again, again.to_string()), "{line}");
        }
        let spec: Spec = "layer 4096x1024 backward sum bf16".parse().unwrap();
        assert_eq!(spec.to_string(), "layer 4096x1024 bf16 sum backward");
    }

    #[test]
    fn what_is_wrong_is_told() {
        for (line, part) in [
            ("", "expected a norm"),
            ("layer", "expected a shape"),
            ("lair 4x5", "\"lair\" is no norm"),
            ("layer 4x", "not a number"),
            ("layer 4x5 blue", "\"blue\""),
            ("layer 4x5 bf16 colour=blue", "\"colour\""),
            ("layer 4x5 relu relu", "relu is given twice"),
            ("layer 4x5 width=3", "width"),
            ("layer:3 4x5", "3 trailing axes of 2"),
            ("group 4x6x5", "group:GROUPS"),
            ("group:4 4x6x5", "4 groups do not divide 6 channels"),
            ("scale:2 4x6", "behind a colon"),
            ("mvn 4x6", "mvn:AXIS"),
            ("mvn:1,0 4x6", "ascending"),
            ("batch 4", "N, C"),
            ("layer 4x6 axes=2", "axes [2] of 2"),
            ("layer 4x6 axes=1,1", "axes [1, 1] of 2"),
            ("layer:2 4x6 axes=1", "trailing"),
            ("batch 4x6 axes=1", "axes"),
            ("layer 4x6 axes=0 mask=2", "does not take a mask"),
            ("rms 4x6 axes=0 int8", "scales of rows"),
            ("batch 4x5x1x1x1x1", "axes"),
            ("batch 4x5 sum", "does not take a sum"),
            ("instance 4x5x6 mask=3", "does not take a mask"),
            ("batch 4x5 mask=0", "does not take a mask"),
            ("layer 4x5 last", "does not take a layout"),
            ("layer 4x5 given", "statistics from elsewhere"),
            ("batch 4x5 sync=1+2", "expected 4 in all"),
            ("batch 4x5 accumulated=5", "5 micro-batches"),
            ("batch 4x5 offset", "distance from 1"),
            ("tracked 4x5x3 offset", "distance from 1"),
            ("batch 4x5 sync=18446744073709551615+5", "expected 4 in all"),
            ("batch 4x5 parameters=f16", "parameters of float16"),
            ("batch 4x5 eps=type", "takes a number"),
            ("batch 4x5 added", "backward pass"),
            ("batch 4x5 leaky_relu=inf", "slope"),
            ("weight 4x5 affine=both", "weight_norm does not have Both"),
            ("scale 4x5 modulated", "each sample"),
        ] {
            let error = line.parse::<Spec>().unwrap_err().to_string();
            assert!(error.contains(part), "{line:?}: {error}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_line_is_a_problem_or_an_error(
            norm in "(batch|frozen|layer|rms|group|instance|tracked|mvn|l2|scale|weight|tanh|[a-z]{3})(:[0-9,]{1,4})?",
            shape in "([0-9]|[0-9]{1,20})(x([0-9]|[0-9]{1,20})){0,5}",
            words in "( (f16|bf16|last|affine=none|offset|modulated|eps=[0-9e.-]{1,5}|axes=(none|[0-9,]{1,5})|groups=[0-9]{1,2}|relu|residual|sum|mask=[0-9]{1,20}|backward|second|added|given|(sync|accumulated|ghost|steps|renorm|new|old|phase|view|gaps|width|splits|tile|strip|window_bytes|binding_bytes)=[0-9,.+x-]{1,22})){0,5}",
        ) {
            let line = format!("{norm} {shape}{words}");
            if let Ok(spec) = line.parse::<Spec>() {
                prop_assert_eq!(spec.to_string().parse(), Ok(spec));
            }
        }
    }
}
