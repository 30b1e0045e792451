import { compareLayout, evaluate, kernelHeader } from '@siov/testkit';
import { expect, test } from 'vitest';
import {
  ApplyDeltaDescriptor,
  BatchDescriptor,
  CacheFlushDescriptor,
  CompareDescriptor,
  CrcDescriptor,
  CreateDeltaDescriptor,
  Descriptor,
  DifCheckDescriptor,
  DifInsertDescriptor,
  DifRecord,
  DifStripDescriptor,
  DifUpdateDescriptor,
  DrainDescriptor,
  DualcastDescriptor,
  FillDescriptor,
  Flag,
  Opcode,
  Record,
  Status,
} from '../src/spec/index.js';

const { here, why } = kernelHeader('linux/idxd.h');
if (!here) console.log(`left out: the layouts against linux/idxd.h (${why})`);

const difChecked = {
  src_dif_flags: 'sourceFlags',
  dif_chk_flags: 'difFlags',
  chk_ref_tag_seed: 'sourceRefTag',
  chk_app_tag_mask: 'sourceAppMask',
  chk_app_tag_seed: 'sourceAppTag',
} as const;
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
  ['drain', DrainDescriptor, { rdback_addr: 'readback1Low', rdback_addr2: 'readback2Low' }],
  [
    'create delta',
    CreateDeltaDescriptor,
    { src2_addr: 'source2Low', delta_addr: 'deltaLow', max_delta_size: 'maxDeltaSize', expected_res_mask: 'expectedMask' },
  ],
  ['apply delta', ApplyDeltaDescriptor, { src_addr: 'deltaLow', dst_addr: 'destinationLow', delta_rec_size: 'deltaSize' }],
  ['DIF check', DifCheckDescriptor, difChecked],
  ['DIF strip', DifStripDescriptor, difChecked],
  [
    'DIF insert',
    DifInsertDescriptor,
    {
      dest_dif_flag: 'appTagIncrements',
      dif_ins_flags: 'difFlags',
      ins_ref_tag_seed: 'destinationRefTag',
      ins_app_tag_mask: 'destinationAppMask',
      ins_app_tag_seed: 'destinationAppTag',
    },
  ],
  [
    'DIF update',
    DifUpdateDescriptor,
    {
      src_upd_flags: 'sourceFlags',
      upd_dest_flags: 'destinationFlags',
      dif_upd_flags: 'difFlags',
      src_ref_tag_seed: 'sourceRefTag',
      src_app_tag_mask: 'sourceAppMask',
      src_app_tag_seed: 'sourceAppTag',
      dest_ref_tag_seed: 'destinationRefTag',
      dest_app_tag_mask: 'destinationAppMask',
      dest_app_tag_seed: 'destinationAppTag',
    },
  ],
  ['cache flush', CacheFlushDescriptor, { dst_addr: 'destinationLow', xfer_size: 'size' }],
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

test.skipIf(!here)('struct dsa_completion_record: tags', () => {
  const { gcc, ours } = compareLayout('linux/idxd.h', 'struct dsa_completion_record', DifRecord, {
    status: 'status',
    dif_status: 'difStatus',
    dif_chk_ref_tag: 'sourceRefTag',
    dif_chk_app_tag_mask: 'sourceAppMask',
    dif_chk_app_tag: 'sourceAppTag',
    dif_ins_ref_tag: 'destinationRefTag',
    dif_ins_app_tag_mask: 'destinationAppMask',
    dif_ins_app_tag: 'destinationAppTag',
    dif_upd_src_ref_tag: 'sourceRefTag',
    dif_upd_dest_ref_tag: 'destinationRefTag',
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
      recordSteeringTag: 'IDXD_OP_FLAG_CRSTS',
      trafficClass1: 'IDXD_OP_FLAG_ADDR1_TCS',
      trafficClass2: 'IDXD_OP_FLAG_ADDR2_TCS',
      trafficClass3: 'IDXD_OP_FLAG_ADDR3_TCS',
      recordTrafficClass: 'IDXD_OP_FLAG_CR_TCS',
      strictOrdering: 'IDXD_OP_FLAG_STORD',
      destinationReadback: 'IDXD_OP_FLAG_DRDBK',
      destinationSteeringTag: 'IDXD_OP_FLAG_DSTS',
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
      deltaOffsetOrder: 'DSA_COMP_DR_OFFSET_NOINC',
      deltaOffsetRange: 'DSA_COMP_DR_OFFSET_ERANGE',
      difError: 'DSA_COMP_DIF_ERR',
      deltaRecordSize: 'DSA_COMP_DR_ERANGE',
      trafficClass: 'DSA_COMP_TRAFFIC_CLASS_CONF',
      readbackFault: 'DSA_COMP_PFAULT_RDBA',
      hardwareError1: 'DSA_COMP_HW_ERR1',
      hardwareError2: 'DSA_COMP_HW_ERR_DRB',
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
