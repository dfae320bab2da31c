//! A pipeline cache on disk: what the driver compiled in one process, for the next. An option of a context.
//!
//! wgpu has it on Vulkan. Elsewhere (Metal, DirectX 12, browsers) drivers keep compiled kernels themselves, and the option has no
//! effect but its [state](PipelineCacheState).
//!
//! The file is framed by this crate (see [`frame`]): a driver is given nothing but what it returned itself.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::base::error::Result;

/// What became of the pipeline cache that a context was asked to keep
/// ([`ContextOptions::pipeline_cache`](crate::ContextOptions::pipeline_cache)).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PipelineCacheState {
    /// None was asked for.
    Off,
    /// The device has no pipeline caches, or was opened without them; nothing is read or written.
    Unsupported {
        /// Why.
        reason: String,
    },
    /// There was no file yet.
    New {
        /// The file that [`Context::save_pipeline_cache`](crate::Context::save_pipeline_cache) will write.
        path: PathBuf,
    },
    /// Kernels that the file holds need not be compiled again, as far as the driver uses it.
    Loaded {
        /// The file.
        path: PathBuf,
        /// Bytes of the driver's data in it. Drivers that keep nothing there leave a header of 32 bytes.
        bytes: u64,
    },
    /// There was a file that cannot be used: damaged, or of another adapter, driver or shaders. Kernels are compiled
    /// as without one, and saving replaces it.
    Refused {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

impl fmt::Display for PipelineCacheState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => write!(f, "off"),
            Self::Unsupported { reason } => write!(f, "unsupported: {reason}"),
            Self::New { path } => write!(f, "new: {}", path.display()),
            Self::Loaded { path, bytes } => write!(f, "loaded: {bytes} bytes from {}", path.display()),
            Self::Refused { path, reason } => write!(f, "refused: {}: {reason}", path.display()),
        }
    }
}

/// The driver's cache of a context, and where it is kept.
#[derive(Debug)]
pub(crate) struct DiskCache {
    state: PipelineCacheState,
    kept: Option<Kept>,
}

#[derive(Debug)]
struct Kept {
    cache: wgpu::PipelineCache,
    #[cfg(not(target_family = "wasm"))]
    path: PathBuf,
    #[cfg(not(target_family = "wasm"))]
    identity: String,
}

impl DiskCache {
    pub fn state(&self) -> &PipelineCacheState {
        &self.state
    }

    /// For the descriptors of pipelines.
    pub fn wgpu(&self) -> Option<&wgpu::PipelineCache> {
        self.kept.as_ref().map(|kept| &kept.cache)
    }

    fn without(state: PipelineCacheState) -> Self {
        Self { state, kept: None }
    }
}

#[cfg(target_family = "wasm")]
impl DiskCache {
    pub fn open(_device: &wgpu::Device, directory: Option<&Path>) -> Self {
        let reason = "a browser keeps compiled kernels itself".to_owned();
        Self::without(
            directory.map_or(PipelineCacheState::Off, |_| PipelineCacheState::Unsupported { reason }),
        )
    }

    pub fn save(&self) -> Result<Option<u64>> {
        Ok(None)
    }
}

#[cfg(not(target_family = "wasm"))]
impl DiskCache {
    /// Reads the file of the device's adapter in a directory, if there is one. What is wrong with it is no error.
    pub fn open(device: &wgpu::Device, directory: Option<&Path>) -> Self {
        let Some(directory) = directory else { return Self::without(PipelineCacheState::Off) };
        let unsupported =
            |reason: &str| Self::without(PipelineCacheState::Unsupported { reason: reason.to_owned() });
        let info = device.adapter_info();
        let Some(key) = wgpu::util::pipeline_cache_key(&info) else {
            return unsupported(&format!("{} has no pipeline caches in wgpu", info.backend));
        };
        if !device.features().contains(wgpu::Features::PIPELINE_CACHE) {
            return unsupported("the device was opened without Features::PIPELINE_CACHE");
        }
        let path = directory.join(format!("{key}.wgnorm"));
        let identity = crate::engine::adapter::identity(&info);
        let mut state = PipelineCacheState::New { path: path.clone() };
        let refused = |reason| PipelineCacheState::Refused { path: path.clone(), reason };
        let mut cache = None;
        match crate::engine::file::read(&path) {
            Err(error) => state = refused(error.to_string()),
            Ok(None) => {}
            Ok(Some(bytes)) => match frame::unwrap(&bytes, &identity) {
                Err(reason) => state = refused(reason),
                Ok(data) => match create(device, Some(data)) {
                    Err(reason) => state = refused(reason),
                    Ok(created) => {
                        state = PipelineCacheState::Loaded { path: path.clone(), bytes: driver_bytes(data) };
                        cache = Some(created);
                    }
                },
            },
        }
        let cache = match cache.map_or_else(|| create(device, None), Ok) {
            Ok(cache) => cache,
            Err(reason) => return unsupported(&reason),
        };
        Self { state, kept: Some(Kept { cache, path, identity }) }
    }

    /// Writes what the driver has compiled so far. Returns the bytes of the driver's data, `None` if there is no cache.
    pub fn save(&self) -> Result<Option<u64>> {
        let Some(Kept { cache, path, identity }) = &self.kept else { return Ok(None) };
        let Some(data) = cache.get_data() else { return Ok(None) };
        if let Some(directory) = path.parent() {
            crate::engine::file::create_directory(directory)?;
        }
        crate::engine::file::replace(path, &frame::wrap(&data, identity))?;
        Ok(Some(driver_bytes(&data)))
    }
}

/// What is the driver's of wgpu's data, which begins with a header of wgpu's.
#[cfg(not(target_family = "wasm"))]
fn driver_bytes(data: &[u8]) -> u64 {
    const WGPU_HEADER: usize = 64;
    data.len().saturating_sub(WGPU_HEADER) as u64
}

/// Creates a cache, or tells why wgpu refuses.
#[cfg(not(target_family = "wasm"))]
fn create(device: &wgpu::Device, data: Option<&[u8]>) -> Result<wgpu::PipelineCache, String> {
    let scopes = [wgpu::ErrorFilter::OutOfMemory, wgpu::ErrorFilter::Internal, wgpu::ErrorFilter::Validation]
        .map(|filter| device.push_error_scope(filter));
    // Without `fallback`, so that data of another driver shows as an error instead of as an empty cache.
    let descriptor = wgpu::PipelineCacheDescriptor { label: Some("wgnorm"), data, fallback: false };
    // SAFETY: the data must come from `get_data` of such a cache. It does: it is taken from a file of this crate's, which holds
    // nothing else, and whose magic, length and checksum tell that it is as it was written; the same adapter, driver and shaders
    // of the crate wrote it. wgpu compares the device and the driver once more. Files that are forged on purpose are the
    // affair of the directory's permissions, as the option's documentation says.
    let cache = unsafe { device.create_pipeline_cache(&descriptor) };
    // The last scope is the innermost. Natively a verdict is known at once.
    let caught = scopes.into_iter().rev().map(|scope| pollster::block_on(scope.pop()));
    match caught.collect::<Vec<_>>().into_iter().flatten().next() {
        Some(error) => Err(error.to_string()),
        None => Ok(cache),
    }
}

/// The file: magic, length of the identity, identity, length of the data, data, and a checksum of all before it. Numbers are
/// 64 bit, little-endian.
#[cfg(not(target_family = "wasm"))]
mod frame {
    const MAGIC: &[u8; 16] = b"wgnorm kernels 1";
    const NUMBER: usize = size_of::<u64>();

    pub fn wrap(data: &[u8], identity: &str) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        for part in [identity.as_bytes(), data] {
            bytes.extend((part.len() as u64).to_le_bytes());
            bytes.extend(part);
        }
        bytes.extend(checksum(&bytes).to_le_bytes());
        bytes
    }

    /// The data, if nothing is wrong with the file and it is of this adapter, driver and shaders.
    pub fn unwrap<'a>(bytes: &'a [u8], expected: &str) -> Result<&'a [u8], String> {
        let truncated = || "the file is truncated".to_owned();
        let rest = bytes.strip_prefix(MAGIC).ok_or("not a file of this crate's pipeline cache")?;
        let (body, sum) = bytes.split_last_chunk::<NUMBER>().ok_or_else(truncated)?;
        let (identity, rest) = part(rest).ok_or_else(truncated)?;
        let (data, rest) = part(rest).ok_or_else(truncated)?;
        match rest.len() {
            NUMBER => {}
            0..NUMBER => return Err(truncated()),
            _ => return Err("the file is longer than what it says to hold".to_owned()),
        }
        if checksum(body) != u64::from_le_bytes(*sum) {
            return Err("the file is damaged: its checksum does not match".to_owned());
        }
        if identity != expected.as_bytes() {
            let got = String::from_utf8_lossy(identity);
            return Err(format!("it was made by {got:?}, this is {expected:?}"));
        }
        Ok(data)
    }

    /// The first part of what is left, and what follows it.
    fn part(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
        let (len, rest) = bytes.split_first_chunk::<NUMBER>()?;
        rest.split_at_checked(usize::try_from(u64::from_le_bytes(*len)).ok()?)
    }

    /// FNV-1a of 64 bits: tells a damaged file, not a forged one. (Fowler, Noll & Vo; draft-eastlake-fnv.)
    fn checksum(bytes: &[u8]) -> u64 {
        let mix = |hash: u64, &byte: &u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        bytes.iter().fold(0xcbf2_9ce4_8422_2325, mix)
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn the_checksum_is_fnv_1a() {
            assert_eq!(checksum(b""), 0xcbf2_9ce4_8422_2325);
            assert_eq!(checksum(b"a"), 0xaf63_dc4c_8601_ec8c);
            assert_eq!(checksum(b"foobar"), 0x8594_4171_f739_67e8);
        }

        #[test]
        fn what_is_written_is_read() {
            for data in [&b""[..], b"x", &[7; 1000]] {
                assert_eq!(unwrap(&wrap(data, "an adapter"), "an adapter"), Ok(data));
            }
        }

        #[test]
        fn every_damage_is_told() {
            let whole = wrap(b"what a driver compiled", "an adapter");
            for len in 0..whole.len() {
                assert!(unwrap(&whole[..len], "an adapter").is_err(), "{len} of {} bytes", whole.len());
            }
            for (at, bit) in (0..whole.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
                let mut damaged = whole.clone();
                damaged[at] ^= 1 << bit;
                assert!(unwrap(&damaged, "an adapter").is_err(), "bit {bit} of byte {at}");
            }
            let longer = [&whole[..], b"x"].concat();
            assert!(unwrap(&longer, "an adapter").unwrap_err().contains("longer"));
            // A length beyond all memory.
            let mut huge = whole.clone();
            huge[MAGIC.len()..MAGIC.len() + NUMBER].copy_from_slice(&u64::MAX.to_le_bytes());
            assert!(unwrap(&huge, "an adapter").unwrap_err().contains("truncated"));
        }

        #[test]
        fn a_file_of_another_adapter_is_refused_with_both() {
            let error = unwrap(&wrap(b"x", "one driver"), "another driver").unwrap_err();
            assert!(error.contains("one driver") && error.contains("another driver"), "{error}");
        }
    }
}
