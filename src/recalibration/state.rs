//! A recalibration as bytes, to go on later.
//!
//! ```text
//! "wgnorm recalibration 1\n"
//! batches u64, of_batches u64 (u64::MAX: not known), channels u64
//! for each channel: count u64, mean f64, var f64                      all little-endian
//! ```

use super::Recalibration;
use crate::base::error::{Error, Result};
use crate::statistics::pooled_moments::PooledMoments;

const MAGIC: &[u8] = b"wgnorm recalibration 1\n";

impl Recalibration {
    /// Everything it has seen, for [`from_bytes`](Self::from_bytes).
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        for word in [self.batches, self.of_batches.unwrap_or(u64::MAX), self.pooled.len() as u64] {
            bytes.extend(word.to_le_bytes());
        }
        for PooledMoments { count, mean, var } in &self.pooled {
            bytes.extend(count.to_le_bytes());
            bytes.extend(mean.to_le_bytes());
            bytes.extend(var.to_le_bytes());
        }
        bytes
    }

    /// A recalibration from what [`to_bytes`](Self::to_bytes) gave: it goes on where that one was.
    ///
    /// # Errors
    /// [`Error::RecalibrationState`] if the bytes are something else, or not all of them.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let refused = |reason: String| Err(Error::RecalibrationState { reason });
        let Some(rest) = bytes.strip_prefix(MAGIC) else {
            return refused("they do not begin as one does".to_owned());
        };
        let (words, odd) = rest.as_chunks::<8>();
        let words: Vec<u64> = words.iter().map(|word| u64::from_le_bytes(*word)).collect();
        let [batches, of_batches, channels, records @ ..] = words.as_slice() else {
            return refused("they end too early".to_owned());
        };
        if !odd.is_empty() || channels.checked_mul(3) != Some(records.len() as u64) || *channels == 0 {
            let got = records.len() * 8 + odd.len();
            return refused(format!("{channels} channels of 24 bytes should follow, and {got} bytes do"));
        }
        let pooled: Vec<PooledMoments> = records
            .as_chunks::<3>()
            .0
            .iter()
            .map(|&[count, mean, var]| PooledMoments {
                count,
                mean: f64::from_bits(mean),
                var: f64::from_bits(var),
            })
            .collect();
        if let Some(channel) = pooled.iter().position(|channel| channel.var < 0.0) {
            return refused(format!("channel {channel} has a negative variance"));
        }
        let of_batches = Some(*of_batches).filter(|&batches| batches != u64::MAX);
        Ok(Self { pooled, batches: *batches, of_batches })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statistics::moments::ChannelMoments;

    #[test]
    fn what_is_kept_goes_on() {
        let mut all = Recalibration::new(2).unwrap().of_batches(9);
        let batch = |k: u64| {
            [0.0, 1e6].map(|shift| ChannelMoments {
                count: 3 + k,
                shift: shift + k as f32,
                delta: 0.1,
                var: 0.5,
            })
        };
        let mut resumed = all.clone();
        for k in 0..9 {
            all.add_moments(&batch(k)).unwrap();
            resumed = Recalibration::from_bytes(&resumed.to_bytes()).unwrap();
            resumed.add_moments(&batch(k)).unwrap();
        }
        assert_eq!(resumed, all);
        assert_eq!(all.progress().to_string(), "9 of 9 batches, 63 values per channel");
    }

    #[test]
    fn more_channels_than_there_is_memory_for() {
        for channels in [(1 << 28) + 1, 1 << 40, usize::MAX] {
            let refused = Recalibration::new(channels);
            assert!(matches!(refused, Err(Error::TooLarge { .. })), "{refused:?}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        let bytes = Recalibration::new(3).unwrap().to_bytes();
        assert!(Recalibration::from_bytes(&bytes).is_ok());
        for cut in 0..bytes.len() {
            let refused = Recalibration::from_bytes(&bytes[..cut]);
            assert!(matches!(refused, Err(Error::RecalibrationState { .. })), "{cut}: {refused:?}");
        }
        let longer = [&bytes[..], &[0]].concat();
        assert!(Recalibration::from_bytes(&longer).is_err());
        let mut many = bytes.clone();
        many[MAGIC.len() + 16..MAGIC.len() + 24].fill(0xff);
        assert!(Recalibration::from_bytes(&many).is_err());
        let mut negative = bytes.clone();
        negative[MAGIC.len() + 40..MAGIC.len() + 48].copy_from_slice(&(-1.0_f64).to_le_bytes());
        assert!(Recalibration::from_bytes(&negative).is_err());
        assert!(Recalibration::new(0).is_err());
    }
}
