/** The analytics accelerator's DEFLATE, from portal write to completion record, beside node:zlib at level 1 on the same bytes. */
import { closeSync, openSync, readdirSync, readFileSync, readSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { deflateRawSync, inflateRawSync } from 'node:zlib';
import { iax2 } from '@siov/idxd-device/iax';
import { CompressFlag, EndProcessing, HeaderGeneration } from '@siov/idxd-device/spec';
import { Client } from '@siov/idxd-driver/client';
import { fixedAecs, IaxClient } from '@siov/idxd-driver/client-iax';
import { openUacceQueue, UacceStack } from '@siov/stack/uacce';
import { bench, do_not_optimize, summary } from 'mitata';

const K = 1024;
const sizes = [64 * K, K * K];
const sizeName = (bytes: number): string => (bytes < K * K ? `${bytes / K} KiB` : `${bytes / K / K} MiB`);
const LEVEL = 1;
const GOAL = 0.2;

/** Text: our own sources. A program: the one that runs this. */
const kinds: Readonly<Record<string, (bytes: number) => Buffer>> = {
  text(bytes) {
    const folder = fileURLToPath(new URL('../../packages', import.meta.url));
    const sources = (readdirSync(folder, { recursive: true }) as string[]).filter((path) => /^[^/]+\/src\/.*\.ts$/.test(path)).sort();
    const text = Buffer.concat(sources.map((path) => readFileSync(`${folder}/${path}`)));
    return Buffer.alloc(bytes, text);
  },
  program(bytes) {
    const file = openSync(process.execPath, 'r');
    const out = Buffer.alloc(bytes);
    readSync(file, out, 0, bytes, 16 * K * K);
    closeSync(file);
    return out;
  },
};
/** Compression with the codes that come with the descriptor, and with codes and a header that the device makes (2.0). */
const codes = ['fixed codes', 'codes of its own'] as const;
const OWN =
  CompressFlag.flushOutput |
  (EndProcessing.endOfBlock << CompressFlag.endShift) |
  ((HeaderGeneration.enable | HeaderGeneration.final) << CompressFlag.headerShift);

const nameOf = (what: string, kind: string, bytes: number): string => `${what}, ${kind}, ${sizeName(bytes)}`;
const plainDeflate = `zlib deflate, level ${LEVEL}`;
const plainInflate = 'zlib inflate';
const compress = (of: string): string => `compress, ${of}`;
/** Bytes that came of it, for the table. */
const packed = new Map<string, number>();

export function registerDeflate(): void {
  const stack = new UacceStack({ ramBytes: 256 << 20, devices: [iax2], config: { wqs: [{ mode: 'dedicated', size: 16, group: 0 }] } });
  const task = stack.host.kernel.user.spawn({ step: () => 'wait' });
  const iax = new IaxClient(new Client(task, openUacceQueue(stack, 'dedicated')(task), { depth: 1 }));
  const done = (): boolean => iax.client.poll(0) !== 0;
  const run = (): void => {
    iax.client.submit(0);
    if (!done()) stack.host.clock.wait(done);
    if (iax.client.poll(0) !== 1) throw new Error(`a descriptor ended with status ${iax.client.poll(0)}`);
  };
  const room = 4 * K * K;
  const [source, destination] = [task.alloc(room), task.alloc(room)];
  const place = (bytes: Uint8Array): { address: number; bytes: number } => {
    task.writeStruct(source, bytes);
    return { address: source, bytes: bytes.length };
  };
  const table = fixedAecs();
  const aecs = { address: task.alloc(8192), bytes: table.length };
  task.writeStruct(aecs.address, table);
  const to = { address: destination, bytes: room };
  const output = (): Buffer => Buffer.from(task.readStruct(destination, new Uint8Array(iax.client.record(0, 6))));

  for (const [kind, make] of Object.entries(kinds))
    for (const bytes of sizes) {
      const plain = make(bytes);
      const jobs: Readonly<Record<string, () => void>> = {
        'fixed codes': () => iax.compress(0, to, { address: source, bytes }, aecs),
        'codes of its own': () => iax.compress(0, to, { address: source, bytes }, { ...aecs, read: false }, OWN),
      };
      packed.set(nameOf(plainDeflate, kind, bytes), deflateRawSync(plain, { level: LEVEL }).length);
      summary(() => {
        bench(nameOf(plainDeflate, kind, bytes), () => do_not_optimize(deflateRawSync(plain, { level: LEVEL }))).baseline(true);
        for (const of of codes) {
          place(plain);
          jobs[of]!();
          run();
          const out = output();
          if (!inflateRawSync(out).equals(plain)) throw new Error(`${kind}, ${of}: zlib does not inflate to what was compressed`);
          packed.set(nameOf(compress(of), kind, bytes), out.length);
          bench(nameOf(compress(of), kind, bytes), function* () {
            place(plain);
            yield () => {
              jobs[of]!();
              run();
            };
          });
        }
      });
      // What the device can take: a history of 4 KiB.
      const stream = deflateRawSync(plain, { windowBits: 12 });
      const inflate = (): void => {
        iax.decompress(0, to, { address: source, bytes: stream.length });
        run();
      };
      summary(() => {
        bench(nameOf(plainInflate, kind, bytes), () => do_not_optimize(inflateRawSync(stream))).baseline(true);
        place(stream);
        inflate();
        if (!output().equals(plain)) throw new Error(`${kind}: not what zlib deflated`);
        bench(nameOf('decompress', kind, bytes), function* () {
          place(stream);
          yield inflate;
        });
      });
    }
}

/** A table of ratios, medians of the run: 1 is as fast as zlib. */
export function deflateRatios(median: (name: string) => number | undefined): string[] {
  const rows: string[] = [];
  for (const kind of Object.keys(kinds))
    for (const bytes of sizes) {
      const ratio = (plain: string, ours: string): string => {
        const [a, b] = [median(nameOf(plain, kind, bytes)), median(nameOf(ours, kind, bytes))];
        return a === undefined || b === undefined ? '-' : `${(a / b).toFixed(2)}${a / b >= GOAL ? '' : ' (missed)'}`;
      };
      const size = (name: string): string => `${((packed.get(nameOf(name, kind, bytes)) ?? 0) / bytes).toFixed(2)}`;
      if (median(nameOf(plainDeflate, kind, bytes)) === undefined) continue;
      const cells = [
        ...codes.map((of) => `${ratio(plainDeflate, compress(of))} (${size(compress(of))})`),
        size(plainDeflate),
        ratio(plainInflate, 'decompress'),
      ];
      rows.push(`| ${kind} ${sizeName(bytes)} | ${cells.join(' | ')} |`);
    }
  if (rows.length === 0) return [];
  return [
    `| ratio to node:zlib (goal ${GOAL}; in brackets the size) | ${codes.map(compress).join(' | ')} | zlib's size, level ${LEVEL} | decompress |`,
    '| --- | --- | --- | --- | --- |',
    ...rows,
  ];
}
