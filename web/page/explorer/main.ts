// The explorer: what the sliders say goes through the kernels, and is drawn.

import { createContext } from "wgnorm";
import { element, openDevice, tell } from "../device.js";
import { CHANNELS, REDRAWS, batchOf, channel, redrawsOf, type Settings } from "./batch.js";
import { Explorer, NORMS, type NormName, type Results, type Running } from "./kernels.js";
import { domainOf, histogram, history, strips } from "./plots.js";
import { Comparison, inferred, moments, normalized } from "./reference.js";

const CAPTIONS: Record<NormName, [string, string]> = {
    batch: ["Batch norm", "over samples and positions, each channel by itself"],
    layer: ["Layer norm", "over channels and positions, each sample by itself"],
    group: ["Group norm", "over four of the channels and positions of a sample"],
    instance: ["Instance norm", "over the positions of a channel of a sample"],
    rms: ["RMS norm", "as layer norm, without a mean to take away"],
};
/** Steps that the history shows. */
const SHOWN = 60;
const round = (value: number) => (Math.abs(value) < 5e-7 ? "0" : String(Number(value.toPrecision(4))));
const form = element<HTMLFormElement>("controls");

function settings(): Settings {
    const number = (id: string) => element<HTMLInputElement>(id).valueAsNumber;
    const mode = new FormData(form).get("mode") === "inference" ? "inference" : "training";
    const [batch, mean, deviation, outlier, gamma, beta, momentum, drift] = ["batch", "mean", "deviation", "outlier", "gamma", "beta", "momentum", "drift"].map(number) as [number, number, number, number, number, number, number, number];
    // As kernels have it.
    const eps = Math.fround(10 ** number("eps"));
    return { mode, batch, mean, deviation, outlier, gamma: Math.fround(gamma), beta: Math.fround(beta), eps, momentum, drift };
}

/** What training has left so far. */
class Training {
    step = 0;
    running: Running = { mean: new Float32Array(8), variance: new Float32Array(8).fill(1) };
    readonly means: number[] = [];
    readonly runningMeans: number[] = [0];

    take(results: Results): void {
        this.means.push(results.statistics.mean[0]!);
        this.running = results.next;
        this.runningMeans.push(results.next.mean[0]!);
        this.step += 1;
    }
}

let training = new Training();

function compare(x: Float32Array, now: Settings, results: Results, redraws: readonly { x: Float32Array; of: Running }[]): Comparison {
    const comparison = new Comparison();
    const channels = (values: Float32Array, count = CHANNELS) => Array.from({ length: count }, (_, c) => channel(values, c, count));
    const { running } = training;
    comparison.addMoments("the batch", results.statistics, channels(x));
    comparison.addMoments("running statistics", results.next, channels(x), { ...running, weight: now.momentum });
    for (const name of NORMS) {
        comparison.add(CAPTIONS[name][0], results.y[name], normalized(x, name, now));
        comparison.addMoments(`y of ${CAPTIONS[name][0]}`, results.ofY[name], channels(results.y[name]));
    }
    comparison.add("inference", results.inferred, inferred(x, running.mean, running.variance, now));
    comparison.addMoments("y of inference", results.ofY.inferred, channels(results.inferred));
    for (const { x, of } of redraws) comparison.addMoments("a batch drawn again", of, channels(x, REDRAWS));
    return comparison;
}

function draw(x: Float32Array, now: Settings, results: Results, redraws: readonly { of: Running }[]): void {
    const before = channel(x, 0);
    const { statistics } = results;
    const trains = now.mode === "training";
    const [mean, deviation] = [statistics.mean[0]!, Math.sqrt(statistics.variance[0]!)];
    const domain = domainOf(before, { low: -8, high: 8 });
    const words = (of: Running) => `mean ${round(of.mean[0]!)}, standard deviation ${round(Math.sqrt(of.variance[0]!))}.`;
    const drag = (value: number) => {
        const slider = element<HTMLInputElement>("outlier");
        slider.valueAsNumber = value - (before[0]! - now.outlier);
        slider.dispatchEvent(new Event("input", { bubbles: true }));
    };
    histogram(element("before"), { values: before, domain, kind: "before", mean, deviation, label: `histogram of x: ${words(statistics)}`, handle: { value: before[0]!, drag } });
    element("before-words").textContent = words(statistics);

    const y = trains ? results.y.batch : results.inferred;
    const ofY = trains ? results.ofY.batch : results.ofY.inferred;
    const after = channel(y, 0);
    histogram(element("after"), { values: after, domain: domainOf(after, { low: -4, high: 4 }), kind: "after", mean: ofY.mean[0]!, deviation: Math.sqrt(ofY.variance[0]!), label: `histogram of y: ${words(ofY)}` });
    element("after-words").textContent = words(ofY);
    element("mode-words").textContent = trains ? "in training" : "in inference";

    const { running } = training;
    const row = (name: string, mean: number, variance: number, used: boolean) => {
        const cells = [round(mean), round(variance), round(1 / Math.sqrt(variance + now.eps))].map((text) => `<td>${text}</td>`).join("");
        return `<tr><th scope="row">${name}${used ? " (in use)" : ""}</th>${cells}</tr>`;
    };
    element("table").innerHTML =
        row("the batch", mean, statistics.variance[0]!, trains) + row("running statistics", running.mean[0]!, running.variance[0]!, !trains) + row("y", ofY.mean[0]!, ofY.variance[0]!, false);

    const means = training.means.slice(-SHOWN);
    history(element("history"), [...means, mean], training.runningMeans.slice(-SHOWN - 1), `mean of the batch ${round(mean)}, running mean ${round(running.mean[0]!)}`);
    element("history-words").textContent = training.step === 0 ? "No step has been taken yet." : `After ${training.step} steps, ${round(Math.abs(mean - running.mean[0]!))} apart.`;

    const [many, two] = redraws.map(({ of }) => Array.from(of.mean)) as [number[], number[]];
    const spread = (values: number[]) => round(Math.sqrt(moments(values).variance));
    const truth = now.mean + now.drift * training.step;
    strips(element("redraw"), [{ name: `${now.batch} samples`, values: many }, { name: "2 samples", values: two }], truth, `means of 64 batches: of ${now.batch} samples they spread by ${spread(many)}, of 2 by ${spread(two)}`);
    element("redraw-words").textContent = `Means of 64 other batches from the same source. Of ${now.batch} samples they spread by ${spread(many)}, of two by ${spread(two)}: that much noise goes into y, and is gone in inference.`;

    for (const name of NORMS) {
        const of = results.ofY[name];
        const values = channel(results.y[name], 0);
        histogram(element(`norm-${name}`), { values, domain: domainOf(values, { low: -4, high: 4 }), kind: "after", mean: of.mean[0]!, deviation: Math.sqrt(of.variance[0]!), label: `${CAPTIONS[name][0]}: ${words(of)}` });
        element(`norm-${name}-words`).textContent = words(of);
    }
}

function judge(comparison: Comparison): void {
    const { numbers, largest, wrong } = comparison;
    const verdict = element("verdict");
    verdict.textContent = wrong.length === 0 ? `All of ${numbers} numbers agree with float64; the largest difference is ${largest.toExponential(1)}.` : `${wrong.length} of ${numbers} numbers are wrong: ${wrong[0]}`;
    verdict.dataset["wrong"] = String(wrong.length);
    verdict.dataset["numbers"] = String(numbers);
    verdict.classList.toggle("error", wrong.length > 0);
}

function showSliders(): void {
    for (const input of form.querySelectorAll<HTMLInputElement>("input[type=range]")) {
        const value = input.id === "eps" ? (10 ** input.valueAsNumber).toExponential(1) : String(Number(input.valueAsNumber.toFixed(2)));
        form.querySelector(`output[for=${input.id}]`)!.textContent = value;
        input.setAttribute("aria-valuetext", value);
    }
}

async function start(): Promise<void> {
    const { device, adapterInfo, name } = await openDevice();
    void device.lost.then(({ message }) => tell(`The GPU is gone: ${message}`));
    const explorer = new Explorer(await createContext(device, { adapterInfo }));
    element("gpu").textContent = `Computed on ${name}.`;

    // One after the other; what is asked for meanwhile is the newest.
    let [busy, asked, steps] = [false, false, 0];
    async function render(): Promise<void> {
        asked = true;
        if (busy) return;
        busy = true;
        try {
            while (asked || steps > 0) {
                asked = false;
                const now = settings();
                const x = batchOf(now, training.step);
                const results = await explorer.run(x, now, training.running);
                if (steps > 0) {
                    steps -= 1;
                    training.take(results);
                    asked ||= steps === 0;
                    if (steps % 5 !== 0) continue;
                }
                const redraws = await Promise.all(
                    [now.batch, 2].map(async (samples) => {
                        const x = redrawsOf(now, training.step, samples);
                        return { x, of: await explorer.redraws(x, samples) };
                    }),
                );
                if (asked) continue;
                draw(x, now, results, redraws);
                judge(compare(x, now, results, redraws));
                document.body.dataset["drawn"] = String(training.step);
            }
        } finally {
            busy = false;
        }
    }
    const again = () => {
        // What is told is of what is shown.
        delete element("verdict").dataset["wrong"];
        void render().catch(tell);
    };
    form.addEventListener("input", () => {
        showSliders();
        again();
    });
    const train = (count: number) => () => {
        steps += count;
        again();
    };
    // Drawings are as wide as their places.
    addEventListener("resize", again);
    element("step").addEventListener("click", train(1));
    element("many").addEventListener("click", train(20));
    element("restart").addEventListener("click", () => {
        form.reset();
        [training, steps] = [new Training(), 0];
        showSliders();
        again();
    });
    await render();
}

for (const name of NORMS) {
    const figure = document.createElement("figure");
    figure.className = "panel";
    figure.innerHTML = `<h3>${CAPTIONS[name][0]}</h3><div id="norm-${name}"></div><figcaption>${CAPTIONS[name][1]}: <span id="norm-${name}-words"></span></figcaption>`;
    element("norms").append(figure);
}
showSliders();
start().catch(tell);
