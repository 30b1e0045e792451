/**
 * A register file: offsets to layouts, with reset values, and the access kinds of the layouts enforced by their masks on every write.
 * Arrays of registers have a stride. What a mask cannot say is a pure `legalize` hook, or an `onWrite` action.
 */
import type { AnyLayout } from './layout.js';

export interface RegisterRow {
  /** Byte offset of the first one. */
  readonly offset: number;
  readonly layout: AnyLayout;
  /** How many, and the distance in bytes between them. */
  readonly count?: number;
  readonly stride?: number;
  /** Reset value of each 32-bit word (default 0). */
  readonly reset?: readonly number[];
  /** Bits that software may write now, by word of the element; absent: the layout's masks alone decide. Called after the masks. */
  legalize?(old: number, written: number, word: number, index: number): number;
}

interface Slot {
  readonly row: string;
  readonly index: number;
  readonly word: number;
}

export interface RegisterFile<R extends Record<string, RegisterRow>> {
  /** Backing words, little endian; hardware reads and writes them with the layouts' accessors at `at(row, index)`. */
  readonly words: Uint32Array;
  /** The word index of a register (element `index` of an array). */
  at(row: keyof R & string, index?: number): number;
  /** A software read of 1, 2 or 4 bytes, unsigned; 0 where nothing is declared. */
  read(offset: number, width: number): number;
  /** A software write: read-only and reserved bits keep, W1C bits clear. Returns the row that was written, or undefined. */
  write(offset: number, width: number, value: number): keyof R | undefined;
  /** The row, element and word at a byte offset. */
  find(offset: number): Slot | undefined;
  reset(): void;
  show(): string[];
  json(): Record<string, unknown>;
}

/** Makes the file; `size` in bytes. Rows that overlap are refused. */
export function registerFile<const R extends Record<string, RegisterRow>>(size: number, rows: R): RegisterFile<R> {
  const words = new Uint32Array(Math.ceil(size / 4));
  const slots: (Slot | undefined)[] = new Array(words.length).fill(undefined);
  for (const [row, { offset, layout, count = 1, stride = layout.bytes }] of Object.entries(rows)) {
    if (offset % 4 || stride % 4) throw new TypeError(`register ${row}: offset and stride are multiples of 4`);
    for (let index = 0; index < count; index++)
      for (let word = 0; word < layout.bytes / 4; word++) {
        const at = (offset + index * stride) / 4 + word;
        if (at >= words.length || slots[at]) throw new TypeError(`register ${row}: byte 0x${(at * 4).toString(16)} is taken or beyond ${size}`);
        slots[at] = { row, index, word };
      }
  }
  const at = (row: keyof R & string, index = 0): number => (rows[row]!.offset + index * (rows[row]!.stride ?? rows[row]!.layout.bytes)) / 4;
  const laneMask = (offset: number, width: number): number => (width === 4 ? 0xffff_ffff : (2 ** (8 * width) - 1) << (8 * (offset & 3)));
  const each = function* (): Generator<[name: string, row: RegisterRow, at: number]> {
    for (const [name, row] of Object.entries(rows))
      for (let i = 0; i < (row.count ?? 1); i++) yield [(row.count ?? 1) > 1 ? `${name}[${i}]` : name, row, at(name, i)];
  };
  const file: RegisterFile<R> = {
    words,
    at,
    find: (offset) => slots[offset >>> 2],
    read: (offset, width) => (((words[offset >>> 2] ?? 0) >>> (8 * (offset & 3))) & (width === 4 ? 0xffff_ffff : 2 ** (8 * width) - 1)) >>> 0,
    write(offset, width, value) {
      const slot = slots[offset >>> 2];
      if (!slot) return undefined;
      const row = rows[slot.row]!;
      const { rw, rw1c } = row.layout.masks;
      const index = offset >>> 2;
      const old = words[index]!;
      const lanes = laneMask(offset, width);
      const shifted = value << (8 * (offset & 3));
      const clears = rw1c[slot.word]! & lanes & shifted;
      const writable = rw[slot.word]! & lanes;
      const masked = (((old & ~writable) | (shifted & writable)) & ~clears) >>> 0;
      words[index] = row.legalize ? row.legalize(old, masked, slot.word, slot.index) : masked;
      return slot.row as keyof R;
    },
    reset() {
      words.fill(0);
      for (const row of Object.keys(rows)) for (let i = 0; i < (rows[row]!.count ?? 1); i++) words.set(rows[row]!.reset ?? [], at(row, i));
    },
    show: () => [...each()].map(([name, row, i]) => row.layout.show(words, i).replace(row.layout.name, name)),
    json: () => Object.fromEntries([...each()].map(([name, row, i]) => [name, row.layout.json(words, i)])),
  };
  file.reset();
  return file;
}

/** A structure whose rest depends on an opcode: one table from code to layout, with a fallback for the codes it does not name. */
export interface Variants {
  of(words: Uint32Array, at: number): AnyLayout;
  show(words: Uint32Array, at: number): string;
  json(words: Uint32Array, at: number): Record<string, number | string>;
}
export function variants(common: AnyLayout, code: (words: Uint32Array, at: number) => number, byCode: Readonly<Record<number, AnyLayout>>): Variants {
  const of = (words: Uint32Array, at: number): AnyLayout => byCode[code(words, at)] ?? common;
  return { of, show: (words, at) => of(words, at).show(words, at), json: (words, at) => of(words, at).json(words, at) };
}
