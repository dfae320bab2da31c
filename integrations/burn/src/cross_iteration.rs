//! The moments of the last steps, which outlive a call.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use burn::module::ParamId;
use burn_cubecl::CubeDevice;
use wgnorm::norm;

/// The moments of a layer's last steps. Clones of the layer share them; each device has its own.
#[derive(Clone, Debug)]
pub struct CrossIteration {
    steps: usize,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// How often they have been cleared.
    epoch: AtomicU64,
    /// The layer's gamma.
    owner: Mutex<Option<ParamId>>,
    devices: Mutex<HashMap<CubeDevice, (u64, norm::CrossIteration)>>,
}

/// They, as a call has them.
#[derive(Clone, Debug)]
pub struct Steps {
    of: CrossIteration,
    epoch: u64,
}

impl CrossIteration {
    /// Statistics of so many steps, the newest included.
    ///
    /// # Errors
    /// [`wgnorm::Error::Empty`] for none.
    pub fn new(steps: usize) -> wgnorm::Result<Self> {
        norm::CrossIteration::new(steps)?;
        let shared = Shared { epoch: AtomicU64::new(0), owner: Mutex::default(), devices: Mutex::default() };
        Ok(Self { steps, shared: Arc::new(shared) })
    }

    /// How many steps there may be.
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// Forgets all steps: of those that come after, none is merged with one before.
    pub fn clear(&self) {
        self.shared.epoch.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn at_call(&self, gamma: ParamId) -> Steps {
        let mut owner = self.shared.owner.lock().unwrap_or_else(PoisonError::into_inner);
        assert_eq!(*owner.get_or_insert(gamma), gamma, "two layers with the same cross-iteration statistics");
        Steps { of: self.clone(), epoch: self.shared.epoch.load(Ordering::Relaxed) }
    }
}

impl Steps {
    /// Does something with the steps on a device.
    pub fn on<T>(
        &self,
        device: &CubeDevice,
        act: impl FnOnce(&mut norm::CrossIteration) -> wgnorm::Result<T>,
    ) -> wgnorm::Result<T> {
        let mut devices = self.of.shared.devices.lock().unwrap_or_else(PoisonError::into_inner);
        if devices.get(device).is_none_or(|(epoch, _)| *epoch != self.epoch) {
            devices.insert(device.clone(), (self.epoch, norm::CrossIteration::new(self.of.steps)?));
        }
        let (_, steps) = devices.get_mut(device).unwrap_or_else(|| unreachable!("it was put there"));
        act(steps)
    }
}
