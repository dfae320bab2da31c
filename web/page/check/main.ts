// `wgnorm check` on a page: progress, what failed, a report to copy.

import { element, tell } from "../device.js";
import type { Message, Report } from "./worker.js";

/** Failures that are shown; the report has them all. */
const SHOWN = 50;

class Tally {
    adapter = "";
    cases = 0;
    runs = 0;
    kernels = 0;
    ended = "running";
    readonly started = performance.now();
    readonly counts = { passed: 0, failed: 0, skipped: 0 };
    readonly failures: Report[] = [];
    readonly skips = new Map<string, number>();
    worst: Report | undefined;

    get done(): number {
        return this.counts.passed + this.counts.failed + this.counts.skipped;
    }

    add(report: Report): void {
        this.counts[report.status] += 1;
        if (report.status === "failed") this.failures.push(report);
        if (report.status === "skipped") this.skips.set(report.reasons[0] ?? "", (this.skips.get(report.reasons[0] ?? "") ?? 0) + 1);
        if (report.worst > (this.worst?.worst ?? 0)) this.worst = report;
    }

    summary(): string {
        const { passed, failed, skipped } = this.counts;
        return `${this.done} of ${this.runs} runs: ${passed} passed, ${failed} failed, ${skipped} skipped; ${this.kernels} kernels, ${((performance.now() - this.started) / 1000).toFixed(0)} s`;
    }

    report(): string {
        const lines = [
            `wgnorm check in a browser: ${this.ended}`,
            `browser: ${navigator.userAgent}`,
            `adapter: ${this.adapter}`,
            `${this.cases} cases, ${this.summary()}`,
            ...[...this.skips].map(([reason, count]) => `skipped ${count}: ${reason}`),
            ...(this.worst ? [`worst finite error: ${this.worst.worst.toFixed(3)} of its bound (${this.worst.case} ${this.worst.layout} ${this.worst.variant})`] : []),
            ...this.failures.flatMap(({ case: name, layout, variant, line, reasons }) => [`FAILED ${name} ${layout} ${variant}: ${reasons.join("; ")}`, `    wgnorm check --case '${line}'`]),
        ];
        return `${lines.join("\n")}\n`;
    }
}

let tally: Tally | undefined;
let worker: Worker | undefined;

function show(): void {
    if (!tally) return;
    element<HTMLProgressElement>("progress").max = Math.max(tally.runs, 1);
    element<HTMLProgressElement>("progress").value = tally.done;
    element("counts").textContent = `${tally.summary()}${tally.ended === "running" ? " …" : ""}`;
    const place = element("failures");
    for (const { case: name, layout, variant, line, reasons } of tally.failures.slice(place.childElementCount, SHOWN)) {
        const paragraph = document.createElement("p");
        paragraph.append(`${name}, ${layout}, ${variant}: ${reasons[0] ?? ""}`);
        const code = document.createElement("code");
        code.textContent = `wgnorm check --case '${line}'`;
        paragraph.append(code);
        place.append(paragraph);
    }
}

function end(how: string): void {
    if (tally) tally.ended = how;
    worker?.terminate();
    worker = undefined;
    element<HTMLButtonElement>("start").disabled = false;
    element<HTMLButtonElement>("stop").disabled = true;
    element<HTMLButtonElement>("copy").disabled = !tally;
    show();
    document.body.dataset["ended"] = how;
}

function take(message: Message): void {
    if (!tally) return;
    if ("opened" in message) Object.assign(tally, message.opened);
    else if ("reports" in message) {
        message.reports.forEach((report) => tally!.add(report));
        tally.kernels = message.kernels;
    } else if ("done" in message) return end(tally.done === tally.runs ? "finished" : "stopped");
    else {
        tell(message.error);
        return end("broken off");
    }
    show();
}

element("start").addEventListener("click", () => {
    tally = new Tally();
    delete document.body.dataset["ended"];
    element("failures").replaceChildren();
    element("error").hidden = true;
    element<HTMLButtonElement>("start").disabled = true;
    element<HTMLButtonElement>("stop").disabled = false;
    element<HTMLButtonElement>("copy").disabled = true;
    element("counts").textContent = "Opening the GPU …";
    worker = new Worker(new URL("./worker.ts", import.meta.url), { type: "module" });
    worker.onmessage = ({ data }: MessageEvent<Message>) => take(data);
    worker.onerror = ({ message }) => take({ error: message || "the worker could not be loaded" });
    worker.postMessage({ filter: element<HTMLInputElement>("filter").value.trim() });
});
element("stop").addEventListener("click", () => worker?.postMessage("stop"));
element("copy").addEventListener("click", () => {
    const report = tally?.report() ?? "";
    navigator.clipboard.writeText(report).then(
        () => (element("copied").textContent = "Copied."),
        () => tell(`The browser lets nothing be copied; here it is: ${report}`),
    );
});
