/**
 * What a descriptor is refused for, before anything of it is done. DSA specification, "Descriptor Processing" and the errors of each operation.
 * Most pass by one look at a table of their queue.
 */
import { DmaAccess } from '@siov/layout/pcie';
import type { PciFunction } from '@siov/pci-core';
import type { Family } from './family.js';
import type { Interrupts } from './interrupts.js';
import type { Op } from './op.js';
import { legalFlags, type Operation, type Operations } from './operations/index.js';
import { type Check, defaultCheckOrder, type Profile } from './profiles.js';
import type { WorkQueue } from './queue.js';
import { Flag, Opcode, Status } from './spec/descriptor.js';

export interface CheckPorts {
  readonly profile: Profile;
  readonly fn: PciFunction;
  readonly interrupts: Interrupts;
}

export class Checks {
  // fixed
  readonly #p: CheckPorts;
  readonly #order: readonly Check[];
  readonly #fenceInBatch: boolean;
  readonly #operations: Operations;
  readonly #recordBytes: number;
  readonly #sized = new Uint8Array(256);
  /** Its size or its parameters can be wrong. */
  readonly #looked = new Uint8Array(256);
  /** Which operations this device offers, the flags that each may have, and the reserved bits of its descriptor. */
  readonly #offered: readonly boolean[];
  readonly #legal: readonly number[];
  readonly #reserved: readonly (Uint32Array | undefined)[];

  constructor(ports: CheckPorts, family: Family, operations: Operations) {
    this.#p = ports;
    const { profile } = ports;
    this.#operations = operations;
    this.#recordBytes = family.recordBytes;
    this.#order = profile.checkOrder ?? [];
    if (this.#order.length > 0 && (this.#order.length !== defaultCheckOrder.length || new Set(this.#order).size !== this.#order.length))
      throw new RangeError(`profile.checkOrder: each of ${defaultCheckOrder.join(', ')} once`);
    this.#fenceInBatch = profile.fenceOutsideBatch === 'refused';
    for (const [code, row] of Object.entries(operations) as unknown as [number, Operation][]) {
      this.#sized[code] = row.sized ? 1 : 0;
      this.#looked[code] = row.sized || row.check ? 1 : 0;
    }
    const codes = Array.from({ length: 256 }, (_, code) => code);
    this.#offered = codes.map((code) => profile.operations.includes(code) && operations[code] !== undefined);
    this.#legal = codes.map((code) => (this.#offered[code] ? legalFlags(code, operations[code]!, profile) : 0));
    this.#reserved = codes.map((code) => (this.#offered[code] ? family.descriptors.of(Uint32Array.of(0, code << 24), 0).masks.reserved : undefined));
  }

  /** Makes the table of a queue anew: its configuration changed. */
  tabulate(wq: WorkQueue): void {
    const asks = Flag.requestInterrupt | (wq.blockOnFault ? 0 : Flag.blockOnFault) | (this.#fenceInBatch ? Flag.fence : 0);
    for (let code = 0; code < wq.plainFlags.length; code++) {
      const simple = this.#offered[code] && code !== Opcode.batch && code !== Opcode.drain && wq.trafficClassFault === 0;
      wq.plainFlags[code] = simple && (wq.operations[code >>> 5]! >>> (code & 31)) & 1 ? this.#legal[code]! & ~asks : 0;
    }
  }

  /** The status that a descriptor ends with, in the order of `defaultCheckOrder`; 0 when it may run. Which of several errors is told, a profile may say. */
  refusal(op: Op, wq: WorkQueue): number {
    return this.#passes(op, wq) ? 0 : this.#refusalOf(op, wq);
  }
  /** Most descriptors: with a record, and nothing that has to be asked for. True: every check passes. False says nothing. */
  #passes(op: Op, wq: WorkQueue): boolean {
    const { opcode, flags, descriptor } = op;
    if ((flags & ~wq.plainFlags[opcode]!) | (~flags & Flag.recordAddressValid) | (descriptor[2]! & (this.#recordBytes - 1))) return false;
    return (
      (op.access & DmaAccess.privileged) === 0 &&
      this.#refuseReserved(op) === 0 &&
      (this.#looked[opcode] === 0 || (this.#refuseSize(op, wq) === 0 && this.#refuseParameters(op, wq) === 0))
    );
  }
  #refusalOf(op: Op, wq: WorkQueue): number {
    const first =
      this.#refuseOperation(op, wq) ||
      this.#refuseFlags(op, wq) ||
      this.#refuseReserved(op) ||
      this.#refuseRecord(op) ||
      this.#refusePrivilege(op) ||
      this.#refuseInterrupt(op) ||
      this.#refuseSize(op, wq) ||
      this.#refuseParameters(op, wq) ||
      this.#refuseTrafficClass(op, wq);
    return first === 0 || this.#order.length === 0 ? first : this.#refusalInOrder(op, wq);
  }
  #refusalInOrder(op: Op, wq: WorkQueue): number {
    op.value = 0;
    for (const check of this.#order) {
      const status = this.#named[check](op, wq);
      if (status !== 0) return status;
    }
    return 0;
  }
  readonly #named: Readonly<Record<Check, (op: Op, wq: WorkQueue) => number>> = {
    operation: (op, wq) => this.#refuseOperation(op, wq),
    flags: (op, wq) => this.#refuseFlags(op, wq),
    reserved: (op) => this.#refuseReserved(op),
    record: (op) => this.#refuseRecord(op),
    privilege: (op) => this.#refusePrivilege(op),
    interrupt: (op) => this.#refuseInterrupt(op),
    size: (op, wq) => this.#refuseSize(op, wq),
    parameters: (op, wq) => this.#refuseParameters(op, wq),
    trafficClass: (op, wq) => this.#refuseTrafficClass(op, wq),
  };
  #refuseOperation(op: Op, wq: WorkQueue): number {
    const { opcode } = op;
    return !this.#offered[opcode] ||
      !((wq.operations[opcode >>> 5]! >>> (opcode & 31)) & 1) ||
      (op.inBatch && (opcode === Opcode.batch || opcode === Opcode.drain))
      ? Status.unsupportedOperation
      : 0;
  }
  #refuseFlags(op: Op, wq: WorkQueue): number {
    const { flags } = op;
    let illegal = flags & ~this.#legal[op.opcode]!;
    if (!wq.blockOnFault) illegal |= flags & Flag.blockOnFault;
    if (flags & Flag.requestRecord && !(flags & Flag.recordAddressValid)) illegal |= Flag.requestRecord;
    if (this.#fenceInBatch && !op.inBatch) illegal |= flags & Flag.fence;
    if (illegal === 0) return 0;
    op.value = illegal;
    return Status.invalidFlags;
  }
  #refuseReserved({ opcode, descriptor }: Op): number {
    const reserved = this.#reserved[opcode];
    if (!reserved) return 0;
    let set = 0;
    for (let i = 0; i < 16; i += 4)
      set |=
        (descriptor[i]! & reserved[i]!) |
        (descriptor[i + 1]! & reserved[i + 1]!) |
        (descriptor[i + 2]! & reserved[i + 2]!) |
        (descriptor[i + 3]! & reserved[i + 3]!);
    return set !== 0 ? Status.nonZeroReserved : 0;
  }
  #refuseRecord(op: Op): number {
    return op.flags & Flag.recordAddressValid && op.descriptor[2]! & (this.#recordBytes - 1) ? Status.recordAlignment : 0;
  }
  #refusePrivilege(op: Op): number {
    return op.access & DmaAccess.privileged && op.pasid >= 0 && !this.#p.fn.privilegedEnabled ? Status.privilege : 0;
  }
  #refuseInterrupt(op: Op): number {
    return op.flags & Flag.requestInterrupt && !this.#p.interrupts.allowed(op.descriptor[9]! & 0xffff, op.ims, op.pasid) ? Status.interruptHandle : 0;
  }
  #refuseSize(op: Op, wq: WorkQueue): number {
    if (this.#sized[op.opcode] && (op.remaining === 0 || op.remaining > wq.maxTransfer)) return Status.transferSize;
    if (op.opcode !== Opcode.batch) return 0;
    op.count = op.remaining;
    return op.count < 2 || op.count > wq.maxBatch ? Status.descriptorCount : 0;
  }
  #refuseParameters(op: Op, wq: WorkQueue): number {
    if (op.opcode === Opcode.batch) return op.sourceLow & 63 ? Status.listAlignment : 0;
    return this.#operations[op.opcode]?.check?.(op, this.#p.profile.overlappingCopy, wq.maxTransfer) ?? 0;
  }
  #refuseTrafficClass(op: Op, wq: WorkQueue): number {
    if (wq.trafficClassFault === 0) return 0;
    return selects(op.flags, this.#operations[op.opcode]?.flags ?? 0, wq.trafficClassFault) ? Status.trafficClass : 0;
  }
}

const SELECTORS = Flag.trafficClass1 | Flag.trafficClass2 | Flag.trafficClass3;
/** Whether an address of the descriptor, or its record, selects a traffic class (bit 0: A, bit 1: B) of `which`. A selector of 0 is class A. */
function selects(flags: number, legal: number, which: number): boolean {
  const addresses = (legal & SELECTORS) | (flags & Flag.recordAddressValid ? Flag.recordTrafficClass : 0);
  return ((which & 1) !== 0 && (addresses & ~flags) !== 0) || ((which & 2) !== 0 && (addresses & flags) !== 0);
}
