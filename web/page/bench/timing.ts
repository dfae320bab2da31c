// Time that recorded work takes on a device.

/** Records work into an encoder. */
export type Work = (encoder: GPUCommandEncoder) => void;

/** Seconds that a measurement takes, about. */
const SAMPLE = 0.15;
const SAMPLES = 7;

/** Milliseconds of one of so many repeats, submitted at once and waited for. */
async function once(device: GPUDevice, work: Work, repeats: number): Promise<number> {
    const encoder = device.createCommandEncoder();
    for (let i = 0; i < repeats; i += 1) work(encoder);
    const commands = encoder.finish();
    const started = performance.now();
    device.queue.submit([commands]);
    await device.queue.onSubmittedWorkDone();
    return (performance.now() - started) / repeats;
}

/** The median time of some work in milliseconds: as often at a time as takes long enough for the clock and the way to the GPU not to matter. */
export async function time(device: GPUDevice, work: Work): Promise<number> {
    await once(device, work, 1);
    let repeats = 1;
    while (repeats < 4096) {
        const took = (await once(device, work, repeats)) * repeats;
        if (took > SAMPLE * 250) break;
        repeats *= 2;
    }
    const samples = [];
    for (let i = 0; i < SAMPLES; i += 1) samples.push(await once(device, work, repeats));
    return samples.sort((a, b) => a - b)[SAMPLES >> 1]!;
}

/** A kernel that copies so many bytes, sixteen at a time. */
export function copy(device: GPUDevice, bytes: number): { work: Work; destroy(): void } {
    const code = `
        @group(0) @binding(0) var<storage, read> x: array<vec4u>;
        @group(0) @binding(1) var<storage, read_write> y: array<vec4u>;
        @compute @workgroup_size(256)
        fn copy(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
            for (var i = id.x; i < arrayLength(&y); i += groups.x * 256u) { y[i] = x[i]; }
        }`;
    const pipeline = device.createComputePipeline({ layout: "auto", compute: { module: device.createShaderModule({ code }) } });
    const buffers = [0, 1].map(() => device.createBuffer({ size: bytes, usage: GPUBufferUsage.STORAGE }));
    const entries = buffers.map((buffer, binding) => ({ binding, resource: { buffer } }));
    const group = device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries });
    const groups = Math.min(Math.ceil(bytes / 16 / 256), 65535);
    const work = (encoder: GPUCommandEncoder) => {
        const pass = encoder.beginComputePass();
        pass.setPipeline(pipeline);
        pass.setBindGroup(0, group);
        pass.dispatchWorkgroups(groups);
        pass.end();
    };
    return { work, destroy: () => buffers.forEach((buffer) => buffer.destroy()) };
}
