#!/usr/bin/env node
import { readFile } from 'node:fs/promises';
import { parseArgs } from 'node:util';

import { InferenceSession, Tensor } from 'onnxruntime-node';
import sharp from 'sharp';

import { checkShape, ranked, readSpec } from '../shared/model-spec.mjs';

const USAGE = 'usage: node classify.mjs MODEL IMAGE [--json]';
const PROVIDER = 'CPUExecutionProvider';

async function main() {
  const args = parse(process.argv.slice(2));
  if (!args) return usage();
  const model = await naming(args.model, openModel);
  try {
    show(record(args.image, await naming(args.image, (path) => classify(model, path))), args.json);
  } catch (error) {
    if (args.json) show({ ...record(args.image, []), error: error.message }, true);
    throw error;
  }
}

function parse(argv) {
  try {
    const { values, positionals } = parseArgs({
      args: argv,
      allowPositionals: true,
      options: { json: { type: 'boolean', default: false } },
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

async function openModel(path) {
  const bytes = await readFile(path);
  const spec = readSpec(bytes);
  const session = await InferenceSession.create(bytes, { executionProviders: ['cpu'], logSeverityLevel: 3 });
  return { spec, session };
}

async function classify({ spec, session }, path) {
  const { probabilities } = await session.run({ image: await decode(path) }, ['probabilities']);
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
