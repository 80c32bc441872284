import { Camera } from './camera.mjs';
import { openModel } from './model.mjs';
import { fail, page, say, showAnswer, showDrift, showModel, showPreview } from './view.mjs';

const DEFAULT_MODEL = 'model.onnx';

const camera = new Camera(page.video);
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
    .catch((error) => giveUp(`${name}: ${String(error.message ?? error).split('\n', 1)[0]}`))
    .finally(() => {
      waiting -= 1;
      page.work.ariaBusy = String(waiting > 0);
    });
  return queue;
}

async function useDefaultModel() {
  const response = await fetch(DEFAULT_MODEL);
  if (response.ok) return useModel(new File([await response.blob()], DEFAULT_MODEL));
  say('No model yet', `There is no ${DEFAULT_MODEL} beside this page. Open a file made by clip-export.`);
}

async function useModel(file) {
  if (!camera.running) say('Opening the model…');
  const started = performance.now();
  const opened = await openModel(file);
  await model?.close();
  model = opened;
  showModel(model, performance.now() - started);
  if (picture) return classify();
  say('Ready', 'Choose a picture, or drop one on this page.', null, model.spec);
}

function usePicture(file) {
  stopCamera();
  picture = file;
  showPreview(file);
  return classify();
}

async function classify() {
  if (!model) return say('No model yet', 'The picture waits for one.');
  if (!camera.running) say('Looking…', '', null, model.spec);
  showAnswer(model.spec, await model.classify(picture, page.text.value));
}

/** Classify what the camera sees, again and again, until it is stopped. */
async function watch() {
  await camera.start();
  showPreview(null);
  page.video.hidden = false;
  page.camera.textContent = 'Stop the camera';
  document.body.classList.add('watching');
  follow();
}

async function follow() {
  while (camera.running) {
    queue = queue.then(look).catch((error) => giveUp(`camera: ${error.message}`)); // not busy: it goes on and on
    await queue;
  }
}

async function look() {
  if (!camera.running) return;
  picture = await camera.picture();
  await classify();
}

function stopCamera() {
  if (!camera.running) return;
  camera.stop();
  page.video.hidden = true;
  page.camera.textContent = 'Use the camera';
  document.body.classList.remove('watching');
  showPreview(picture);
}

function giveUp(message) {
  stopCamera();
  picture = null;
  showPreview(null);
  fail(message, model?.spec);
}

function take(file) {
  if (!file) return;
  const action = file.name.toLowerCase().endsWith('.onnx') ? useModel : usePicture;
  enqueue(file.name, () => action(file));
}

for (const input of [page.picture, page.model]) {
  input.addEventListener('change', () => {
    take(input.files[0]);
    input.value = ''; // the same file may be chosen again
  });
}
page.text.addEventListener('change', () => picture && enqueue('text', classify));
page.compare.addEventListener('click', () => enqueue(model.name, async () => showDrift(await model.compare())));
page.camera.addEventListener('click', () => (camera.running ? stopCamera() : enqueue('camera', watch)));
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

enqueue(DEFAULT_MODEL, useDefaultModel);
