// The pictures that every model file carries, with what PyTorch said of them.

import { outputOf } from './answers.mjs';

const TOLERANCE = 2e-2; // with the graph's own resize, docs/model-file.md
const QUANTIZED_FACTOR = 5;

/**
 * Replay the file's pictures: `{ count, drift, tolerance }`.
 *
 * `run(png, text)` gives the numbers of one picture (the bytes of a PNG file) and its text, if there is one. The drift is
 * the largest difference of a probability; of a regression, that of a value relative to the largest.
 */
export async function replay(spec, run) {
  let [difference, largest] = [0, 0];
  for (const { png, text, probabilities, logits } of spec.golden) {
    const expected = outputOf(spec) === 'values' ? logits : probabilities;
    const bytes = Uint8Array.from(atob(png), (character) => character.charCodeAt(0));
    const found = await run(bytes, text);
    difference = Math.max(difference, ...expected.map((value, index) => Math.abs(value - found[index])));
    largest = Math.max(largest, ...expected.map(Math.abs));
  }
  const drift = spec.task === 'regression' ? difference / largest : difference;
  return { count: spec.golden.length, drift, tolerance: TOLERANCE * (spec.quantization ? QUANTIZED_FACTOR : 1) };
}
