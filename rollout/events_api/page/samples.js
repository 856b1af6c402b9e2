// In the audio thread: samples in pieces of about a tenth of a second, as 16-bit numbers.
class Samples extends AudioWorkletProcessor {
  constructor() {
    super();
    this.piece = new Int16Array(4096);
    this.filled = 0;
    this.peak = 0;
  }

  process([input]) {
    const channels = input.length;
    if (!channels) return true;
    for (let i = 0; i < input[0].length; i++) {
      let sum = 0;
      for (let c = 0; c < channels; c++) sum += input[c][i];
      const value = Math.max(-1, Math.min(1, sum / channels));
      this.peak = Math.max(this.peak, Math.abs(value));
      this.piece[this.filled++] = Math.round(value * 32767);
      if (this.filled === this.piece.length) {
        this.port.postMessage({ samples: this.piece, peak: this.peak });
        this.piece = new Int16Array(4096);
        this.filled = this.peak = 0;
      }
    }
    return true;
  }
}
registerProcessor("samples", Samples);
