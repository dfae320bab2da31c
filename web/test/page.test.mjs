// The page: its values are right, it can be used by keyboard, and axe finds nothing that keeps anybody out.

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { open, pageOf, web } from "./chromium.mjs";

const axe = createRequire(import.meta.url).resolve("axe-core/axe.min.js");

let opened;
before(async () => (opened = await open(join(web, "site"))));
after(() => opened?.close());

async function load(name, options) {
    const { page, errors } = await pageOf(opened.browser, options);
    await page.goto(`${opened.origin}/${name}.html`);
    return { page, errors };
}

async function checkAccess(page, what) {
    await page.addScriptTag({ path: axe });
    const { violations } = await page.evaluate(() => window.axe.run());
    assert.deepEqual(violations.map(({ id, nodes }) => `${what}: ${id}: ${nodes[0].html}`), []);
}

// Waits until what has been asked for is drawn, and requires that every number agrees with float64.
async function agrees(page, what) {
    await page.waitForFunction(() => document.querySelector("#verdict").dataset.wrong !== undefined || !document.querySelector("#error").hidden);
    assert.equal(await page.locator("#error").isHidden(), true, `${what}: ${await page.textContent("#error")}`);
    const { wrong, numbers } = await page.evaluate(() => ({ ...document.querySelector("#verdict").dataset }));
    assert.equal(wrong, "0", `${what}: ${await page.textContent("#verdict")}`);
    assert.ok(Number(numbers) >= 700, what);
}

for (const colorScheme of ["light", "dark"]) {
    test(`the explorer, ${colorScheme}`, async () => {
        const { page, errors } = await load("index", { colorScheme });
        await agrees(page, "at first");
        await checkAccess(page, "explorer");
        await page.click("#many");
        await page.waitForSelector('body[data-drawn="20"]');
        await agrees(page, "after twenty steps");
        const running = await page.textContent("#table tr:nth-child(2) td");
        assert.ok(Math.abs(Number(running) - 2.3) < 0.3, `a running mean of ${running}`);
        for (const [id, value] of Object.entries({ outlier: 40, batch: 2, gamma: -2, beta: 3, eps: 0.5, mean: -6 })) {
            await page.fill(`#${id}`, String(value));
            await agrees(page, `${id} ${value}`);
        }
        await page.check("input[value=inference]");
        await agrees(page, "inference");
        assert.equal(await page.textContent("#mode-words"), "in inference");
        await page.click("#restart");
        await agrees(page, "again");
        assert.equal(await page.textContent("#table tr:nth-child(2) td"), "0");
        assert.equal(await page.textContent("output[for=outlier]"), "0");
        assert.deepEqual(errors, []);
    });
}

test("the explorer by keyboard and pointer", async () => {
    const { page } = await load("index");
    await agrees(page, "at first");
    // From the top of the page on: links, the mode, then the sliders.
    for (let tabs = 0; tabs < 12 && (await page.evaluate(() => document.activeElement.id)) !== "mean"; tabs += 1) await page.keyboard.press("Tab");
    assert.equal(await page.evaluate(() => document.activeElement.id), "mean");
    await page.keyboard.press("ArrowRight");
    assert.equal(await page.textContent("output[for=mean]"), "2.1");
    await agrees(page, "by keyboard");
    const ring = await page.locator("#before .handle").boundingBox();
    await page.mouse.move(ring.x + ring.width / 2, ring.y + ring.height / 2);
    await page.mouse.down();
    await page.mouse.move(ring.x + ring.width / 2 + 80, ring.y, { steps: 4 });
    await page.mouse.up();
    assert.ok(Number(await page.textContent("output[for=outlier]")) > 1);
    await agrees(page, "dragged");
});

test("the check", async () => {
    const { page, errors } = await load("check", { permissions: ["clipboard-read", "clipboard-write"] });
    await checkAccess(page, "check");
    await page.fill("#filter", "rms.");
    await page.click("#start");
    await page.waitForFunction(() => Number(document.querySelector("#progress").value) > 20, undefined, { timeout: 120000 });
    await page.click("#stop");
    await page.waitForSelector("body[data-ended=stopped]");
    await page.click("#copy");
    const report = await page.evaluate(() => navigator.clipboard.readText());
    assert.match(report, /^wgnorm check in a browser: stopped\nbrowser: .*Chrome/);
    assert.match(report, / 0 failed, 0 skipped; \d+ kernels/);
    // All of few cases, one of which has no threads to run in.
    await page.fill("#filter", "sync.1+3");
    await page.click("#start");
    await page.waitForSelector("body[data-ended=finished]", { timeout: 120000 });
    assert.match(await page.textContent("#counts"), /: 0 passed, 0 failed, [1-9]\d* skipped/);
    await checkAccess(page, "check, finished");
    assert.deepEqual(errors, []);
});

test("the bench", async () => {
    const { page, errors } = await load("bench");
    await page.check("#tfjs");
    await page.click("#start");
    await page.waitForSelector("body[data-ended]", { timeout: 280000 });
    assert.equal(await page.textContent("#status"), "Done.");
    const [, factor, difference] = /, ([\d.]+) times as fast; their gradients differ by (\S+) at most/.exec(await page.textContent("#beside"));
    assert.ok(Number(factor) > 1 && Number(difference) < 1e-4, `${factor}, ${difference}`);
    const rows = await page.locator("#results tr").evaluateAll((rows) => rows.map((row) => [...row.querySelectorAll("td")].map((cell) => cell.textContent)));
    assert.equal(rows.length, 12);
    for (const [pass, megabytes, ms, rate, part] of rows) assert.ok([megabytes, ms, rate, part].every((text) => Number(text) > 0), `${pass}: ${megabytes}, ${ms}, ${rate}, ${part}`);
    await checkAccess(page, "bench");
    assert.deepEqual(errors, []);
});
