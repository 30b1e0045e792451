/**
 * Administrative commands as a table: why refused, what it does, until when it is busy. DSA specification, "Administrative Commands";
 * codes and status values as in Linux drivers/dma/idxd/registers.h.
 */
import { type WorkQueue, WqState } from './queue.js';
import { Command, CommandStatus } from './spec/commands.js';

/** What commands act on; the device. */
export interface Commanded {
  readonly enabled: boolean;
  readonly busMaster: boolean;
  readonly queues: readonly WorkQueue[];
  /** First error of the configuration of groups and sizes, or success. */
  checkDevice(): CommandStatus;
  checkQueue(wq: WorkQueue): CommandStatus;
  enableDevice(): void;
  disableDevice(): void;
  resetDevice(): void;
  enableQueue(wq: WorkQueue): void;
  disableQueue(wq: WorkQueue): void;
  resetQueue(wq: WorkQueue): void;
  abort(wq: number, pasid: number): void;
  /** Nothing waits or is in progress in a queue (-1: any) for a PASID (-1: any). */
  quiet(wq: number, pasid: number): boolean;
  /** Interrupt handles: index of the entry, and whether it is of the interrupt message storage. */
  requestHandle(index: number, ims: number): CommandStatus;
  releaseHandle(handle: number, ims: number): CommandStatus;
}
interface Row {
  /** Success, or why not. */
  refuse(d: Commanded, operand: number): CommandStatus;
  /** What happens at once. */
  run?(d: Commanded, operand: number): void;
  /** The command is active until this holds. */
  until?(d: Commanded, operand: number): boolean;
  /** What happens then. */
  finish?(d: Commanded, operand: number): void;
  /** What CMDSTS says beside success. */
  result?(operand: number): number;
}

/** Bits 15:0 of the operand are queues of the group of sixteen that bits 19:16 name. */
const named = (d: Commanded, operand: number): WorkQueue[] =>
  d.queues.filter((wq) => wq.index >>> 4 === operand >>> 16 && (operand >>> (wq.index & 15)) & 1);
const ok = CommandStatus.success;
const refuseDisabled = (d: Commanded): CommandStatus => (d.enabled ? ok : CommandStatus.deviceNotEnabledForDisable);
const refuseQueues = (d: Commanded, operand: number): CommandStatus => {
  const queues = named(d, operand);
  if (queues.length === 0) return CommandStatus.invalidWq;
  return queues.every((wq) => wq.state === WqState.enabled) ? ok : CommandStatus.wqNotEnabled;
};
const abortQueues = (d: Commanded, operand: number): void => {
  for (const wq of named(d, operand)) d.abort(wq.index, -1);
};
const close = (d: Commanded, operand: number): void => {
  for (const wq of named(d, operand)) wq.state = WqState.draining;
};
const quietQueues = (d: Commanded, operand: number): boolean => named(d, operand).every((wq) => d.quiet(wq.index, -1));

export const commands: Readonly<Record<number, Row>> = {
  [Command.enableDevice]: {
    refuse: (d) => (d.enabled ? CommandStatus.deviceEnabled : d.busMaster ? d.checkDevice() : CommandStatus.busMaster),
    finish: (d) => d.enableDevice(),
  },
  [Command.disableDevice]: { refuse: refuseDisabled, until: (d) => d.quiet(-1, -1), finish: (d) => d.disableDevice() },
  [Command.drainAll]: { refuse: refuseDisabled, until: (d) => d.quiet(-1, -1) },
  [Command.abortAll]: { refuse: refuseDisabled, run: (d) => d.abort(-1, -1), until: (d) => d.quiet(-1, -1) },
  [Command.resetDevice]: { refuse: () => ok, run: (d) => d.abort(-1, -1), until: (d) => d.quiet(-1, -1), finish: (d) => d.resetDevice() },
  [Command.enableWq]: {
    refuse(d, operand) {
      const wq = d.queues[operand];
      if (!wq) return CommandStatus.invalidWq;
      if (!d.enabled) return CommandStatus.deviceNotEnabled;
      return wq.state === WqState.disabled ? d.checkQueue(wq) : CommandStatus.wqEnabled;
    },
    finish: (d, operand) => d.enableQueue(d.queues[operand]!),
  },
  [Command.disableWq]: {
    refuse: refuseQueues,
    run: close,
    until: quietQueues,
    finish: (d, operand) => {
      for (const wq of named(d, operand)) d.disableQueue(wq);
    },
  },
  [Command.drainWq]: { refuse: refuseQueues, until: quietQueues },
  [Command.abortWq]: { refuse: refuseQueues, run: abortQueues, until: quietQueues },
  [Command.resetWq]: {
    refuse: refuseQueues,
    run(d, operand) {
      close(d, operand);
      abortQueues(d, operand);
    },
    until: quietQueues,
    finish(d, operand) {
      for (const wq of named(d, operand)) d.resetQueue(wq);
    },
  },
  // A handle is the index of its entry, so a refusal and the grant are one step.
  [Command.requestInterruptHandle]: {
    refuse: (d, operand) => d.requestHandle(operand & 0xffff, (operand >>> 16) & 1),
    result: (operand) => operand & 0xffff,
  },
  [Command.releaseInterruptHandle]: { refuse: (d, operand) => d.releaseHandle(operand & 0xffff, (operand >>> 16) & 1) },
  [Command.drainPasid]: { refuse: refuseDisabled, until: (d, pasid) => d.quiet(-1, pasid) },
  [Command.abortPasid]: { refuse: refuseDisabled, run: (d, pasid) => d.abort(-1, pasid), until: (d, pasid) => d.quiet(-1, pasid) },
};
