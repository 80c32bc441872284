import { shownScores } from '../shared/answers.mjs';

const UNSEEN = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu;

/** Text with escapes for what a terminal would obey instead of showing it: files and labels are somebody else's. */
export function printable(text) {
  return text.replace(UNSEEN, (letter) => `\\u{${letter.codePointAt(0).toString(16)}}`);
}

/** Records as the table that `clip-infer` prints, with all labels. */
export function table(records) {
  if (records.length === 0) return '';
  const answers = records.map(rows);
  const images = records.map(({ image }) => printable(image));
  const width = (texts) => Math.max(5, ...texts.map((text) => text.length));
  const imageWidth = width(images);
  const labelWidth = width(answers.flat().map(([label]) => label));
  const line = (image, label, value) => `${image.padEnd(imageWidth)}  ${label.padEnd(labelWidth)}  ${value}\n`;
  const body = answers.flatMap((answer, number) =>
    answer.map(([label, value], rank) => line(rank === 0 ? images[number] : '', label, value)),
  );
  const novel = records.flatMap(({ is_novel, novelty }, number) =>
    is_novel ? [`${images[number]}: unlike the training images (novelty ${novelty.toPrecision(4)})\n`] : [],
  );
  const sets = records.flatMap(({ set, is_novel }, number) =>
    set && !is_novel ? [`${images[number]}: one of these should be right: ${set.map(printable).join(', ')}\n`] : [],
  );
  const marked = body.some((text) => text.endsWith('*\n'));
  const quantity = records[0].values ? 'value' : 'probability';
  const legend = marked ? ['* predicted by a threshold\n'] : [];
  return [line('image', 'label', quantity), ...body, ...legend, ...novel, ...sets].join('');
}

function rows(record) {
  if (record.values) {
    return Object.entries(record.values).map(([name, value]) => [
      printable(name),
      String(Number(value.toPrecision(5))).padStart(10),
    ]);
  }
  return shownScores(record).map(({ label, probability, marked }) => [
    printable(label),
    `${(100 * probability).toFixed(2)}%`.padStart(10) + (marked ? ' *' : ''),
  ]);
}
