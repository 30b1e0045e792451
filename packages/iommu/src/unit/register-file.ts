/** The register file of one unit: the map, the fault records where CAP says they are, the constants of its profile. */
import { type RegisterFile, registerFile } from '@siov/layout';
import { Capability, defaultProfile, ExtendedCapability } from '../spec/capabilities.js';
import { FaultRecordRegister, InvalidateAddress, IotlbCommand, REGISTER_BYTES, registers } from '../spec/registers.js';
import type { Resolved } from './options.js';

export type FrontRegisters = RegisterFile<
  typeof registers & {
    readonly faultRecord: { offset: number; layout: typeof FaultRecordRegister; count: number };
    readonly invalidateAddress: { offset: number; layout: typeof InvalidateAddress };
    readonly iotlbCommand: { offset: number; layout: typeof IotlbCommand };
  }
>;

export const faultRecords = ({ capability }: Resolved): number => Capability.get.faultRecords(capability, 0) + 1;

export function frontRegisters(resolved: Resolved): FrontRegisters {
  const { capability, extended } = resolved;
  const offset = 16 * (Capability.get.faultRecordOffset(capability, 0) + 256 * Capability.get.faultRecordOffsetHigh(capability, 0));
  const faultRecord = { offset, layout: FaultRecordRegister, count: faultRecords(resolved) };
  const iotlb = 16 * ExtendedCapability.get.iotlbOffset(extended, 0);
  const invalidateAddress = { offset: iotlb, layout: InvalidateAddress };
  const iotlbCommand = { offset: iotlb + 8, layout: IotlbCommand };
  const file = registerFile(REGISTER_BYTES, { ...registers, faultRecord, invalidateAddress, iotlbCommand });
  identify(file, resolved);
  return file;
}

/** Puts the constants into their registers; needed after every reset. */
export function identify(file: FrontRegisters, { capability, extended }: Resolved): void {
  file.words[file.at('version')] = defaultProfile.version;
  file.words.set(capability, file.at('capability'));
  file.words.set(extended, file.at('extendedCapability'));
}
