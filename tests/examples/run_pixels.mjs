// Runs a model file on raw images: run_pixels.mjs NODE_MODULES PACKAGE MODEL IMAGES COUNT SIZE; prints probabilities.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const [folder, name, model, images, count, size] = process.argv.slice(2);
const require = createRequire(`${folder}/`);
const ort = require(name);
const bytes = readFileSync(images);
const session = await ort.InferenceSession.create(readFileSync(model));
const step = size * size * 3;
const rows = [];
for (let i = 0; i < count; i += 1) {
  const image = new ort.Tensor("uint8", new Uint8Array(bytes.subarray(i * step, (i + 1) * step)), [1, +size, +size, 3]);
  const { probabilities } = await session.run({ image }, ["probabilities"]);
  rows.push(Array.from(probabilities.data));
}
console.log(JSON.stringify(rows));
