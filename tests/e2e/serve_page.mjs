// The status page in a browser without a head: two sizes, one slow task.
//
//     node serve_page.mjs URL CHROMIUM DIRECTORY
//
// playwright-core is found by $PLAYWRIGHT (its directory). What is expected comes as JSON on standard input:
// {"slow": the id of the task that moves, "ids": what has to be shown, "failed": the id of the task that failed, "text": a text with
// markup in it, which has to be shown as it is, "facts": texts of the task that moves}. Screenshots go to DIRECTORY.

import { createRequire } from "node:module";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import assert from "node:assert/strict";

const require = createRequire(join(process.env.PLAYWRIGHT, "package.json"));
const { chromium } = require("playwright-core");
const [url, executablePath, directory] = process.argv.slice(2);
const expected = JSON.parse(readFileSync(0, "utf8"));
const args = [
  "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync",
];
const ANSWER_TIMEOUT = 20000;

async function looked(width, height, colorScheme) {
  const profile = mkdtempSync(join(tmpdir(), "serve-page-"));
  const context = await chromium.launchPersistentContext(profile, { executablePath, args, headless: true, viewport: { width, height }, colorScheme, timeout: ANSWER_TIMEOUT });
  try {
    const page = await context.newPage();
    page.setDefaultTimeout(ANSWER_TIMEOUT);
    const complaints = [], strangers = [];
    page.on("console", (message) => { if (message.type() === "error" || message.type() === "warning") complaints.push(message.text()); });
    page.on("pageerror", (error) => complaints.push(String(error)));
    page.on("requestfailed", (request) => complaints.push(`${request.url()}: ${request.failure()?.errorText}`));
    page.on("dialog", (dialog) => { complaints.push(`a dialog: ${dialog.message()}`); dialog.dismiss(); });
    page.on("request", (request) => { if (!request.url().startsWith(`${url}/`) && !request.url().startsWith("data:")) strangers.push(request.url()); });

    const answer = await page.goto(`${url}/`);
    assert.equal(answer.status(), 200);
    assert.match(answer.headers()["content-security-policy"] ?? "", /default-src 'none'/);
    const moving = page.locator("li", { hasText: expected.slow }).getByRole("progressbar");
    await moving.waitFor();
    const value = async () => Number(await moving.getAttribute("aria-valuenow"));
    const before = await value();
    await page.waitForFunction(([id, least]) => {
      const item = [...document.querySelectorAll("li")].find((found) => found.textContent.includes(id));
      return Number(item?.querySelector("[role=progressbar]").getAttribute("aria-valuenow")) > least;
    }, [expected.slow, before]);
    const after = await value();
    assert.ok(before >= 0 && after > before && after <= 100, `${before} % and then ${after} %`);
    assert.equal(await moving.getAttribute("aria-valuemax"), "100");
    assert.ok(await moving.getAttribute("aria-label"), "a progress bar has no name");
    // The bar is as long as it says.
    const [whole, part] = await moving.evaluate((bar) => [bar.clientWidth, bar.firstElementChild.getBoundingClientRect().width]);
    const shown = await value();
    assert.ok(whole > 100 && Math.abs(100 * part / whole - shown) < 10, `${part} of ${whole} pixels at ${shown} %`);

    const item = page.locator("li", { hasText: expected.slow });
    await item.getByText(/^\d+ (s|min) left$/).waitFor();
    const facts = await item.innerText();
    for (const fact of [...expected.facts, "iB/s"]) assert.ok(facts.includes(fact), `${fact} is not shown of the task that moves:\n${facts}`);

    const text = await page.locator("body").innerText();
    for (const id of expected.ids) assert.ok(text.includes(id), `${id} is not shown`);
    assert.ok(text.includes(expected.text), `${expected.text} is not shown as it is:\n${text}`);
    assert.equal(await page.locator("main b, main img, main script").count(), 0, "markup of others became elements");
    const failed = page.locator("li.Failed", { hasText: expected.failed });
    assert.match(await failed.innerText(), /failed/);
    assert.ok((await failed.locator(".reason").innerText()).length > 20, "a failure without a reason");
    const [scroll, client] = await page.evaluate(() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]);
    assert.ok(scroll <= client && client <= width, `${scroll} pixels in ${client}`);
    const sticking = await page.evaluate(() => [...document.querySelectorAll("main *")].filter((found) => found.getBoundingClientRect().right > innerWidth + 1).length);
    assert.equal(sticking, 0, "something is wider than the page");
    await page.screenshot({ path: join(directory, `page-${width}x${height}.png`), fullPage: true });
    assert.deepEqual(strangers, [], "requests to others");
    assert.deepEqual(complaints, []);
    return `${width}x${height}: ${before} % and then ${after} %`;
  } finally {
    await context.close();
    rmSync(profile, { recursive: true, force: true });
  }
}

for (const [width, height, scheme] of [[360, 740, "light"], [1280, 800, "dark"]]) console.log(`  ${await looked(width, height, scheme)}`);
