/** The camera: pictures of what it sees, one after the other, for as long as somebody asks for them. */
export class Camera {
  #video;
  #stream = null;

  constructor(video) {
    this.#video = video;
  }

  get running() {
    return this.#stream !== null;
  }

  async start() {
    if (!navigator.mediaDevices) throw new Error('the browser shows its camera to https and localhost alone');
    try {
      this.#stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: 'environment' } });
    } catch (error) {
      throw new Error(error.name === 'NotAllowedError' ? 'this page may not use it' : 'there is none');
    }
    this.#video.srcObject = this.#stream;
    await this.#video.play();
  }

  stop() {
    for (const track of this.#stream?.getTracks() ?? []) track.stop();
    this.#stream = null;
    this.#video.srcObject = null;
  }

  /** What it sees now, as a lossless file. */
  async picture() {
    const canvas = new OffscreenCanvas(this.#video.videoWidth, this.#video.videoHeight);
    canvas.getContext('2d').drawImage(this.#video, 0, 0);
    return new File([await canvas.convertToBlob()], 'camera.png');
  }
}
