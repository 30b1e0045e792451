/**
 * BAR 0 of the virtual device: the registers of a DSA with one group, one work queue, two vectors, and a configuration that the guest cannot
 * change. Layout as the kernel series of 2020 and 2021 had it (VFIO mediated device support for idxd).
 */

import * as spec from '@siov/idxd-device/spec';
import type { Capabilities, Wq } from '@siov/idxd-driver';
import { registerFile } from '@siov/layout';

export const BAR0_BYTES = 0x2000;
export const BAR2_BYTES = 0x2000;
/** Byte offsets of the tables in BAR 0. */
export const VdevTable = { msixPermission: 0x300, groupConfig: 0x400, wqConfig: 0x500, msix: 0x600, pba: 0x700 } as const;
/** Vector 0: commands and errors, emulated. Vector 1: completions, backed by an IMS slot of the parent. */
export const VECTORS = 2;

/** What the device's administrative commands are: all of them, 1 to 14. */
const COMMANDS = 0x7ffe;

const build = (can: Capabilities, wq: Wq) => {
  const words = (layout: { readonly bytes: number }, fill: (w: Uint32Array) => void): number[] => {
    const w = new Uint32Array(layout.bytes / 4);
    fill(w);
    return [...w];
  };
  return registerFile(BAR0_BYTES, {
    version: { offset: spec.Register.version, layout: spec.Version, reset: [can.version] },
    genCap: {
      offset: spec.Register.genCap,
      layout: spec.GenCap,
      reset: words(spec.GenCap, (w) => {
        spec.GenCap.set.overlappingCopy(w, 0, 1);
        // As the host configured the queue: whoever shows the device to a guest hands on its page requests, if it offers them.
        spec.GenCap.set.blockOnFault(w, 0, wq.config.blockOnFault ? 1 : 0);
        spec.GenCap.set.commandCapabilities(w, 0, 1);
        spec.GenCap.set.maxTransferShift(w, 0, wq.config.maxTransferSize ? Math.log2(wq.config.maxTransferSize) : can.maxTransferShift);
        spec.GenCap.set.maxBatchShift(w, 0, wq.config.maxBatchSize ? Math.log2(wq.config.maxBatchSize) : can.maxBatchShift);
      }),
    },
    wqCap: {
      offset: spec.Register.wqCap,
      layout: spec.WqCap,
      reset: words(spec.WqCap, (w) => {
        spec.WqCap.set.totalSize(w, 0, wq.config.size);
        spec.WqCap.set.count(w, 0, 1);
        spec.WqCap.set.dedicatedMode(w, 0, 1);
      }),
    },
    groupCap: { offset: spec.Register.groupCap, layout: spec.GroupCap, reset: [1, 0] },
    engineCap: { offset: spec.Register.engineCap, layout: spec.EngineCap, reset: [can.engines, 0] },
    opCap: {
      offset: spec.Register.opCap,
      layout: spec.OpCap,
      reset: words(spec.OpCap, (w) => {
        for (const code of can.operations) w[code >>> 5]! |= 1 << (code & 31);
      }),
    },
    offsets: {
      offset: spec.Register.offsets,
      layout: spec.TableOffsets,
      reset: words(spec.TableOffsets, (w) => {
        spec.TableOffsets.set.groupConfig(w, 0, VdevTable.groupConfig / spec.TABLE_UNIT);
        spec.TableOffsets.set.wqConfig(w, 0, VdevTable.wqConfig / spec.TABLE_UNIT);
        spec.TableOffsets.set.msixPermission(w, 0, VdevTable.msixPermission / spec.TABLE_UNIT);
      }),
    },
    genCfg: { offset: spec.Register.genCfg, layout: spec.GenCfg },
    genCtrl: { offset: spec.Register.genCtrl, layout: spec.GenCtrl },
    genSts: { offset: spec.Register.genSts, layout: spec.GenSts },
    intCause: { offset: spec.Register.intCause, layout: spec.IntCause },
    cmd: { offset: spec.Register.cmd, layout: spec.Cmd },
    cmdSts: { offset: spec.Register.cmdSts, layout: spec.CmdSts },
    cmdCap: { offset: spec.Register.cmdCap, layout: spec.CmdCap, reset: [COMMANDS] },
    swError: { offset: spec.Register.swError, layout: spec.SwError },
    msixPermission: { offset: VdevTable.msixPermission, layout: spec.MsixPermission, count: VECTORS },
    groupConfig: {
      offset: VdevTable.groupConfig,
      layout: spec.GroupCfg,
      reset: words(spec.GroupCfg, (w) => {
        spec.GroupCfg.set.wqs(w, 0, 1);
        spec.GroupCfg.set.engines(w, 0, 2 ** can.engines - 1);
      }),
    },
    wqConfig: {
      offset: VdevTable.wqConfig,
      layout: spec.WqCfg,
      legalize: (old, written, word) => (word === 2 ? (old & ~GUEST_WQCFG) | (written & GUEST_WQCFG) : old) >>> 0,
      reset: words(spec.WqCfg, (w) => {
        const set = spec.WqCfg.set;
        set.size(w, 0, wq.config.size);
        set.mode(w, 0, spec.WqCfg.is.mode.dedicated);
        set.blockOnFault(w, 0, wq.config.blockOnFault ? 1 : 0);
        set.priority(w, 0, wq.config.priority ?? 10);
        set.maxTransferShift(w, 0, wq.config.maxTransferSize ? Math.log2(wq.config.maxTransferSize) : can.maxTransferShift);
        set.maxBatchShift(w, 0, wq.config.maxBatchSize ? Math.log2(wq.config.maxBatchSize) : can.maxBatchShift);
      }),
    },
  });
};
export type VdevRegisters = ReturnType<typeof build>;
export const vdevRegisters: (can: Capabilities, wq: Wq) => VdevRegisters = build;

/** WQCFG's third dword: what a guest may write while the queue is off. As in the later out-of-tree device. */
const GUEST_WQCFG = (() => {
  const w = new Uint32Array(8);
  spec.WqCfg.set.pasid(w, 0, 0xf_ffff);
  spec.WqCfg.set.pasidEnable(w, 0, 1);
  spec.WqCfg.set.privileged(w, 0, 1);
  return w[2]!;
})();
