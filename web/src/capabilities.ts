// What a device can do: what it says, and what has been found out of it where WGSL leaves it open.

import { compile, readBytes } from "./kernels.js";
import type { Capabilities, Planner, Probe } from "./planner.js";

/** What is known of a device besides what it says itself. */
export interface Known {
    /** What the adapter says of itself, where the device does not (`GPUDevice.adapterInfo`). */
    adapterInfo?: Partial<GPUAdapterInfo>;
    /** Whether the adapter is a CPU, where its name does not tell. */
    cpu?: boolean;
}

export async function capabilitiesOf(device: GPUDevice, planner: Planner, known: Known): Promise<Capabilities> {
    const said = told(device, known);
    const probes = planner.probes(said);
    const differing = new Set<string>();
    await Promise.all(probes.map(async (probe) => (await differs(device, probe)) && differing.add(probe.found)));
    const found = (what: Probe["found"]) => !differing.has(what) && probes.some((probe) => probe.found === what);
    return { ...said, subgroupSize: found("OrderedSubgroups") ? said.subgroupSize : null, exactF16: found("ExactF16") };
}

/** What the device says, and the adapter. */
function told(device: GPUDevice, known: Known): Capabilities {
    const { limits, features } = device;
    const info: Partial<GPUAdapterInfo> | undefined = known.adapterInfo ?? device.adapterInfo;
    const name = info ? `${info.vendor} ${info.architecture} ${info.description}`.toLowerCase() : "";
    return {
        maxWorkgroupSize: Math.min(limits.maxComputeInvocationsPerWorkgroup, limits.maxComputeWorkgroupSizeX),
        maxWorkgroupBytes: limits.maxComputeWorkgroupStorageSize,
        maxWorkgroupsPerDimension: limits.maxComputeWorkgroupsPerDimension,
        // Shaders count bytes in 32 bits.
        maxBindingBytes: Math.min(limits.maxStorageBufferBindingSize, 2 ** 31 - 1),
        maxBufferBytes: limits.maxBufferSize,
        storageAlignment: limits.minStorageBufferOffsetAlignment,
        subgroupSize: (features.has("subgroups") && info?.subgroupMinSize) || null,
        exactF16: false,
        cpu: known.cpu ?? /swiftshader|llvmpipe|lavapipe/.test(name),
    };
}

/** Whether a probe finds a difference, or the device refuses it. */
async function differs(device: GPUDevice, { kernel, workgroups }: Probe): Promise<boolean> {
    let compiled;
    try {
        compiled = await compile(device, kernel);
    } catch {
        return true;
    }
    const buffer = device.createBuffer({ label: kernel.name, size: 4, usage: GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC });
    try {
        const encoder = device.createCommandEncoder();
        const pass = encoder.beginComputePass({ label: kernel.name });
        pass.setPipeline(compiled.pipeline);
        pass.setBindGroup(0, device.createBindGroup({ layout: compiled.layout, entries: [{ binding: 0, resource: { buffer } }] }));
        pass.dispatchWorkgroups(workgroups);
        pass.end();
        device.queue.submit([encoder.finish()]);
        return new Uint32Array(await readBytes(device, buffer, 0, 4))[0] !== 0;
    } finally {
        buffer.destroy();
    }
}
