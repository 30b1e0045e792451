/**
 * CRC of up to 64 bits with any polynomial: the polynomial's bits stand at the upper end of 64, its highest (always 1) is not written. Intel QPL,
 * "CRC64 Operation"; accel-config, test/algorithms/iaa_crc64.c. The value is kept as two 32-bit halves.
 */
import { reverse32 } from '../crc.js';

export class Crc64 {
  // fixed
  readonly #high = new Int32Array(256);
  readonly #low = new Int32Array(256);
  // state
  #polynomialHigh = 0;
  #polynomialLow = 0;
  #reflected = false;
  #built = false;
  /** All bits of the polynomial's width, in the register's order, when the value is inverted at the beginning and end; else 0. */
  #invertHigh = 0;
  #invertLow = 0;
  high = 0;
  low = 0;

  /** `reflected`: bit 0 of a byte is its most significant (bit order flag), and the value stands at the lower end. */
  begin(polynomialHigh: number, polynomialLow: number, reflected: boolean, invert: boolean): void {
    const high = polynomialHigh | 0;
    const low = polynomialLow | 0;
    if (!this.#built || high !== this.#polynomialHigh || low !== this.#polynomialLow || reflected !== this.#reflected) {
      this.#polynomialHigh = high;
      this.#polynomialLow = low;
      this.#reflected = reflected;
      this.#build();
    }
    this.#invertHigh = this.#invertLow = 0;
    if (invert) {
      // From its lowest bit upwards: that is how wide it is.
      const h = high | 0;
      const l = low | 0;
      const wideLow = l === 0 ? 0 : -(l & -l);
      const wideHigh = l !== 0 ? -1 : h === 0 ? 0 : -(h & -h);
      this.#invertHigh = reflected ? reverse32(wideLow) : wideHigh;
      this.#invertLow = reflected ? reverse32(wideHigh) : wideLow;
    }
    this.high = this.#invertHigh;
    this.low = this.#invertLow;
  }

  #build(): void {
    const ph = this.#reflected ? reverse32(this.#polynomialLow) : this.#polynomialHigh;
    const pl = this.#reflected ? reverse32(this.#polynomialHigh) : this.#polynomialLow;
    for (let n = 0; n < 256; n++) {
      let high = this.#reflected ? 0 : n << 24;
      let low = this.#reflected ? n : 0;
      for (let k = 0; k < 8; k++) {
        const out = this.#reflected ? low & 1 : high >>> 31;
        if (this.#reflected) {
          low = (low >>> 1) | (high << 31);
          high >>>= 1;
        } else {
          high = (high << 1) | (low >>> 31);
          low <<= 1;
        }
        if (out) {
          high ^= ph;
          low ^= pl;
        }
      }
      this.#high[n] = high;
      this.#low[n] = low;
    }
    this.#built = true;
  }

  update(bytes: Uint8Array, from: number, to: number): void {
    let { high, low } = this;
    const tableHigh = this.#high;
    const tableLow = this.#low;
    if (this.#reflected)
      for (let at = from; at < to; at++) {
        const n = (low ^ bytes[at]!) & 0xff;
        low = ((low >>> 8) | (high << 24)) ^ tableLow[n]!;
        high = (high >>> 8) ^ tableHigh[n]!;
      }
    else
      for (let at = from; at < to; at++) {
        const n = (high >>> 24) ^ bytes[at]!;
        high = ((high << 8) | (low >>> 24)) ^ tableHigh[n]!;
        low = (low << 8) ^ tableLow[n]!;
      }
    this.high = high;
    this.low = low;
  }
  finish(): void {
    this.high = (this.high ^ this.#invertHigh) >>> 0;
    this.low = (this.low ^ this.#invertLow) >>> 0;
  }
}
