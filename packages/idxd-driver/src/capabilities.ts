/** What the device can and where its tables are, read once at probe. Linux drivers/dma/idxd/init.c, idxd_read_caps, idxd_read_table_offsets. */
import * as spec from '@siov/idxd-device/spec';
import type { Capabilities } from './config.js';
import type { Hardware } from './hardware.js';

/** Byte offsets in BAR 0; 0: the device has no such table. */
export interface Tables {
  readonly groups: number;
  readonly wqs: number;
  readonly wqStride: number;
  readonly msixPermission: number;
  readonly ims: number;
}
/** Without CMDCAP a device has commands 1 to 12. */
const DEFAULT_COMMANDS = 0x1ffe;
const VERSION_2 = 0x200;

export function readCapabilities(
  hardware: Hardware,
  version: number,
  pasid: boolean,
  type: Capabilities['type'],
): { readonly can: Capabilities; readonly at: Tables } {
  const genCap = hardware.words(spec.Register.genCap, 8);
  const general = (field: keyof typeof spec.GenCap.get): number => spec.GenCap.get[field](genCap, 0);
  const commands = general('commandCapabilities') ? hardware.read(spec.Register.cmdCap) : DEFAULT_COMMANDS;
  const groupCap = hardware.words(spec.Register.groupCap, 8);
  const engineCap = hardware.words(spec.Register.engineCap, 8);
  const wqCap = hardware.words(spec.Register.wqCap, 8);
  const opCap = hardware.words(spec.Register.opCap, 32);
  const offsets = hardware.words(spec.Register.offsets, 16);
  const table = (field: keyof typeof spec.TableOffsets.get): number => spec.TableOffsets.get[field](offsets, 0) * spec.TABLE_UNIT;
  const ims = table('ims');
  const operations = new Set<number>();
  for (let code = 0; code < 256; code++) if ((opCap[code >>> 5]! >>> (code & 31)) & 1) operations.add(code);
  const group = (field: keyof typeof spec.GroupCap.get): number => spec.GroupCap.get[field](groupCap, 0);
  const wq = (field: keyof typeof spec.WqCap.get): number => spec.WqCap.get[field](wqCap, 0);
  return {
    can: {
      type,
      recordBytes: type === 'iax' ? spec.IAX_RECORD_BYTES : spec.RECORD_BYTES,
      iaaCap: type === 'iax' && version >= VERSION_2 ? hardware.words(spec.IAACAP_OFFSET, spec.IaaCap.bytes) : undefined,
      version,
      wqs: wq('count'),
      totalWqSize: wq('totalSize'),
      groups: group('count'),
      engines: spec.EngineCap.get.count(engineCap, 0),
      maxTransferShift: general('maxTransferShift'),
      maxBatchShift: general('maxBatchShift'),
      blockOnFault: general('blockOnFault') === 1,
      imsEntries: ims ? general('imsUnits') * 256 : 0,
      configurable: general('configurationSupport') === 1,
      operations,
      commands,
      operationMask: opCap,
      genCapLow: genCap[0]!,
      genCapHigh: genCap[1]!,
      eventLog: general('eventLogSize') !== 0,
      eventBytes: general('eventLogSize') === 0 ? 0 : 32 << general('eventLogSize'),
      readBuffers: group('readBuffers'),
      readBufferLimit: group('readBufferLimit') === 1,
      progressLimit: group('progressLimit') === 1,
      sharedMode: wq('sharedMode') === 1,
      atsControl: wq('atsControl') === 1,
      prsControl: wq('prsControl') === 1,
      occupancy: wq('occupancy') === 1,
      operationConfig: wq('operationConfig') === 1,
      pasid,
    },
    at: {
      groups: table('groupConfig'),
      wqs: table('wqConfig'),
      wqStride: 32 << wq('configSize'),
      msixPermission: table('msixPermission'),
      ims,
    },
  };
}
