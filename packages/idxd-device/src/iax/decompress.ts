/**
 * Decompress, and the decompression in front of a filter. Where a stream goes on in the next descriptor its state is in AECS. Intel QPL,
 * hw_decompress_descriptor.c; Linux iaa_crypto_main.c. unconfirmed: that after an overflow the source goes on behind the bytes completed; that a
 * largest output is none where output is suppressed.
 */
import type { Io, Op } from '../op.js';
import { AnalyticsError, DECOMPRESS_AECS_SHORT_BYTES, DecompressAecs, DecompressFlag, IaxFlag, IaxStatus } from '../spec/iax.js';
import { loadDecompress, saveDecompress } from './aecs.js';
import { turn16 } from './compress.js';
import { Halt } from './inflate.js';
import { noOverlapOf } from './overlap.js';
import { aecsBytesRule, Flush, maxDestination, source2Size, type Work } from './work.js';

const Stage = { aecs: 0, body: 1, finish: 2, overflow: 3 } as const;

const flagsOf = (op: Op): number => op.descriptor[9]! >>> 16;
const COMMON =
  DecompressFlag.enable |
  DecompressFlag.flushOutput |
  DecompressFlag.stopOnEndOfBlock |
  DecompressFlag.checkForEndOfBlock |
  DecompressFlag.selectFinal |
  DecompressFlag.bigEndian |
  (7 << DecompressFlag.ignoreEndShift);
/** Flags of decompression that are none. `alone`: not in front of a filter, which has an output of its own. */
export const illegalDecompressFlags = (op: Op, alone: boolean, longIgnore: boolean): number =>
  flagsOf(op) & ~(COMMON | (alone ? DecompressFlag.suppressOutput : 0) | (longIgnore ? DecompressFlag.ignoreEndHigh : 0));

export function checkDecompress(op: Op, longIgnore: boolean): number {
  const flags = flagsOf(op);
  const illegal = illegalDecompressFlags(op, true, longIgnore);
  if (illegal || !(flags & DecompressFlag.enable)) {
    op.value = illegal;
    return IaxStatus.invalidCompressFlags;
  }
  const twice = op.flags & IaxFlag.readSource2 || (op.flags & BOTH_WRITES) === BOTH_WRITES;
  if (twice) {
    op.value = op.flags & (IaxFlag.readSource2 | BOTH_WRITES);
    return IaxStatus.invalidFlags;
  }
  const misaligned = aecsBytesRule(op);
  if (misaligned) return misaligned;
  if (op.flags & (IaxFlag.readAecs | BOTH_WRITES) && source2Size(op) < DECOMPRESS_AECS_SHORT_BYTES) return IaxStatus.size;
  if (flags & DecompressFlag.suppressOutput) return 0;
  return maxDestination(op) === 0 ? IaxStatus.size : noOverlapOf(op);
}
const BOTH_WRITES = IaxFlag.writeAecs | IaxFlag.writeAecsOnOverflow;

/** What decompression is told to ignore at the end of its input, in bits. */
const ignored = (op: Op): number => {
  const flags = flagsOf(op);
  return ((flags >>> DecompressFlag.ignoreEndShift) & 7) | (flags & DecompressFlag.ignoreEndHigh ? 8 : 0);
};

/** Reads AECS, if there is one, and prepares the stream. A step's answer when that did not go, else 0. */
export function beginDecompress(work: Work, io: Io, op: Op): number {
  if (op.flags & IaxFlag.readAecs) {
    if (!work.readAecs(io, op, work.aecs.length)) return NOT_YET + work.source2Blocked(io, op);
    const { get } = DecompressAecs;
    work.seed(get.crc(work.aecsWords, 0), get.xorChecksum(work.aecsWords, 0));
    work.drop = get.dropBytes(work.aecsWords, 0);
    const { kept } = work;
    const history = loadDecompress(work.aecs, work.aecsWords, source2Size(op), work.inflate, kept, work.plain);
    if (history < 0) return NOT_YET + work.fail(op, AnalyticsError.aecs);
    work.history = work.plainFrom = work.plainTo = history;
    work.inflate.hold = kept.hold;
    work.inflate.bits = kept.bits;
    work.one.end = kept.end;
  } else {
    work.aecs.fill(0);
    work.seed(0, 0);
    work.inflate.begin();
  }
  work.plainSource.at = work.plainSource.end = work.plainTo;
  return 0;
}
export const NOT_YET = 1;

/** What came of asking for plain bytes. */
export const Made = { some: 0, end: 1, full: 2, blocked: 3, error: 4 } as const;

/** Makes room behind the plain bytes: the history stays, and the last `unused`. */
function slide(work: Work, unused: number): void {
  const keep = work.plainTo - Math.max(work.inflate.history, unused);
  if (keep <= 0 || work.plainTo < work.plain.length / 2) return;
  work.plain.copyWithin(0, keep, work.plainTo);
  work.plainTo -= keep;
  work.plainFrom = work.plainTo;
}

/**
 * Plain bytes behind `plainTo`, no more than `most`: they stand from `plainFrom` to `plainTo`, and count for the checksums. `full`: there would be
 * more, but not within `most`.
 */
export function produce(work: Work, io: Io, op: Op, most: number, unused = 0): number {
  const { inflate, one } = work;
  slide(work, unused);
  work.plainFrom = work.plainTo;
  for (;;) {
    const limit = Math.min(work.plain.length - 16, work.plainFrom + most);
    const from = work.plainTo;
    inflate.at = one.at;
    const halt = inflate.run(one.bytes, one.end, one.last ? ignored(op) : 0, work.plain, from, limit, work.history);
    one.at = inflate.at;
    work.plainTo = inflate.out;
    work.history = Math.min(work.history + work.plainTo - from, inflate.history);
    work.sum(io, op, work.plain, work.plainWords, from, work.plainTo);
    if (halt === Halt.error) return Made.error;
    if (halt === Halt.endOfBlock) {
      const flags = flagsOf(op);
      if (flags & DecompressFlag.stopOnEndOfBlock && (inflate.final || !(flags & DecompressFlag.selectFinal))) {
        work.ended = true;
        return Made.end;
      }
      continue;
    }
    if (halt === Halt.room) return work.plainTo - work.plainFrom >= most ? Made.full : Made.some;
    if (one.last) return Made.end;
    if (work.plainTo > work.plainFrom) return Made.some;
    if (!fillTurned(work, io, op)) return Made.blocked;
  }
}
/** Fills the buffer of source 1; its 16-bit words turned round, when the stream is in reverse order. */
function fillTurned(work: Work, io: Io, op: Op): boolean {
  const { one } = work;
  if (!(flagsOf(op) & DecompressFlag.bigEndian)) return work.fill(io, op);
  let turned = one.end - one.at;
  one.end += work.odd;
  if (!work.fill(io, op)) {
    one.end -= work.odd;
    return false;
  }
  for (; turned + 2 <= one.end; turned += 2) turn16(one.bytes, turned);
  work.odd = one.end - turned;
  if (one.last && work.odd === 1) {
    one.bytes[one.end++] = 0;
    turn16(one.bytes, turned);
    work.odd = 0;
  }
  one.end -= work.odd;
  return true;
}

export function stepDecompress(work: Work, io: Io, op: Op): number {
  const suppressed = (flagsOf(op) & DecompressFlag.suppressOutput) !== 0;
  for (;;) {
    switch (work.stage) {
      case Stage.aecs: {
        const answer = beginDecompress(work, io, op);
        if (answer !== 0) return answer - NOT_YET;
        work.stage = Stage.body;
        break;
      }
      case Stage.body: {
        if (work.made === NOTHING) {
          const made = produce(work, io, op, suppressed ? work.plain.length : work.room(op, 0));
          if (made === Made.blocked) return work.sourceBlocked(io, op);
          work.made = made;
        }
        if (!suppressed) {
          const answer = work.flush(io, op, work.plain, work.plainFrom, work.plainTo);
          if (answer === Flush.blocked) return work.destinationBlocked(io, op);
        }
        const { made } = work;
        work.made = NOTHING;
        if (made === Made.error) {
          op.completed = consumed(work);
          return work.fail(op, work.inflate.error);
        }
        if (made === Made.full && !suppressed) work.stage = Stage.overflow;
        else if (made === Made.end) {
          const flags = flagsOf(op);
          const { inflate } = work;
          if (flags & DecompressFlag.checkForEndOfBlock && !(inflate.ended && (inflate.final || !(flags & DecompressFlag.selectFinal)))) {
            op.completed = consumed(work);
            return work.fail(op, AnalyticsError.endOfBlock);
          }
          work.stage = Stage.finish;
        }
        break;
      }
      default: {
        const overflow = work.stage === Stage.overflow;
        if (op.flags & (overflow ? BOTH_WRITES : IaxFlag.writeAecs)) {
          if (!saveState(work, op)) {
            op.completed = consumed(work);
            return work.fail(op, AnalyticsError.headerTooBig);
          }
          if (!work.writeAecs(io, op, work.aecs.length)) return work.source2Blocked(io, op, 1);
        }
        op.completed = consumed(work);
        work.report(op, 0);
        return op.end(overflow ? IaxStatus.outputOverflow : IaxStatus.success);
      }
    }
  }
}
const NOTHING = -1;

/** Bytes of source 1 that are used up: at the end of the stream's input all of them, since what is left is state. */
function consumed(work: Work): number {
  const { one } = work;
  return work.ended || !one.last || work.stage === Stage.overflow || work.inflate.error !== 0 ? work.read - (one.end - one.at) - work.odd : work.read;
}
function saveState(work: Work, op: Op): boolean {
  const { one, inflate, aecs, aecsWords } = work;
  // Whole bytes that were not used go back to the source, unless there is nothing after them.
  const keeps = work.stage === Stage.finish && !work.ended;
  const { kept } = work;
  kept.hold = inflate.hold;
  kept.bits = inflate.bits;
  kept.at = one.at;
  kept.end = keeps ? one.end : one.at;
  DecompressAecs.set.crc(aecsWords, 0, ~work.crc);
  DecompressAecs.set.xorChecksum(aecsWords, 0, work.xor);
  return saveDecompress(aecs, aecsWords, source2Size(op), inflate, kept, work.plain, work.plainTo, work.history, work.ended);
}
