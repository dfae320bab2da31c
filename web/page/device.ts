// The visitor's GPU.

/** Opens a device with all of the limits that norms care for, and tells what it is called. */
export async function openDevice(): Promise<{ device: GPUDevice; adapterInfo: GPUAdapterInfo; name: string }> {
    const adapter = await navigator.gpu?.requestAdapter({ powerPreference: "high-performance" });
    if (!adapter) throw new Error("this browser offers no WebGPU here: Chrome and Edge from 113, Firefox from 141 and Safari from 26 do, on a page from https or localhost");
    const requiredFeatures = (["subgroups", "timestamp-query"] as GPUFeatureName[]).filter((feature) => adapter.features.has(feature));
    const { maxBufferSize, maxStorageBufferBindingSize } = adapter.limits;
    const device = await adapter.requestDevice({ requiredFeatures, requiredLimits: { maxBufferSize, maxStorageBufferBindingSize } });
    const { vendor, architecture, description } = adapter.info;
    return { device, adapterInfo: adapter.info, name: [description, vendor, architecture].filter(Boolean).join(", ") || "a GPU without a name" };
}

/** The element of a page with an id. */
export function element<T extends Element = HTMLElement>(id: string): T {
    const found = document.getElementById(id);
    if (!found) throw new Error(`the page has no #${id}`);
    return found as unknown as T;
}

/** Says on the page what went wrong. */
export function tell(error: unknown): void {
    const place = element("error");
    place.textContent = error instanceof Error ? error.message : String(error);
    place.hidden = false;
    console.error(error);
}
