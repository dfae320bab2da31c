// The cases, in a worker: references are computed in float64, which would hold the page up.

import init, { Check } from "../wasm/wgnorm_web_check.js";

/** What a run reports: that of `web/check`. */
export interface Report {
    case: string;
    layout: string;
    variant: string;
    line: string;
    status: "passed" | "failed" | "skipped";
    reasons: string[];
    worst: number;
}

export type Message = { opened: { adapter: string; cases: number; runs: number } } | { reports: Report[]; kernels: number } | { done: true } | { error: string };

const say = (message: Message) => postMessage(message);
let stopped = false;

async function run(filter: string): Promise<void> {
    await init();
    const check = await Check.open(filter);
    say({ opened: { adapter: check.adapter, cases: check.cases, runs: check.runs } });
    let reports: Report[] = [];
    let said = performance.now();
    const flush = () => {
        if (reports.length > 0) say({ reports, kernels: check.kernels });
        [reports, said] = [[], performance.now()];
    };
    while (!stopped) {
        const report = await check.step();
        if (report === undefined) break;
        reports.push(JSON.parse(report) as Report);
        if (performance.now() - said > 200) {
            flush();
            // Messages get through between tasks.
            await new Promise((done) => setTimeout(done));
        }
    }
    flush();
    say({ done: true });
}

onmessage = ({ data }: MessageEvent<{ filter: string } | "stop">) => {
    if (data === "stop") stopped = true;
    else run(data.filter).catch((error: unknown) => say({ error: error instanceof Error ? error.message : String(error) }));
};
