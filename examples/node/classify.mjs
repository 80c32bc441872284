#!/usr/bin/env node
import { readFile } from 'node:fs/promises';
import { parseArgs } from 'node:util';

import { Tokenizer } from '@huggingface/tokenizers';
import { InferenceSession, Tensor } from 'onnxruntime-node';
import sharp from 'sharp';

import { answer, outputsOf, readingOf } from '../shared/answers.mjs';
import { replay } from '../shared/golden.mjs';
import { checkShape, readSpec } from '../shared/model-spec.mjs';
import { encoded, openTokenizer } from '../shared/tokens.mjs';
import { printable, table } from './table.mjs';

const USAGE = `usage: node classify.mjs MODEL IMAGE... [--text TEXT] [--json]
       node classify.mjs MODEL --selftest`;
const PROVIDER = 'CPUExecutionProvider';

async function main() {
  const args = parse(process.argv.slice(2));
  if (!args) return usage();
  const model = await naming(args.model, openModel);
  if (args.selftest) return selftest(args.model, model);
  const text = readable(model, args);
  const records = [];
  for (const image of args.images) {
    const record = await recordOf(model, image, text);
    if (args.json) console.log(JSON.stringify(record));
    if (record.error) fail(record.error);
    records.push(record);
  }
  if (!args.json) process.stdout.write(table(records.filter((record) => !record.error)));
}

function parse(argv) {
  try {
    const { values, positionals } = parseArgs({
      args: argv,
      allowPositionals: true,
      options: { json: { type: 'boolean' }, text: { type: 'string' }, selftest: { type: 'boolean' } },
    });
    const [model, ...images] = positionals;
    return model === undefined || images.length > 0 === Boolean(values.selftest) ? null : { model, images, ...values };
  } catch {
    return null;
  }
}

function usage() {
  console.error(USAGE);
  process.exitCode = 2;
}

async function openModel(path) {
  const bytes = await readFile(path);
  const spec = readSpec(bytes);
  const tokenizer = spec.text ? openTokenizer(Tokenizer, spec) : null;
  const session = await InferenceSession.create(bytes, { executionProviders: ['cpu'], logSeverityLevel: 3 });
  return { spec, session, tokenizer };
}

/** The text of all pictures as the model reads it; null for models of pictures alone. */
function readable({ spec, tokenizer }, { model, text }) {
  if (!tokenizer && text !== undefined) {
    throw new Error(`${model}: the model reads pictures alone: leave out --text`);
  }
  if (!tokenizer) return null;
  if (text === undefined) throw new Error(`${model}: the model reads a text with each picture: give it one with --text`);
  const tokens = encoded(tokenizer, spec.text.tokenizer, text);
  if (tokens.truncated) console.error('classify: the text is longer than the model reads: its end was left out');
  return { text, tokens };
}

async function recordOf(model, image, text) {
  const asked = text ? { text: text.text, text_truncated: text.tokens.truncated } : {};
  const told = { provider: PROVIDER, error: null, ...asked };
  try {
    const reading = await naming(image, async (path) => run(model, await readFile(path), text?.tokens));
    return { image, ...answer(model.spec, reading), ...told };
  } catch (error) {
    return { image, label: null, probability: null, top: [], ...told, error: error.message };
  }
}

/** What the model says of the bytes of one picture, as `answer` reads it. */
async function run({ spec, session }, bytes, tokens) {
  const inputs = { image: await decode(bytes) };
  if (tokens) {
    inputs.input_ids = row(tokens.inputIds);
    inputs.attention_mask = row(tokens.attentionMask);
  }
  return readingOf(spec, await session.run(inputs, outputsOf(spec)));
}

function row(numbers) {
  return new Tensor('int64', BigInt64Array.from(numbers, BigInt), [1, numbers.length]);
}

/** RGB bytes as they are in the file: upright, over white, colours not converted. The model resizes them itself. */
async function decode(bytes) {
  const { data, info } = await sharp(bytes, { ignoreIcc: true })
    .autoOrient()
    .flatten({ background: 'white' })
    .toColourspace('srgb')
    .raw({ depth: 'uchar' })
    .toBuffer({ resolveWithObject: true });
  checkShape(info.width, info.height);
  return new Tensor('uint8', data, [1, info.height, info.width, info.channels]);
}

async function selftest(path, model) {
  const tokens = (text) => model.tokenizer && encoded(model.tokenizer, model.spec.text.tokenizer, text);
  const { count, drift, tolerance } = await replay(model.spec, (png, text) => run(model, png, tokens(text)));
  console.log(`${path}: ${count} pictures, drift ${drift.toExponential(1)}, tolerance ${tolerance.toExponential(1)}`);
  if (!(drift <= tolerance)) fail(`${path}: this machine does not decide as PyTorch did`);
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

function fail(message) {
  console.error(`classify: ${printable(message)}`);
  process.exitCode = 1;
}

main().catch((error) => fail(error.message));
