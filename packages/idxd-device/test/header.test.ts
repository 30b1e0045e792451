import { compareLayout, evaluate, kernelHeader } from '@siov/testkit';
import { expect, test } from 'vitest';
import {
  BatchDescriptor,
  CompareDescriptor,
  CrcDescriptor,
  Descriptor,
  DualcastDescriptor,
  FillDescriptor,
  Flag,
  Opcode,
  Record,
  Status,
} from '../src/spec/index.js';

const { here, why } = kernelHeader('linux/idxd.h');
if (!here) console.log(`left out: the layouts against linux/idxd.h (${why})`);

test.skipIf(!here).each([
  [
    'descriptor',
    Descriptor,
    { completion_addr: 'recordLow', src_addr: 'sourceLow', dst_addr: 'destinationLow', xfer_size: 'size', int_handle: 'interruptHandle' },
  ],
  ['batch', BatchDescriptor, { desc_list_addr: 'listLow', desc_count: 'count' }],
  ['fill', FillDescriptor, { pattern: 'patternLow', dst_addr: 'destinationLow' }],
  ['compare', CompareDescriptor, { src2_addr: 'source2Low', expected_res: 'expectedResult' }],
  ['crc', CrcDescriptor, { crc_seed: 'seed', seed_addr: 'seedLow' }],
  ['dualcast', DualcastDescriptor, { dest2: 'destination2Low' }],
] as const)('struct dsa_hw_desc: %s', (_name, layout, members) => {
  const { gcc, ours } = compareLayout('linux/idxd.h', 'struct dsa_hw_desc', layout, members);
  expect(ours).toEqual(gcc);
});

test.skipIf(!here)('struct dsa_completion_record', () => {
  const { gcc, ours } = compareLayout('linux/idxd.h', 'struct dsa_completion_record', Record, {
    status: 'status',
    result: 'result',
    bytes_completed: 'completed',
    fault_addr: 'faultLow',
    crc_val: 'value',
    delta_rec_size: 'value',
  });
  expect(ours).toEqual(gcc);
});

const constants: [string, Readonly<Record<string, number>>, Readonly<Record<string, string>>][] = [
  [
    'operation codes',
    Opcode,
    {
      nop: 'DSA_OPCODE_NOOP',
      batch: 'DSA_OPCODE_BATCH',
      drain: 'DSA_OPCODE_DRAIN',
      memmove: 'DSA_OPCODE_MEMMOVE',
      fill: 'DSA_OPCODE_MEMFILL',
      compare: 'DSA_OPCODE_COMPARE',
      comparePattern: 'DSA_OPCODE_COMPVAL',
      createDelta: 'DSA_OPCODE_CR_DELTA',
      applyDelta: 'DSA_OPCODE_AP_DELTA',
      dualcast: 'DSA_OPCODE_DUALCAST',
      crc: 'DSA_OPCODE_CRCGEN',
      copyCrc: 'DSA_OPCODE_COPY_CRC',
      difCheck: 'DSA_OPCODE_DIF_CHECK',
      difInsert: 'DSA_OPCODE_DIF_INS',
      difStrip: 'DSA_OPCODE_DIF_STRP',
      difUpdate: 'DSA_OPCODE_DIF_UPDT',
      cacheFlush: 'DSA_OPCODE_CFLUSH',
    },
  ],
  [
    'flags',
    Flag,
    {
      fence: 'IDXD_OP_FLAG_FENCE',
      blockOnFault: 'IDXD_OP_FLAG_BOF',
      recordAddressValid: 'IDXD_OP_FLAG_CRAV',
      requestRecord: 'IDXD_OP_FLAG_RCR',
      requestInterrupt: 'IDXD_OP_FLAG_RCI',
      checkResult: 'IDXD_OP_FLAG_CR',
      cacheControl: 'IDXD_OP_FLAG_CC',
    },
  ],
  [
    'status codes',
    Status,
    {
      success: 'DSA_COMP_SUCCESS',
      successFalsePredicate: 'DSA_COMP_SUCCESS_PRED',
      pageFault: 'DSA_COMP_PAGE_FAULT_NOBOF',
      pageRequestInvalid: 'DSA_COMP_PAGE_FAULT_IR',
      batchFail: 'DSA_COMP_BATCH_FAIL',
      batchFault: 'DSA_COMP_BATCH_PAGE_FAULT',
      unsupportedOperation: 'DSA_COMP_BAD_OPCODE',
      invalidFlags: 'DSA_COMP_INVALID_FLAGS',
      nonZeroReserved: 'DSA_COMP_NOZERO_RESERVE',
      transferSize: 'DSA_COMP_XFER_ERANGE',
      descriptorCount: 'DSA_COMP_DESC_CNT_ERANGE',
      overlap: 'DSA_COMP_OVERLAP_BUFFERS',
      dualcastAlignment: 'DSA_COMP_DCAST_ERR',
      listAlignment: 'DSA_COMP_DESCLIST_ALIGN',
      interruptHandle: 'DSA_COMP_INT_HANDLE_INVAL',
      recordFault: 'DSA_COMP_CRA_XLAT',
      recordAlignment: 'DSA_COMP_CRA_ALIGN',
      alignment: 'DSA_COMP_ADDR_ALIGN',
      privilege: 'DSA_COMP_PRIV_BAD',
      translationError: 'DSA_COMP_TRANSLATION_FAIL',
    },
  ],
];
test.skipIf(!here).each(constants)('%s', (_name, ours, names) => {
  const values = evaluate(['linux/idxd.h'], Object.values(names));
  expect(Object.fromEntries(Object.keys(names).map((n) => [n, ours[n]]))).toEqual(
    Object.fromEntries(Object.keys(names).map((n, i) => [n, values[i]])),
  );
});
