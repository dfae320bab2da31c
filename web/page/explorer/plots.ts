// Drawings of values, as SVG.

const NAMESPACE = "http://www.w3.org/2000/svg";
const [HEIGHT, FOOT, SIDE] = [150, 20, 8];

type Attributes = Record<string, string | number>;

function add(parent: Element, name: string, attributes: Attributes, text?: string): Element {
    const element = document.createElementNS(NAMESPACE, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, String(value));
    if (text !== undefined) element.textContent = text;
    parent.append(element);
    return element;
}

/** An empty drawing as wide as its place, in pixels: that which is there, if there is one. */
function drawing(place: Element, label: string, height: number): { svg: SVGSVGElement; width: number } {
    const width = Math.max(place.clientWidth, 120);
    let svg = place.querySelector("svg");
    if (!svg) {
        svg = document.createElementNS(NAMESPACE, "svg");
        svg.setAttribute("role", "img");
        place.append(svg);
    }
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.setAttribute("aria-label", label);
    svg.replaceChildren();
    return { svg, width };
}

/** Round numbers in a range. */
function ticks(low: number, high: number, count: number): number[] {
    const rough = (high - low) / count;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= rough) ?? rough;
    const first = Math.ceil(low / step);
    return Array.from({ length: Math.floor(high / step) - first + 1 }, (_, i) => Number(((first + i) * step).toPrecision(6)));
}

export interface Domain {
    low: number;
    high: number;
}

/** A range that has all values, and at least that of another, with some room. */
export function domainOf(values: readonly number[], least: Domain): Domain {
    const finite = values.filter(Number.isFinite);
    return { low: Math.min(least.low, ...finite) - 0.25, high: Math.max(least.high, ...finite) + 0.25 };
}

export interface Histogram {
    values: readonly number[];
    domain: Domain;
    kind: "before" | "after";
    label: string;
    mean: number;
    deviation: number;
    /** A handle at a value, which is called with where it is dragged to. */
    handle?: { value: number; drag(value: number): void };
}

/** Bars of how many values there are, the mean as a line, a deviation on either side as a band. */
export function histogram(place: Element, { values, domain, kind, label, mean, deviation, handle }: Histogram): void {
    const { svg, width } = drawing(place, label, HEIGHT);
    const base = HEIGHT - FOOT;
    const at = (value: number) => SIDE + ((value - domain.low) / (domain.high - domain.low)) * (width - 2 * SIDE);
    const inside = (value: number) => Math.min(Math.max(at(value), 0), width);
    const count = 48;
    const bins = new Array<number>(count).fill(0);
    for (const value of values) {
        const bin = Math.floor(((value - domain.low) / (domain.high - domain.low)) * count);
        if (bin >= 0 && bin < count) bins[bin]! += 1;
    }
    const highest = Math.max(...bins, 1);
    add(svg, "rect", { class: "spread", x: inside(mean - deviation), y: 8, width: Math.max(inside(mean + deviation) - inside(mean - deviation), 0), height: base - 8 });
    bins.forEach((bin, i) => {
        const height = (bin / highest) * (base - 16);
        if (bin > 0) add(svg, "rect", { class: kind, x: SIDE + (i / count) * (width - 2 * SIDE) + 0.5, y: base - height, width: (width - 2 * SIDE) / count - 1, height });
    });
    add(svg, "line", { class: "axis", x1: 0, x2: width, y1: base, y2: base });
    for (const tick of ticks(domain.low, domain.high, width / 50)) add(svg, "text", { x: at(tick), y: HEIGHT - 6, "text-anchor": "middle" }, String(tick));
    if (mean >= domain.low && mean <= domain.high) add(svg, "line", { class: "mean", x1: at(mean), x2: at(mean), y1: 4, y2: base });
    if (!handle) return;
    add(svg, "circle", { class: "handle", cx: inside(handle.value), cy: base - 10, r: 7 });
    if (!drags.has(svg)) dragging(svg);
    drags.set(svg, { domain, width, drag: handle.drag });
}

/** What the handle of a drawing is on. */
interface Drag {
    domain: Domain;
    width: number;
    drag(value: number): void;
}
const drags = new WeakMap<Element, Drag>();

/** Calls back with where the pointer is while the handle is held. Keyboards have the slider. */
function dragging(svg: SVGSVGElement): void {
    // The range stays what it was while it is dragged.
    let held: Drag | undefined;
    svg.addEventListener("pointerdown", (event) => {
        if (!(event.target as Element).classList.contains("handle")) return;
        held = drags.get(svg);
        svg.setPointerCapture(event.pointerId);
    });
    svg.addEventListener("pointermove", (event) => {
        if (!held) return;
        const place = event.clientX - svg.getBoundingClientRect().left;
        const { domain, width } = held;
        drags.get(svg)?.drag(domain.low + ((place - SIDE) / (width - 2 * SIDE)) * (domain.high - domain.low));
    });
    for (const end of ["pointerup", "pointercancel"]) svg.addEventListener(end, () => (held = undefined));
}

/** Two lines over steps. */
export function history(place: Element, before: readonly number[], running: readonly number[], label: string): void {
    const height = 130;
    const { svg, width } = drawing(place, label, height);
    const domain = domainOf([...before, ...running], { low: -1, high: 1 });
    const [left, base] = [34, height - 8];
    const x = (i: number) => left + (i / Math.max(before.length - 1, 1)) * (width - left - SIDE);
    const y = (value: number) => base - ((value - domain.low) / (domain.high - domain.low)) * (base - 8);
    for (const tick of ticks(domain.low, domain.high, 4)) {
        add(svg, "line", { class: "axis", x1: left, x2: width - SIDE, y1: y(tick), y2: y(tick) });
        add(svg, "text", { x: left - 6, y: y(tick) + 4, "text-anchor": "end" }, String(tick));
    }
    for (const [kind, values] of [["before", before], ["running", running]] as const) {
        if (values.length > 1) add(svg, "path", { class: kind, d: values.map((value, i) => `${i ? "L" : "M"}${x(i)} ${y(value)}`).join("") });
        add(svg, "circle", { class: kind, cx: x(values.length - 1), cy: y(values.at(-1) ?? 0), r: 3.5 });
    }
}

/** Rows of values as strokes. */
export function strips(place: Element, rows: readonly { name: string; values: readonly number[] }[], truth: number, label: string): void {
    const [left, height] = [92, 28 * rows.length + FOOT];
    const { svg, width } = drawing(place, label, height);
    const domain = domainOf(rows.flatMap(({ values }) => [...values]), { low: truth - 1, high: truth + 1 });
    const at = (value: number) => left + ((value - domain.low) / (domain.high - domain.low)) * (width - left - SIDE);
    for (const tick of ticks(domain.low, domain.high, width / 70)) add(svg, "text", { x: at(tick), y: height - 6, "text-anchor": "middle" }, String(tick));
    add(svg, "line", { class: "zero", x1: at(truth), x2: at(truth), y1: 0, y2: height - FOOT });
    rows.forEach(({ name, values }, row) => {
        const top = 28 * row;
        add(svg, "text", { x: 0, y: top + 17 }, name);
        for (const value of values) add(svg, "rect", { class: "before", x: at(value) - 0.75, y: top + 5, width: 1.5, height: 16, opacity: 0.65 });
    });
}
