// Opens the page in headless Chromium, takes the steps given as JSON on standard input and prints what the page shows
// after each of them, with everything that went wrong on the way.
//
//   node drive_page.mjs PLAYWRIGHT CHROMIUM URL PROFILE < steps.json
//
// A step is {"picture": path}, {"model": path}, {"drop": path}, {"click": selector}, {"text": words} or
// {"wait": pattern of the detail}.
import { readFileSync } from 'node:fs';
import { basename } from 'node:path';
import { pathToFileURL } from 'node:url';

const FLAGS = [
  '--headless',
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  '--use-fake-device-for-media-stream',
  '--use-fake-ui-for-media-stream',
];

const ACTIONS = {
  picture: (page, path) => page.setInputFiles('#picture', path),
  model: (page, path) => page.setInputFiles('#model', path),
  click: (page, selector) => page.click(selector),
  text: async (page, words) => {
    await page.fill('#text', words);
    await page.press('#text', 'Enter');
  },
  wait: (page, pattern) =>
    page.waitForFunction((text) => new RegExp(text).test(document.getElementById('detail').textContent), pattern),
  drop: dropFile,
};

async function dropFile(page, path) {
  const transfer = await page.evaluateHandle(
    ([name, base64]) => {
      const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
      const data = new DataTransfer();
      data.items.add(new File([bytes], name));
      return data;
    },
    [basename(path), readFileSync(path).toString('base64')],
  );
  await page.dispatchEvent('body', 'drop', { dataTransfer: transfer });
}

function shown() {
  const element = (id) => document.getElementById(id);
  const scores = [...document.querySelectorAll('#scores li')].map((item) => ({
    label: item.querySelector('.label').textContent,
    percent: item.querySelector('.percent').textContent,
    probability: Number(item.querySelector('.percent').value),
    predicted: item.classList.contains('predicted'),
  }));
  return {
    heading: element('heading').textContent,
    headline: element('headline').textContent,
    detail: element('detail').textContent,
    error: element('error').hidden ? null : element('error').textContent,
    model: element('model-name').textContent,
    drift: element('drift').textContent,
    camera: element('camera').textContent,
    readsText: element('text').checkVisibility(),
    isolated: crossOriginIsolated,
    scores,
  };
}

async function settled(page) {
  await page.waitForSelector('#work[aria-busy="false"]');
  return page.evaluate(shown);
}

const [playwright, executablePath, url, profile] = process.argv.slice(2);
const { chromium } = await import(pathToFileURL(playwright));
const context = await chromium.launchPersistentContext(profile, { executablePath, args: FLAGS });
try {
  const page = context.pages()[0];
  page.setDefaultTimeout(150_000); // a busy machine takes its time
  const troubles = [];
  page.on('pageerror', (error) => troubles.push(`page error: ${error.message}`));
  page.on('console', (message) => message.type() === 'error' && troubles.push(`console: ${message.text()}`));
  page.on('request', (request) => {
    const address = new URL(request.url());
    if (address.protocol !== 'blob:' && address.origin !== new URL(url).origin) troubles.push(`request: ${address}`);
  });
  await page.goto(url);
  const states = [await settled(page)];
  for (const step of JSON.parse(readFileSync(0, 'utf8'))) {
    for (const [name, argument] of Object.entries(step)) await ACTIONS[name](page, argument);
    states.push(await settled(page));
  }
  console.log(JSON.stringify({ states, troubles }));
} finally {
  await context.close();
}
