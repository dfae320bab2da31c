//! What all JSON files share.

use std::path::Path;

use serde::{Deserialize, Serialize};
use wgnorm::Context;

use crate::Refusal;

/// The adapter that results were made on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adapter {
    pub name: String,
    pub backend: String,
    pub driver: String,
    pub device_type: String,
}

impl Adapter {
    pub fn of(info: &wgpu::AdapterInfo) -> Self {
        Self {
            name: info.name.clone(),
            backend: info.backend.to_string(),
            driver: format!("{} {}", info.driver, info.driver_info).trim().to_owned(),
            device_type: format!("{:?}", info.device_type),
        }
    }

    pub fn of_context(context: &Context) -> Self {
        Self::of(&context.device().adapter_info())
    }
}

impl std::fmt::Display for Adapter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({}, {}, {})", self.name, self.device_type, self.backend, self.driver)
    }
}

/// Writes a value as indented JSON.
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<(), Refusal> {
    let text = serde_json::to_string_pretty(value)?;
    std::fs::write(path, text + "\n").map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    Ok(())
}
