/**
 * Scan, set membership, extract, select, RLE burst, find unique, expand as descriptors: what they are told, what they refuse, and their streams.
 * Source 1 may be compressed. Intel QPL, hw_analytic_descriptor_*.c; accel-config, test/iaa_prep.c. unconfirmed: which of the parameter errors a
 * wrong combination is; that AECS is never written back; that checksums are those of the bytes of source 1 that were looked at.
 */
import type { Io, Op } from '../op.js';
import {
  AnalyticsError,
  DECOMPRESS_AECS_SHORT_BYTES,
  DecompressFlag,
  FILTER_AECS_BYTES,
  FilterAecs,
  FilterFlags,
  IaxFlag,
  IaxOpcode,
  IaxStatus,
} from '../spec/iax.js';
import { beginDecompress, illegalDecompressFlags, Made, NOT_YET, produce } from './decompress.js';
import { FilterKind, type FilterSettings, MAX_SET_WIDTH, noSettings, Parser } from './filter.js';
import { noOverlapOf } from './overlap.js';
import { type Source, Wait } from './pieces.js';
import { aecsBytesRule, Extra, Flush, maxDestination, source2Size, type Work } from './work.js';

const Stage = { aecs: 0, run: 1, room: 2, last: 3, source: 4, second: 5 } as const;
const { get } = FilterFlags;
const FLAGS = 14;
const ELEMENTS = 15;

const kinds: Readonly<Record<number, number>> = {
  [IaxOpcode.scan]: FilterKind.scan,
  [IaxOpcode.setMembership]: FilterKind.setMembership,
  [IaxOpcode.extract]: FilterKind.extract,
  [IaxOpcode.select]: FilterKind.select,
  [IaxOpcode.rleBurst]: FilterKind.rleBurst,
  [IaxOpcode.findUnique]: FilterKind.findUnique,
  [IaxOpcode.expand]: FilterKind.expand,
};
/** With a second input. */
const TWO = [FilterKind.setMembership, FilterKind.select, FilterKind.rleBurst, FilterKind.expand] as readonly number[];
const ARRAYS = [FilterKind.extract, FilterKind.select, FilterKind.expand] as readonly number[];

const decompresses = (op: Op): boolean => ((op.descriptor[9]! >>> 16) & DecompressFlag.enable) !== 0;

export function checkFilter(op: Op, version2: boolean, forceArray: boolean): number {
  const d = op.descriptor;
  const kind = kinds[op.opcode]!;
  const two = TWO.includes(kind);
  const wrong = op.flags & (two ? IaxFlag.readAecs : IaxFlag.readSource2);
  if (wrong || (two && !(op.flags & IaxFlag.readSource2))) {
    op.value = wrong || IaxFlag.readSource2;
    return IaxStatus.invalidFlags;
  }
  const illegal = decompresses(op) ? illegalDecompressFlags(op, false, version2) : d[9]! >>> 16;
  if (illegal) {
    op.value = illegal;
    return IaxStatus.invalidCompressFlags;
  }
  const parser = get.parser(d, FLAGS);
  const width = get.source1Width(d, FLAGS) + 1;
  const width2 = get.source2Width(d, FLAGS) + 1;
  const drops = get.dropLowBits(d, FLAGS) + get.dropHighBits(d, FLAGS);
  const sets = kind === FilterKind.setMembership || kind === FilterKind.findUnique;
  const force = get.forceArray(d, FLAGS);
  const reserved = FilterFlags.masks.reserved[0]!;
  if (
    parser > Parser.parquetRle ||
    (d[FLAGS]! & reserved) !== 0 ||
    (force !== 0 && !forceArray) ||
    (drops > 0 && !sets) ||
    (width2 !== 1 && kind !== FilterKind.rleBurst) ||
    (parser === Parser.parquetRle && width !== 1)
  )
    return IaxStatus.invalidFilterFlags;
  if (d[ELEMENTS] === 0) return IaxStatus.elements;
  if (parser !== Parser.parquetRle) {
    if (sets && !(width - drops >= 1 && width - drops <= MAX_SET_WIDTH)) return IaxStatus.source1Width;
    if (kind === FilterKind.rleBurst && width !== 8 && width !== 16 && width !== 32) return IaxStatus.source1Width;
  }
  // Of Parquet RLE only the stream says whether there will be a bit vector.
  const vector = ARRAYS.includes(kind) ? parser !== Parser.parquetRle && width === 1 : kind === FilterKind.rleBurst ? width2 === 1 : true;
  if (get.invertOutput(d, FLAGS) && (!vector || (force && get.outputWidth(d, FLAGS) !== 0))) return IaxStatus.invertOutput;
  const misaligned = aecsBytesRule(op);
  if (misaligned) return misaligned;
  const least = decompresses(op) ? DECOMPRESS_AECS_SHORT_BYTES : FILTER_AECS_BYTES;
  if (op.flags & IaxFlag.readAecs && source2Size(op) < least) return IaxStatus.size;
  if (two && source2Size(op) === 0) return IaxStatus.size;
  return maxDestination(op) === 0 ? IaxStatus.size : noOverlapOf(op);
}

const settings: FilterSettings = { ...noSettings };
/** What the descriptor and AECS say. The filter keeps a copy. */
function settingsOf(work: Work, op: Op): FilterSettings {
  const d = op.descriptor;
  settings.kind = kinds[op.opcode]!;
  settings.parser = get.parser(d, FLAGS);
  settings.width = get.source1Width(d, FLAGS) + 1;
  settings.width2 = get.source2Width(d, FLAGS) + 1;
  settings.bigEndian2 = get.source2BigEndian(d, FLAGS) === 1;
  const wide = get.outputWidth(d, FLAGS);
  settings.outWidth = wide === 0 ? 0 : 4 << wide;
  settings.outBigEndian = get.outputBigEndian(d, FLAGS) === 1;
  settings.invert = get.invertOutput(d, FLAGS) === 1;
  settings.forceArray = get.forceArray(d, FLAGS) === 1;
  settings.dropLow = get.dropLowBits(d, FLAGS);
  settings.dropHigh = get.dropHighBits(d, FLAGS);
  settings.count = d[ELEMENTS]!;
  settings.low = FilterAecs.get.low(work.aecsWords, 0);
  settings.high = FilterAecs.get.high(work.aecsWords, 0);
  settings.firstIndex = FilterAecs.get.outputIndex(work.aecsWords, 0);
  return settings;
}

export function stepFilter(work: Work, io: Io, op: Op): number {
  const plain = decompresses(op);
  const one: Source = plain ? work.plainSource : work.one;
  for (;;) {
    switch (work.stage) {
      case Stage.aecs: {
        if (plain) {
          const answer = beginDecompress(work, io, op);
          if (answer !== 0) return answer - NOT_YET;
        } else if (op.flags & IaxFlag.readAecs) {
          if (!work.readAecs(io, op, FILTER_AECS_BYTES)) return work.source2Blocked(io, op);
          work.seed(FilterAecs.get.crc(work.aecsWords, 0), FilterAecs.get.xorChecksum(work.aecsWords, 0));
        } else {
          work.aecs.fill(0, 0, FILTER_AECS_BYTES);
          work.seed(0, 0);
        }
        work.filter.begin(settingsOf(work, op));
        work.stage = Stage.run;
        break;
      }
      case Stage.run: {
        const from = one.at;
        const answer = work.filter.run(one, work.two, work.out);
        // Of compressed streams the plain bytes are summed as they are made.
        if (!plain) work.sum(io, op, work.one.bytes, work.oneWords, from, one.at);
        if (answer >= Wait.error) return work.fail(op, answer - Wait.error);
        work.stage = answer === Wait.done ? Stage.last : answer === Wait.room ? Stage.room : answer === Wait.source ? Stage.source : Stage.second;
        break;
      }
      case Stage.source: {
        if (plain) {
          const answer = morePlain(work, io, op);
          if (answer === Made.blocked) return work.sourceBlocked(io, op);
          if (answer === Made.error) return work.fail(op, work.inflate.error);
        } else if (!work.fill(io, op)) return work.sourceBlocked(io, op);
        work.stage = Stage.run;
        break;
      }
      case Stage.second: {
        if (!work.fill2(io, op)) return work.source2Blocked(io, op);
        work.stage = Stage.run;
        break;
      }
      default: {
        const answer = work.flush(io, op, work.out.bytes, 0, work.out.end);
        if (answer === Flush.blocked) return work.destinationBlocked(io, op);
        if (answer === Flush.full) return work.fail(op, AnalyticsError.outputOverflow);
        work.out.end = 0;
        if (work.stage === Stage.room) {
          work.stage = Stage.run;
          break;
        }
        op.completed = work.read - (work.one.end - work.one.at);
        work.report(op, work.filter.lastBits);
        op.extra[Extra.min] = work.filter.least;
        op.extra[Extra.max] = work.filter.most;
        op.extra[Extra.sum] = work.filter.sum;
        return op.end(IaxStatus.success);
      }
    }
  }
}

/** Plain bytes for the filter, behind those that it has not used yet. */
function morePlain(work: Work, io: Io, op: Op): number {
  const source = work.plainSource;
  const unused = work.plainTo - source.at;
  const answer = produce(work, io, op, PIECE, unused);
  source.at = work.plainFrom - unused;
  if (work.drop > 0) {
    const dropped = Math.min(work.drop, work.plainTo - source.at);
    work.drop -= dropped;
    source.at += dropped;
  }
  source.end = work.plainTo;
  source.last = answer === Made.end;
  return answer;
}
const PIECE = 1 << 13;
