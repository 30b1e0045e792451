/**
 * Data integrity fields: eight bytes beside each block with a guard (CRC-16 T10-DIF), an application tag and a reference tag, big endian.
 * DSA specification, "DIF Check", "DIF Insert", "DIF Strip", "DIF Update", "DIX Generate"; T10 SBC-3, "Protection information".
 *
 * A block is handled whole or not at all, so a partial completion is at a block. The record has the tags of the next block: software that
 * continues behind the bytes completed takes them for its seeds.
 */
import { crc16t10 } from '../crc.js';
import { blocked, type Io, type Op, Step } from '../op.js';
import {
  DIF_BLOCKS,
  DIF_BYTES,
  DifCheckDescriptor,
  DifDestination,
  DifFlag,
  DifInsertDescriptor,
  DifSource,
  DifStatus,
  DifUpdateDescriptor,
  Flag,
  Opcode,
  Status,
} from '../spec/descriptor.js';
import { moveFlags, type Operation, type Operations, overlapping } from './operation.js';

const S = DifSource;
const D = DifDestination;
const { difFlags, sourceFlags } = DifCheckDescriptor.get;
const { destinationRefTag } = DifInsertDescriptor.get;
const { sourceRefTag, sourceAppMask, sourceAppTag, destinationAppMask, destinationAppTag } = DifUpdateDescriptor.get;

/** What an operation does with blocks: whether its source has fields, and what it writes of each block. */
interface Kind {
  readonly tagged: boolean;
  readonly data: boolean;
  readonly fields: boolean;
}

const blockBytes = (op: Op): number => DIF_BLOCKS[difFlags(op.descriptor, 0) & DifFlag.block]!;
/** Destination flags stand in the second byte from 40 in every descriptor that has them. */
const destinationFlags = (op: Op): number => (op.descriptor[10]! >>> 8) & 0xff;

function check(op: Op, kind: Kind): number {
  const block = blockBytes(op);
  const from = kind.tagged ? block + DIF_BYTES : block;
  if (op.remaining % from !== 0) return Status.transferSize;
  const to = (kind.data ? block : 0) + (kind.fields ? DIF_BYTES : 0);
  if (to === 0) return 0;
  const written = (op.remaining / from) * to;
  return overlapping(op.sourceHigh, op.sourceLow, op.remaining, op.destinationHigh, op.destinationLow, written) ? Status.overlap : 0;
}

function step(io: Io, op: Op, kind: Kind): number {
  const d = op.descriptor;
  const block = blockBytes(op);
  const from = kind.tagged ? block + DIF_BYTES : block;
  const to = (kind.data ? block : 0) + (kind.fields ? DIF_BYTES : 0);
  const { source, target } = io;
  source.open(op.sourceHigh, op.sourceLow);
  target.open(op.destinationHigh, op.destinationLow);
  while (op.remaining > 0) {
    const index = op.completed / from;
    const read = source.read(io, op, op.completed, from, op.remaining);
    if (read !== 0) return ended(op, kind, from, blocked(io, op, read, 0, source.faultHigh, source.faultLow));
    const guard = guardOf(difFlags(d, 0), source.view, source.at, block);
    if (kind.tagged) {
      op.result = wrong(op, index, guard, source.view, source.at + block);
      if (op.result !== 0) return ended(op, kind, from, op.end(Status.difError));
    }
    if (to > 0) {
      let write = target.write(io, op, index * to, to, (op.remaining / from) * to);
      if (write === 0) {
        if (kind.data) copyBytes(source.view, source.at, target.view, target.at, block);
        if (kind.fields) putFields(op, kind, index, guard, source.view, source.at + block, target.view, target.at + to - DIF_BYTES);
        write = target.commit(io, op);
      }
      if (write !== 0) return ended(op, kind, from, blocked(io, op, write, 1, target.faultHigh, target.faultLow));
      io.bytesWritten += to;
    }
    op.advance(from);
    op.moved += from;
    io.bytesRead += from;
  }
  return ended(op, kind, from, op.end(Status.success));
}

const guardOf = (flags: number, view: Uint8Array, at: number, bytes: number): number => {
  const crc = crc16t10(flags & DifFlag.seedOnes ? 0xffff : 0, view, at, bytes);
  return flags & DifFlag.invert ? ~crc & 0xffff : crc;
};
const big16 = (view: Uint8Array, at: number): number => (view[at]! << 8) | view[at + 1]!;
function putBig16(view: Uint8Array, at: number, value: number): void {
  view[at] = value >>> 8;
  view[at + 1] = value;
}

/** What a block's fields have wrong: bits of `DifStatus`. */
function wrong(op: Op, index: number, guard: number, view: Uint8Array, at: number): number {
  const d = op.descriptor;
  const flags = sourceFlags(d, 0);
  const app = big16(view, at + 2);
  const high = big16(view, at + 4);
  const low = big16(view, at + 6);
  const appOnes = app === 0xffff;
  const refOnes = (high & low) === 0xffff;
  const allOnes = appOnes && refOnes && big16(view, at) === 0xffff;
  if (flags & S.allOnesError && allOnes) return DifStatus.allOnes;
  if ((flags & S.appTagDetect && appOnes) || (flags & S.appAndRefTagDetect && appOnes && refOnes) || (flags & S.allOnesDetect && allOnes)) return 0;
  let bad = 0;
  if (!(flags & S.guardDisable) && big16(view, at) !== guard) bad |= DifStatus.guard;
  const appTag = sourceAppTag(d, 0) + (flags & S.appTagIncrements ? index : 0);
  // Bits of the mask are not compared.
  if ((app ^ appTag) & ~sourceAppMask(d, 0) & 0xffff) bad |= DifStatus.appTag;
  const refTag = (sourceRefTag(d, 0) + (flags & S.refTagFixed ? 0 : index)) | 0;
  if (!(flags & S.refTagDisable) && (((high << 16) | low) ^ refTag) !== 0) bad |= DifStatus.refTag;
  return bad;
}

/** The fields of a destination block. unconfirmed: bits of the application tag's mask are written as 0. */
function putFields(op: Op, kind: Kind, index: number, guard: number, from: Uint8Array, fromAt: number, view: Uint8Array, at: number): void {
  const d = op.descriptor;
  const flags = destinationFlags(op);
  const pass = kind.tagged ? flags : 0;
  putBig16(view, at, pass & D.guardPass ? big16(from, fromAt) : guard);
  const app = (destinationAppTag(d, 0) + (flags & D.appTagIncrements ? index : 0)) & ~destinationAppMask(d, 0);
  putBig16(view, at + 2, pass & D.appTagPass ? big16(from, fromAt + 2) : app);
  const ref = (destinationRefTag(d, 0) + (flags & D.refTagFixed ? 0 : index)) | 0;
  putBig16(view, at + 4, pass & D.refTagPass ? big16(from, fromAt + 4) : ref >>> 16);
  putBig16(view, at + 6, pass & D.refTagPass ? big16(from, fromAt + 6) : ref);
}

function copyBytes(from: Uint8Array, fromAt: number, to: Uint8Array, toAt: number, bytes: number): void {
  if (from === to) to.copyWithin(toAt, fromAt, fromAt + bytes);
  else for (let i = 0; i < bytes; i++) to[toAt + i] = from[fromAt + i]!;
}

/** When the operation ends, whole or in part, the record has the next block's tags: the source's at 16, the destination's at 24. */
function ended(op: Op, kind: Kind, from: number, outcome: number): number {
  if (outcome !== Step.done) return outcome;
  const d = op.descriptor;
  const index = op.completed / from;
  op.tagged = 1;
  op.tags.fill(0);
  if (kind.tagged) {
    const flags = sourceFlags(d, 0);
    op.value = (sourceRefTag(d, 0) + (flags & S.refTagFixed ? 0 : index)) | 0;
    op.tags[0] = sourceAppMask(d, 0) | ((sourceAppTag(d, 0) + (flags & S.appTagIncrements ? index : 0)) << 16);
  }
  if (kind.fields) {
    const flags = destinationFlags(op);
    op.tags[1] = (destinationRefTag(d, 0) + (flags & D.refTagFixed ? 0 : index)) | 0;
    op.tags[2] = destinationAppMask(d, 0) | ((destinationAppTag(d, 0) + (flags & D.appTagIncrements ? index : 0)) << 16);
  }
  return outcome;
}

const row = (name: string, flags: number, kind: Kind): Operation => ({
  name,
  flags,
  reads: 1,
  writes: kind.data || kind.fields ? 1 : 0,
  stream: kind.data ? 'move' : 'crc',
  sized: true,
  check: (op) => check(op, kind),
  step: (io, op) => step(io, op, kind),
});
export const difs: Operations = {
  [Opcode.difCheck]: row('dif-check', Flag.fence | Flag.blockOnFault | Flag.trafficClass1, { tagged: true, data: false, fields: false }),
  [Opcode.difInsert]: row('dif-insert', moveFlags, { tagged: false, data: true, fields: true }),
  [Opcode.difStrip]: row('dif-strip', moveFlags, { tagged: true, data: true, fields: false }),
  [Opcode.difUpdate]: row('dif-update', moveFlags, { tagged: true, data: true, fields: true }),
  [Opcode.dixGenerate]: row('dix-generate', moveFlags, { tagged: false, data: false, fields: true }),
};
