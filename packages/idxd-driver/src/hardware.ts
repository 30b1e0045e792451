/** BAR 0 as the driver uses it: dwords, and structures of them. */
import type { Mmio } from './ports.js';

export class Hardware {
  readonly mmio: Mmio;
  constructor(mmio: Mmio) {
    this.mmio = mmio;
  }
  read(offset: number): number {
    return this.mmio.read(offset, 4);
  }
  /** One register as words, for its layout. */
  word(offset: number): Uint32Array {
    return Uint32Array.of(this.read(offset));
  }
  words(offset: number, bytes: number): Uint32Array {
    return Uint32Array.from({ length: bytes / 4 }, (_, i) => this.read(offset + i * 4));
  }
  write(offset: number, words: ArrayLike<number>): void {
    for (let i = 0; i < words.length; i++) this.mmio.write(offset + i * 4, 4, words[i]!);
  }
}
