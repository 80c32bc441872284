#!/usr/bin/env node
import { readFile } from 'node:fs/promises';
import { parseArgs } from 'node:util';

import { Tokenizer } from '@huggingface/tokenizers';
import { InferenceSession, Tensor } from 'onnxruntime-node';
import sharp from 'sharp';

import { checkShape, ranked, readSpec } from '../shared/model-spec.mjs';
import { encoded } from '../shared/tokens.mjs';

const USAGE = 'usage: node classify.mjs MODEL IMAGE [--text TEXT] [--json]';
const PROVIDER = 'CPUExecutionProvider';

async function main() {
  const args = parse(process.argv.slice(2));
  if (!args) return usage();
  const model = await naming(args.model, (path) => openModel(path, args.text));
  const said = model.tokens ? { text: args.text, text_truncated: model.tokens.truncated } : {};
  if (said.text_truncated) console.error('classify: the text is longer than the model reads: its end was left out');
  try {
    show({ ...record(args.image, await naming(args.image, (path) => classify(model, path))), ...said }, args.json);
  } catch (error) {
    if (args.json) show({ ...record(args.image, []), ...said, error: error.message }, true);
    throw error;
  }
}

function parse(argv) {
  try {
    const { values, positionals } = parseArgs({
      args: argv,
      allowPositionals: true,
      options: { json: { type: 'boolean', default: false }, text: { type: 'string' } },
    });
    const [model, image, ...rest] = positionals;
    return image === undefined || rest.length > 0 ? null : { model, image, ...values };
  } catch {
    return null;
  }
}

function usage() {
  console.error(USAGE);
  process.exitCode = 2;
}

async function openModel(path, text) {
  const bytes = await readFile(path);
  const spec = readSpec(bytes, true);
  const tokens = tokenise(spec, text);
  const session = await InferenceSession.create(bytes, { executionProviders: ['cpu'], logSeverityLevel: 3 });
  return { spec, session, tokens };
}

/** The text's inputs of a model that reads one with each picture; null for other models. */
function tokenise(spec, text) {
  if (!spec.text && text !== undefined) throw new Error('the model reads pictures alone: leave out --text');
  if (!spec.text) return null;
  if (text === undefined) throw new Error('the model reads a text with each picture: give it one with --text');
  const tokenizer = new Tokenizer(JSON.parse(spec.text.tokenizer.json), {});
  const { inputIds, attentionMask, truncated } = encoded(tokenizer, spec.text.tokenizer, text);
  return { inputs: { input_ids: row(inputIds), attention_mask: row(attentionMask) }, truncated };
}

function row(numbers) {
  return new Tensor('int64', BigInt64Array.from(numbers, BigInt), [1, numbers.length]);
}

async function classify({ spec, session, tokens }, path) {
  const inputs = { image: await decode(path), ...tokens?.inputs };
  const { probabilities } = await session.run(inputs, ['probabilities']);
  return ranked(spec.labels, probabilities.data);
}

/** RGB bytes as they are in the file: upright, over white, colours not converted. The model resizes them itself. */
async function decode(path) {
  const { data, info } = await sharp(await readFile(path), { ignoreIcc: true })
    .autoOrient()
    .flatten({ background: 'white' })
    .toColourspace('srgb')
    .raw({ depth: 'uchar' })
    .toBuffer({ resolveWithObject: true });
  checkShape(info.width, info.height);
  return new Tensor('uint8', data, [1, info.height, info.width, info.channels]);
}

function record(image, top) {
  const [{ label, probability } = { label: null, probability: null }] = top;
  return { image, label, probability, top, provider: PROVIDER, error: null };
}

function show(result, json) {
  console.log(json ? JSON.stringify(result) : table(result));
}

function table({ image, top }) {
  const imageWidth = Math.max(5, image.length);
  const labelWidth = Math.max(5, ...top.map(({ label }) => label.length));
  const row = (name, label, value) => `${name.padEnd(imageWidth)}  ${label.padEnd(labelWidth)}  ${value}`;
  const rows = top.map(({ label, probability }, rank) =>
    row(rank === 0 ? image : '', label, `${(100 * probability).toFixed(2)}%`.padStart(10)),
  );
  return [row('image', 'label', 'probability'), ...rows].join('\n');
}

/** Run `action(path)`; an error becomes one line that begins with the path. */
async function naming(path, action) {
  try {
    return await action(path);
  } catch (error) {
    const reason = error.code === 'ENOENT' ? 'there is no such file' : error.message.split('\n', 1)[0];
    throw new Error(`${path}: ${reason}`);
  }
}

main().catch((error) => {
  console.error(`classify: ${error.message}`);
  process.exitCode = 1;
});
