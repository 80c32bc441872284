import { answer, outputsOf, readingOf } from '../shared/answers.mjs';
import { replay } from '../shared/golden.mjs';
import { readSpec } from '../shared/model-spec.mjs';
import { encoded, openTokenizer } from '../shared/tokens.mjs';
import { decode } from './pixels.mjs';

const RUNTIME = './node_modules/onnxruntime-web/dist/ort.wasm.bundle.min.mjs';
const TOKENIZERS = './node_modules/@huggingface/tokenizers/dist/tokenizers.min.mjs';

/** A model file, opened: its `name` and `spec`, and `classify`. */
export async function openModel(file) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  const spec = readSpec(bytes);
  const tokenizer = spec.text ? openTokenizer((await installed(TOKENIZERS)).Tokenizer, spec) : null;
  const ort = await installed(RUNTIME);
  ort.env.wasm.proxy = true; // in a worker, so that the page stays responsive
  const session = await ort.InferenceSession.create(bytes, { executionProviders: ['wasm'], logSeverityLevel: 3 });
  return new Model(file.name, spec, session, tokenizer, ort.Tensor);
}

class Model {
  #session;
  #tokenizer;
  #Tensor;

  constructor(name, spec, session, tokenizer, Tensor) {
    Object.assign(this, { name, spec });
    [this.#session, this.#tokenizer, this.#Tensor] = [session, tokenizer, Tensor];
  }

  /** The answer for a picture file, and a text if the model reads one; whether its end was left out; milliseconds. */
  async classify(file, text) {
    const started = performance.now();
    const image = await decode(file);
    const decoded = performance.now();
    const { reading, truncated } = await this.#run(image, text);
    const milliseconds = { decoding: decoded - started, model: performance.now() - decoded };
    return { ...answer(this.spec, reading), truncated, milliseconds };
  }

  /** How far this browser is from what PyTorch said of the pictures that the file carries. */
  compare() {
    return replay(this.spec, async (png, text) => {
      const image = await decode(new Blob([png], { type: 'image/png' }));
      return (await this.#run(image, text)).reading;
    });
  }

  close() {
    return this.#session.release();
  }

  async #run({ width, height, rgb }, text) {
    const inputs = { image: new this.#Tensor('uint8', rgb, [1, height, width, 3]) };
    const tokens = this.#tokenizer && encoded(this.#tokenizer, this.spec.text.tokenizer, text);
    if (tokens) {
      inputs.input_ids = this.#row(tokens.inputIds);
      inputs.attention_mask = this.#row(tokens.attentionMask);
    }
    const outputs = await this.#session.run(inputs, outputsOf(this.spec));
    return { reading: readingOf(this.spec, outputs), truncated: Boolean(tokens?.truncated) };
  }

  #row(numbers) {
    return new this.#Tensor('int64', BigInt64Array.from(numbers, BigInt), [1, numbers.length]);
  }
}

async function installed(path) {
  try {
    return await import(path);
  } catch {
    throw new Error(`${path.split('/').slice(2, -2).join('/')} is not there: run npm install in the folder of this page`);
  }
}
