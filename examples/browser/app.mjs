import { checkShape, ranked, readSpec } from '../shared/model-spec.mjs';

const RUNTIME = './node_modules/onnxruntime-web/dist/ort.wasm.bundle.min.mjs';
const DEFAULT_MODEL = 'model.onnx';
const STRIP_ROWS = 512;

const page = Object.fromEntries([...document.querySelectorAll('[id]')].map((element) => [element.id, element]));
const percent = new Intl.NumberFormat('en', { style: 'percent', minimumFractionDigits: 1, maximumFractionDigits: 1 });

let model = null;
let picture = null;
let queue = Promise.resolve();
let waiting = 0;

/** Do one thing after the other, so that a picture chosen while a model loads is classified by that model. */
function enqueue(name, action) {
  waiting += 1;
  page.work.ariaBusy = 'true';
  queue = queue
    .then(action)
    .catch((error) => fail(`${name}: ${String(error.message ?? error).split('\n', 1)[0]}`))
    .finally(() => {
      waiting -= 1;
      page.work.ariaBusy = String(waiting > 0);
    });
}

async function openDefaultModel() {
  const response = await fetch(DEFAULT_MODEL);
  if (response.ok) return openModel(new File([await response.blob()], DEFAULT_MODEL));
  say('No model yet', `There is no ${DEFAULT_MODEL} beside this page. Open a file made by clip-export.`);
}

async function openModel(file) {
  say('Opening the model…');
  const bytes = new Uint8Array(await file.arrayBuffer());
  const spec = readSpec(bytes);
  const ort = await loadRuntime();
  const session = await ort.InferenceSession.create(bytes, { executionProviders: ['wasm'] });
  await model?.session.release();
  model = { name: file.name, spec, session, Tensor: ort.Tensor };
  describeModel();
  if (picture) return classify(picture);
  say('Ready', 'Choose a picture, or drop one on this page.');
}

async function loadRuntime() {
  try {
    const ort = await import(RUNTIME);
    ort.env.wasm.proxy = true; // in a worker, so that the page stays responsive
    return ort;
  } catch {
    throw new Error('ONNX Runtime is not there: run npm install in the folder of this page');
  }
}

async function classify(file) {
  showPicture(file);
  if (!model) return say('No model yet', 'The picture waits for one.');
  say('Looking…');
  const started = performance.now();
  const probabilities = await probabilitiesOf(file);
  const milliseconds = Math.round(performance.now() - started);
  const scores = ranked(model.spec.labels, probabilities);
  say(scores[0].label, `${percent.format(scores[0].probability)} · ${milliseconds} ms`, scores);
}

async function probabilitiesOf(file) {
  const { width, height, rgb } = await decode(file);
  const image = new model.Tensor('uint8', rgb, [1, height, width, 3]);
  const { probabilities } = await model.session.run({ image }, ['probabilities']);
  return probabilities.data;
}

/** RGB bytes as they are in the file: upright, over white, colours not converted. The model resizes them itself. */
async function decode(file) {
  const options = { imageOrientation: 'from-image', colorSpaceConversion: 'none' };
  const bitmap = await createImageBitmap(file, options).catch(() => {
    throw new Error('this browser cannot read it as a picture');
  });
  const { width, height } = bitmap;
  checkShape(width, height);
  return { width, height, rgb: rgbBytes(bitmap) };
}

/** In strips, because some browsers refuse a canvas as large as a phone's photo. */
function rgbBytes(bitmap) {
  const { width, height } = bitmap;
  const context = new OffscreenCanvas(width, STRIP_ROWS).getContext('2d', { willReadFrequently: true });
  context.fillStyle = 'white';
  const rgb = new Uint8Array(width * height * 3);
  let end = 0;
  for (let top = 0; top < height; top += STRIP_ROWS) {
    context.fillRect(0, 0, width, STRIP_ROWS);
    context.drawImage(bitmap, 0, -top);
    const { data } = context.getImageData(0, 0, width, Math.min(STRIP_ROWS, height - top));
    for (let start = 0; start < data.length; start += 4) {
      rgb[end++] = data[start];
      rgb[end++] = data[start + 1];
      rgb[end++] = data[start + 2];
    }
  }
  bitmap.close();
  return rgb;
}

/** Replay the pictures that the model file carries and compare with what PyTorch said of them. */
async function compareWithPyTorch() {
  let drift = 0;
  for (const { png, probabilities } of model.spec.golden) {
    const bytes = Uint8Array.from(atob(png), (character) => character.charCodeAt(0));
    const found = await probabilitiesOf(new Blob([bytes], { type: 'image/png' }));
    drift = Math.max(drift, ...probabilities.map((expected, index) => Math.abs(expected - found[index])));
  }
  const pictures = `${model.spec.golden.length} pictures inside the file`;
  page.drift.textContent = `${pictures}: probabilities within ${drift.toExponential(1)} of PyTorch's.`;
}

function describeModel() {
  const { name, spec } = model;
  page['model-name'].textContent = name;
  page['model-encoder'].textContent = `${spec.encoder.id}, ${spec.preprocessing.size} × ${spec.preprocessing.size}`;
  page['model-labels'].textContent = spec.labels.length;
  page.compare.hidden = spec.golden.length === 0;
  page.drift.textContent = '';
}

function showPicture(file) {
  picture = file;
  URL.revokeObjectURL(page.preview.src);
  page.preview.hidden = !file;
  if (!file) return page.preview.removeAttribute('src');
  page.preview.src = URL.createObjectURL(file);
  page.preview.alt = `The picture ${file.name}`;
}

function say(headline, detail = '', scores = null) {
  page.headline.textContent = headline;
  page.detail.textContent = detail;
  page.error.hidden = true;
  page.scores.classList.toggle('known', scores !== null);
  page.scores.replaceChildren(...(scores ?? unknownScores()).map(scoreBar));
}

function fail(message) {
  showPicture(null);
  say(model ? 'No answer' : 'No model yet');
  page.error.textContent = message;
  page.error.hidden = false;
}

function unknownScores() {
  return (model?.spec.labels ?? []).map((label) => ({ label, probability: NaN }));
}

function scoreBar({ label, probability }) {
  const item = page.score.content.firstElementChild.cloneNode(true);
  const [name, number, track] = item.children;
  name.textContent = label;
  number.value = probability;
  number.textContent = Number.isNaN(probability) ? '–' : percent.format(probability);
  track.firstElementChild.style.setProperty('--share', probability || 0);
  return item;
}

function take(file) {
  if (!file) return;
  const action = file.name.toLowerCase().endsWith('.onnx') ? openModel : classify;
  enqueue(file.name, () => action(file));
}

for (const input of [page.picture, page.model]) {
  input.addEventListener('change', () => {
    take(input.files[0]);
    input.value = ''; // the same file may be chosen again
  });
}
page.compare.addEventListener('click', () => enqueue(model.name, compareWithPyTorch));
addEventListener('dragover', (event) => {
  event.preventDefault();
  document.body.classList.add('dragging');
});
addEventListener('dragleave', (event) => {
  if (!event.relatedTarget) document.body.classList.remove('dragging');
});
addEventListener('drop', (event) => {
  event.preventDefault();
  document.body.classList.remove('dragging');
  take(event.dataTransfer.files[0]);
});

enqueue(DEFAULT_MODEL, openDefaultModel);
