// The microphone as a WAV file: samples as they come, so that its length is exact and it can be played from anywhere.
export class Recorder {
  // `tell` hears (seconds, level 0 to 1) several times a second.
  static async start(tell) {
    if (!navigator.mediaDevices) throw new Error("A browser gives a page the microphone over https or on localhost alone.");
    let stream;
    try {
      stream = await navigator.mediaDevices.getUserMedia({ audio: { echoCancellation: false, noiseSuppression: false, autoGainControl: false } });
    } catch (error) {
      throw new Error(error.name === "NotFoundError" ? "There is no microphone." : "The browser was not allowed to use the microphone.");
    }
    const context = new AudioContext();
    await context.audioWorklet.addModule("/page/samples.js");
    const recorder = new Recorder(stream, context, tell);
    await context.resume();
    return recorder;
  }

  constructor(stream, context, tell) {
    this.stream = stream;
    this.context = context;
    this.pieces = [];
    this.length = 0;
    const tap = new AudioWorkletNode(context, "samples", { numberOfOutputs: 0 });
    tap.port.onmessage = ({ data }) => {
      this.pieces.push(data.samples);
      this.length += data.samples.length;
      tell(this.length / context.sampleRate, data.peak);
    };
    context.createMediaStreamSource(stream).connect(tap);
  }

  get bytes() { return 44 + 2 * this.length; }

  async stop() {
    for (const track of this.stream.getTracks()) track.stop();
    await this.context.close();
    const stamp = new Date().toISOString().slice(0, 19).replaceAll(":", "-");
    return new File([header(this.length, this.context.sampleRate), ...this.pieces], `recording ${stamp}.wav`, { type: "audio/wav" });
  }
}

function header(length, rate) {
  const view = new DataView(new ArrayBuffer(44));
  const text = (at, word) => [...word].forEach((c, i) => view.setUint8(at + i, c.charCodeAt(0)));
  text(0, "RIFF"); view.setUint32(4, 36 + 2 * length, true); text(8, "WAVEfmt ");
  view.setUint32(16, 16, true); view.setUint16(20, 1, true); view.setUint16(22, 1, true);
  view.setUint32(24, rate, true); view.setUint32(28, 2 * rate, true); view.setUint16(32, 2, true); view.setUint16(34, 16, true);
  text(36, "data"); view.setUint32(40, 2 * length, true);
  return view;
}
