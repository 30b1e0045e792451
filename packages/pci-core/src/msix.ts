/** MSI-X: table, pending bits and masks. PCI Local Bus 3.0, "MSI-X Capability and Table Structure". */
import type { Mmio } from './ports.js';
import { MsixEntry } from './spec/config.js';

const { addressLow, data, masked } = MsixEntry.get;
const WORDS = MsixEntry.bytes / 4;

/** Sends the message of a vector: the low 32 bits of the address (the upper are zero on x86) and the data. */
export type SendMessage = (address: number, data: number, vector: number) => void;

export class MsixTable {
  // fixed
  readonly vectors: number;
  /** Table then pending bit array, as software sees them. */
  readonly table: Mmio;
  readonly pba: Mmio;
  // ports
  send: SendMessage = () => {};
  // state
  readonly words: Uint32Array;
  readonly pending: Uint32Array;
  #enabled = false;
  #functionMask = false;

  constructor(vectors: number) {
    if (!(Number.isInteger(vectors) && vectors >= 1 && vectors <= 2048)) throw new RangeError(`MSI-X vectors: 1 to 2048, not ${vectors}`);
    this.vectors = vectors;
    this.words = new Uint32Array(vectors * WORDS);
    this.pending = new Uint32Array(Math.ceil(vectors / 64) * 2);
    this.reset();
    this.table = {
      read: (offset, width) => (width === 4 && (offset & 3) === 0 ? (this.words[offset >>> 2] ?? 0) : 0),
      write: (offset, width, value) => {
        // "Software must use only aligned DWORD or QWORD accesses"; others have no defined effect: none here.
        if (width !== 4 || offset & 3 || offset >>> 2 >= this.words.length) return;
        const word = (offset >>> 2) % WORDS;
        const entry = (offset >>> 2) - word;
        this.words[offset >>> 2] = value & ~(MsixEntry.masks.reserved[word]! | (word === 0 ? 3 : 0));
        if (word === 3) this.#replay(entry / WORDS);
      },
    };
    this.pba = {
      read: (offset, width) => (width === 4 && (offset & 3) === 0 ? (this.pending[offset >>> 2] ?? 0) : 0),
      write: () => {},
    };
  }

  /** The capability's control bits changed. Enabling or lifting the function mask sends what is pending. */
  control(enabled: boolean, functionMask: boolean): void {
    this.#enabled = enabled;
    this.#functionMask = functionMask;
    for (let v = 0; v < this.vectors; v++) this.#replay(v);
  }

  /** The function's event `vector`: sent, kept pending while masked, or lost when MSI-X is off (the function must not send then). */
  fire(vector: number): void {
    if (!this.#enabled || vector >= this.vectors) return;
    const entry = vector * WORDS;
    if (this.#functionMask || masked(this.words, entry)) this.pending[vector >>> 5]! |= 1 << (vector & 31);
    else this.send(addressLow(this.words, entry) | 0, data(this.words, entry) | 0, vector);
  }

  isPending(vector: number): boolean {
    return ((this.pending[vector >>> 5]! >>> (vector & 31)) & 1) === 1;
  }

  reset(): void {
    this.words.fill(0);
    this.pending.fill(0);
    this.#enabled = this.#functionMask = false;
    for (let v = 0; v < this.vectors; v++) MsixEntry.set.masked(this.words, v * WORDS, 1);
  }

  #replay(vector: number): void {
    if (!this.isPending(vector) || !this.#enabled || this.#functionMask || masked(this.words, vector * WORDS)) return;
    this.pending[vector >>> 5]! &= ~(1 << (vector & 31));
    this.fire(vector);
  }
}
