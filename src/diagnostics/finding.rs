//! What can be found, in data and in words.

use std::fmt;

use crate::drift::ChannelDrift;

/// A channel and the value that it is reported for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ChannelValue {
    /// The channel.
    pub channel: usize,
    /// The value; what it is the finding says.
    pub value: f64,
}

/// A channel whose batch is far from its running statistics.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DriftedChannel {
    /// The channel.
    pub channel: usize,
    /// Values of the batch.
    pub count: u64,
    /// From the running statistics to those of the batch.
    pub drift: ChannelDrift,
}

/// Something that the literature warns of. As text it explains itself, names the first few channels and says what to read.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Finding {
    /// Values that are NaN or infinite. Inference gives NaN in these channels.
    NotFinite {
        /// `running_mean`, `running_var`, `gamma`, `beta`, or what of the batch.
        what: &'static str,
        /// The channels and their values.
        channels: Vec<ChannelValue>,
    },
    /// Running variances below 0, which no data has. Inference divides by the root of a wrong number, or gives NaN.
    NegativeVariance {
        /// The channels and their running variances.
        channels: Vec<ChannelValue>,
    },
    /// Mean 0, variance 1 and no batches in every channel: the layer was never trained, or its statistics were not loaded.
    NeverUpdated,
    /// The values that running statistics start with (mean 0, variance 1) still have a part in them: `(1 − w)^batches`.
    Unsettled {
        /// Batches that entered the statistics.
        batches: u32,
        /// The weight of the initial values.
        weight_of_initial: f64,
        /// Batches after which that weight is no more than allowed; infinite if the momentum never lets go of the old value.
        settled_after: f64,
    },
    /// Channels to which the batch has no values.
    NoValues {
        /// The channels.
        channels: Vec<usize>,
    },
    /// Channels with a single value in the batch: x̂ is 0 whatever x is, and so is every gradient.
    SingleValue {
        /// The channels.
        channels: Vec<usize>,
    },
    /// Channels with few values in the batch: mean and variance are noise to a large part.
    FewValues {
        /// The channels and how many values each has.
        channels: Vec<ChannelValue>,
        /// The threshold that all of these are below.
        fewer_than: u64,
    },
    /// Channels that hardly vary: eps and not the variance decides how they are scaled.
    DeadChannels {
        /// The channels and their running variances.
        channels: Vec<ChannelValue>,
        /// The layer's eps.
        eps: f64,
    },
    /// Channels that gamma all but removes.
    PrunableChannels {
        /// The channels and their gammas.
        channels: Vec<ChannelValue>,
        /// The largest |gamma| that counts as such.
        at_most: f64,
    },
    /// Channels in which the batch is farther from the running statistics than chance explains: inference normalizes otherwise than training.
    Drifted {
        /// The channels.
        channels: Vec<DriftedChannel>,
    },
}

impl Finding {
    /// What to read: author, year, title and address; a few separated by semicolons.
    pub const fn literature(&self) -> &'static str {
        match self {
            Finding::NotFinite { .. } | Finding::NegativeVariance { .. } | Finding::NeverUpdated => {
                IOFFE_SZEGEDY
            }
            Finding::Unsettled { .. } | Finding::Drifted { .. } => WU_JOHNSON,
            Finding::NoValues { .. } | Finding::SingleValue { .. } => IOFFE_SZEGEDY,
            Finding::FewValues { .. } => WU_HE_AND_IOFFE,
            Finding::DeadChannels { .. } => MEHTA,
            Finding::PrunableChannels { .. } => LIU_AND_GOYAL,
        }
    }
}

const IOFFE_SZEGEDY: &str = "Ioffe & Szegedy 2015, Batch Normalization, https://arxiv.org/abs/1502.03167";
const WU_JOHNSON: &str =
    "Wu & Johnson 2021, Rethinking \"Batch\" in BatchNorm, https://arxiv.org/abs/2105.07576";
const WU_HE_AND_IOFFE: &str = "Wu & He 2018, Group Normalization, https://arxiv.org/abs/1803.08494; \
    Ioffe 2017, Batch Renormalization, https://arxiv.org/abs/1702.03275";
const MEHTA: &str = "Mehta et al. 2019, On Implicit Filter Level Sparsity in Convolutional Neural Networks, https://arxiv.org/abs/1811.12495";
const LIU_AND_GOYAL: &str = "Liu et al. 2017, Network Slimming, https://arxiv.org/abs/1708.06519; \
    Goyal et al. 2017, section 5.1 (gamma that starts at 0), https://arxiv.org/abs/1706.02677";

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Finding::NotFinite { what, channels } => write!(
                f,
                "{what} is not finite in {}; inference gives NaN there, and training cannot recover from it: look for \
                 the batch that brought it in, reset the running statistics and recalibrate",
                Few::of(channels)
            ),
            Finding::NegativeVariance { channels } => write!(
                f,
                "the running variance is negative in {}, which no data has: the file or the conversion that it comes \
                 from is damaged",
                Few::of(channels)
            ),
            Finding::NeverUpdated => f.write_str(
                "the running statistics are those of a new layer, mean 0 and variance 1 after no batches: inference \
                 does not normalize; train, load or recalibrate them first",
            ),
            Finding::Unsettled { batches, weight_of_initial, settled_after } => {
                write!(
                    f,
                    "the initial values have {:.1} % of the weight in the running statistics after {batches} batches",
                    100.0 * weight_of_initial
                )?;
                match settled_after.is_finite() {
                    true => write!(f, "; this momentum takes {:.0}", settled_after.ceil())?,
                    false => f.write_str("; this momentum never lets go of them")?,
                }
                f.write_str(": recalibrate, or use a cumulative average")
            }
            Finding::NoValues { channels } => write!(
                f,
                "the batch has no values in {}: without any there are no statistics, y is beta and nothing is learned",
                Few::channels(channels)
            ),
            Finding::SingleValue { channels } => write!(
                f,
                "the batch has a single value in {}: x̂ is 0 whatever it is, and nothing is learned; use larger batches, \
                 synchronise or freeze",
                Few::channels(channels)
            ),
            Finding::FewValues { channels, fewer_than } => write!(
                f,
                "the batch has fewer than {fewer_than} values in {}: statistics of so few are mostly noise, and error \
                 rises; use larger batches, accumulate or synchronise statistics, batch renorm, or group norm",
                Few::of(channels)
            ),
            Finding::DeadChannels { channels, eps } => write!(
                f,
                "the running variance is about 0 beside eps = {eps:e} in {}: these channels carry next to nothing, and a \
                 value that does vary is scaled up by as much as {:.0}",
                Few::of(channels),
                1.0 / eps.sqrt()
            ),
            Finding::PrunableChannels { channels, at_most } => write!(
                f,
                "|gamma| is at most {at_most:e} in {}: they hardly reach the output and can be pruned, unless gamma was \
                 started at 0 and is yet to grow",
                Few::of(channels)
            ),
            Finding::Drifted { channels } => {
                let worst = channels.iter().max_by(|a, b| a.drift.magnitude().total_cmp(&b.drift.magnitude()));
                let all: Vec<_> = channels.iter().map(|at| at.channel).collect();
                write!(f, "the batch is far from the running statistics in {}", Few::channels(&all))?;
                if let Some(DriftedChannel { channel, drift, .. }) = worst {
                    write!(f, " (most in channel {channel}: {drift})")?;
                }
                f.write_str(
                    ": inference will differ from training; recalibrate, or look for data that differs from that of training",
                )
            }
        }?;
        write!(f, " [{}]", self.literature())
    }
}

/// The first few of a list of channels.
struct Few<'a> {
    len: usize,
    first: Vec<(usize, Option<&'a f64>)>,
}

impl<'a> Few<'a> {
    const MOST: usize = 6;

    fn of(channels: &'a [ChannelValue]) -> Self {
        let first = channels.iter().take(Self::MOST).map(|at| (at.channel, Some(&at.value))).collect();
        Self { len: channels.len(), first }
    }

    fn channels(channels: &[usize]) -> Self {
        let first = channels.iter().take(Self::MOST).map(|&channel| (channel, None)).collect();
        Self { len: channels.len(), first }
    }
}

impl fmt::Display for Few<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: ", self.len, if self.len == 1 { "channel" } else { "channels" })?;
        for (at, (channel, value)) in self.first.iter().enumerate() {
            let comma = if at > 0 { ", " } else { "" };
            write!(f, "{comma}{channel}")?;
            if let Some(value) = value {
                write!(f, " ({})", Short(**value))?;
            }
        }
        if self.len > self.first.len() { f.write_str(", …") } else { Ok(()) }
    }
}

/// A number in as few digits as tell what it is.
struct Short(f64);

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = self.0 == self.0.trunc() && self.0.abs() < 1e6 || !self.0.is_finite();
        if plain { write!(f, "{}", self.0) } else { write!(f, "{:.2e}", self.0) }
    }
}
