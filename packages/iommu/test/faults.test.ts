/** VT-d fault reasons, one by one: a table broken in one place, a request, and what is recorded and answered. */
import { TlpStatus } from '@siov/layout/pcie';
import { PageEntry } from '@siov/layout/x86';
import { expect, test } from 'vitest';
import {
  ContextEntry,
  Fault,
  type FaultName,
  faultReasons,
  faultText,
  PasidDirectoryEntry,
  PasidEntry,
  RootEntry,
  SecondStageEntry,
} from '../src/spec/index.js';
import { ATS, type Bare, bare, EXECUTE, NO_PASID, PASID, PRIVILEGED, READ, RID, WRITE } from './machine.js';

const IOVA = 0x1234_5000;
const PAGE = 0x200;
type Row = readonly [
  reason: FaultName,
  rule: string,
  breaks: (m: Bare) => void,
  request?: { access?: number; pasid?: number; address?: bigint | number; type?: Kind },
];
type Kind = 'first' | 'second' | 'nested' | 'pass';
const FAR = 0x9_0000 * 4096;
const slotOf = (m: Bare): number => m.mapFirst(IOVA, PAGE);

const rows: readonly Row[] = [
  ['rootTableAddress', 'a reserved mode', (m) => (m.write64(0x20, m.root * 4096 + 0x800), m.command(30))],
  ['rootTableAddress', 'root address beyond the host', (m) => (m.write64(0x20, 2 ** 43 + 1024), m.command(30))],
  ['rootAccess', 'no memory at the root table', (m) => (m.write64(0x20, FAR + 1024), m.command(30))],
  ['rootNotPresent', 'P = 0', (m) => RootEntry.set.present(m.words, m.at.root, 0)],
  ['rootReserved', 'bit 1', (m) => (m.words[m.at.root]! |= 2)],
  ['rootReserved', 'address beyond the host', (m) => (m.words[m.at.root + 1]! |= 1 << 11)],
  ['contextAccess', 'no memory', (m) => RootEntry.set.contextTable(m.words, m.at.root, FAR)],
  ['contextNotPresent', 'P = 0', (m) => ContextEntry.set.present(m.words, m.at.context, 0)],
  ['contextReserved', 'bit 5', (m) => (m.words[m.at.context]! |= 1 << 5)],
  ['contextInvalid', 'RID_PASID beyond the directory', (m) => ContextEntry.set.ridPasid(m.words, m.at.context, 0x2000)],
  ['deviceTlbDisabled', 'ATS while DTE = 0', (m) => ContextEntry.set.deviceTlbEnable(m.words, m.at.context, 0), { access: ATS }],
  ['pasidDisabled', 'PASID while PASIDE = 0', (m) => ContextEntry.set.pasidEnable(m.words, m.at.context, 0)],
  ['pasidBeyondDirectory', 'PASID 8192 of 8192', () => {}, { pasid: 8192 }],
  ['directoryAccess', 'no memory', (m) => ContextEntry.set.directory(m.words, m.at.context, FAR)],
  ['directoryNotPresent', 'P = 0', (m) => PasidDirectoryEntry.set.present(m.words, m.at.directory, 0)],
  ['directoryReserved', 'bit 2', (m) => (m.words[m.at.directory]! |= 4)],
  ['pasidAccess', 'no memory', (m) => PasidDirectoryEntry.set.table(m.words, m.at.directory, FAR)],
  ['pasidNotPresent', 'P = 0', (m) => PasidEntry.set.present(m.words, m.at.pasid(PASID), 0)],
  ['pasidReserved', 'bit 5', (m) => (m.words[m.at.pasid(PASID)]! |= 1 << 5)],
  ['pasidReserved', 'first-stage pointer beyond the host', (m) => (m.words[m.at.pasid(PASID) + 5]! |= 1 << 11)],
  ['pasidInvalid', 'type 0', (m) => PasidEntry.set.type(m.words, m.at.pasid(PASID), 0)],
  ['pasidInvalid', 'type 5', (m) => PasidEntry.set.type(m.words, m.at.pasid(PASID), 5)],
  ['pasidInvalid', 'width 39 is not a capability', (m) => PasidEntry.set.addressWidth(m.words, m.at.pasid(PASID), 1), { type: 'second' }],
  ['supervisorRefused', 'SRE = 0', () => {}, { access: PRIVILEGED }],
  ['firstStageRootAccess', 'no memory', (m) => PasidEntry.set.firstStage(m.words, m.at.pasid(PASID), FAR)],
  ['firstStageAccess', 'no memory', (m) => PageEntry.set.address(m.words, m.word(m.first, 0), FAR)],
  ['firstStageNotPresent', 'P = 0', (m) => PageEntry.set.present(m.words, slotOf(m), 0)],
  ['firstStageReserved', 'address beyond the host', (m) => (m.words[slotOf(m) + 1]! |= 1 << 11)],
  ['firstStageReserved', 'PS at the top', (m) => PageEntry.set.pageSize(m.words, m.word(m.first, 0), 1)],
  ['firstStageReserved', 'low bits of a 2 MiB page', (m) => (m.words[m.mapFirst(IOVA + 2 ** 32, PAGE, 2)]! |= 1 << 14), { address: IOVA + 2 ** 32 }],
  ['notCanonical', 'bit 47 alone', () => {}, { address: 0x8000_0000_0000n }],
  ['notCanonical', 'bit 63 alone', () => {}, { address: 0x8000_0000_0000_0000n }],
  ['notUser', 'U/S = 0', (m) => PageEntry.set.user(m.words, slotOf(m), 0)],
  ['notUser', 'U/S = 0 at the top', (m) => PageEntry.set.user(m.words, m.word(m.first, 0), 0)],
  ['notExecutable', 'XD = 1', (m) => PageEntry.set.executeDisable(m.words, slotOf(m), 1), { access: EXECUTE }],
  ['writeRefused', 'R/W = 0', (m) => PageEntry.set.write(m.words, slotOf(m), 0), { access: WRITE }],
  ['secondStageRootAccess', 'no memory', (m) => PasidEntry.set.secondStage(m.words, m.at.pasid(PASID), FAR), { type: 'second' }],
  ['secondStageAccess', 'no memory', (m) => SecondStageEntry.set.address(m.words, m.word(m.second, 0), FAR), { type: 'second' }],
  ['secondStageNoRight', 'R = W = 0', (m) => (m.words[m.mapSecond(IOVA, PAGE)]! &= ~3), { type: 'second' }],
  [
    'secondStageNoRight',
    'R and W in different levels',
    (m) => ((m.words[m.word(m.second, 0)]! &= ~2), (m.words[m.mapSecond(IOVA, PAGE)]! &= ~1)),
    { type: 'second' },
  ],
  ['secondStageReserved', 'address beyond the host', (m) => (m.words[m.mapSecond(IOVA, PAGE) + 1]! |= 1 << 11), { type: 'second' }],
  ['secondStageReserved', 'bit 62', (m) => (m.words[m.mapSecond(IOVA, PAGE) + 1]! |= 1 << 30), { type: 'second' }],
  ['secondStageReserved', 'SNP in a table entry', (m) => SecondStageEntry.set.snoop(m.words, m.word(m.second, 0), 1), { type: 'second' }],
  ['secondStageReserved', 'PS at the top', (m) => SecondStageEntry.set.pageSize(m.words, m.word(m.second, 0), 1), { type: 'second' }],
  ['secondStageReserved', 'low bits of a 1 GiB page', (m) => m.mapSecond(2 ** 32, PAGE, 3), { type: 'second', address: 2 ** 32 }],
  ['beyondGuestWidth', 'bit 48', () => {}, { type: 'second', address: 2 ** 48 }],
  ['writeRefused', 'W = 0', (m) => SecondStageEntry.set.write(m.words, m.mapSecond(IOVA, PAGE), 0), { type: 'second', access: WRITE }],
  ['readRefused', 'R = 0', (m) => SecondStageEntry.set.read(m.words, m.mapSecond(IOVA, PAGE), 0), { type: 'second' }],
  ['nestedBeyondWidth', 'top table at 2^48', (m) => PasidEntry.set.firstStage(m.words, m.at.pasid(PASID), 2 ** 48), { type: 'nested' }],
  ['nestedRootRead', 'R = W = 0 on the top table', (m) => (m.words[m.mapSecond(m.first * 4096, 0)]! = 0), { type: 'nested' }],
  [
    'nestedTableRead',
    'R = 0 on a lower table',
    (m) => {
      const lower = PageEntry.get.address(m.words, m.word(m.first, 0));
      SecondStageEntry.set.read(m.words, m.mapSecond(lower, lower / 4096), 0);
    },
    { type: 'nested' },
  ],
  [
    'nestedTableWrite',
    'W = 0 where A must be set',
    (m) => SecondStageEntry.set.write(m.words, m.mapSecond(m.first * 4096, m.first), 0),
    { type: 'nested' },
  ],
  ['writeRefused', 'W = 0 below', (m) => SecondStageEntry.set.write(m.words, m.mapSecond(PAGE * 4096, PAGE), 0), { type: 'nested', access: WRITE }],
  ['secondStageNoRight', 'nothing below', (m) => (m.words[m.mapSecond(PAGE * 4096, 0)]! = 0), { type: 'nested' }],
  ['beyondHostWidth', 'bit 43', () => {}, { type: 'pass', address: 2 ** 43 }],
  ['interruptRange', 'pass-through into it, with PASID', () => {}, { type: 'pass', address: 0xfee0_0000, access: WRITE }],
  ['interruptRange', 'a translation that ends there', (m) => PageEntry.set.address(m.words, slotOf(m), 0xfee0_1000), { access: WRITE }],
  ['interruptRange', 'a read of it without PASID', () => {}, { pasid: NO_PASID, address: 0xfee0_0000 }],
];

function build(type: Kind): Bare {
  const m = bare();
  m.firstStage(0);
  if (type === 'first') m.firstStage(PASID);
  else if (type === 'second') m.secondStage(PASID);
  else if (type === 'nested') m.nested(PASID);
  else m.passThrough(PASID);
  m.mapFirst(IOVA, PAGE, 1, type === 'nested');
  m.mapSecond(IOVA, PAGE);
  m.mapSecond(PAGE * 4096, PAGE);
  m.enable();
  return m;
}

const cases = rows.map(([name, rule, breaks, request = {}]) => ({
  name,
  rule,
  breaks,
  reason: faultReasons[name],
  access: request.access ?? READ,
  pasid: request.pasid ?? PASID,
  address: request.address ?? IOVA,
  type: request.type ?? ('first' as Kind),
}));
const withPasid = cases.filter(({ pasid }) => pasid !== NO_PASID);

test.each(cases)('$name ($rule) is recorded with requester, PASID and address', ({ breaks, reason, access, pasid, address, type }) => {
  const m = build(type);
  breaks(m);
  expect(m.request(access, pasid, address).status).toBe(TlpStatus.unsupportedRequest);
  const page = BigInt.asUintN(64, BigInt(address)) & ~0xfffn;
  expect(m.faults(), faultText(reason.code)).toMatchObject([
    {
      reason: reason.code,
      sourceId: RID,
      pasidPresent: pasid === NO_PASID ? 0 : 1,
      pasid: pasid === NO_PASID ? 0 : pasid,
      type1: access & WRITE ? 0 : 1,
      addressLow: Number((page >> 12n) & 0xf_ffffn),
      addressHigh: Number(page >> 32n),
    },
  ]);
});

test.each(withPasid)('$name ($rule) answers a translation request, with a record unless the answer is empty', (row) => {
  const { breaks, reason, access, pasid, address, type } = row;
  const m = build(type);
  breaks(m);
  const answers = { unsupported: TlpStatus.unsupportedRequest, abort: TlpStatus.completerAbort, empty: TlpStatus.notPresent };
  expect(m.request(access | ATS, pasid, address).status).toBe(answers[reason.onTranslation]);
  expect(m.faults().length).toBe(reason.onTranslation === 'empty' ? 0 : 1);
});

test.each(withPasid.filter(({ reason }) => reason.code > 0x40))('$name ($rule): FPD of the context silences it when it is qualified', (row) => {
  const { breaks, reason, access, pasid, address, type } = row;
  const m = build(type);
  ContextEntry.set.faultDisable(m.words, m.at.context, 1);
  breaks(m);
  expect(m.request(access, pasid, address).status).toBe(TlpStatus.unsupportedRequest);
  expect(m.faults().length).toBe(reason.qualified ? 0 : 1);
});

test('FPD of the PASID entry counts even when its P is 0', () => {
  const m = build('first');
  m.setPasid(PASID, { present: 0, faultDisable: 1 });
  expect(m.request(READ, PASID, IOVA).status).toBe(TlpStatus.unsupportedRequest);
  expect(m.faults()).toEqual([]);
});

test('with all records in use PFO is set and the fault is lost; an acknowledged record is used again', () => {
  const m = build('first');
  for (let i = 0; i < 9; i++) m.request(READ, PASID, 0x7000_0000 + i * 4096);
  expect(m.unit.read(0x34, 4) & 3).toBe(3);
  expect(m.faults().map((f) => f.addressLow)).toEqual(Array.from({ length: 8 }, (_, i) => 0x7_0000 + i));
  expect(m.unit.read(0x34, 4)).toBe(0);
  m.request(READ, PASID, 0x7100_0000);
  expect(m.faults()).toMatchObject([{ reason: Fault.firstStageNotPresent, addressLow: 0x7_1000 }]);
});

test('the fault event goes out once per set of causes, when unmasked, and when the mask is lifted', () => {
  const m = build('first');
  m.unit.write(0x3c, 4, 0x51);
  m.unit.write(0x40, 4, 0xfee0_7000);
  m.request(READ, PASID, 0x7000_0000);
  expect(m.delivered).toEqual([]);
  expect(m.unit.read(0x38, 4)).toBe(0xc000_0000);
  m.unit.write(0x38, 4, 0);
  expect(m.delivered).toEqual([[0x51, 7]]);
  m.request(READ, PASID, 0x7000_0000);
  expect(m.delivered.length).toBe(1);
  m.faults();
  m.request(READ, PASID, 0x7000_0000);
  expect(m.delivered.length).toBe(2);
});

test('every reason of a DMA request that this model raises has a row here', () => {
  const missing = Object.entries(faultReasons).filter(([name, { code }]) => code >= 0x30 && !rows.some((row) => row[0] === name));
  const elsewhere = [
    'legacyWithPasid',
    'legacyPageRequest',
    'pageRequestsDisabled',
    'secondStageIncoherent',
    'firstStageIncoherent',
    'firstStageUpdate',
  ];
  expect(missing.map(([name]) => name)).toEqual(elsewhere);
});
