/**
 * Descriptors out of smaller stores: sixteen dwords in ascending order from a slot of 64 bytes are one posted write. A processor without
 * MOVDIR64B reaches a portal so when its stores are combined. unconfirmed: the specification asks for one write of 64 bytes, so a device has
 * this by an option only.
 */
const SLOT_BYTES = 64;

export class Assembly {
  readonly words = new Uint32Array(SLOT_BYTES / 4);
  /** The offset at which the next dword is due; -1: at the beginning of any slot. */
  #due = -1;

  /** Takes one store: 1 when it makes a descriptor whole (it stands in `words`), -1 when it tore what had begun, else 0. */
  store(offset: number, width: number, value: number): number {
    const begun = this.#due >= 0;
    const word = (offset & (SLOT_BYTES - 1)) >>> 2;
    const fits = width === 4 && (offset & 3) === 0;
    const next = begun && fits && offset === this.#due;
    if (!next) {
      this.#due = fits && word === 0 ? offset : -1;
      if (this.#due < 0) return begun ? -1 : 0;
    }
    this.words[word] = value;
    this.#due = word === SLOT_BYTES / 4 - 1 ? -1 : offset + 4;
    return begun && !next ? -1 : this.#due < 0 ? 1 : 0;
  }
  reset(): void {
    this.#due = -1;
  }
}
