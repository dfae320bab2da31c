//! Memory of a device, or of none: where operations are only planned, a buffer is a size that can be told from others.

#[cfg(not(feature = "wgpu"))]
use std::convert::Infallible;
#[cfg(feature = "wgpu")]
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

#[cfg(feature = "wgpu")]
use super::memory::Memory;
use crate::base::error::{Error, Result};

/// A buffer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Buffer {
    /// Of a device.
    #[cfg(feature = "wgpu")]
    Gpu(Arc<Memory>),
    #[cfg(not(feature = "wgpu"))]
    #[expect(dead_code, reason = "there is no device without wgpu")]
    Gpu(Infallible),
    /// Of nothing: its number, and how large it would be.
    Paper(u64, u64),
}

/// What a buffer of the crate's own is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Usage {
    /// Kernels; it may be written and read back.
    Tensor,
    /// Kernels; it may be written.
    Written,
    /// Kernels alone.
    Scratch,
}

impl Buffer {
    pub fn paper(size: u64) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self::Paper(NEXT.fetch_add(1, Ordering::Relaxed), size)
    }

    /// Requires that kernels may use it.
    ///
    /// # Errors
    /// [`Error::BufferUsage`], as the others.
    pub fn check_bound(&self, what: &'static str) -> Result<()> {
        self.check(what, "STORAGE")
    }

    /// Requires that it may be written from the host.
    pub fn check_written(&self, what: &'static str) -> Result<()> {
        self.check(what, "COPY_DST")
    }

    /// Requires that it may be read back.
    pub fn check_read(&self, what: &'static str) -> Result<()> {
        self.check(what, "COPY_SRC")
    }

    fn check(&self, what: &'static str, usage: &'static str) -> Result<()> {
        match self {
            #[cfg(feature = "wgpu")]
            Self::Gpu(buffer)
                if !wgpu::BufferUsages::from_name(usage)
                    .is_some_and(|usage| buffer.buffer().usage().contains(usage)) =>
            {
                Err(Error::BufferUsage { what, missing: usage })
            }
            _ => {
                let _ = (what, usage);
                Ok(())
            }
        }
    }

    pub fn size(&self) -> u64 {
        match self {
            #[cfg(feature = "wgpu")]
            Self::Gpu(memory) => memory.buffer().size(),
            #[cfg(not(feature = "wgpu"))]
            Self::Gpu(never) => match *never {},
            Self::Paper(_, size) => *size,
        }
    }
}

#[cfg(feature = "wgpu")]
impl Buffer {
    /// What the crate has made of a device's memory.
    pub fn own(buffer: wgpu::Buffer) -> Self {
        Self::Gpu(Arc::new(Memory::own(buffer)))
    }

    /// What the application has given.
    pub fn borrowed(buffer: wgpu::Buffer) -> Self {
        Self::Gpu(Arc::new(Memory::borrowed(buffer)))
    }

    /// The device's buffer for the application, which may keep it, as it may what it has recorded.
    pub fn hand_out(&self) -> &wgpu::Buffer {
        match self {
            Self::Gpu(memory) => memory.hand_out(),
            Self::Paper(..) => unreachable!("nothing runs on buffers of no device"),
        }
    }

    /// The device's buffer, of an operation that runs.
    pub fn gpu(&self) -> &wgpu::Buffer {
        match self {
            Self::Gpu(memory) => memory.buffer(),
            Self::Paper(..) => unreachable!("nothing runs on buffers of no device"),
        }
    }
}

#[cfg(feature = "wgpu")]
impl Usage {
    pub fn bits(self) -> wgpu::BufferUsages {
        use wgpu::BufferUsages as Bits;
        match self {
            Self::Tensor => Bits::STORAGE | Bits::COPY_SRC | Bits::COPY_DST,
            Self::Written => Bits::STORAGE | Bits::COPY_DST,
            Self::Scratch => Bits::STORAGE,
        }
    }
}
