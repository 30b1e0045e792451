/** BAR 0 of a device: the register file with its capability registers computed from the profile. */
import { registerFile } from '@siov/layout';
import type { Profile } from './profiles.js';
import * as spec from './spec/index.js';

/** Where the tables lie in BAR 0, in bytes; the MSI-X table and pending bits are laid over by the PCI function. */
export const Table = { msixPermission: 0x300, groupConfig: 0x400, wqConfig: 0x800, msix: 0x2000, pba: 0x3000, ims: 0x8000 } as const;
export const BAR0_BYTES = 0x1_0000;

/** One bit per command: what CMDCAP says, or would if it were there. */
export const offeredCommands = (p: Profile): number =>
  Object.values(spec.Command).reduce(
    (bits, code) => (code < spec.Command.requestInterruptHandle || p.commandCapabilities ? bits | (1 << code) : bits),
    0,
  );

const build = (p: Profile) => {
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
  return registerFile(BAR0_BYTES, {
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
        genCap.configurationSupport(w, 0, 1);
        genCap.descriptorsPerEngine(w, 0, p.descriptorsPerEngine ?? 64);
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
        for (const name of ['sharedMode', 'dedicatedMode', 'atsControl', 'priority', 'occupancy'] as const) wqCap[name](w, 0, 1);
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
        at.groupConfig(w, 0, Table.groupConfig / spec.TABLE_UNIT);
        at.wqConfig(w, 0, Table.wqConfig / spec.TABLE_UNIT);
        at.msixPermission(w, 0, Table.msixPermission / spec.TABLE_UNIT);
        at.ims(w, 0, p.imsEntries ? Table.ims / spec.TABLE_UNIT : 0);
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
    msixPermission: { offset: Table.msixPermission, layout: spec.MsixPermission, count: p.msixVectors },
    groupConfig: { offset: Table.groupConfig, layout: spec.GroupCfg, count: p.groups },
    wqConfig: { offset: Table.wqConfig, layout: spec.WqCfg, count: p.wqs, stride },
    // unconfirmed: what it says after a reset. Here everything that is offered, so that software which does not know it is served.
    wqOperations: {
      offset: Table.wqConfig + spec.WQ_OPERATIONS_OFFSET,
      layout: spec.WqOperations,
      count: p.operationConfig ? p.wqs : 0,
      stride,
      reset: operations,
      legalize: (_old, written, word) => (written & operations[word]!) >>> 0,
    },
    // An empty IMS still has one row of no entries; the offset register then reads 0.
    ims: { offset: Table.ims, layout: spec.ImsEntry, count: p.imsEntries, reset: [0, 0, 0, 1] },
  });
};
export type Registers = ReturnType<typeof build>;
export const deviceRegisters: (profile: Profile) => Registers = build;
