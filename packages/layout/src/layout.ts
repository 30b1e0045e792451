/**
 * The mechanism: a table that reads like the specification's becomes typed accessors, masks and a printer.
 * Accessors are closures made once per field; take them out at module level (`const { present } = Entry.get`) to keep them inlined.
 */
type Bits = `${number}:${number}` | `${number}`;
export type Access = 'rw' | 'ro' | 'rw1c';
type Named = Readonly<Record<string, number>>;
interface Spec {
  readonly bits: Bits;
  readonly access?: Access;
  readonly address?: true;
  readonly is?: Named;
}
type Rows = { readonly [offset: number]: { readonly [field: string]: Bits | Spec } };
type FieldOf<T extends Rows> = { [O in keyof T]: keyof T[O] & string }[keyof T & number];
type SpecOf<T extends Rows, F> = { [O in keyof T]: F extends keyof T[O] ? T[O][F] : never }[keyof T & number];
type NamesOf<T extends Rows> = {
  readonly [F in FieldOf<T> as SpecOf<T, F> extends { is: Named } ? F : never]: SpecOf<T, F> extends { is: infer N } ? N : never;
};
export type Get = (words: Uint32Array, at: number) => number;
export type Set = (words: Uint32Array, at: number, value: number) => void;
/** One field: its bits counted from the start of the structure. */
export interface Field extends Spec {
  readonly name: string;
  readonly low: number;
  readonly width: number;
}
/** Masks by 32-bit word: what software may write, what only hardware writes, what a written 1 clears, and what is reserved. */
export interface Masks {
  readonly rw: Uint32Array;
  readonly ro: Uint32Array;
  readonly rw1c: Uint32Array;
  readonly reserved: Uint32Array;
}
/** What every layout has, whatever its fields: enough for register files, printers and generated tests. */
export interface AnyLayout {
  readonly name: string;
  readonly bytes: number;
  readonly fields: readonly Field[];
  readonly masks: Masks;
  show(words: Uint32Array, at: number): string;
  json(words: Uint32Array, at: number): Record<string, number | string>;
}
export interface Layout<T extends Rows> extends AnyLayout {
  readonly get: { readonly [K in FieldOf<T>]: Get };
  readonly set: { readonly [K in FieldOf<T>]: Set };
  readonly is: NamesOf<T>;
}

const ones = (n: number): number => (n >= 32 ? 0xffff_ffff : 2 ** n - 1);
const name32 = (value: number): string => (value < 10 ? `${value}` : `0x${value.toString(16)}`);

function accessors({ name, low, width, address }: Field): [Get, Set] {
  const word = low >>> 5;
  const shift = low & 31;
  const over = shift + width - 32;
  const mask = ones(width);
  if (width === 32 && shift === 0)
    return [
      (w, at) => w[at + word]!,
      (w, at, v) => {
        w[at + word] = v;
      },
    ];
  if (over <= 0)
    return [
      (w, at) => (w[at + word]! >>> shift) & mask,
      (w, at, v) => {
        w[at + word] = (w[at + word]! & ~(mask << shift)) | ((v & mask) << shift);
      },
    ];
  if (!address && (shift !== 0 || width > 53))
    throw new TypeError(`${name}: a field across words starts at bit 0, has at most 53 bits, or is an address`);
  const keep = ones(32) & ~ones(shift);
  const top = ones(over);
  const next = word + 1;
  return [
    (w, at) => ((w[at + word]! & keep) >>> 0) + ((w[at + next]! & top) >>> 0) * 0x1_0000_0000,
    (w, at, v) => {
      w[at + word] = (w[at + word]! & ~keep) | (v & keep);
      w[at + next] = (w[at + next]! & ~top) | ((v / 0x1_0000_0000) & top);
    },
  ];
}

/**
 * Declares a register or structure once. Rows are byte offsets; bits count from the row's offset as the specification writes them
 * ('27:8', '28'), over as many words as needed. `at` is always an index into little-endian 32-bit words. A field across two words starts
 * at bit 0 of a word, or is an `address` and keeps its place (51:12 reads as the page's address, in bytes). A value that may exceed 2^53
 * is declared as two 32-bit fields.
 */
export function layout<const T extends Rows>(name: string, bytes: number, rows: T): Layout<T> {
  type F = FieldOf<T>;
  const fields: Field[] = [];
  const get = {} as Record<F, Get>;
  const set = {} as Record<F, Set>;
  const is: Record<string, Named> = {};
  const mask = (): Uint32Array => new Uint32Array(Math.ceil(bytes / 4));
  const masks = { rw: mask(), ro: mask(), rw1c: mask(), reserved: mask().fill(ones(32)) };
  for (const [offset, row] of Object.entries(rows))
    for (const [key, given] of Object.entries(row)) {
      const spec: Spec = typeof given === 'string' ? { bits: given } : given;
      const [high, base = high] = spec.bits.split(':').map(Number) as [number, number?];
      const field: Field = { ...spec, name: key, low: Number(offset) * 8 + base, width: high - base + 1 };
      for (let bit = field.low; bit < field.low + field.width; bit++) {
        const word = bit >>> 5;
        const one = (1 << (bit & 31)) >>> 0;
        if (bit >= bytes * 8 || key in get || !(masks.reserved[word]! & one))
          throw new TypeError(`${name}.${key}: bit ${bit} (or the name) is taken, or lies outside ${bytes} bytes`);
        masks.reserved[word]! &= ~one;
        masks[field.access ?? 'rw'][word]! |= one;
      }
      [get[key as F], set[key as F]] = accessors(field);
      if (field.is) is[key] = field.is;
      fields.push(field);
    }
  fields.sort((a, b) => a.low - b.low);
  const value = (f: Field, words: Uint32Array, at: number): number | string => {
    const read = get[f.name as F](words, at);
    return Object.entries(f.is ?? {}).find(([, n]) => n === read)?.[0] ?? read;
  };
  return {
    name,
    bytes,
    fields,
    get: get as Layout<T>['get'],
    set: set as Layout<T>['set'],
    is: is as NamesOf<T>,
    masks,
    show: (words, at) => {
      let text = name;
      for (const f of fields) {
        const v = value(f, words, at);
        text += ` ${f.name}=${typeof v === 'number' ? name32(v) : v}`;
      }
      return text;
    },
    json: (words, at) => Object.fromEntries(fields.map((f) => [f.name, value(f, words, at)])),
  };
}

/** A field whose values have names; `is` on the layout gives them. */
export const oneOf = <const N extends Named>(bits: Bits, is: N, access: Access = 'rw') => ({ bits, is, access }) as const;
/** Written by hardware only. */
export const ro = (bits: Bits) => ({ bits, access: 'ro' }) as const;
/** Software clears it by writing 1. */
export const rw1c = (bits: Bits) => ({ bits, access: 'rw1c' }) as const;
/** An address field that keeps its place: reads as bytes, as a Number (at most 53 bits). */
export const address = (bits: Bits, access: Access = 'rw') => ({ bits, address: true, access }) as const;
