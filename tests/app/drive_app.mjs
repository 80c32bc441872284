// Takes steps, given as JSON on standard input, on a page in headless Chromium; prints the texts that were asked for, and
// what went wrong on the way: errors of the page, and requests to other machines.
//
//   node drive_app.mjs PLAYWRIGHT CHROMIUM URL PROFILE WIDTH < steps.json
//
// A step is {"upload": [selector, paths]}, {"click": selector}, {"wait": text, a pattern}, {"text": selector},
// {"choose": [selector, option]} or {"shot": path}.
import { readFileSync } from 'node:fs';
import { pathToFileURL } from 'node:url';

const FLAGS = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-sync'];
FLAGS.push('--disable-background-networking', '--disable-component-update');
FLAGS.push('--use-fake-device-for-media-stream', '--use-fake-ui-for-media-stream');

const [playwright, executablePath, url, profile, width] = process.argv.slice(2);
const { chromium } = await import(pathToFileURL(playwright));
const viewport = { width: Number(width), height: 900 };
const context = await chromium.launchPersistentContext(profile, { executablePath, args: FLAGS, viewport });

const ACTIONS = {
  upload: (page, [selector, paths]) => page.locator(selector).first().setInputFiles(paths),
  click: (page, selector) => page.locator(selector).first().click(),
  wait: (page, text) =>
    page.waitForFunction((pattern) => new RegExp(pattern).test(document.body.innerText), text),
  text: (page, selector) => page.locator(selector).first().innerText(),
  choose: async (page, [selector, option]) => {
    await page.locator(selector).first().click();
    await page.locator(`[role=option]:has-text("${option}")`).first().click();
  },
  shot: (page, path) => page.screenshot({ path, fullPage: true }),
};

try {
  const page = context.pages()[0];
  page.setDefaultTimeout(60_000); // a busy machine takes its time
  const troubles = [];
  page.on('pageerror', (error) => troubles.push(`page error: ${error.message}`));
  page.on('request', (request) => {
    const address = new URL(request.url());
    if (address.protocol.startsWith('http') && address.origin !== new URL(url).origin) troubles.push(`${address}`);
  });
  await page.goto(url);
  const texts = [];
  for (const step of JSON.parse(readFileSync(0, 'utf8'))) {
    for (const [name, argument] of Object.entries(step)) {
      const result = await ACTIONS[name](page, argument);
      if (name === 'text') texts.push(result);
    }
  }
  console.log(JSON.stringify({ texts, troubles }));
} finally {
  await context.close();
}
