// Screenshots and accessibility findings of pages: node check.mjs CHROMIUM OUT PAGE...
// Prints a line per finding; exit code 1 if one is serious or critical, or if a page is wider than a phone.
import { createRequire } from "node:module";
import { basename, dirname, join } from "node:path";
import { pathToFileURL } from "node:url";

const require = createRequire(join(process.cwd(), "package.json"));
const puppeteer = require("puppeteer-core");
const [chromium, out, ...pages] = process.argv.slice(2);
const browser = await puppeteer.launch({ executablePath: chromium, args: ["--no-sandbox"] });
let bad = 0;
for (const path of pages) {
  for (const width of [1200, 390]) {
    for (const scheme of ["light", "dark"]) {
      const page = await browser.newPage();
      await page.setViewport({ width, height: 900 });
      await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
      await page.goto(pathToFileURL(path).href);
      const name = `${basename(dirname(path))}-${basename(path, ".html")}-${width}-${scheme}`;
      await page.screenshot({ path: join(out, `${name}.png`), fullPage: true });
      const wide = await page.evaluate(() => document.documentElement.scrollWidth);
      if (wide > width) { bad += 1; console.log(`${name}: the page is ${wide} px wide`); }
      await page.addScriptTag({ path: require.resolve("axe-core/axe.min.js") });
      const { violations } = await page.evaluate(() => axe.run());
      for (const { id, impact, help, nodes } of violations) {
        if (impact === "serious" || impact === "critical") bad += 1;
        console.log(`${name}: ${impact}: ${id}: ${help} (${nodes.length}; ${nodes[0].target})`);
      }
      await page.close();
    }
  }
}
await browser.close();
console.log(`${pages.length} pages, ${bad} serious findings; screenshots in ${out}`);
process.exit(bad ? 1 : 0);
