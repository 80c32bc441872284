#!/usr/bin/env node
// Serves the page to this computer alone. Any static web server will do; this one also sends the two headers that let
// WebAssembly use threads.
import { createReadStream, existsSync, statSync } from 'node:fs';
import { createServer } from 'node:http';
import { extname, join, resolve, sep } from 'node:path';
import { parseArgs } from 'node:util';

const HERE = import.meta.dirname;
const ROOT = resolve(HERE, '..');
const PAGE = '/browser/';
const MODELS = [join(HERE, 'model.onnx'), join(ROOT, '..', 'models', 'demo.onnx')];
const TYPES = {
  '.css': 'text/css; charset=utf-8',
  '.html': 'text/html; charset=utf-8',
  '.mjs': 'text/javascript; charset=utf-8',
  '.svg': 'image/svg+xml',
  '.wasm': 'application/wasm',
};
const HEADERS = {
  'Cache-Control': 'no-cache',
  'Cross-Origin-Embedder-Policy': 'require-corp',
  'Cross-Origin-Opener-Policy': 'same-origin',
  'X-Content-Type-Options': 'nosniff',
};

function parse() {
  try {
    const { values, positionals } = parseArgs({
      allowPositionals: true,
      options: { port: { type: 'string', default: '8000' } },
    });
    if (!/^\d{1,5}$/.test(values.port) || Number(values.port) > 65535) throw new Error('no port');
    return { model: positionals[0] ?? MODELS.find(existsSync) ?? MODELS[0], port: Number(values.port) };
  } catch {
    console.error('usage: node serve.mjs [MODEL] [--port N], N from 0 to 65535');
    process.exit(2);
  }
}

/** The file that a URL names, or null. */
function fileFor(url, model) {
  const path = decodeURIComponent(new URL(url, 'http://localhost').pathname);
  if (path === `${PAGE}model.onnx`) return existing(resolve(model));
  const file = resolve(join(ROOT, path.endsWith('/') ? `${path}index.html` : path));
  return file.startsWith(ROOT + sep) ? existing(file) : null;
}

function existing(file) {
  return statSync(file, { throwIfNoEntry: false })?.isFile() ? file : null;
}

function answer(request, response, model) {
  if (request.url === '/') return response.writeHead(302, { Location: PAGE }).end();
  const file = fileFor(request.url, model);
  if (!file) return response.writeHead(404, HEADERS).end();
  response.writeHead(200, { ...HEADERS, 'Content-Type': TYPES[extname(file)] ?? 'application/octet-stream' });
  createReadStream(file).pipe(response);
}

function answerSafely(request, response, model) {
  try {
    answer(request, response, model);
  } catch {
    response.writeHead(400, HEADERS).end(); // a URL that cannot be decoded
  }
}

const { model, port } = parse();
const server = createServer((request, response) => answerSafely(request, response, model));
server.on('error', (error) => {
  const inUse = `port ${port} is in use by another program: name another with --port N, or --port 0 for any free one`;
  console.error(`serve: ${error.code === 'EADDRINUSE' ? inUse : error.message}`);
  process.exitCode = 1;
});
server.listen(port, '127.0.0.1', () => console.log(`http://127.0.0.1:${server.address().port}${PAGE}`));
