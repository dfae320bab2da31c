// The package as it is published, in an application that Vite builds.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { build } from "vite";
import { open, pageOf, web } from "./chromium.mjs";

const MAIN = `
    import { createContext, layerNorm } from "wgnorm";
    const device = await (await navigator.gpu.requestAdapter()).requestDevice();
    const context = await createContext(device);
    const y = await layerNorm(context, [4]).infer({ x: context.upload([1, 4], [1, 2, 3, 4]) });
    window.result = [...(await context.download(y))];
`;

test("what npm packs loads through Vite", async () => {
    const folder = mkdtempSync(join(tmpdir(), "wgnorm-vite-"));
    try {
        execFileSync("npm", ["pack", "--silent", "--pack-destination", folder], { cwd: web });
        const [archive] = readdirSync(folder);
        const installed = join(folder, "node_modules", "wgnorm");
        mkdirSync(installed, { recursive: true });
        execFileSync("tar", ["-xzf", join(folder, archive), "-C", installed, "--strip-components=1"]);
        console.log(`${archive}: ${statSync(join(folder, archive)).size} bytes`);
        writeFileSync(join(folder, "index.html"), '<!doctype html><title>an application</title><script type="module" src="main.js"></script>');
        writeFileSync(join(folder, "main.js"), MAIN);
        const warnings = [];
        await build({ root: folder, logLevel: "silent", build: { target: "es2022", rollupOptions: { onwarn: ({ message }) => warnings.push(message) } } });
        assert.deepEqual(warnings, []);
        const { browser, origin, close } = await open(join(folder, "dist"));
        try {
            const { page, errors } = await pageOf(browser);
            await page.goto(`${origin}/index.html`);
            await page.waitForFunction(() => window.result, undefined, { timeout: 60000 }).catch((error) => assert.fail(`${errors}: ${error}`));
            const result = await page.evaluate(() => window.result);
            [-1.3416, -0.4472, 0.4472, 1.3416].forEach((value, i) => assert.ok(Math.abs(result[i] - value) < 1e-3, `${result}`));
        } finally {
            await close();
        }
    } finally {
        rmSync(folder, { recursive: true });
    }
});
