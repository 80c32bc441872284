// The spec that clip-export keeps in an ONNX file: JSON under one key of its `metadata_props`.
// ONNX Runtime's JavaScript builds do not show metadata, so this walks the protobuf wire format far enough to find it.
// Field numbers are those of onnx.proto.

const SPEC_KEY = 'clip_toolkit';
const SPEC_MAJOR = 1;
const TASKS = ['single-label', 'multi-label', 'regression'];
const MAX_ASPECT = 1000;
const [VARINT, FIXED64, BYTES, FIXED32] = [0, 1, 2, 5];
const [MODEL_GRAPH, MODEL_METADATA] = [7, 14];
const [ENTRY_KEY, ENTRY_VALUE] = [1, 2];

/** The spec in the bytes (Uint8Array) of a model file, as docs/model-file.md describes it. */
export function readSpec(bytes) {
  const model = [...fields(bytes)];
  if (!model.some(([number]) => number === MODEL_GRAPH)) throw notOnnx();
  const metadata = model.filter(([number]) => number === MODEL_METADATA).map(([, entry]) => new Map(fields(entry)));
  const entry = metadata.findLast((pair) => text(pair.get(ENTRY_KEY)) === SPEC_KEY);
  if (!entry) throw new Error(`an ONNX file, but without '${SPEC_KEY}' metadata: only files of clip-export can be run`);
  return checked(parsed(text(entry.get(ENTRY_VALUE))));
}

/** Refuse a picture that is all length: resized, it would need hundreds of megabytes. */
export function checkShape(width, height) {
  if (Math.max(width, height) > MAX_ASPECT * Math.min(width, height)) {
    throw new Error(`the picture is ${width}x${height}: one side is over ${MAX_ASPECT} times the other`);
  }
}

function parsed(json) {
  try {
    return JSON.parse(json);
  } catch {
    throw new Error('the metadata is not valid JSON: export the model again');
  }
}

/** Refuse what this program lacks, rather than answer something else than the file means. */
function checked(spec) {
  if (spec?.tasks?.length) {
    const heads = [spec.name, ...spec.tasks.map(({ name }) => name)].join(', ');
    throw new Error(`the file holds the heads ${heads}, and this program answers for one: use clip-infer or clip-serve`);
  }
  if (Number.parseInt(spec?.version, 10) !== SPEC_MAJOR) {
    throw new Error(`the file has format version ${spec?.version}, this program reads ${SPEC_MAJOR}.x`);
  }
  if ((spec.kind ?? 'classifier') !== 'classifier') {
    throw new Error(`the file holds a ${spec.kind} tower, and this program runs classifiers of pictures alone`);
  }
  if (spec.input !== 'image') {
    throw new Error(`the file takes ${spec.input}, not pictures: export it without --input ${spec.input}`);
  }
  spec.task ??= 'single-label'; // files from before there were tasks
  if (!TASKS.includes(spec.task)) {
    throw new Error(`the file has the task ${spec.task}, this program knows ${TASKS.join(', ')}`);
  }
  const thresholds = Object.keys(spec.thresholds ?? {}).length;
  if (spec.task === 'single-label' && thresholds > 0 && (thresholds !== 1 || spec.labels.length !== 2)) {
    throw new Error('the model file contradicts itself: its threshold is not that of one of two labels');
  }
  return spec;
}

function text(value) {
  return new TextDecoder().decode(value);
}

function notOnnx() {
  return new Error('expected an ONNX file, got something else or a damaged one');
}

/** Number and value of each field of a message: a number for varints, the bytes for everything else. */
function* fields(message) {
  let position = 0;
  const varint = () => {
    let value = 0;
    // Multiplied, not shifted: JavaScript shifts in 32 bits.
    for (let scale = 1; scale < 2 ** 70 && position < message.length; scale *= 128) {
      const byte = message[position++];
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) return value;
    }
    throw notOnnx();
  };
  const lengths = { [FIXED64]: () => 8, [BYTES]: varint, [FIXED32]: () => 4 };
  while (position < message.length) {
    const tag = varint();
    const [number, wireType] = [Math.floor(tag / 8), tag % 8];
    if (wireType === VARINT) {
      yield [number, varint()];
      continue;
    }
    const length = lengths[wireType]?.();
    if (number === 0 || !(position + length <= message.length)) throw notOnnx();
    yield [number, message.subarray(position, (position += length))];
  }
}
