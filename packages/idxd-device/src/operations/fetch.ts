/** Translation fetch: brings translations (and, with block on fault, pages) before they are needed; no data. DSA 2.0 specification, "Translation Fetch". */
import { blocked, type Io, type Op } from '../op.js';
import { Flag, Opcode, Status, TranslationFetchDescriptor } from '../spec/descriptor.js';
import { acquireSource, type Operations } from './operation.js';

const { stride: strideOf } = TranslationFetchDescriptor.get;
const PAGE = 4096;

/** unconfirmed: that it asks for read permission, and that a stride of 0 stands for every page. A page is asked for once whatever the stride. */
function stepFetch(io: Io, op: Op): number {
  const stride = strideOf(op.descriptor, 0);
  while (op.remaining > 0) {
    const answer = acquireSource(io, op, stride === 0 ? op.remaining : 1, io.a);
    if (answer !== 0) return blocked(io, op, answer, 0, op.sourceHigh, op.sourceLow);
    const pageEnd = PAGE - (op.sourceLow & (PAGE - 1));
    const bytes = Math.min(op.remaining, stride === 0 ? io.a.length : Math.ceil(pageEnd / stride) * stride);
    op.advanceSource(bytes);
    op.advance(bytes);
  }
  return op.end(Status.success);
}

export const fetches: Operations = {
  [Opcode.translationFetch]: {
    name: 'translation-fetch',
    flags: Flag.fence | Flag.blockOnFault | Flag.trafficClass1,
    reads: 0,
    writes: 0,
    stream: 'none',
    sized: true,
    step: stepFetch,
  },
};
