// The page: three documents of static files, which need no server of their own.

import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { defineConfig } from "vite";

const web = dirname(fileURLToPath(import.meta.url));

export default defineConfig({
    root: join(web, "page"),
    base: "./",
    logLevel: "warn",
    resolve: { alias: [{ find: /^wgnorm\/tfjs$/, replacement: join(web, "dist", "tfjs.js") }, { find: /^wgnorm$/, replacement: join(web, "dist", "index.js") }] },
    worker: { format: "es" },
    build: {
        outDir: join(web, "site"),
        emptyOutDir: true,
        target: "es2022",
        assetsInlineLimit: 0,
        chunkSizeWarningLimit: 2000,
        rollupOptions: { input: ["index", "check", "bench"].map((name) => join(web, "page", `${name}.html`)) },
    },
});
