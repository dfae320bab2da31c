// A part of the quick table of `wgnorm check`, through the package: recipes that the planner writes, run by the runtime, held against float64.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { createContext } from "../dist/index.js";
import { quickLines, runLine } from "./recipes.mjs";
import { openDevice } from "./support.mjs";

// Every so many lines. `WGNORM_EVERY=1 npm test` runs all that recipes have, in minutes.
const EVERY = Number(process.env.WGNORM_EVERY ?? 8);
// What recipes do not have: several passes, segments of rows, an activation of one's own.
const NO_RECIPE = /several passes|no recipe has|nothing to do|"(mish|bent|squared_relu|sine)"|more than|exceeds|needs/;

let context;
before(async () => {
    const { device, adapter } = await openDevice();
    context = await createContext(device, { adapterInfo: adapter.info });
});
after(() => setTimeout(() => process.exit(), 100).unref());

test(`every ${EVERY}th line holds`, async (t) => {
    const lines = (await quickLines()).filter((_, i) => i % EVERY === 0);
    const failed = [];
    let [passed, outputs, skipped] = [0, 0, 0];
    for (const line of lines) {
        // A slice of numbers that the device may take for zero has no direction.
        const ran = /^weight.* data=subnormal/.test(line) ? { skipped: "several passes" } : await runLine(context, line);
        if (ran.skipped) {
            assert.match(ran.skipped, NO_RECIPE, line);
            skipped += 1;
        } else if (ran.failures.length > 0) failed.push(`${line}: ${ran.failures.join("; ")}`);
        else [passed, outputs] = [passed + 1, outputs + ran.outputs];
    }
    t.diagnostic(`${passed} lines passed with ${outputs} outputs, ${skipped} have no recipe`);
    assert.deepEqual(failed, []);
    assert.ok(passed > 0.85 * lines.length && outputs > 2 * passed, `${passed} of ${lines.length} lines, ${outputs} outputs`);
});
