import { checkShape } from '../shared/model-spec.mjs';

const STRIP_ROWS = 512;

/** Width, height and RGB bytes of a picture file: upright, over white, colours not converted. The model resizes them. */
export async function decode(file) {
  const options = { imageOrientation: 'from-image', colorSpaceConversion: 'none' };
  const bitmap = await createImageBitmap(file, options).catch(() => {
    throw new Error('this browser cannot read it as a picture');
  });
  const { width, height } = bitmap;
  checkShape(width, height);
  return { width, height, rgb: rgbBytes(bitmap) };
}

/** In strips, because some browsers refuse a canvas as large as a phone's photo. */
function rgbBytes(bitmap) {
  const { width, height } = bitmap;
  const context = new OffscreenCanvas(width, STRIP_ROWS).getContext('2d', { willReadFrequently: true });
  context.fillStyle = 'white';
  const rgb = new Uint8Array(width * height * 3);
  let end = 0;
  for (let top = 0; top < height; top += STRIP_ROWS) {
    context.fillRect(0, 0, width, STRIP_ROWS);
    context.drawImage(bitmap, 0, -top);
    const { data } = context.getImageData(0, 0, width, Math.min(STRIP_ROWS, height - top));
    for (let start = 0; start < data.length; start += 4) {
      rgb[end++] = data[start];
      rgb[end++] = data[start + 1];
      rgb[end++] = data[start + 2];
    }
  }
  bitmap.close();
  return rgb;
}
