// From a model's output to what it says of a picture: the rules of docs/model-file.md, for every task.

const DEFAULT_THRESHOLD = 0.5;

/** The outputs of the graph that `answer` reads. */
export function outputsOf(spec) {
  return [scoresOf(spec), ...(spec.novelty ? ['novelty'] : [])];
}

/** What `answer` reads of a run over one picture: `numbers`, and in files that tell it `novelty`. */
export function readingOf(spec, outputs) {
  return { numbers: outputs[scoresOf(spec)].data, ...(spec.novelty ? { novelty: outputs.novelty.data[0] } : {}) };
}

function scoresOf(spec) {
  return spec.task === 'regression' ? 'values' : 'probabilities';
}

/**
 * What the model says, in the fields of `clip-infer --format json`: `label`, `probability` and `top` (all labels, most
 * probable first); of a multi-label model also `labels`, of a regression `values`; of files that tell how far a picture is
 * from the training images, `novelty` and `is_novel`; of files calibrated for it `set`, labels one of which should be right.
 */
export function answer(spec, { numbers, novelty }) {
  const distance = spec.novelty ? { novelty, is_novel: !(novelty <= spec.novelty.threshold) } : {};
  const said = answerOf(spec, numbers);
  return { ...said, ...distance, ...(spec.coverage ? { set: setOf(said.top, spec.coverage) } : {}) };
}

function answerOf(spec, numbers) {
  const { labels, task } = spec;
  if (numbers.length !== labels.length) {
    throw new Error('the model file contradicts itself: its labels do not fit its output');
  }
  if (task === 'regression') {
    const values = Object.fromEntries(labels.map((label, index) => [label, numbers[index]]));
    return { label: null, probability: null, top: [], values };
  }
  const scores = labels.map((label, index) => ({ label, probability: numbers[index] }));
  const top = scores.toSorted((a, b) => b.probability - a.probability);
  const predicted = task === 'multi-label' ? severalOf(scores, spec) : [oneOf(scores, top, spec)];
  const { label, probability } = top.find((score) => predicted.includes(score)) ?? { label: null, probability: null };
  const all = task === 'multi-label' ? { labels: predicted.map((score) => score.label) } : {};
  return { label, probability, top, ...all };
}

/** Labels by their probability, as long as those before them sum up to the quantile at most: the first one always. */
function setOf(top, { quantile }) {
  let before = 0;
  return top.flatMap(({ label, probability }) => {
    const isIn = before <= quantile;
    before += probability;
    return isIn ? [label] : [];
  });
}

/** Scores in the order to show: predicted labels first, `marked` if a threshold and not the order predicted them. */
export function shownScores({ label, top, labels }) {
  const predicted = labels ?? [label];
  const byThreshold = labels !== undefined || label !== top[0]?.label;
  const scores = top.map((score) => {
    const isPredicted = predicted.includes(score.label);
    return { ...score, predicted: isPredicted, marked: isPredicted && byThreshold };
  });
  return scores.toSorted((a, b) => b.predicted - a.predicted);
}

/** Of two labels one may have a threshold: it is predicted from there on, and the other one below. */
function oneOf(scores, top, { labels, thresholds }) {
  const [threshold] = Object.entries(thresholds ?? {});
  if (!threshold) return top[0];
  const chosen = labels.indexOf(threshold[0]);
  return scores[chosen].probability >= threshold[1] ? scores[chosen] : scores[1 - chosen];
}

function severalOf(scores, { thresholds = {} }) {
  return scores.filter(({ label, probability }) => {
    return probability >= (Object.hasOwn(thresholds, label) ? thresholds[label] : DEFAULT_THRESHOLD);
  });
}
