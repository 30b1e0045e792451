/** BAR 0 of a device: the register file with its capability registers computed from the profile. */
import { registerFile } from '@siov/layout';
import type { Profile } from './profiles.js';
import * as spec from './spec/index.js';

/**
 * Where the tables lie in BAR 0, in bytes, each at a multiple of 0x100; the MSI-X table and pending bits are laid over by the PCI function.
 * Software finds them by OFFSETS and by the MSI-X capability.
 */
export interface Tables {
  readonly msixPermission: number;
  readonly groupConfig: number;
  readonly wqConfig: number;
  readonly msix: number;
  readonly pba: number;
  readonly ims: number;
}
const defaultTables: Tables = { msixPermission: 0x300, groupConfig: 0x400, wqConfig: 0x800, msix: 0x2000, pba: 0x3000, ims: 0x8000 };
/** Checks that tables lie on their own. Returns where they are, and the size of BAR 0. */
export function placeTables(p: Profile): { readonly at: Tables; readonly bytes: number } {
  const at = { ...defaultTables, ...p.tables };
  const stride = p.operationConfig ? 2 * spec.WqCfg.bytes : spec.WqCfg.bytes;
  const sizes: Readonly<Record<keyof Tables, number>> = {
    msixPermission: p.msixVectors * spec.MsixPermission.bytes,
    groupConfig: p.groups * spec.GroupCfg.bytes,
    wqConfig: p.wqs * stride,
    msix: p.msixVectors * 16,
    pba: Math.ceil(p.msixVectors / 64) * 8,
    ims: p.imsEntries * spec.ImsEntry.bytes,
  };
  const ranges = [{ name: 'registers', from: 0, to: spec.TABLE_UNIT }];
  for (const [name, bytes] of Object.entries(sizes)) {
    const from = at[name as keyof Tables];
    if (bytes === 0) continue;
    if (!(from % spec.TABLE_UNIT === 0 && from < 0x100_0000))
      throw new RangeError(`profile.tables: ${name} lies at a multiple of 0x100 below 16 MiB, not ${from}`);
    const other = ranges.find((range) => from < range.to && range.from < from + bytes);
    if (other) throw new RangeError(`profile.tables: ${name} and ${other.name} overlap`);
    ranges.push({ name, from, to: from + bytes });
  }
  const end = Math.max(...ranges.map((range) => range.to));
  return { at, bytes: Math.max(4096, 2 ** Math.ceil(Math.log2(end))) };
}

/** One bit per command: what CMDCAP says, or would if it were there. */
export const offeredCommands = (p: Profile): number =>
  Object.values(spec.Command).reduce(
    (bits, code) => (code < spec.Command.requestInterruptHandle || p.commandCapabilities ? bits | (1 << code) : bits),
    0,
  );

const build = (p: Profile) => {
  const { at: table, bytes } = placeTables(p);
  const fixed = p.fixed;
  const words = (layout: { bytes: number }, fill: (w: Uint32Array) => void): number[] => {
    const w = new Uint32Array(layout.bytes / 4);
    fill(w);
    return [...w];
  };
  const operations = words(spec.OpCap, (w) => {
    for (const code of p.operations) w[code >>> 5]! |= 1 << (code & 31);
  });
  const stride = p.operationConfig ? 2 * spec.WqCfg.bytes : spec.WqCfg.bytes;
  const genCap = spec.GenCap.set;
  const wqCap = spec.WqCap.set;
  return registerFile(bytes, {
    version: { offset: spec.Register.version, layout: spec.Version, reset: [p.version] },
    genCap: {
      offset: spec.Register.genCap,
      layout: spec.GenCap,
      reset: words(spec.GenCap, (w) => {
        genCap.blockOnFault(w, 0, p.blockOnFault ? 1 : 0);
        genCap.overlappingCopy(w, 0, p.overlappingCopy ? 1 : 0);
        genCap.cacheControlMemory(w, 0, p.cacheControlMemory === false ? 0 : 1);
        genCap.cacheControlFlush(w, 0, p.cacheControlFlush === false ? 0 : 1);
        genCap.commandCapabilities(w, 0, p.commandCapabilities ? 1 : 0);
        genCap.eventLogSize(w, 0, p.eventLogSize ?? 0);
        genCap.destinationReadback(w, 0, p.destinationReadback === false ? 0 : 1);
        genCap.drainReadback(w, 0, p.drainReadback ? 1 : 0);
        genCap.maxTransferShift(w, 0, p.maxTransferShift);
        genCap.maxBatchShift(w, 0, p.maxBatchShift);
        genCap.imsUnits(w, 0, p.imsEntries / 256);
        genCap.configurationSupport(w, 0, fixed ? 0 : 1);
        genCap.batchContinuation(w, 0, p.batchContinuation ? 1 : 0);
        genCap.descriptorsPerEngine(w, 0, p.descriptorsPerEngine ?? 64);
        genCap.high(w, 0, p.capabilityHigh ?? 0);
      }),
    },
    wqCap: {
      offset: spec.Register.wqCap,
      layout: spec.WqCap,
      reset: words(spec.WqCap, (w) => {
        wqCap.totalSize(w, 0, p.totalWqSize);
        wqCap.count(w, 0, p.wqs);
        // The size of a WQCFG is 32 bytes times two to this.
        wqCap.configSize(w, 0, p.operationConfig ? 1 : 0);
        wqCap.operationConfig(w, 0, p.operationConfig ? 1 : 0);
        for (const name of ['sharedMode', 'dedicatedMode', 'atsControl', 'priority', 'occupancy', 'occupancyInterrupt'] as const)
          wqCap[name](w, 0, p.queues?.[name] === false ? 0 : 1);
        wqCap.prsControl(w, 0, p.queues?.prsControl ? 1 : 0);
      }),
    },
    groupCap: {
      offset: spec.Register.groupCap,
      layout: spec.GroupCap,
      reset: words(spec.GroupCap, (w) => {
        spec.GroupCap.set.count(w, 0, p.groups);
        spec.GroupCap.set.readBuffers(w, 0, p.readBuffers);
        spec.GroupCap.set.readBufferControl(w, 0, 1);
        spec.GroupCap.set.readBufferLimit(w, 0, 1);
        spec.GroupCap.set.progressLimit(w, 0, p.progressLimit ? 1 : 0);
      }),
    },
    engineCap: { offset: spec.Register.engineCap, layout: spec.EngineCap, reset: [p.engines, 0] },
    opCap: {
      offset: spec.Register.opCap,
      layout: spec.OpCap,
      reset: operations,
    },
    offsets: {
      offset: spec.Register.offsets,
      layout: spec.TableOffsets,
      reset: words(spec.TableOffsets, (w) => {
        const at = spec.TableOffsets.set;
        at.groupConfig(w, 0, table.groupConfig / spec.TABLE_UNIT);
        at.wqConfig(w, 0, table.wqConfig / spec.TABLE_UNIT);
        at.msixPermission(w, 0, table.msixPermission / spec.TABLE_UNIT);
        at.ims(w, 0, p.imsEntries ? table.ims / spec.TABLE_UNIT : 0);
      }),
    },
    genCfg: { offset: spec.Register.genCfg, layout: spec.GenCfg },
    genCtrl: { offset: spec.Register.genCtrl, layout: spec.GenCtrl },
    genSts: { offset: spec.Register.genSts, layout: spec.GenSts },
    intCause: { offset: spec.Register.intCause, layout: spec.IntCause },
    cmd: { offset: spec.Register.cmd, layout: spec.Cmd },
    cmdSts: { offset: spec.Register.cmdSts, layout: spec.CmdSts },
    cmdCap: { offset: spec.Register.cmdCap, layout: spec.CmdCap, reset: [p.commandCapabilities ? offeredCommands(p) : 0] },
    swError: { offset: spec.Register.swError, layout: spec.SwError },
    // Without an event log they are there and do nothing.
    eventLogCfg: { offset: spec.Register.eventLogCfg, layout: spec.EventLogCfg },
    eventLogSts: { offset: spec.Register.eventLogSts, layout: spec.EventLogSts },
    iaaCap: { offset: spec.IAACAP_OFFSET, layout: spec.IaaCap, reset: [p.iaaCapabilities ?? 0, 0] },
    msixPermission: { offset: table.msixPermission, layout: spec.MsixPermission, count: p.msixVectors },
    groupConfig: { offset: table.groupConfig, layout: spec.GroupCfg, count: p.groups, ...(fixed ? { reset: fixedGroup(p) } : {}) },
    wqConfig: { offset: table.wqConfig, layout: spec.WqCfg, count: p.wqs, stride, ...(fixed ? { reset: fixedQueue(p, fixed) } : {}) },
    // unconfirmed: what it says after a reset. Here everything that is offered, so that software which does not know it is served.
    wqOperations: {
      offset: table.wqConfig + spec.WQ_OPERATIONS_OFFSET,
      layout: spec.WqOperations,
      count: p.operationConfig ? p.wqs : 0,
      stride,
      reset: operations,
      legalize: (_old, written, word) => (written & operations[word]!) >>> 0,
    },
    // An empty IMS still has one row of no entries; the offset register then reads 0.
    ims: { offset: table.ims, layout: spec.ImsEntry, count: p.imsEntries, reset: [0, 0, 0, 1] },
  });
};
/** Group 0 has all queues and engines. */
function fixedGroup(p: Profile): number[] {
  const w = new Uint32Array(spec.GroupCfg.bytes / 4);
  spec.GroupCfg.set.wqs(w, 0, 2 ** p.wqs - 1);
  spec.GroupCfg.set.engines(w, 0, 2 ** p.engines - 1);
  return [...w];
}
function fixedQueue(p: Profile, fixed: NonNullable<Profile['fixed']>): number[] {
  const w = new Uint32Array(spec.WqCfg.bytes / 4);
  const { set } = spec.WqCfg;
  set.size(w, 0, fixed.size);
  set.threshold(w, 0, fixed.mode === 'shared' ? fixed.size : 0);
  set.mode(w, 0, spec.WqCfg.is.mode[fixed.mode]);
  set.priority(w, 0, 10);
  set.maxTransferShift(w, 0, p.maxTransferShift);
  set.maxBatchShift(w, 0, p.maxBatchShift);
  if (fixed.mode === 'shared') set.pasidEnable(w, 0, 1);
  return [...w];
}
export type Registers = ReturnType<typeof build>;
export const deviceRegisters: (profile: Profile) => Registers = build;
