// Builds the package: the planner as wasm, and the TypeScript. Needs Rust with the target wasm32-unknown-unknown; wasm-opt makes the wasm smaller where it is installed.

import { execFileSync } from "node:child_process";
import { copyFileSync, mkdirSync, readFileSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";

const web = dirname(fileURLToPath(import.meta.url));
const root = dirname(web);
const run = (program, args, options = {}) => execFileSync(program, args, { stdio: "inherit", cwd: web, ...options });

rmSync(join(web, "dist"), { recursive: true, force: true });
mkdirSync(join(web, "dist"));
run("cargo", ["build", "--profile", "web", "--target", "wasm32-unknown-unknown", "-p", "wgnorm-planner"], { cwd: root });
const target = process.env.CARGO_TARGET_DIR ?? join(root, "target");
const wasm = join(web, "dist", "planner.wasm");
copyFileSync(join(target, "wasm32-unknown-unknown", "web", "wgnorm_planner.wasm"), wasm);
try {
    run("wasm-opt", ["-Oz", ...["bulk-memory", "mutable-globals", "nontrapping-float-to-int", "reference-types", "sign-ext"].map((feature) => `--enable-${feature}`), "--strip-debug", "--strip-producers", wasm, "-o", wasm]);
} catch (error) {
    if (error.code !== "ENOENT") throw error;
    console.log("wasm-opt is not installed: the wasm is as the compiler leaves it");
}
run(process.execPath, [join(web, "node_modules", "typescript", "bin", "tsc"), "-p", web]);
const bytes = readFileSync(wasm);
console.log(`planner.wasm: ${bytes.length} bytes, ${gzipSync(bytes, { level: 9 }).length} gzipped`);
