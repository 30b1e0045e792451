/**
 * Compress. Its Huffman codes, the first bits of its output and the seeds of its checksums come in AECS; what it could not write in whole bytes goes
 * back there. Intel QPL, hw_compress_descriptor.c and hw_aecs_compress.c; Linux iaa_crypto_main.c. From 2.0 on it can make the codes and the header
 * itself. unconfirmed: that codes are zero (no symbol has one) where no AECS is read; which matches are found; that the statistics of a header
 * that is made in one pass are those of the whole source.
 */
import type { Io, Op } from '../op.js';
import {
  AnalyticsError,
  COMPRESS_ACCUMULATOR,
  COMPRESS_AECS_BYTES,
  COMPRESS_DISTANCES,
  COMPRESS_LITERALS,
  Compress2Flag,
  CompressAecs,
  CompressFlag,
  EndProcessing,
  HeaderGeneration,
  HISTOGRAM,
  IaxFlag,
  IaxStatus,
} from '../spec/iax.js';
import { Pause } from './deflate.js';
import { Block } from './deflate-tables.js';
import { buildCodes, dynamicHeader } from './huffman.js';
import { noOverlapOf } from './overlap.js';
import { aecsBytesRule, Flush, maxDestination, source2Size, type Work } from './work.js';

const Stage = { aecs: 0, count: 1, header: 2, body: 3, drain: 4, ending: 5, save: 6 } as const;
const ACCUMULATOR_BITS = 8 * COMPRESS_ACCUMULATOR.bytes;

const flagsOf = (op: Op): number => op.descriptor[9]! >>> 16;
const headerOf = (op: Op): number => (flagsOf(op) >>> CompressFlag.headerShift) & 7;
const endOf = (op: Op): number => (flagsOf(op) >>> CompressFlag.endShift) & 3;
const counts = (op: Op): boolean => (flagsOf(op) & CompressFlag.statistics) !== 0;
/** Codes and header for AECS, and nothing else. */
const firstPass = (op: Op): boolean => (headerOf(op) & (HeaderGeneration.enable | HeaderGeneration.twoPass)) === 6;

const ALL_FLAGS =
  CompressFlag.statistics |
  CompressFlag.flushOutput |
  (3 << CompressFlag.endShift) |
  CompressFlag.literalsOnly |
  CompressFlag.bigEndian |
  (7 << CompressFlag.indexShift);

export function checkCompress(op: Op, headerGeneration: boolean): number {
  const flags = flagsOf(op);
  const legal = headerGeneration ? ALL_FLAGS | (7 << CompressFlag.headerShift) : ALL_FLAGS;
  const illegal = flags & ~legal;
  const header = headerOf(op);
  const second = op.descriptor[14]!;
  const passes = header !== 0 && !(header & HeaderGeneration.enable);
  if (illegal || passes || (counts(op) && header) || second & ~(firstPass(op) ? Compress2Flag.writeTables : 0)) {
    op.value = illegal;
    return IaxStatus.invalidCompressFlags;
  }
  if (op.flags & IaxFlag.readSource2) {
    op.value = IaxFlag.readSource2;
    return IaxStatus.invalidFlags;
  }
  const misaligned = aecsBytesRule(op);
  if (misaligned) return misaligned;
  const uses = op.flags & (IaxFlag.readAecs | IaxFlag.writeAecs | IaxFlag.writeAecsOnOverflow);
  if (uses && source2Size(op) < COMPRESS_AECS_BYTES) return IaxStatus.size;
  if (firstPass(op)) return 0;
  if (maxDestination(op) < (counts(op) ? HISTOGRAM.bytes : 1)) return IaxStatus.size;
  return noOverlapOf(op);
}

export function stepCompress(work: Work, io: Io, op: Op): number {
  const { deflate } = work;
  for (;;) {
    switch (work.stage) {
      case Stage.aecs: {
        if (op.flags & IaxFlag.readAecs) {
          if (!work.readAecs(io, op, COMPRESS_AECS_BYTES)) return work.source2Blocked(io, op);
          work.seed(CompressAecs.get.crc(work.aecsWords, 0), CompressAecs.get.xorChecksum(work.aecsWords, 0));
        } else {
          work.aecs.fill(0);
          work.seed(0, 0);
        }
        const bits = CompressAecs.get.accumulatorBits(work.aecsWords, 0);
        if (bits > ACCUMULATOR_BITS) return work.fail(op, AnalyticsError.aecs);
        deflate.begin();
        const index = (flagsOf(op) >>> CompressFlag.indexShift) & 7;
        deflate.block = index === 0 ? 0 : 256 << index;
        deflate.literalsOnly = (flagsOf(op) & CompressFlag.literalsOnly) !== 0;
        if (!counts(op)) {
          for (let at = 0; at < bits; at += 8) {
            const width = Math.min(8, bits - at);
            deflate.put(work.aecs[COMPRESS_ACCUMULATOR.offset + (at >> 3)]! & ((1 << width) - 1), width);
          }
          for (let i = 0; i < COMPRESS_LITERALS.count; i++) work.codes.literals[i] = work.aecsWords[COMPRESS_LITERALS.offset / 4 + i]!;
          for (let i = 0; i < COMPRESS_DISTANCES.count; i++) work.codes.distances[i] = work.aecsWords[COMPRESS_DISTANCES.offset / 4 + i]!;
          deflate.setCodes(work.codes.literals, work.codes.distances);
        }
        deflate.counting = counts(op) || headerOf(op) !== 0;
        work.stage = deflate.counting ? Stage.count : Stage.body;
        break;
      }
      case Stage.count: {
        const answer = readAndRun(work, io, op);
        if (answer === Run.blocked) return work.sourceBlocked(io, op);
        if (answer === Run.more) break;
        if (endOf(op) !== EndProcessing.nothing || headerOf(op)) deflate.literalCounts[256]!++;
        work.stage = counts(op) ? Stage.drain : Stage.header;
        if (counts(op)) putHistogram(work);
        break;
      }
      case Stage.header: {
        const { codes } = work;
        buildCodes(deflate.literalCounts, deflate.distanceCounts, codes);
        dynamicHeader(codes, deflate, (headerOf(op) & HeaderGeneration.final) !== 0);
        deflate.setCodes(codes.literals, codes.distances);
        if (firstPass(op)) {
          if (!keepBits(work)) return work.fail(op, AnalyticsError.aecs);
          work.stage = Stage.save;
          break;
        }
        // Once more over the source.
        deflate.rewind();
        rewindSource(work, op);
        work.stage = Stage.body;
        break;
      }
      case Stage.body: {
        const answer = readAndRun(work, io, op);
        if (answer === Run.blocked) return work.sourceBlocked(io, op);
        if (answer === Run.noCode) return work.fail(op, AnalyticsError.noCode);
        if (answer === Run.more && deflate.hasRoom) break;
        if (answer === Run.end) {
          if (!putEnd(work, op)) return work.fail(op, AnalyticsError.noCode);
          work.stage = Stage.ending;
        } else work.stage = Stage.drain;
        break;
      }
      case Stage.drain:
      case Stage.ending: {
        const bytes = turned(work, op, work.stage === Stage.ending);
        const answer = work.flush(io, op, deflate.output, 0, bytes);
        if (answer === Flush.blocked) return work.destinationBlocked(io, op);
        if (answer === Flush.full) return work.fail(op, AnalyticsError.outputOverflow);
        deflate.output.copyWithin(0, bytes, deflate.outputEnd);
        deflate.outputEnd -= bytes;
        work.turned = 0;
        if (work.stage === Stage.drain && !counts(op)) {
          work.stage = Stage.body;
          break;
        }
        if (!counts(op) && !keepBits(work)) return work.fail(op, AnalyticsError.aecs);
        work.stage = Stage.save;
        break;
      }
      default: {
        if (op.flags & IaxFlag.writeAecs) {
          CompressAecs.set.crc(work.aecsWords, 0, ~work.crc);
          CompressAecs.set.xorChecksum(work.aecsWords, 0, work.xor);
          if (op.descriptor[14]! & Compress2Flag.writeTables) {
            work.aecsWords.set(work.codes.literals, COMPRESS_LITERALS.offset / 4);
            work.aecsWords.set(work.codes.distances, COMPRESS_DISTANCES.offset / 4);
          }
          if (!work.writeAecs(io, op, COMPRESS_AECS_BYTES)) return work.source2Blocked(io, op, 1);
        }
        op.completed = work.read;
        work.report(op, 0);
        return op.end(IaxStatus.success);
      }
    }
  }
}

const Run = { more: 0, end: 1, blocked: 2, noCode: 3 } as const;
/** Gives the coder what it has room for, and lets it run. */
function readAndRun(work: Work, io: Io, op: Op): number {
  const { deflate } = work;
  const room = deflate.limit - deflate.end;
  if (op.remaining > 0 && room > 0) {
    const taken = work.take(io, op, deflate.input, deflate.end, room);
    if (taken < 0) return Run.blocked;
    // The second pass over a source has the sums already.
    if (work.summed < work.read) {
      const from = deflate.end;
      work.sum(io, op, deflate.input, inputWords(deflate.input), from, from + taken);
    }
    deflate.end += taken;
  }
  const pause = deflate.run(op.remaining === 0);
  if (pause === Pause.noCode) return Run.noCode;
  return pause === Pause.done ? Run.end : Run.more;
}
const words = new WeakMap<Uint8Array, Uint32Array>();
/** The coder's input as words: it is looked up, since only the CRC wants them. */
function inputWords(bytes: Uint8Array): Uint32Array {
  let view = words.get(bytes);
  if (!view) {
    view = new Uint32Array(bytes.buffer, 0, bytes.length >> 2);
    words.set(bytes, view);
  }
  return view;
}
/** Source 1 from its beginning. */
function rewindSource(work: Work, op: Op): void {
  op.sourceLow = op.descriptor[4]! | 0;
  op.sourceHigh = op.descriptor[5]! | 0;
  op.remaining = op.descriptor[8]!;
  work.read = 0;
}

/** What ends a block: its code, perhaps an empty stored block behind it; and zeros up to a byte when the output is flushed. */
function putEnd(work: Work, op: Op): boolean {
  const { deflate } = work;
  const end = endOf(op);
  if (end !== EndProcessing.nothing && !deflate.putEndOfBlock()) return false;
  if (end >= EndProcessing.storedBlock) {
    deflate.put((end === EndProcessing.finalStoredBlock ? 1 : 0) | (Block.stored << 1), 3);
    deflate.align();
    deflate.put(0, 16);
    deflate.put(0xffff, 16);
  }
  if (flagsOf(op) & CompressFlag.flushOutput) {
    deflate.align();
    if (flagsOf(op) & CompressFlag.bigEndian && deflate.outputEnd & 1) deflate.put(0, 8);
  }
  return true;
}
/** Bytes of the coder's output that can be written; in 16-bit words in reverse order, when that is asked for. */
function turned(work: Work, op: Op, _ending: boolean): number {
  const { output, outputEnd } = work.deflate;
  if (counts(op) || !(flagsOf(op) & CompressFlag.bigEndian)) return outputEnd;
  for (; work.turned + 2 <= outputEnd; work.turned += 2) turn16(output, work.turned);
  return work.turned;
}
/** The bits of two bytes, lowest first, in reverse order. */
export function turn16(bytes: Uint8Array, at: number): void {
  const low = mirror[bytes[at]!]!;
  bytes[at] = mirror[bytes[at + 1]!]!;
  bytes[at + 1] = low;
}
const mirror = /* @__PURE__ */ Uint8Array.from({ length: 256 }, (_, byte) => {
  let out = 0;
  for (let i = 0; i < 8; i++) out |= ((byte >>> i) & 1) << (7 - i);
  return out;
});
/** Bits that were not written go to AECS; false when there are too many. */
function keepBits(work: Work): boolean {
  const { deflate, aecs } = work;
  const { offset, bytes } = COMPRESS_ACCUMULATOR;
  const bits = 8 * deflate.outputEnd + deflate.partialBits;
  if (bits > ACCUMULATOR_BITS) return false;
  aecs.fill(0, offset, offset + bytes);
  for (let i = 0; i < deflate.outputEnd; i++) aecs[offset + i] = deflate.output[i]!;
  if (deflate.partialBits > 0) aecs[offset + deflate.outputEnd] = deflate.partial;
  CompressAecs.set.accumulatorBits(work.aecsWords, 0, bits);
  return true;
}
/** The output of statistics: counts as AECS has codes. */
function putHistogram({ deflate }: Work): void {
  const { output } = deflate;
  output.fill(0, 0, HISTOGRAM.bytes);
  const view = new DataView(output.buffer);
  for (const [i, n] of deflate.literalCounts.entries()) view.setUint32(HISTOGRAM.literals + 4 * i, n, true);
  for (const [i, n] of deflate.distanceCounts.entries()) view.setUint32(HISTOGRAM.distances + 4 * i, n, true);
  deflate.outputEnd = HISTOGRAM.bytes;
}
