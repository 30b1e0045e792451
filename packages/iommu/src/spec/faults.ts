/**
 * Fault reasons, everything about each in one row. VT-d, "Fault Reason Encodings for Interrupt Remapping", "... for DMA Remapping".
 * A reason that is `qualified` is not recorded when a Fault Processing Disable bit met on the way is set. `onTranslation` says what a
 * translation request (ATS) gets instead of a fault answer: `empty` is a successful completion with R = W = 0 and no record.
 * unconfirmed: the answers of translation requests to errors in the structures.
 */
type OnTranslation = 'unsupported' | 'abort' | 'empty';
interface Reason {
  readonly code: number;
  readonly text: string;
  readonly qualified: boolean;
  readonly onTranslation: OnTranslation;
}
const row = (code: number, text: string, qualified = true, onTranslation: OnTranslation = 'unsupported'): Reason => ({
  code,
  text,
  qualified,
  onTranslation,
});
const always = false;

export const faultReasons = {
  legacyRootNotPresent: row(0x01, 'root entry not present (legacy mode)', always),
  legacyContextNotPresent: row(0x02, 'context entry not present (legacy mode)'),
  legacyContextInvalid: row(0x03, 'context entry invalid: translation type or width (legacy mode)'),
  legacyBeyondWidth: row(0x04, 'address beyond the width of the tables (legacy mode)', true, 'empty'),
  legacyWriteRefused: row(0x05, 'write without that right (legacy mode)', true, 'empty'),
  legacyReadRefused: row(0x06, 'read without that right (legacy mode)', true, 'empty'),
  legacySecondStageAccess: row(0x07, 'paging entry cannot be read (legacy mode)', true, 'abort'),
  legacyRootAccess: row(0x08, 'root entry cannot be read (legacy mode)', always),
  legacyContextAccess: row(0x09, 'context entry cannot be read (legacy mode)', always),
  legacyRootReserved: row(0x0a, 'reserved bits in a root entry (legacy mode)', always),
  legacyContextReserved: row(0x0b, 'reserved bits in a context entry (legacy mode)'),
  legacySecondStageReserved: row(0x0c, 'reserved bits in a paging entry (legacy mode)', true, 'abort'),
  legacyBlocked: row(0x0d, 'translation or translated request that the translation type does not allow (legacy mode)'),
  legacyInterruptRange: row(0x0e, 'access to the interrupt range (legacy mode)'),
  interruptRequestReserved: row(0x20, 'reserved bits in a remappable interrupt request', always),
  interruptIndex: row(0x21, 'interrupt index beyond the remapping table', always),
  interruptEntryNotPresent: row(0x22, 'IRTE not present'),
  interruptTableAccess: row(0x23, 'interrupt remapping table cannot be read', always),
  interruptEntryReserved: row(0x24, 'reserved bits in an IRTE'),
  compatibilityBlocked: row(0x25, 'compatibility format interrupt blocked', always),
  interruptSource: row(0x26, 'source of the interrupt request refused'),
  /** unconfirmed: the number, and that of the next. */
  postedDescriptorAccess: row(0x27, 'posted-interrupt descriptor cannot be accessed'),
  postedDescriptorReserved: row(0x28, 'reserved bits in a posted-interrupt descriptor'),

  rootTableAddress: row(0x30, 'root table address or mode invalid', always),
  legacyWithPasid: row(0x31, 'request with PASID in legacy mode'),
  legacyPageRequest: row(0x32, 'page request in legacy mode'),
  rootAccess: row(0x38, 'root entry cannot be read', always),
  rootNotPresent: row(0x39, 'root entry not present', always),
  rootReserved: row(0x3a, 'reserved bits in a root entry', always),
  contextAccess: row(0x40, 'context entry cannot be read', always),
  contextNotPresent: row(0x41, 'context entry not present'),
  contextReserved: row(0x42, 'reserved bits in a context entry'),
  contextInvalid: row(0x43, 'context entry invalid: RID_PASID beyond the directory'),
  deviceTlbDisabled: row(0x44, 'translation or translated request while DTE = 0'),
  pasidDisabled: row(0x45, 'request with PASID while PASIDE = 0'),
  pasidBeyondDirectory: row(0x46, 'PASID beyond the directory'),
  pageRequestsDisabled: row(0x47, 'page request while PRE = 0'),
  directoryAccess: row(0x50, 'PASID directory entry cannot be read', always),
  directoryNotPresent: row(0x51, 'PASID directory entry not present'),
  directoryReserved: row(0x52, 'reserved bits in a PASID directory entry'),
  pasidAccess: row(0x58, 'PASID entry cannot be read', always),
  pasidNotPresent: row(0x59, 'PASID entry not present'),
  pasidReserved: row(0x5a, 'reserved bits in a PASID entry'),
  pasidInvalid: row(0x5b, 'PASID entry invalid: translation type or width'),
  supervisorRefused: row(0x5d, 'supervisor request while SRE = 0', true, 'empty'),

  firstStageAccess: row(0x70, 'first-stage entry cannot be read', true, 'abort'),
  firstStageNotPresent: row(0x71, 'first-stage entry not present', true, 'empty'),
  firstStageReserved: row(0x72, 'reserved bits in a first-stage entry', true, 'abort'),
  firstStageRootAccess: row(0x73, 'top first-stage table cannot be read', true, 'abort'),
  nestedBeyondWidth: row(0x74, 'first-stage table address beyond the second stage', true, 'empty'),
  nestedRootRead: row(0x75, 'no second-stage read right on the top first-stage table', true, 'empty'),
  nestedTableRead: row(0x76, 'no second-stage read right on a first-stage table', true, 'empty'),
  nestedTableWrite: row(0x77, 'no second-stage write right for accessed and dirty bits', true, 'empty'),
  secondStageAccess: row(0x78, 'second-stage entry cannot be read', true, 'abort'),
  secondStageNoRight: row(0x79, 'second-stage entry without any right', true, 'empty'),
  secondStageReserved: row(0x7a, 'reserved bits in a second-stage entry', true, 'abort'),
  secondStageRootAccess: row(0x7b, 'top second-stage table cannot be read', true, 'abort'),
  secondStageIncoherent: row(0x7c, 'second-stage accessed or dirty update on a walk that does not snoop', true, 'abort'),
  notCanonical: row(0x80, 'address not canonical', true, 'empty'),
  notUser: row(0x81, 'user request to a supervisor page', true, 'empty'),
  notExecutable: row(0x82, 'execute request to a page without that right', true, 'empty'),
  beyondHostWidth: row(0x83, 'pass-through address beyond the host address width', true, 'empty'),
  beyondGuestWidth: row(0x84, 'address beyond the width of the second stage', true, 'empty'),
  writeRefused: row(0x85, 'write without that right', true, 'empty'),
  readRefused: row(0x86, 'read without that right', true, 'empty'),
  interruptRange: row(0x87, 'access to the interrupt range', true, 'unsupported'),
  firstStageIncoherent: row(0x90, 'first-stage accessed or dirty update on a walk that does not snoop', true, 'abort'),
  firstStageUpdate: row(0x91, 'first-stage accessed or dirty update failed', true, 'abort'),
} as const satisfies Record<string, Reason>;

/** What a fault of the second stage is called in legacy mode; of a read and of a write where these differ. */
export const legacyReasons: Readonly<Record<number, readonly [read: number, write: number]>> = (() => {
  const f = faultReasons;
  const both = (code: number): readonly [number, number] => [code, code];
  return {
    [f.secondStageAccess.code]: both(f.legacySecondStageAccess.code),
    [f.secondStageRootAccess.code]: both(f.legacySecondStageAccess.code),
    [f.secondStageReserved.code]: both(f.legacySecondStageReserved.code),
    [f.secondStageNoRight.code]: [f.legacyReadRefused.code, f.legacyWriteRefused.code],
    [f.readRefused.code]: both(f.legacyReadRefused.code),
    [f.writeRefused.code]: both(f.legacyWriteRefused.code),
    [f.beyondGuestWidth.code]: both(f.legacyBeyondWidth.code),
    [f.beyondHostWidth.code]: both(f.legacyBeyondWidth.code),
    [f.interruptRange.code]: both(f.legacyInterruptRange.code),
    [f.deviceTlbDisabled.code]: both(f.legacyBlocked.code),
  };
})();

export type FaultName = keyof typeof faultReasons;
/** Reason codes by name; `none` is ours. */
export const Fault = {
  none: 0,
  ...(Object.fromEntries(Object.entries(faultReasons).map(([name, { code }]) => [name, code])) as { readonly [N in FaultName]: number }),
} as const;

const byCode: (Reason | undefined)[] = [];
const nameByCode: string[] = [];
for (const [name, reason] of Object.entries(faultReasons)) {
  byCode[reason.code] = reason;
  nameByCode[reason.code] = name;
}
/** The name of a reason code; 'fault 0x..' for a code that has none. */
export const faultName = (code: number): string => nameByCode[code] ?? `fault 0x${code.toString(16)}`;
export const faultText = (code: number): string => byCode[code]?.text ?? faultName(code);

/** By code: bit 0 recorded even when FPD is set; bits 2:1 the answer to a translation request (0 unsupported, 1 abort, 2 empty). */
export const faultTraits = /* @__PURE__ */ Uint8Array.from({ length: 256 }, (_, code) => {
  const reason = byCode[code];
  return reason ? (reason.qualified ? 0 : 1) | ({ unsupported: 0, abort: 1, empty: 2 }[reason.onTranslation] << 1) : 0;
});
