// Pictures of the page for the README: `npm run build`, then `node screenshots.mjs`.

import { join } from "node:path";
import { open, pageOf, web } from "./test/chromium.mjs";

const { browser, origin, close } = await open(join(web, "site"));
for (const colorScheme of ["light", "dark"]) {
    const { page } = await pageOf(browser, { colorScheme, viewport: { width: 1280, height: 1180 } });
    await page.goto(`${origin}/index.html`);
    await page.waitForSelector("body[data-drawn]");
    await page.click("#many");
    await page.waitForSelector('body[data-drawn="20"]');
    await page.fill("#outlier", "15");
    await page.waitForTimeout(2000);
    await page.screenshot({ path: join(web, "..", "docs", `explorer-${colorScheme}.png`) });
}
await close();
