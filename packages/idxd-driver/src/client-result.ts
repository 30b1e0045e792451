/** A completion record in the words of its operation. DSA specification, "Completion Record". */
import { Descriptor, DifStatus, Opcode, Record, Status } from '@siov/idxd-device/spec';

type OperationName = keyof typeof Opcode;
type StatusName = keyof typeof Status;

interface Common {
  /** By the name of its code; a code that has none is in `statusCode` alone. */
  readonly status: StatusName | 'unknown';
  readonly statusCode: number;
  /** It did what was asked: success, of any result. */
  readonly ok: boolean;
  /** Bytes; descriptors of a batch. */
  readonly completed: number;
  /** Where a page was not there, and whether for a write. */
  readonly fault?: { readonly address: number; readonly write: boolean };
  /** Of status invalidFlags: `Flag` bits. */
  readonly invalidFlags?: number;
}
type Moves = Exclude<
  OperationName,
  'compare' | 'comparePattern' | 'createDelta' | 'crc' | 'copyCrc' | 'difCheck' | 'difInsert' | 'difStrip' | 'difUpdate' | 'dixGenerate'
>;
/** What a descriptor came to. `operation` tells what else is there. */
export type Result = Common &
  (
    | { readonly operation: Moves }
    | {
        readonly operation: 'compare' | 'comparePattern';
        readonly equal: boolean;
        /** Bytes before the first difference, where there is one. */
        readonly differsAt?: number;
      }
    | { readonly operation: 'createDelta'; readonly outcome: 'same' | 'record' | 'overflow'; readonly recordBytes: number }
    | { readonly operation: 'crc' | 'copyCrc'; readonly crc: number }
    | {
        readonly operation: 'difCheck' | 'difInsert' | 'difStrip' | 'difUpdate' | 'dixGenerate';
        /** What the first bad block, which lies behind the bytes completed, has wrong. */
        readonly wrong: readonly (keyof typeof DifStatus)[];
      }
  );

const operations = Object.fromEntries(Object.entries(Opcode).map(([name, code]) => [code, name])) as Readonly<Record<number, OperationName>>;
const statuses = Object.fromEntries(Object.entries(Status).map(([name, code]) => [code, name])) as Readonly<Record<number, StatusName>>;
const outcomes = ['same', 'record', 'overflow'] as const;
const FAULTS: readonly number[] = [Status.pageFault, Status.pageRequestInvalid, Status.batchFault, Status.readbackFault, Status.translationError];

export function resultOf(descriptor: Uint32Array, record: Uint32Array): Result {
  const { get } = Record;
  const statusCode = get.status(record, 0);
  const done = get.result(record, 0);
  const ok = statusCode === Status.success || statusCode === Status.successFalsePredicate;
  const common: Common = {
    status: statuses[statusCode] ?? 'unknown',
    statusCode,
    ok,
    completed: get.completed(record, 0),
    ...(FAULTS.includes(statusCode)
      ? { fault: { address: get.faultHigh(record, 0) * 2 ** 32 + get.faultLow(record, 0), write: get.faultWrite(record, 0) === 1 } }
      : {}),
    ...(statusCode === Status.invalidFlags ? { invalidFlags: get.value(record, 0) & 0xff_ffff } : {}),
  };
  const operation = operations[Descriptor.get.opcode(descriptor, 0)] ?? 'nop';
  switch (operation) {
    case 'compare':
    case 'comparePattern':
      return { ...common, operation, equal: ok && done === 0, ...(ok && done !== 0 ? { differsAt: common.completed } : {}) };
    case 'createDelta':
      return { ...common, operation, outcome: outcomes[done] ?? 'overflow', recordBytes: get.value(record, 0) };
    case 'crc':
    case 'copyCrc':
      return { ...common, operation, crc: get.value(record, 0) };
    case 'difCheck':
    case 'difInsert':
    case 'difStrip':
    case 'difUpdate':
    case 'dixGenerate': {
      const bits = statusCode === Status.difError ? done : 0;
      const names = Object.keys(DifStatus) as (keyof typeof DifStatus)[];
      return { ...common, operation, wrong: names.filter((name) => bits & DifStatus[name]) };
    }
    default:
      return { ...common, operation };
  }
}
