/** CRC generation, alone or with a copy. DSA specification, "CRC Generation" and "Copy with CRC Generation". */
import { crc32c, reverse32 } from '../crc.js';
import { blocked, type Io, type Op, Step } from '../op.js';
import type { Extent } from '../ports.js';
import { CrcDescriptor, Flag, Opcode, Status } from '../spec/descriptor.js';
import { acquireDestination, acquireSource, copy, moveFlags, noOverlap, type Operations } from './operation.js';

const crcFlags = Flag.crcSeedInMemory | Flag.crcBypassInversion | Flag.crcBypassReflection;

/** CRC alone (`destination` false) or with a copy. The register is kept reflected and inverted; `phase` 1: the seed is in it. */
function stepCrc(io: Io, op: Op, destination: boolean): number {
  const bypass = (op.flags & Flag.crcBypassInversion) !== 0;
  if (op.phase === 0) {
    let seed = op.descriptor[10]!;
    if (op.flags & Flag.crcSeedInMemory) {
      const high = CrcDescriptor.get.seedHigh(op.descriptor, 0) | 0;
      const low = CrcDescriptor.get.seedLow(op.descriptor, 0) | 0;
      const { other } = io;
      other.open(high, low);
      const answer = other.read(io, op, 0, 4, 4);
      if (answer !== 0) return blocked(io, op, answer, 0, other.faultHigh, other.faultLow, 3);
      const { view, at } = other;
      seed = view[at]! | (view[at + 1]! << 8) | (view[at + 2]! << 16) | (view[at + 3]! << 24);
    }
    // The register runs reflected: a seed that bypasses inversion and reflection is turned round once.
    op.value = bypass ? reverse32(seed) : ~seed;
    op.phase = 1;
  }
  const reflect = (op.flags & Flag.crcBypassReflection) === 0;
  while (op.remaining > 0) {
    const read = acquireSource(io, op, op.remaining, io.a);
    if (read !== 0) return crcSoFar(op, blocked(io, op, read, 0, op.sourceHigh, op.sourceLow));
    let bytes = io.a.length;
    if (destination) {
      const write = acquireDestination(io, op, bytes, io.b);
      if (write !== 0) return crcSoFar(op, blocked(io, op, write, 1, op.destinationHigh, op.destinationLow));
      bytes = io.b.length;
      copy(io.a, io.b, bytes);
      io.upstream.commit(io.b);
      op.advanceDestination(bytes);
      io.bytesWritten += bytes;
    }
    const from = destination ? io.b : io.a;
    op.value = reflect ? io.crc32c(op.value, from.view, from.words, from.offset, bytes) : crcBytesReversed(op.value, from, bytes);
    op.advanceSource(bytes);
    op.advance(bytes);
    op.moved += bytes;
    io.bytesRead += bytes;
  }
  return crcSoFar(op, op.end(Status.success));
}
/** When the operation ends, whole or in part, the record has a CRC that can seed the rest. */
function crcSoFar(op: Op, step: number): number {
  if (step === Step.done) op.value = op.flags & Flag.crcBypassInversion ? reverse32(op.value) : ~op.value;
  return step;
}
const one = new Uint8Array(4);
const oneWord = new Uint32Array(one.buffer);
/** Without data reflection each byte enters with its bits in reverse. */
function crcBytesReversed(crc: number, from: Extent, bytes: number): number {
  let c = crc;
  for (let i = 0; i < bytes; i++) {
    one[0] = reverse32(from.view[from.offset + i]!) >>> 24;
    c = crc32c(c, one, oneWord, 0, 1);
  }
  return c;
}

export const crcs: Operations = {
  [Opcode.crc]: {
    name: 'crc',
    flags: Flag.fence | Flag.blockOnFault | Flag.trafficClass1 | Flag.trafficClass3 | crcFlags,
    reads: 1,
    writes: 0,
    stream: 'crc',
    sized: true,
    step: (io, op) => stepCrc(io, op, false),
  },
  [Opcode.copyCrc]: {
    name: 'copy-crc',
    flags: moveFlags | Flag.trafficClass3 | crcFlags,
    reads: 1,
    writes: 1,
    stream: 'crc',
    sized: true,
    fillsDestination: true,
    check: noOverlap,
    step: (io, op) => stepCrc(io, op, true),
  },
};
