// The pictures that every model file carries, with what PyTorch said of them.

const TOLERANCE = 2e-2; // with the graph's own resize, docs/model-file.md
const QUANTIZED_FACTOR = 5;

/**
 * Replay the file's pictures: `{ count, drift, tolerance }`.
 *
 * `run(png, text)` gives what `readingOf` reads of one picture (the bytes of a PNG file) and its text, if there is one. The
 * drift is the largest difference of a probability; of the values of a regression and of the novelty, relative to the largest.
 */
export async function replay(spec, run) {
  const distances = spec.novelty?.golden ?? [];
  let [difference, largest, apart] = [0, 0, 0];
  for (const [index, { png, text, probabilities, logits }] of spec.golden.entries()) {
    const expected = spec.task === 'regression' ? logits : probabilities;
    const bytes = Uint8Array.from(atob(png), (character) => character.charCodeAt(0));
    const { numbers, novelty } = await run(bytes, text);
    difference = Math.max(difference, ...expected.map((value, place) => Math.abs(value - numbers[place])));
    if (spec.novelty) apart = Math.max(apart, Math.abs(distances[index] - novelty) / Math.max(...distances));
    largest = Math.max(largest, ...expected.map(Math.abs));
  }
  const drift = Math.max(spec.task === 'regression' ? difference / largest : difference, apart);
  return { count: spec.golden.length, drift, tolerance: TOLERANCE * (spec.quantization ? QUANTIZED_FACTOR : 1) };
}
