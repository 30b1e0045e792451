/** Layouts and codes of the analytics accelerator against linux/idxd.h, by gcc. */
import { compareLayout, evaluate, kernelHeader } from '@siov/testkit';
import { expect, test } from 'vitest';
import { CompressDescriptor, IaxDescriptor, IaxFlag, IaxOpcode, IaxRecord, IaxStatus } from '../src/spec/index.js';

const { here, why } = kernelHeader('linux/idxd.h');
if (!here) console.log(`left out: the layouts of IAX against linux/idxd.h (${why})`);

const members = {
  completion_addr: 'recordLow',
  src1_addr: 'source1Low',
  dst_addr: 'destinationLow',
  src1_size: 'source1Size',
  int_handle: 'interruptHandle',
  src2_addr: 'source2Low',
  max_dst_size: 'maxDestinationSize',
  src2_size: 'source2Size',
} as const;
test.skipIf(!here).each([
  ['decompress and filters', IaxDescriptor, { ...members, decompr_flags: 'decompressFlags', filter_flags: 'filterFlags', num_inputs: 'elements' }],
  ['compress', CompressDescriptor, { ...members, compr_flags: 'compressFlags', filter_flags: 'compress2Flags' }],
] as const)('struct iax_hw_desc: %s', (_name, layout, names) => {
  const { gcc, ours } = compareLayout('linux/idxd.h', 'struct iax_hw_desc', layout, names);
  expect(ours).toEqual(gcc);
});
test.skipIf(!here)('struct iax_completion_record', () => {
  const { gcc, ours } = compareLayout('linux/idxd.h', 'struct iax_completion_record', IaxRecord, {
    status: 'status',
    error_code: 'error',
    bytes_completed: 'completed',
    fault_addr: 'faultLow',
    invalid_flags: 'invalidFlags',
    output_size: 'outputSize',
    output_bits: 'outputBits',
    xor_csum: 'xorChecksum',
    crc: 'crc',
    min: 'min',
    max: 'max',
    sum: 'sum',
  });
  expect(ours).toEqual(gcc);
});
const constants: [string, Readonly<Record<string, number>>, Readonly<Record<string, string>>][] = [
  [
    'operation codes',
    IaxOpcode,
    {
      nop: 'IAX_OPCODE_NOOP',
      drain: 'IAX_OPCODE_DRAIN',
      memmove: 'IAX_OPCODE_MEMMOVE',
      decompress: 'IAX_OPCODE_DECOMPRESS',
      compress: 'IAX_OPCODE_COMPRESS',
      crc64: 'IAX_OPCODE_CRC64',
      zeroDecompress32: 'IAX_OPCODE_ZERO_DECOMP_32',
      zeroDecompress16: 'IAX_OPCODE_ZERO_DECOMP_16',
      zeroCompress32: 'IAX_OPCODE_ZERO_COMP_32',
      zeroCompress16: 'IAX_OPCODE_ZERO_COMP_16',
      scan: 'IAX_OPCODE_SCAN',
      setMembership: 'IAX_OPCODE_SET_MEMBER',
      extract: 'IAX_OPCODE_EXTRACT',
      select: 'IAX_OPCODE_SELECT',
      rleBurst: 'IAX_OPCODE_RLE_BURST',
      findUnique: 'IAX_OPCODE_FIND_UNIQUE',
      expand: 'IAX_OPCODE_EXPAND',
    },
  ],
  [
    'flags',
    IaxFlag,
    {
      readAecs: 'IDXD_OP_FLAG_RD_SRC2_AECS',
      readSource2: 'IDXD_OP_FLAG_RD_SRC2_2ND',
      writeAecs: 'IDXD_OP_FLAG_WR_SRC2_AECS_COMP',
      writeAecsOnOverflow: 'IDXD_OP_FLAG_WR_SRC2_AECS_OVFL',
      source2SteeringTag: 'IDXD_OP_FLAG_SRC2_STS',
      crcRfc3720: 'IDXD_OP_FLAG_CRC_RFC3720',
    },
  ],
  [
    'status codes',
    IaxStatus,
    {
      success: 'IAX_COMP_SUCCESS',
      pageRequestInvalid: 'IAX_COMP_PAGE_FAULT_IR',
      analyticsError: 'IAX_COMP_ANALYTICS_ERROR',
      outputOverflow: 'IAX_COMP_OUTBUF_OVERFLOW',
      unsupportedOperation: 'IAX_COMP_BAD_OPCODE',
      invalidFlags: 'IAX_COMP_INVALID_FLAGS',
      nonZeroReserved: 'IAX_COMP_NOZERO_RESERVE',
      size: 'IAX_COMP_INVALID_SIZE',
      overlap: 'IAX_COMP_OVERLAP_BUFFERS',
      interruptHandle: 'IAX_COMP_INT_HANDLE_INVAL',
      recordFault: 'IAX_COMP_CRA_XLAT',
      recordAlignment: 'IAX_COMP_CRA_ALIGN',
      alignment: 'IAX_COMP_ADDR_ALIGN',
      privilege: 'IAX_COMP_PRIV_BAD',
      trafficClass: 'IAX_COMP_TRAFFIC_CLASS_CONF',
      readbackFault: 'IAX_COMP_PFAULT_RDBA',
      hardwareError1: 'IAX_COMP_HW_ERR1',
      hardwareError2: 'IAX_COMP_HW_ERR_DRB',
      translationError: 'IAX_COMP_TRANSLATION_FAIL',
      pageRequestTimeout: 'IAX_COMP_PRS_TIMEOUT',
      watchdog: 'IAX_COMP_WATCHDOG',
      invalidCompressFlags: 'IAX_COMP_INVALID_COMP_FLAG',
      invalidFilterFlags: 'IAX_COMP_INVALID_FILTER_FLAG',
      inputSize: 'IAX_COMP_INVALID_INPUT_SIZE',
      elements: 'IAX_COMP_INVALID_NUM_ELEMS',
      source1Width: 'IAX_COMP_INVALID_SRC1_WIDTH',
      invertOutput: 'IAX_COMP_INVALID_INVERT_OUT',
    },
  ],
];
test.skipIf(!here).each(constants)('%s', (_name, ours, names) => {
  const values = evaluate(['linux/idxd.h'], Object.values(names));
  expect(Object.fromEntries(Object.keys(names).map((n) => [n, ours[n]]))).toEqual(
    Object.fromEntries(Object.keys(names).map((n, i) => [n, values[i]])),
  );
});
