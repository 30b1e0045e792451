/**
 * A second walker, plain and slow: BigInt, straight from the rules, sharing nothing with the fast one but the entries' layouts (as bit
 * numbers). First stage of 4 or 5 levels, second stage of 4, nested. It reads a copy of memory and sets no bits.
 */
export interface Spaces {
  readonly type: 'first' | 'second' | 'nested';
  readonly first: bigint;
  readonly levels: 4 | 5;
  readonly second: bigint;
  readonly supervisor: boolean;
  readonly writeProtect: boolean;
}
export interface Request {
  readonly address: bigint;
  readonly write: boolean;
  readonly execute: boolean;
  readonly supervisor: boolean;
}
type Result = { readonly at: bigint; readonly reads: number } | { readonly fault: number; readonly reads: number };
const HOST = 43n;
const bit = (value: bigint, n: bigint): boolean => ((value >> n) & 1n) === 1n;
const bits = (value: bigint, high: bigint, low: bigint): bigint => (value >> low) & ((1n << (high - low + 1n)) - 1n);

export function translate(load: (address: bigint) => bigint | undefined, s: Spaces, r: Request): Result {
  let reads = 0;
  const second = (input: bigint, need: 'read' | 'write'): { out: bigint; write: boolean } | number => {
    if (input >> 48n) return 0x84;
    let table = s.second;
    let read = true;
    let write = true;
    for (let level = 4n; ; level--) {
      const shift = 12n + 9n * (level - 1n);
      const entry = load(table + bits(input, shift + 8n, shift) * 8n);
      if (entry === undefined) return level === 4n ? 0x7b : 0x78;
      reads++;
      read &&= bit(entry, 0n);
      write &&= bit(entry, 1n);
      if (!read && !write) return 0x79;
      if (bits(entry, 51n, HOST) || bit(entry, 62n)) return 0x7a;
      const leaf = level === 1n || bit(entry, 7n);
      if (!leaf && bit(entry, 11n)) return 0x7a;
      if (leaf && level > 3n) return 0x7a;
      if (leaf && level > 1n && bits(entry, shift - 1n, 12n)) return 0x7a;
      if (!leaf) {
        table = bits(entry, 51n, 12n) << 12n;
        continue;
      }
      if (need === 'write' && !write) return 0x85;
      if (need === 'read' && !read) return 0x86;
      return { out: ((bits(entry, 51n, 12n) << 12n) & ~((1n << shift) - 1n)) | (input & ((1n << shift) - 1n)), write };
    }
  };
  const fault = (code: number): Result => ({ fault: code, reads });
  const need = r.write ? 'write' : 'read';
  if (s.type === 'second') {
    const result = second(r.address, need);
    return typeof result === 'number' ? fault(result) : { at: result.out, reads };
  }
  if (r.supervisor && !s.supervisor) return fault(0x5d);
  const width = s.levels === 4 ? 48n : 57n;
  const sign = bits(r.address, 63n, width - 1n);
  if (sign !== 0n && sign !== (1n << (65n - width)) - 1n) return fault(0x80);
  let table = s.first;
  let write = true;
  let user = true;
  let noExecute = false;
  for (let level = BigInt(s.levels); ; level--) {
    const top = level === BigInt(s.levels);
    let writable = true;
    let host = table;
    if (s.type === 'nested') {
      const page = second(table, 'read');
      if (page === 0x84) return fault(0x74);
      if (page === 0x79 || page === 0x86) return fault(top ? 0x75 : 0x76);
      if (typeof page === 'number') return fault(page);
      host = page.out;
      writable = page.write;
    }
    const shift = 12n + 9n * (level - 1n);
    const entry = load(host + bits(r.address, shift + 8n, shift) * 8n);
    if (entry === undefined) return fault(top ? 0x73 : 0x70);
    reads++;
    if (!bit(entry, 0n)) return fault(0x71);
    const leaf = level === 1n || bit(entry, 7n);
    if (leaf && level > 3n) return fault(0x72);
    if (leaf && level > 1n && bits(entry, shift - 1n, 13n)) return fault(0x72);
    if (s.type === 'first' && bits(entry, 51n, HOST)) return fault(0x72);
    write &&= bit(entry, 1n);
    user &&= bit(entry, 2n);
    noExecute ||= bit(entry, 63n);
    if (leaf) {
      if (!r.supervisor && !user) return fault(0x81);
      if (r.execute && noExecute) return fault(0x82);
      if (r.write && !write && (!r.supervisor || s.writeProtect)) return fault(0x85);
    }
    const needs = !bit(entry, 5n) || (leaf && r.write && !bit(entry, 6n));
    if (needs && !writable) return fault(0x77);
    table = bits(entry, 51n, 12n) << 12n;
    if (!leaf) continue;
    const size = (1n << shift) - 1n;
    const output = (table & ~size) | (r.address & size);
    if (s.type === 'first') return { at: output, reads };
    const result = second(output, need);
    return typeof result === 'number' ? fault(result) : { at: result.out, reads };
  }
}
