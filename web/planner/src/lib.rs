//! wgnorm's planner for the web: what a problem runs on a device with these limits, as JSON. Pure: no device, no wgpu.
//!
//! Text goes in and out through the module's memory: the caller asks for room (`allocate`), writes a request there, and calls `plan`, which gives back where a reply begins;
//! its first four bytes, little-endian, are its length, and `release` lets go of it.
//!
//! ```text
//! request  {"spec": "batch 8x64x56x56 relu backward", "capabilities": {"maxBindingBytes": 134217728, …}}
//! reply    {"recipes": {"forward": …, "backward": …}}        or        {"error": {"kind": "Spec", "message": "…"}}
//!
//! request  {"capabilities": {…}}
//! reply    {"probes": [{"found": "ExactF16", "kernel": …, "workgroups": 1024}, …]}
//! ```

use serde::{Deserialize, Serialize};
use wgnorm::recipe::{Probe, Recipes, probes};
use wgnorm::tuning::Capabilities;
use wgnorm::{Error, Spec};

/// What a page knows of its device.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Limits {
    max_workgroup_size: u32,
    max_workgroup_bytes: u32,
    max_workgroups_per_dimension: u32,
    max_binding_bytes: u64,
    max_buffer_bytes: u64,
    storage_alignment: u64,
    /// Invocations of the smallest subgroup, if these are in order.
    subgroup_size: Option<u32>,
    exact_f16: bool,
    /// Whether it is a CPU: SwiftShader, llvmpipe.
    cpu: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    /// What is planned; without it, what there is to find out of the device.
    #[serde(default)]
    spec: Option<String>,
    #[serde(default)]
    capabilities: Limits,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
enum Reply {
    Recipes(Box<Recipes>),
    Probes(Vec<Probe>),
    Error { kind: String, message: String },
}

impl Default for Limits {
    fn default() -> Self {
        let least = Capabilities::webgpu();
        Self {
            max_workgroup_size: least.max_workgroup_size,
            max_workgroup_bytes: least.max_workgroup_bytes,
            max_workgroups_per_dimension: least.max_workgroups_per_dimension,
            max_binding_bytes: least.max_binding_bytes,
            max_buffer_bytes: least.max_buffer_bytes,
            storage_alignment: least.storage_alignment,
            subgroup_size: least.subgroup_size,
            exact_f16: least.exact_f16,
            cpu: least.cpu,
        }
    }
}

impl Limits {
    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::webgpu();
        capabilities.max_workgroup_size = self.max_workgroup_size;
        capabilities.max_workgroup_bytes = self.max_workgroup_bytes;
        capabilities.max_workgroups_per_dimension = self.max_workgroups_per_dimension;
        capabilities.max_binding_bytes = self.max_binding_bytes;
        capabilities.max_buffer_bytes = self.max_buffer_bytes;
        capabilities.storage_alignment = self.storage_alignment;
        // Eight members of a team are merged at once.
        capabilities.subgroup_size = self.subgroup_size.filter(|size| *size >= 8 && size.is_power_of_two());
        capabilities.exact_f16 = self.exact_f16;
        capabilities.cpu = self.cpu;
        capabilities.max_loop_iterations = Capabilities::loop_iterations(self.cpu);
        capabilities
    }
}

/// The reply to a request, as JSON.
pub fn reply(request: &[u8]) -> Vec<u8> {
    let reply = serde_json::from_slice::<Request>(request)
        .map_err(|error| ("Request".to_owned(), error.to_string()))
        .and_then(|request| answer(&request).map_err(|error| (kind(&error), error.to_string())))
        .unwrap_or_else(|(kind, message)| Reply::Error { kind, message });
    serde_json::to_vec(&reply).unwrap_or_default()
}

fn answer(request: &Request) -> wgnorm::Result<Reply> {
    let capabilities = request.capabilities.capabilities();
    Ok(match &request.spec {
        Some(spec) => Reply::Recipes(Box::new(spec.parse::<Spec>()?.recipes(&capabilities)?)),
        None => Reply::Probes(probes(&capabilities)),
    })
}

/// The name of a kind of error.
fn kind(error: &Error) -> String {
    let text = format!("{error:?}");
    text.chars().take_while(|c| c.is_alphanumeric()).collect()
}

/// Room for so many bytes.
#[unsafe(no_mangle)]
pub extern "C" fn allocate(bytes: usize) -> *mut u8 {
    Box::leak(vec![0; bytes].into_boxed_slice()).as_mut_ptr()
}

/// Lets go of room that [`allocate`] or [`plan`] has given, of the same number of bytes.
///
/// # Safety
/// It was given, and nobody uses it any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn release(at: *mut u8, bytes: usize) {
    // SAFETY: by the contract it is a boxed slice of so many bytes.
    drop(unsafe { Box::from_raw(std::ptr::slice_from_raw_parts_mut(at, bytes)) });
}

/// Where the reply to a request begins, its length first.
///
/// # Safety
/// There are so many bytes that can be read.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plan(at: *const u8, bytes: usize) -> *mut u8 {
    // SAFETY: by the contract they can be read.
    let reply = reply(unsafe { std::slice::from_raw_parts(at, bytes) });
    let mut all = (reply.len() as u32).to_le_bytes().to_vec();
    all.extend(reply);
    Box::leak(all.into_boxed_slice()).as_mut_ptr()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn asked(request: &str) -> Value {
        serde_json::from_slice(&reply(request.as_bytes())).unwrap()
    }

    #[test]
    fn a_problem_has_recipes() {
        let reply = asked(r#"{"spec": "layer 64x256 backward", "capabilities": {"storageAlignment": 32}}"#);
        let operands = reply["recipes"]["forward"]["operands"].as_array().unwrap();
        let names: Vec<_> = operands.iter().map(|operand| operand["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["x", "y", "gamma", "beta", "saved statistics"]);
        let of_crate = "layer 64x256 backward".parse::<Spec>().unwrap();
        let mut capabilities = Capabilities::webgpu();
        capabilities.storage_alignment = 32;
        let recipes: Recipes = serde_json::from_value(reply["recipes"].clone()).unwrap();
        assert_eq!(recipes, of_crate.recipes(&capabilities).unwrap());
    }

    #[test]
    fn no_invocation_of_a_cpu_walks_farther_than_it_may() {
        // A slice that is too long for as many teams as are on a CPU at once is cut finer.
        let workgroups = |cpu: bool| {
            let limits =
                format!(r#""maxBindingBytes": 2147483647, "maxBufferBytes": 4294967296, "cpu": {cpu}"#);
            let reply =
                asked(&format!(r#"{{"spec": "batch 1x1x400000000 width=1", "capabilities": {{{limits}}}}}"#));
            let first = &reply["recipes"]["forward"]["dispatches"][0];
            let kernel = reply["recipes"]["forward"]["kernels"][0]["name"].as_str().unwrap().to_owned();
            let size: u64 = kernel.split("wg").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
            let of = |axis: usize| first["workgroups"][axis].as_u64().unwrap();
            of(0) * of(1) * size
        };
        assert!(400_000_000 / workgroups(true) <= 65535, "{}", workgroups(true));
    }

    #[test]
    fn probes_are_of_what_a_device_has() {
        let found = |capabilities: &str| {
            let reply = asked(&format!(r#"{{"capabilities": {{{capabilities}}}}}"#));
            let probes = reply["probes"].as_array().unwrap().iter();
            probes.map(|probe| probe["found"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(found(""), ["ExactF16"]);
        assert_eq!(found(r#""subgroupSize": 4"#), ["ExactF16"]);
        let ordered = "OrderedSubgroups";
        assert_eq!(found(r#""subgroupSize": 32"#), [ordered, ordered, ordered, "ExactF16"]);
    }

    #[test]
    fn what_is_wrong_has_a_kind() {
        for (request, kind, part) in [
            (r#"{"spec": "lair 4x5"}"#, "Spec", "no norm"),
            (r#"{"spec": "batch 8x3x4 ghost=2"}"#, "Spec", "several passes"),
            (r#"{"spec": "layer 4x5", "capabilities": {"colour": 1}}"#, "Request", "colour"),
            (r#"{"spec": "layer 4x5", "capabilities": {"storageAlignment": 0}}"#, "MissingCapability", ""),
            ("nothing", "Request", "expected"),
        ] {
            let reply = asked(request);
            assert_eq!(reply["error"]["kind"], kind, "{reply}");
            assert!(reply["error"]["message"].as_str().unwrap().contains(part), "{reply}");
        }
    }

    #[test]
    fn replies_lie_behind_their_length() {
        let request = br#"{"spec": "rms 4x8"}"#;
        let expected = reply(request);
        // SAFETY: what is read is what was written, and it is let go of once.
        let text = unsafe {
            let at = plan(request.as_ptr(), request.len());
            let length =
                std::slice::from_raw_parts(at, 4).try_into().map(u32::from_le_bytes).unwrap() as usize;
            let text = std::slice::from_raw_parts(at.add(4), length).to_vec();
            release(at, length + 4);
            text
        };
        assert_eq!(text, expected);
    }
}
