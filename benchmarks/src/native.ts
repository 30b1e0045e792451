/** Native code for the model's CRC-32C and comparisons: a prebuilt module and Node's Buffer. */
import { crc32c } from '@node-rs/crc32';
import type { Native } from '@siov/idxd-device';

/** Node's view of a memory, made once. */
const buffers = new WeakMap<Uint8Array, Buffer>();
const bufferOf = (view: Uint8Array): Buffer => {
  let buffer = buffers.get(view);
  if (!buffer) {
    buffer = Buffer.from(view.buffer, view.byteOffset, view.length);
    buffers.set(view, buffer);
  }
  return buffer;
};
/** The bare function: of the bytes, as the standard has it. */
export const nativeCrc32c = (bytes: Uint8Array): number => crc32c(bytes);

export const native: Native = {
  crc32c: (crc, view, _words, offset, length) => ~crc32c(view.subarray(offset, offset + length), ~crc >>> 0),
  equal: (a, aOffset, b, bOffset, length) => bufferOf(a).compare(b, bOffset, bOffset + length, aOffset, aOffset + length) === 0,
};
