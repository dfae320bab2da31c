// Headless Chromium on SwiftShader, and a server for what it loads.

import assert from "node:assert/strict";
import { createReadStream, existsSync } from "node:fs";
import { createServer } from "node:http";
import { dirname, extname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

const PROGRAMS = [process.env.CHROMIUM, "/usr/bin/chromium", "/usr/bin/google-chrome", "/usr/bin/chromium-browser", "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"];
const TYPES = { ".js": "text/javascript", ".mjs": "text/javascript", ".css": "text/css", ".wasm": "application/wasm", ".html": "text/html" };
export const web = join(dirname(fileURLToPath(import.meta.url)), "..");

// Opens both. `texts` are documents by their path; all else is a file of `root`.
export async function open(root = web, texts = {}) {
    const executablePath = PROGRAMS.find((program) => program && existsSync(program));
    assert.ok(executablePath, `no Chrome or Chromium is installed (looked for: ${PROGRAMS.filter(Boolean).join(", ")}); Debian has the package chromium; $CHROMIUM may name another`);
    const server = createServer(({ url }, response) => {
        const path = new URL(url, "http://localhost").pathname;
        const type = { "content-type": TYPES[extname(path)] ?? "application/octet-stream" };
        if (texts[path] !== undefined) return response.writeHead(200, type).end(texts[path]);
        const file = join(root, path);
        if (path.includes("..") || !existsSync(file)) return response.writeHead(404).end();
        createReadStream(file).pipe(response.writeHead(200, type));
    });
    await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
    const args = ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader"];
    const browser = await chromium.launch({ executablePath, args, ignoreDefaultArgs: ["--headless"] });
    const close = async () => {
        await browser.close();
        server.close();
    };
    return { browser, origin: `http://localhost:${server.address().port}`, close };
}

// A page, with what goes wrong in it.
export async function pageOf(browser, options = {}) {
    const context = await browser.newContext(options);
    const page = await context.newPage();
    const errors = [];
    page.on("pageerror", (error) => errors.push(error.message));
    return { page, errors };
}
