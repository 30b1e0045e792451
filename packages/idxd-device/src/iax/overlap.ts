/** No operand overlaps with what is written. */
import type { Op } from '../op.js';
import { overlapping } from '../operations/operation.js';
import { IaxFlag, IaxStatus } from '../spec/iax.js';

/** unconfirmed: that source 2, where it is an input, must not be written either. */
export function noOverlapOf(op: Op): number {
  const d = op.descriptor;
  const most = d[12]!;
  const one = overlapping(op.sourceHigh, op.sourceLow, op.remaining, op.destinationHigh, op.destinationLow, most);
  const two = (op.flags & IaxFlag.readSource2) !== 0 && overlapping(d[11]! | 0, d[10]! | 0, d[13]!, op.destinationHigh, op.destinationLow, most);
  return one || two ? IaxStatus.overlap : 0;
}
