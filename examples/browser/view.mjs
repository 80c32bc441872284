import { shownScores } from '../shared/answers.mjs';

const MOST_NAMED = 4;
const LONGEST_HEADING = 48; // characters that fit two lines of a phone

const percent = new Intl.NumberFormat('en', { style: 'percent', minimumFractionDigits: 1, maximumFractionDigits: 1 });
const number = new Intl.NumberFormat('en', { maximumSignificantDigits: 5 });
const milliseconds = new Intl.NumberFormat('en', { maximumSignificantDigits: 2, maximumFractionDigits: 0 });

/** The elements of the page by their id. */
export const page = Object.fromEntries([...document.querySelectorAll('[id]')].map((element) => [element.id, element]));

/** What a model is asked, from its spec: "normal or pneumonia?". */
export function heading({ task, labels }) {
  const [named, general] = {
    'single-label': [`${list(labels, 'disjunction')}?`, `Which of ${labels.length} labels?`],
    'multi-label': [`Any of ${list(labels, 'disjunction')}?`, `Which of ${labels.length} labels, if any?`],
    regression: [`Estimate: ${list(labels, 'conjunction')}`, `Estimate of ${labels.length} quantities`],
  }[task];
  return labels.length <= MOST_NAMED && named.length <= LONGEST_HEADING ? named : general;
}

export function showModel({ name, spec }, opening) {
  page.heading.textContent = heading(spec);
  document.title = `${heading(spec)} · clip-toolkit`;
  page['model-name'].textContent = name;
  page['model-encoder'].textContent = `${spec.encoder.id}, ${spec.preprocessing.size} × ${spec.preprocessing.size}`;
  page['model-labels'].textContent = spec.labels.length;
  page['model-opening'].textContent = `${milliseconds.format(opening)} ms`;
  page.compare.hidden = spec.golden.length === 0;
  page.words.hidden = !spec.text;
  page.drift.textContent = '';
}

/** What the model says of a picture, and how long that took. */
export function showAnswer(spec, answer) {
  const { decoding, model } = answer.milliseconds;
  const time = `${milliseconds.format(decoding)} ms decoding, ${milliseconds.format(model)} ms model`;
  const scores = scoresOf(spec, answer);
  const share = answer.probability === null ? [] : [percent.format(answer.probability)];
  const remarks = [
    ...(spec.task === 'single-label' && scores[0].marked ? ['decided by threshold'] : []),
    ...(answer.is_novel ? ['unlike the training images: the answer may mean nothing'] : []),
    ...(answer.set && !answer.is_novel ? [`one of these should be right: ${answer.set.join(', ')}`] : []),
    ...(answer.truncated ? ['the end of the text was not read'] : []),
  ];
  say(headline(answer), [...share, ...remarks, time].join(' · '), scores, spec);
}

/** A headline and a line of detail; `scores` of an answer, or those of `spec` as yet unknown. */
export function say(headline, detail = '', scores = null, spec = null) {
  page.headline.textContent = headline;
  page.detail.textContent = detail;
  page.error.hidden = true;
  page.scores.classList.toggle('values', spec?.task === 'regression');
  const unknown = (spec?.labels ?? []).map((label) => ({ label, value: NaN, text: '–', predicted: false }));
  page.scores.replaceChildren(...(scores ?? unknown).map(scoreBar));
}

export function fail(message, spec) {
  say(spec ? 'No answer' : 'No model yet', '', null, spec);
  page.error.textContent = message;
  page.error.hidden = false;
}

export function showPreview(file) {
  URL.revokeObjectURL(page.preview.src);
  page.preview.hidden = !file;
  if (!file) return page.preview.removeAttribute('src');
  page.preview.src = URL.createObjectURL(file);
  page.preview.alt = `The picture ${file.name}`;
}

export function showDrift({ count, drift, tolerance }) {
  const verdict = drift <= tolerance ? '' : ', which is too far';
  page.drift.textContent = `${count} pictures inside the file: within ${drift.toExponential(1)} of PyTorch${verdict}.`;
}

function list(labels, type) {
  return new Intl.ListFormat('en', { type }).format(labels);
}

function headline({ label, labels, values }) {
  if (values) return Object.entries(values).map(([name, value]) => `${name} ${number.format(value)}`).join(' · ');
  if (labels?.length > 1) return labels.join(', ');
  return label ?? 'None of the labels';
}

function scoresOf({ labels }, answer) {
  if (answer.values) {
    return labels.map((label) => ({ label, value: answer.values[label], text: number.format(answer.values[label]) }));
  }
  return shownScores(answer).map((score) => ({
    ...score,
    value: score.probability,
    text: percent.format(score.probability),
    share: score.probability,
  }));
}

function scoreBar({ label, value, text, share = 0, predicted }) {
  const item = page.score.content.firstElementChild.cloneNode(true);
  const [name, number, track] = item.children;
  item.classList.toggle('predicted', Boolean(predicted));
  name.textContent = label;
  number.value = value;
  number.textContent = text;
  track.firstElementChild.style.setProperty('--share', share);
  return item;
}
