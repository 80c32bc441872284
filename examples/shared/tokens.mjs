// Texts as a model file takes them: `input_ids` and `attention_mask`, by the tokenizer that travels in its spec.

/**
 * The tokenizer of a model's spec, by the class Tokenizer of @huggingface/tokenizers.
 *
 * Libraries differ on rare texts: one that does not give the tokens of the file's own examples is refused.
 */
export function openTokenizer(Tokenizer, { text: { tokenizer: own }, golden }) {
  const tokenizer = new Tokenizer(JSON.parse(own.json), {});
  for (const { text, input_ids: expected } of golden) {
    if (String(encoded(tokenizer, own, text).inputIds) !== String(expected)) {
      throw new Error(`the tokenizer library reads ${JSON.stringify(text)} otherwise than the model's own tokenizer`);
    }
  }
  return tokenizer;
}

/**
 * The tokens of one text by itself: `{ inputIds, attentionMask, truncated }`.
 *
 * `tokenizer` is a Tokenizer of @huggingface/tokenizers, made from the `json` of `spec`, which is `text.tokenizer` of the
 * model's spec (docs/model-file.md). Truncation and padding are not in that JSON: a text beyond the context loses its
 * end, before the marks that stand behind it.
 */
export function encoded(tokenizer, spec, text) {
  const whole = tokenizer.encode(text).ids;
  if (!whole.every(Number.isInteger)) throw new Error('a word of the text is unknown to the tokenizer');
  const ids = cut(whole, tokenizer.encode(text, { add_special_tokens: false }).ids, spec.context);
  const missing = Math.max(0, (spec.pad_to_context ? spec.context : 1) - ids.length);
  const padded = (row, filler) => {
    const padding = Array(missing).fill(filler);
    return spec.padding_side === 'left' ? [...padding, ...row] : [...row, ...padding];
  };
  return {
    inputIds: padded(ids, spec.pad_id),
    attentionMask: padded(Array(ids.length).fill(1), 0),
    truncated: whole.length > spec.context,
  };
}

/** `whole` with `words` in the middle, cut to `context` tokens; the marks behind the words stay. */
function cut(whole, words, context) {
  if (whole.length <= context) return whole;
  const marks = whole.length - words.length;
  const places = [...Array(marks + 1).keys()].reverse();
  const before = places.find((place) => words.every((id, index) => id === whole[place + index])) ?? marks;
  const behind = whole.slice(whole.length - (marks - before));
  return [...whole.slice(0, context - behind.length), ...behind];
}
