//! A Vulkan layer that writes down what the driver's compiler says of every compute pipeline (`VK_KHR_pipeline_executable_properties`).
//!
//! In the directory that `GPUS_DUMP` names, for pipeline NNNN:
//!
//! | file | contents |
//! |---|---|
//! | `NNNN.stats` | lines `name<tab>value`, `subgroup` among them |
//! | `NNNN.isa` | machine code as text, where the driver gives it |
//! | `names.tsv` | lines `NNNN<tab>label` |
//!
//! Where a driver prints machine code instead, a line `pipeline NNNN` follows it. With `GPUS_NO_ROBUST` set, devices are made without robust buffer access,
//! which wgpu asks for wherever there is any. Interface: Vulkan-Loader,
//! docs/LoaderLayerInterface.md.

use std::ffi::{CStr, c_char, c_void};
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ash::vk;

type GetInstanceProcAddr = vk::PFN_vkGetInstanceProcAddr;
type GetDeviceProcAddr = vk::PFN_vkGetDeviceProcAddr;

/// `VkLayerInstanceLink`, `VkLayerDeviceLink`: the next layer, or the driver. Of an instance the third is of no interest here.
#[repr(C)]
struct Link {
    next: *mut Link,
    get_instance_proc_addr: GetInstanceProcAddr,
    get_device_proc_addr: GetDeviceProcAddr,
}

/// `VkLayerInstanceCreateInfo`, `VkLayerDeviceCreateInfo`.
#[repr(C)]
struct LayerCreateInfo {
    s_type: vk::StructureType,
    p_next: *mut c_void,
    function: u32,
    link: *mut Link,
}

/// `VK_LAYER_LINK_INFO`.
const LINK_INFO: u32 = 0;

/// One instance with one device, which is what the programs have that are looked at; of several the last.
struct State {
    instance: vk::Instance,
    next_instance: Option<GetInstanceProcAddr>,
    device: vk::Device,
    next_device: Option<GetDeviceProcAddr>,
    calls: Option<Calls>,
    pipelines: u32,
}

/// What the layer calls of the driver.
#[derive(Clone, Copy)]
struct Calls {
    create: vk::PFN_vkCreateComputePipelines,
    set_name: Option<vk::PFN_vkSetDebugUtilsObjectNameEXT>,
    properties: vk::PFN_vkGetPipelineExecutablePropertiesKHR,
    statistics: vk::PFN_vkGetPipelineExecutableStatisticsKHR,
    representations: vk::PFN_vkGetPipelineExecutableInternalRepresentationsKHR,
}

static STATE: Mutex<State> = Mutex::new(State {
    instance: vk::Instance::null(),
    next_instance: None,
    device: vk::Device::null(),
    next_device: None,
    calls: None,
    pipelines: 0,
});

thread_local! {
    /// The pipeline that this thread has made last: it is named next.
    static LAST: std::cell::Cell<u32> = const { std::cell::Cell::new(u32::MAX) };
}

unsafe extern "C" {
    /// The C library's; of no stream in particular: of all.
    fn fflush(stream: *mut c_void) -> std::ffi::c_int;
}

fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn path(name: &str) -> PathBuf {
    PathBuf::from(std::env::var_os("GPUS_DUMP").unwrap_or_else(|| "gpus-dump".into())).join(name)
}

/// Writes a file; what cannot be written is said, and missing.
fn write(name: &str, contents: &[u8]) {
    if let Err(error) = fs::write(path(name), contents) {
        eprintln!("gpus layer: {name}: {error}");
    }
}

/// The link to what comes next in a chain of structures, moved on by one for that.
///
/// # Safety
/// `chain` is what the loader has passed for the creation of an instance or a device.
unsafe fn next_link(chain: *const c_void, s_type: vk::StructureType) -> Option<&'static Link> {
    let mut at = chain.cast::<LayerCreateInfo>().cast_mut();
    while !at.is_null() {
        // SAFETY: every structure of a chain begins as `vk::BaseInStructure` does.
        let base = unsafe { &*at.cast::<vk::BaseInStructure<'_>>() };
        if base.s_type == s_type {
            // SAFETY: the loader's structures of this type have a function; with `LINK_INFO`, a link.
            let info = unsafe { &mut *at };
            if info.function == LINK_INFO {
                // SAFETY: the loader's links outlive the call that creates.
                let link = unsafe { &*info.link };
                info.link = link.next;
                return Some(link);
            }
        }
        at = base.p_next.cast::<LayerCreateInfo>().cast_mut();
    }
    None
}

/// A function of the driver as what it is known to be.
///
/// # Safety
/// `F` is the type of the function that was asked for.
unsafe fn typed<F: Copy>(function: vk::PFN_vkVoidFunction) -> Option<F> {
    // SAFETY: `F` is a function pointer, as the caller has it.
    function.map(|function| unsafe { std::mem::transmute_copy::<_, F>(&function) })
}

unsafe extern "system" fn create_instance(
    info: *const vk::InstanceCreateInfo<'_>,
    allocator: *const vk::AllocationCallbacks<'_>,
    instance: *mut vk::Instance,
) -> vk::Result {
    // SAFETY: the loader's arguments.
    unsafe {
        let Some(link) = next_link((*info).p_next, vk::StructureType::LOADER_INSTANCE_CREATE_INFO) else {
            return vk::Result::ERROR_INITIALIZATION_FAILED;
        };
        let next = link.get_instance_proc_addr;
        let create =
            typed::<vk::PFN_vkCreateInstance>(next(vk::Instance::null(), c"vkCreateInstance".as_ptr()));
        let Some(create) = create else { return vk::Result::ERROR_INITIALIZATION_FAILED };
        let result = create(info, allocator, instance);
        if result == vk::Result::SUCCESS {
            let mut state = state();
            state.instance = *instance;
            state.next_instance = Some(next);
        }
        result
    }
}

unsafe extern "system" fn create_device(
    physical: vk::PhysicalDevice,
    info: *const vk::DeviceCreateInfo<'_>,
    allocator: *const vk::AllocationCallbacks<'_>,
    device: *mut vk::Device,
) -> vk::Result {
    // SAFETY: the loader's arguments; functions have the types that their names say.
    unsafe {
        let Some(link) = next_link((*info).p_next, vk::StructureType::LOADER_DEVICE_CREATE_INFO) else {
            return vk::Result::ERROR_INITIALIZATION_FAILED;
        };
        let (of_instance, of_device) = (link.get_instance_proc_addr, link.get_device_proc_addr);
        let create = of_instance(state().instance, c"vkCreateDevice".as_ptr());
        let Some(create) = typed::<vk::PFN_vkCreateDevice>(create) else {
            return vk::Result::ERROR_INITIALIZATION_FAILED;
        };
        let mut names: Vec<*const c_char> = Vec::new();
        if (*info).enabled_extension_count > 0 {
            let count = (*info).enabled_extension_count as usize;
            names.extend(std::slice::from_raw_parts((*info).pp_enabled_extension_names, count));
        }
        names.push(vk::KHR_PIPELINE_EXECUTABLE_PROPERTIES_NAME.as_ptr());
        let mut feature = vk::PhysicalDevicePipelineExecutablePropertiesFeaturesKHR::default()
            .pipeline_executable_info(true);
        feature.p_next = (*info).p_next.cast_mut();
        if std::env::var_os("GPUS_NO_ROBUST").is_some() {
            without_robust_access(info);
        }
        let mut mine = *info;
        mine.enabled_extension_count = names.len() as u32;
        mine.pp_enabled_extension_names = names.as_ptr();
        mine.p_next = (&raw const feature).cast();
        let result = create(physical, &mine, allocator, device);
        if result != vk::Result::SUCCESS {
            eprintln!(
                "gpus layer: vkCreateDevice: {result:?}; does the driver have pipeline executable properties?"
            );
            return result;
        }
        let get = |name: &CStr| of_device(*device, name.as_ptr());
        let calls = (|| {
            Some(Calls {
                create: typed(get(c"vkCreateComputePipelines"))?,
                set_name: typed(get(c"vkSetDebugUtilsObjectNameEXT")),
                properties: typed(get(c"vkGetPipelineExecutablePropertiesKHR"))?,
                statistics: typed(get(c"vkGetPipelineExecutableStatisticsKHR"))?,
                representations: typed(get(c"vkGetPipelineExecutableInternalRepresentationsKHR"))?,
            })
        })();
        let mut state = state();
        state.device = *device;
        state.next_device = Some(of_device);
        state.calls = calls;
        result
    }
}

/// Takes robust buffer access out of what a device is asked for.
///
/// # Safety
/// `info` is what the application has passed. Its structures are this call's, and nobody else looks at them.
unsafe fn without_robust_access(info: *const vk::DeviceCreateInfo<'_>) {
    // SAFETY: structures of a chain are what their types say.
    unsafe {
        if let Some(features) = (*info).p_enabled_features.cast_mut().as_mut() {
            features.robust_buffer_access = vk::FALSE;
        }
        let mut at = (*info).p_next.cast::<vk::BaseOutStructure<'_>>().cast_mut();
        while let Some(base) = at.as_mut() {
            match base.s_type {
                vk::StructureType::PHYSICAL_DEVICE_FEATURES_2 => {
                    (*at.cast::<vk::PhysicalDeviceFeatures2<'_>>()).features.robust_buffer_access = vk::FALSE;
                }
                vk::StructureType::PHYSICAL_DEVICE_ROBUSTNESS_2_FEATURES_EXT => {
                    (*at.cast::<vk::PhysicalDeviceRobustness2FeaturesEXT<'_>>()).robust_buffer_access2 =
                        vk::FALSE;
                }
                _ => {}
            }
            at = base.p_next;
        }
    }
}

unsafe extern "system" fn create_compute_pipelines(
    device: vk::Device,
    cache: vk::PipelineCache,
    count: u32,
    infos: *const vk::ComputePipelineCreateInfo<'_>,
    allocator: *const vk::AllocationCallbacks<'_>,
    pipelines: *mut vk::Pipeline,
) -> vk::Result {
    // Held all along, so that what a driver prints is of one pipeline.
    let mut state = state();
    let Some(calls) = state.calls else { return vk::Result::ERROR_UNKNOWN };
    // SAFETY: the application's arguments.
    unsafe {
        let mut mine = std::slice::from_raw_parts(infos, count as usize).to_vec();
        for info in &mut mine {
            info.flags |= vk::PipelineCreateFlags::CAPTURE_STATISTICS_KHR
                | vk::PipelineCreateFlags::CAPTURE_INTERNAL_REPRESENTATIONS_KHR;
        }
        let result = (calls.create)(device, cache, count, mine.as_ptr(), allocator, pipelines);
        if result != vk::Result::SUCCESS {
            eprintln!("gpus layer: vkCreateComputePipelines: {result:?}");
            return result;
        }
        for pipeline in std::slice::from_raw_parts(pipelines, count as usize) {
            let number = state.pipelines;
            state.pipelines += 1;
            LAST.set(number);
            // What the driver has printed comes first.
            fflush(std::ptr::null_mut());
            eprintln!("\npipeline {number:04}");
            write_pipeline(calls, device, *pipeline, number);
        }
        result
    }
}

/// # Safety
/// The calls are the device's, and the pipeline was made with what they need.
unsafe fn write_pipeline(calls: Calls, device: vk::Device, pipeline: vk::Pipeline, number: u32) {
    let info = vk::PipelineInfoKHR::default().pipeline(pipeline);
    let (mut text, mut isa) = (String::new(), Vec::new());
    // SAFETY: lists are as long as the driver has said.
    unsafe {
        let mut executables = 0;
        let _ = (calls.properties)(device, &info, &mut executables, std::ptr::null_mut());
        let mut properties = vec![vk::PipelineExecutablePropertiesKHR::default(); executables as usize];
        let _ = (calls.properties)(device, &info, &mut executables, properties.as_mut_ptr());
        for (executable, property) in properties.iter().enumerate() {
            let _ = writeln!(text, "subgroup\t{}", property.subgroup_size);
            let of = vk::PipelineExecutableInfoKHR::default()
                .pipeline(pipeline)
                .executable_index(executable as u32);
            let mut count = 0;
            let _ = (calls.statistics)(device, &of, &mut count, std::ptr::null_mut());
            let mut statistics = vec![vk::PipelineExecutableStatisticKHR::default(); count as usize];
            let _ = (calls.statistics)(device, &of, &mut count, statistics.as_mut_ptr());
            for statistic in &statistics {
                let name = CStr::from_ptr(statistic.name.as_ptr()).to_string_lossy();
                let value = match statistic.format {
                    vk::PipelineExecutableStatisticFormatKHR::BOOL32 => statistic.value.b32.to_string(),
                    vk::PipelineExecutableStatisticFormatKHR::INT64 => statistic.value.i64.to_string(),
                    vk::PipelineExecutableStatisticFormatKHR::UINT64 => statistic.value.u64.to_string(),
                    _ => statistic.value.f64.to_string(),
                };
                let _ = writeln!(text, "{name}\t{value}");
            }
            let mut count = 0;
            let _ = (calls.representations)(device, &of, &mut count, std::ptr::null_mut());
            let mut all = vec![vk::PipelineExecutableInternalRepresentationKHR::default(); count as usize];
            let _ = (calls.representations)(device, &of, &mut count, all.as_mut_ptr());
            let mut contents: Vec<Vec<u8>> = all.iter().map(|each| vec![0; each.data_size]).collect();
            for (each, content) in all.iter_mut().zip(&mut contents) {
                each.p_data = content.as_mut_ptr().cast();
            }
            let _ = (calls.representations)(device, &of, &mut count, all.as_mut_ptr());
            for (each, content) in all.iter().zip(&contents) {
                let name = CStr::from_ptr(each.name.as_ptr()).to_string_lossy().to_lowercase();
                if each.is_text != 0 && name.contains("assembly") {
                    isa.extend(content.iter().take_while(|&&byte| byte != 0));
                }
            }
        }
    }
    write(&format!("{number:04}.stats"), text.as_bytes());
    if !isa.is_empty() {
        write(&format!("{number:04}.isa"), &isa);
    }
}

unsafe extern "system" fn set_name(
    device: vk::Device,
    info: *const vk::DebugUtilsObjectNameInfoEXT<'_>,
) -> vk::Result {
    // SAFETY: the application's arguments.
    unsafe {
        if (*info).object_type == vk::ObjectType::PIPELINE && !(*info).p_object_name.is_null() {
            let name = CStr::from_ptr((*info).p_object_name).to_string_lossy();
            let line = format!("{:04}\t{name}\n", LAST.get());
            let file = fs::OpenOptions::new().create(true).append(true).open(path("names.tsv"));
            if let Err(error) = file.and_then(|mut file| file.write_all(line.as_bytes())) {
                eprintln!("gpus layer: names.tsv: {error}");
            }
        }
        let next = state().calls.and_then(|calls| calls.set_name);
        next.map_or(vk::Result::SUCCESS, |next| next(device, info))
    }
}

/// What the layer does itself.
fn own(name: &CStr) -> vk::PFN_vkVoidFunction {
    macro_rules! function {
        ($function:expr, $type:ty) => {{
            let function: $type = $function;
            // SAFETY: all functions of Vulkan are pointers of one kind; who calls it knows its type by its name.
            Some(unsafe { std::mem::transmute::<$type, unsafe extern "system" fn()>(function) })
        }};
    }
    match name.to_bytes() {
        b"vkGetInstanceProcAddr" => function!(compiled_get_instance_proc_addr, GetInstanceProcAddr),
        b"vkGetDeviceProcAddr" => function!(compiled_get_device_proc_addr, GetDeviceProcAddr),
        b"vkCreateInstance" => function!(create_instance, vk::PFN_vkCreateInstance),
        b"vkCreateDevice" => function!(create_device, vk::PFN_vkCreateDevice),
        b"vkCreateComputePipelines" => function!(create_compute_pipelines, vk::PFN_vkCreateComputePipelines),
        b"vkSetDebugUtilsObjectNameEXT" => function!(set_name, vk::PFN_vkSetDebugUtilsObjectNameEXT),
        _ => None,
    }
}

/// `vkGetInstanceProcAddr` of the layer.
///
/// # Safety
/// As of that function.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn compiled_get_instance_proc_addr(
    instance: vk::Instance,
    name: *const c_char,
) -> vk::PFN_vkVoidFunction {
    // SAFETY: the caller's arguments.
    unsafe {
        own(CStr::from_ptr(name)).or_else(|| {
            let next = state().next_instance?;
            next(instance, name)
        })
    }
}

/// `vkGetDeviceProcAddr` of the layer.
///
/// # Safety
/// As of that function.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn compiled_get_device_proc_addr(
    device: vk::Device,
    name: *const c_char,
) -> vk::PFN_vkVoidFunction {
    // SAFETY: the caller's arguments.
    unsafe {
        own(CStr::from_ptr(name)).or_else(|| {
            let next = state().next_device?;
            next(device, name)
        })
    }
}
