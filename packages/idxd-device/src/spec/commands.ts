/** Commands and their status codes. Linux drivers/dma/idxd/registers.h, enum idxd_cmd and idxd_cmdsts_err. */

export const Command = {
  enableDevice: 1,
  disableDevice: 2,
  drainAll: 3,
  abortAll: 4,
  resetDevice: 5,
  enableWq: 6,
  disableWq: 7,
  drainWq: 8,
  abortWq: 9,
  resetWq: 10,
  drainPasid: 11,
  abortPasid: 12,
  requestInterruptHandle: 13,
  releaseInterruptHandle: 14,
} as const;
export type Command = (typeof Command)[keyof typeof Command];

export const CommandStatus = {
  success: 0x00,
  invalidCommand: 0x01,
  invalidWq: 0x02,
  hardwareError: 0x03,
  deviceEnabled: 0x10,
  configuration: 0x11,
  busMaster: 0x12,
  pasidInvalid: 0x13,
  wqSizes: 0x14,
  groupConfig1: 0x15,
  groupConfig2: 0x16,
  groupConfig3: 0x17,
  groupConfig4: 0x18,
  deviceNotEnabled: 0x20,
  wqEnabled: 0x21,
  wqSize: 0x22,
  wqPriority: 0x23,
  wqMode: 0x24,
  wqBlockOnFault: 0x25,
  wqPasidEnable: 0x26,
  wqMaxBatch: 0x27,
  wqMaxTransfer: 0x28,
  deviceNotEnabledForDisable: 0x31,
  wqNotEnabled: 0x32,
  interruptTableIndex: 0x41,
  noInterruptHandle: 0x42,
  interruptHandleNotAllocated: 0x43,
} as const;
export type CommandStatus = (typeof CommandStatus)[keyof typeof CommandStatus];

/** Errors in SWERROR beyond the completion status codes. */
export const SoftwareError = { pciConfigChanged: 0x51, commandWhileActive: 0x52 } as const;

/** Operand of the commands that name an entry of an interrupt table, or the handle that stands for it. */
export const handleOperand = (entry: number, table: 'msix' | 'ims'): number => entry | (table === 'ims' ? 1 << 16 : 0);
/** Operand of the commands that name queues by bitmap: sixteen queues in bits 15:0, which sixteen in bits 19:16. */
export const wqOperand = (wq: number): number => (1 << (wq & 15)) | ((wq >>> 4) << 16);
