/** CRC-64 and zero compression as descriptors. accel-config, test/iaa_prep.c; Intel QPL, hw_crc64_descriptor.c. */
import type { Io, Op } from '../op.js';
import { AnalyticsError, Crc64Descriptor, Crc64Flag, IaxOpcode, IaxStatus } from '../spec/iax.js';
import { noOverlapOf } from './overlap.js';
import { Wait } from './pieces.js';
import { Extra, Flush, maxDestination, type Work } from './work.js';
import { zeroCompress, zeroDecompress } from './zero.js';

const crcFlags = (op: Op): number => Crc64Descriptor.get.crcFlags(op.descriptor, 0);

export function checkCrc64(op: Op): number {
  const illegal = crcFlags(op) & ~(Crc64Flag.invert | Crc64Flag.bigEndian);
  if (illegal === 0) return 0;
  op.value = illegal;
  return IaxStatus.invalidCompressFlags;
}
export function stepCrc64(work: Work, io: Io, op: Op): number {
  const { crc64, one } = work;
  if (work.stage === 0) {
    const { polynomialHigh, polynomialLow } = Crc64Descriptor.get;
    const flags = crcFlags(op);
    crc64.begin(
      polynomialHigh(op.descriptor, 0),
      polynomialLow(op.descriptor, 0),
      (flags & Crc64Flag.bigEndian) !== 0,
      (flags & Crc64Flag.invert) !== 0,
    );
    work.stage = 1;
  }
  while (!one.last) {
    if (!work.fill(io, op)) return work.sourceBlocked(io, op);
    crc64.update(one.bytes, one.at, one.end);
    one.at = one.end;
  }
  crc64.finish();
  op.completed = work.read;
  op.extra[Extra.max] = crc64.low;
  op.extra[Extra.sum] = crc64.high;
  return op.end(IaxStatus.success);
}

const elements: Readonly<Record<number, number>> = {
  [IaxOpcode.zeroCompress8]: 1,
  [IaxOpcode.zeroCompress16]: 2,
  [IaxOpcode.zeroCompress32]: 4,
  [IaxOpcode.zeroDecompress8]: 1,
  [IaxOpcode.zeroDecompress16]: 2,
  [IaxOpcode.zeroDecompress32]: 4,
};
/** unconfirmed: that the size of what is compressed is a multiple of an element's. */
export function checkZero(op: Op): number {
  if (op.opcode >= IaxOpcode.zeroCompress32 && op.remaining % elements[op.opcode]! !== 0) return IaxStatus.size;
  return maxDestination(op) === 0 ? IaxStatus.size : noOverlapOf(op);
}
const Stage = { run: 0, source: 1, room: 2, last: 3 } as const;
export function stepZero(work: Work, io: Io, op: Op): number {
  const run = op.opcode >= IaxOpcode.zeroCompress32 ? zeroCompress : zeroDecompress;
  for (;;) {
    switch (work.stage) {
      case Stage.run: {
        const answer = run(elements[op.opcode]!, work.one, work.out);
        if (answer >= Wait.error) return work.fail(op, answer - Wait.error);
        work.stage = answer === Wait.done ? Stage.last : answer === Wait.room ? Stage.room : Stage.source;
        break;
      }
      case Stage.source: {
        if (!work.fill(io, op)) return work.sourceBlocked(io, op);
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
        op.completed = work.read;
        work.report(op, 0);
        return op.end(IaxStatus.success);
      }
    }
  }
}
