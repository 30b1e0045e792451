/** Native code for the device's CRC-32C, where the optional package is there, and Node's comparison. Results are the same without, more slowly. */
import { createRequire } from 'node:module';
import type { Native } from '@siov/idxd-device';

type Crc32c = (bytes: Uint8Array, initial?: number) => number;
function prebuilt(): Crc32c | undefined {
  try {
    return (createRequire(import.meta.url)('@node-rs/crc32') as { crc32c: Crc32c }).crc32c;
  } catch {
    // No binary for this platform, or left out at installation.
    return undefined;
  }
}
const crc32c = prebuilt();

/** Node's view of a memory, made once. */
const buffers = new WeakMap<Uint8Array, Buffer>();
function bufferOf(view: Uint8Array): Buffer {
  let buffer = buffers.get(view);
  if (!buffer) buffers.set(view, (buffer = Buffer.from(view.buffer, view.byteOffset, view.length)));
  return buffer;
}

export const native: Native = {
  ...(crc32c && { crc32c: (crc, view, _words, offset, length) => ~crc32c(view.subarray(offset, offset + length), ~crc >>> 0) }),
  equal: (a, aOffset, b, bOffset, length) => bufferOf(a).compare(b, bOffset, bOffset + length, aOffset, aOffset + length) === 0,
};
