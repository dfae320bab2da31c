// Builds the package into dist/: the planner as wasm, and the TypeScript. With the argument `site` also the page into site/, with the cases of `wgnorm check` as wasm. Needs Rust with the target wasm32-unknown-unknown; wasm-opt makes the wasm smaller where it is installed.

import { execFileSync } from "node:child_process";
import { copyFileSync, mkdirSync, readFileSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";

const WASM = "wasm32-unknown-unknown";
const FEATURES = ["bulk-memory", "mutable-globals", "nontrapping-float-to-int", "reference-types", "sign-ext"].map((feature) => `--enable-${feature}`);
const web = dirname(fileURLToPath(import.meta.url));
const root = dirname(web);
const target = process.env.CARGO_TARGET_DIR ?? join(root, "target");
const run = (program, args, options = {}) => execFileSync(program, args, { stdio: "inherit", cwd: web, ...options });
const cargo = (...args) => run("cargo", args, { cwd: root });
const tsc = (project) => run(process.execPath, [join(web, "node_modules", "typescript", "bin", "tsc"), "-p", project]);

// The wasm of a package of the workspace.
function wasm(name, profile) {
    cargo("build", "--profile", profile, "--target", WASM, "-p", name, "--locked");
    return join(target, WASM, profile, `${name.replaceAll("-", "_")}.wasm`);
}

function optimize(file) {
    try {
        run("wasm-opt", ["-Oz", ...FEATURES, "--strip-debug", "--strip-producers", file, "-o", file]);
    } catch (error) {
        if (error.code !== "ENOENT") throw error;
        console.log("wasm-opt is not installed: the wasm is as the compiler leaves it");
    }
    const bytes = readFileSync(file);
    console.log(`${file.slice(web.length + 1)}: ${bytes.length} bytes, ${gzipSync(bytes, { level: 9 }).length} gzipped`);
}

function buildPackage() {
    rmSync(join(web, "dist"), { recursive: true, force: true });
    mkdirSync(join(web, "dist"));
    const planner = join(web, "dist", "planner.wasm");
    copyFileSync(wasm("wgnorm-planner", "web"), planner);
    optimize(planner);
    tsc(web);
}

async function buildSite() {
    const folder = join(web, "page", "wasm");
    rmSync(folder, { recursive: true, force: true });
    cargo("run", "--quiet", "--locked", "-p", "wgnorm-web-bindgen", "--", wasm("wgnorm-web-check", "page"), folder);
    tsc(join(web, "page"));
    const { build } = await import("vite");
    await build({ configFile: join(web, "vite.config.mjs") });
}

buildPackage();
if (process.argv[2] === "site") await buildSite();
