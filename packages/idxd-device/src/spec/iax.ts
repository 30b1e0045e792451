/**
 * The analytics accelerator (IAX, IAA): operations, descriptors, records, AECS. Sources: linux/idxd.h (struct iax_hw_desc, iax_completion_record, enums);
 * Linux drivers/crypto/intel/iaa/iaa_crypto.h (AECS); Intel QPL, sources/core-iaa (hw_definitions.h, hw_aecs_api.h, hw_status.h, own_hw_definitions.h,
 * the descriptors' flags); accel-config, accfg/idxd.h and test/iaa.c. What stands in none of them is marked "unconfirmed:".
 */
import { layout, variants } from '@siov/layout';

export const IAX_RECORD_BYTES = 64;

/** Operation codes. linux/idxd.h, enum iax_opcode; accel-config, accfg/idxd.h for the elements of 8 bits and translation fetch. */
export const IaxOpcode = {
  nop: 0x00,
  drain: 0x02,
  memmove: 0x03,
  translationFetch: 0x0a,
  decompress: 0x42,
  compress: 0x43,
  crc64: 0x44,
  zeroDecompress32: 0x48,
  zeroDecompress16: 0x49,
  zeroDecompress8: 0x4a,
  zeroCompress32: 0x4c,
  zeroCompress16: 0x4d,
  zeroCompress8: 0x4e,
  scan: 0x50,
  setMembership: 0x51,
  extract: 0x52,
  select: 0x53,
  rleBurst: 0x54,
  findUnique: 0x55,
  expand: 0x56,
} as const;
export type IaxOpcode = (typeof IaxOpcode)[keyof typeof IaxOpcode];

/** Flags of the second dword besides the common ones. linux/idxd.h, IDXD_OP_FLAG_*; QPL, own_hw_definitions.h (ADOF_*). */
export const IaxFlag = {
  /** Source 2 is read as configuration and state (AECS), or as a second input. */
  readAecs: 1 << 16,
  readSource2: 1 << 17,
  /** AECS is written back when the operation completes; only when its output overflows. */
  writeAecs: 1 << 18,
  writeAecsOnOverflow: 1 << 19,
  source2SteeringTag: 1 << 20,
  /** The record's CRC is CRC-32C (RFC 3720) and not that of RFC 1952. */
  crcRfc3720: 1 << 21,
  /** There are two AECS, one behind the other: the second is read and the first written. Without: the other way round. */
  aecsSecond: 1 << 22,
} as const;

/** Decompression flags, descriptor bytes 38 and 39. QPL, own_hw_definitions.h (ADDF_*). */
export const DecompressFlag = {
  enable: 1 << 0,
  flushOutput: 1 << 1,
  stopOnEndOfBlock: 1 << 2,
  checkForEndOfBlock: 1 << 3,
  /** Of the last two: the end of the last block alone counts. */
  selectFinal: 1 << 4,
  /** Each 16 bits of the input are in reverse order. */
  bigEndian: 1 << 5,
  /** How many bits of the input's last byte are none: bits 8:6. */
  ignoreEndShift: 6,
  suppressOutput: 1 << 9,
  /** Size of mini-blocks that are indexed: bits 12:10. */
  indexShift: 10,
  /** Bit 3 of the ignored bits (2.0). */
  ignoreEndHigh: 1 << 14,
} as const;

/** Compression flags, descriptor bytes 38 and 39. QPL, own_hw_definitions.h (ADCF_*). */
export const CompressFlag = {
  /** Only counts symbols: the output is a histogram. */
  statistics: 1 << 0,
  flushOutput: 1 << 1,
  /** What follows the last symbol: bits 3:2, `EndProcessing`. */
  endShift: 2,
  literalsOnly: 1 << 4,
  bigEndian: 1 << 5,
  /** Size of mini-blocks: bits 8:6, 256 bytes times two to this; 0: none. */
  indexShift: 6,
  /** A preset dictionary is in AECS (2.0): bits 11:10. Not modelled: nobody says in which form. */
  dictionaryShift: 10,
  /** The block's header is made here (2.0): bits 14:12, `HeaderGeneration`. */
  headerShift: 12,
} as const;
export const EndProcessing = { nothing: 0, endOfBlock: 1, storedBlock: 2, finalStoredBlock: 3 } as const;
/** Bits of the field. Two passes: this one makes codes and header for AECS, the next compresses with them. */
export const HeaderGeneration = { final: 1, enable: 2, twoPass: 4 } as const;
/** Compression flags 2 (2.0), descriptor byte 56. */
export const Compress2Flag = { writeTables: 1 << 1 } as const;

/** CRC flags, descriptor bytes 38 and 39. QPL, own_hw_definitions.h (ADC64F_*). */
export const Crc64Flag = { invert: 1 << 14, bigEndian: 1 << 15 } as const;

/** Filter flags, descriptor bytes 56 to 59: accel-config, test/algorithms/iaa_filter.h; QPL, hw_analytic_descriptor_operations.c. */
export const FilterFlags = /* @__PURE__ */ layout('filter flags', 4, {
  0: {
    parser: { bits: '1:0', is: { littleEndian: 0, bigEndian: 1, parquetRle: 2 } },
    /** Bits of an element, less one. */
    source1Width: '6:2',
    source2Width: '11:7',
    source2BigEndian: '12',
    outputWidth: { bits: '14:13', is: { nominal: 0, bits8: 1, bits16: 2, bits32: 3 } },
    outputBigEndian: '15',
    invertOutput: '16',
    dropLowBits: '21:17',
    dropHighBits: '26:22',
    /** (2.0) */
    forceArray: '27',
  },
});

const common = {
  0: { pasid: '19:0', privileged: '31' },
  4: { flags: '23:0', opcode: { bits: '31:24', is: IaxOpcode } },
  8: { recordLow: '31:0' },
  12: { recordHigh: '31:0' },
} as const;
const source1 = { 16: { source1Low: '31:0' }, 20: { source1High: '31:0' }, 32: { source1Size: '31:0' } } as const;
const destination = { 24: { destinationLow: '31:0' }, 28: { destinationHigh: '31:0' } } as const;
const source2 = { 40: { source2Low: '31:0' }, 44: { source2High: '31:0' }, 48: { maxDestinationSize: '31:0' }, 52: { source2Size: '31:0' } } as const;
const handle = { 36: { interruptHandle: '15:0' } } as const;

/** What decompression and filters have. unconfirmed: that decompression alone does not look at the fields of filters. */
export const IaxDescriptor = /* @__PURE__ */ layout('IAX descriptor', 64, {
  ...common,
  ...source1,
  ...destination,
  ...source2,
  36: { interruptHandle: '15:0', decompressFlags: '31:16' },
  56: { filterFlags: '31:0' },
  60: { elements: '31:0' },
});
/** unconfirmed: that compression has its second flags reserved before 2.0. */
export const CompressDescriptor = /* @__PURE__ */ layout('compress descriptor', 64, {
  ...common,
  ...source1,
  ...destination,
  ...source2,
  36: { interruptHandle: '15:0', compressFlags: '31:16' },
  56: { compress2Flags: '31:0' },
});
export const Crc64Descriptor = /* @__PURE__ */ layout('CRC-64 descriptor', 64, {
  ...common,
  ...source1,
  36: { interruptHandle: '15:0', crcFlags: '31:16' },
  /** At the upper end of 64 bits; the highest, which is always 1, left out. */
  56: { polynomialLow: '31:0' },
  60: { polynomialHigh: '31:0' },
});
export const ZeroDescriptor = /* @__PURE__ */ layout('zero compression descriptor', 64, {
  ...common,
  ...source1,
  ...destination,
  ...handle,
  48: { maxDestinationSize: '31:0' },
});
export const IaxMoveDescriptor = /* @__PURE__ */ layout('IAX memmove descriptor', 64, { ...common, ...source1, ...destination, ...handle });
export const IaxNopDescriptor = /* @__PURE__ */ layout('IAX nop descriptor', 64, { ...common, ...handle });
export const IaxFetchDescriptor = /* @__PURE__ */ layout('IAX translation fetch descriptor', 64, {
  ...common,
  ...source1,
  ...handle,
  48: { stride: '31:0' },
});
/** The layout of a descriptor by its operation code: what printers use. */
export const iaxDescriptors = /* @__PURE__ */ variants(IaxDescriptor, IaxDescriptor.get.opcode, {
  [IaxOpcode.nop]: IaxNopDescriptor,
  [IaxOpcode.drain]: IaxNopDescriptor,
  [IaxOpcode.memmove]: IaxMoveDescriptor,
  [IaxOpcode.translationFetch]: IaxFetchDescriptor,
  [IaxOpcode.compress]: CompressDescriptor,
  [IaxOpcode.crc64]: Crc64Descriptor,
  [IaxOpcode.zeroDecompress32]: ZeroDescriptor,
  [IaxOpcode.zeroDecompress16]: ZeroDescriptor,
  [IaxOpcode.zeroDecompress8]: ZeroDescriptor,
  [IaxOpcode.zeroCompress32]: ZeroDescriptor,
  [IaxOpcode.zeroCompress16]: ZeroDescriptor,
  [IaxOpcode.zeroCompress8]: ZeroDescriptor,
});

/** Completion status codes. linux/idxd.h, enum iax_completion_status; QPL, hw_status.h (AD_STATUS_*) for `pageFault`. */
export const IaxStatus = {
  none: 0x00,
  success: 0x01,
  pageFault: 0x03,
  pageRequestInvalid: 0x04,
  /** The record's error code says which. */
  analyticsError: 0x0a,
  outputOverflow: 0x0b,
  unsupportedOperation: 0x10,
  invalidFlags: 0x11,
  nonZeroReserved: 0x12,
  size: 0x13,
  overlap: 0x16,
  interruptHandle: 0x19,
  recordFault: 0x1a,
  recordAlignment: 0x1b,
  alignment: 0x1c,
  privilege: 0x1d,
  trafficClass: 0x1e,
  readbackFault: 0x1f,
  hardwareError1: 0x20,
  hardwareError2: 0x21,
  translationError: 0x22,
  pageRequestTimeout: 0x23,
  watchdog: 0x24,
  invalidCompressFlags: 0x30,
  invalidFilterFlags: 0x31,
  inputSize: 0x32,
  elements: 0x33,
  source1Width: 0x34,
  invertOutput: 0x35,
} as const;
export type IaxStatus = (typeof IaxStatus)[keyof typeof IaxStatus];

/** Error codes beside status 0x0a. QPL, hw_status.h (AD_ERROR_CODE_*). */
export const AnalyticsError = {
  none: 0,
  headerTooBig: 1,
  codeLengthCode: 2,
  firstLiteralRepeats: 3,
  firstDistanceRepeats: 4,
  noLiteralCode: 5,
  literalCount: 6,
  distanceCount: 7,
  codeLengthLengths: 8,
  literalLengths: 9,
  distanceLengths: 10,
  literalCode: 11,
  distanceCode: 12,
  blockType: 13,
  storedLength: 14,
  endOfBlock: 15,
  lengthRange: 16,
  distanceRange: 17,
  beforeStart: 18,
  timeout: 19,
  parquetFormat: 20,
  outputWidth: 21,
  aecs: 22,
  source1Short: 23,
  source2Short: 24,
  /** The output did not fit, and the operation cannot go on later. */
  outputOverflow: 25,
  distanceSpansBlocks: 26,
  lengthSpansBlocks: 27,
  blockSize: 28,
  verification: 29,
  noCode: 30,
  parquetWidth: 31,
  elementsShort: 32,
  zeroHeader: 34,
  literalSymbols: 35,
  distanceSymbols: 36,
} as const;

export const IaxRecord = /* @__PURE__ */ layout('IAX completion record', 64, {
  0: { status: { bits: '6:0', is: IaxStatus }, faultWrite: '7' },
  1: { error: { bits: '7:0', is: AnalyticsError } },
  2: { faultInfo: '7:0' },
  /** Bytes of source 1. */
  4: { completed: '31:0' },
  8: { faultLow: '31:0' },
  12: { faultHigh: '31:0' },
  16: { invalidFlags: '31:0' },
  24: { outputSize: '31:0' },
  /** How many bits of the output's last byte count; 0: all. */
  28: { outputBits: '7:0', xorChecksum: '31:16' },
  32: { crc: '31:0' },
  /** Of a bit vector: the indices of the first and the last one, and how many there are. */
  36: { min: '31:0' },
  40: { max: '31:0' },
  44: { sum: '31:0' },
});
/** accel-config, accfg/idxd.h (crc64_result). */
export const IaxCrc64Record = /* @__PURE__ */ layout('IAX CRC-64 completion record', 64, {
  0: { status: { bits: '6:0', is: IaxStatus }, faultWrite: '7' },
  4: { completed: '31:0' },
  8: { faultLow: '31:0' },
  12: { faultHigh: '31:0' },
  16: { invalidFlags: '31:0' },
  40: { crcLow: '31:0' },
  44: { crcHigh: '31:0' },
});
export const iaxRecordLayout = (opcode: number): typeof IaxRecord | typeof IaxCrc64Record =>
  opcode === IaxOpcode.crc64 ? IaxCrc64Record : IaxRecord;

// --- AECS: analytics engine configuration and state. Bytes; each is a multiple of 32, and where there are two they lie one behind the other.

export const AECS_ALIGN = 32;
/** For filters: this much is read. QPL, hw_aecs_api.h (hw_iaa_aecs_filter). */
export const FILTER_AECS_BYTES = 0x20;
export const FilterAecs = /* @__PURE__ */ layout('filter AECS', 32, {
  0: { crc: '31:0' },
  4: { xorChecksum: '15:0' },
  8: { low: '31:0' },
  12: { high: '31:0' },
  16: { outputIndex: '31:0' },
  /** Bytes of what was decompressed that the filter does not see. */
  20: { dropBytes: '15:0' },
});

/** For compression. Linux iaa_crypto.h, struct aecs_comp_table_record. A dictionary (2.0) follows. */
export const COMPRESS_AECS_BYTES = 0x620;
export const CompressAecs = /* @__PURE__ */ layout('compress AECS', 0x620, {
  0: { crc: '31:0' },
  4: { xorChecksum: '15:0' },
  /** Bits of the output that were not written yet. */
  28: { accumulatorBits: '31:0' },
});
export const COMPRESS_ACCUMULATOR = { offset: 0x20, bytes: 256 } as const;
/** Huffman codes: bits 14:0 the code, most significant bit first, 18:15 its length. In a histogram's place: counts. */
export const COMPRESS_LITERALS = { offset: 0x120, count: 286 } as const;
export const COMPRESS_DISTANCES = { offset: 0x5a0, count: 30 } as const;
/** What statistics mode writes: counts of literals and lengths, and of distances. QPL, hw_aecs_api.h (hw_iaa_histogram). */
export const HISTOGRAM = { literals: 0, distances: 0x480, bytes: 0x500 } as const;

/** For decompression: with the history, and without (a stream that is entered at a block). QPL, hw_aecs_api.h (hw_iaa_aecs_analytic, format 1). */
export const DECOMPRESS_AECS_BYTES = 0x1500;
export const DECOMPRESS_AECS_SHORT_BYTES = 0x4e0;
export const DecompressAecs = /* @__PURE__ */ layout('decompress AECS', 0x1500, {
  0: { crc: '31:0' },
  4: { xorChecksum: '15:0' },
  8: { low: '31:0' },
  12: { high: '31:0' },
  16: { outputIndex: '31:0' },
  20: { dropBytes: '15:0' },
  /** unconfirmed: the place and form of the code of the end of the block; of lengths and distances see `DECOMPRESS_LENGTHS`. */
  472: { endOfBlockCode: '31:0' },
  476: { dropBits: '7:0', format: '8' },
  /** What comes next; QPL, own_compress.h (DEF_STATE_*). */
  1076: { header: '0', stored: '1', final: '2', terminated: '3' },
  /** unconfirmed: where in QPL's "stored block bytes remaining and reserved fields" these stand, and that a match is kept that was not written whole. */
  1080: { storedLeft: '15:0' },
  1084: { matchLength: '15:0', matchDistance: '31:16' },
  /** Where the next byte goes in the history, a ring; and whether all of it is valid. */
  1252: { historyWrite: '14:0', historyFull: '15' },
});
/** Bits of the input that were read and not used: 32 quadwords, and a byte for each that says how many of its bits there are. */
export const DECOMPRESS_INPUT = { data: 0xb8, sizes: 0x1b8, quadwords: 32 } as const;
/** Literals by the length of their codes, packed: where their symbols begin, how many, the first code, the first code of a length. */
export const DECOMPRESS_FIRST_INDEX = 0x1e0;
export const DECOMPRESS_COUNTS = 0x1f4;
export const DECOMPRESS_FIRST_CODES = 0x208;
export const DECOMPRESS_FIRST_LENGTHS = 0x21c;
/** The symbols of the literals in the order of their codes. */
export const DECOMPRESS_SYMBOLS = 0x328;
/** The widths of the codes of length symbols (and of the two of the fixed code that are never used) and of distances, four bits each. unconfirmed: QPL has these bytes as reserved ("LL CAM, Distance CAM"). */
export const DECOMPRESS_LENGTHS = { offset: 0x230, count: 31 } as const;
export const DECOMPRESS_DISTANCES = { offset: 0x240, count: 30 } as const;
export const DECOMPRESS_HISTORY = { offset: 0x4e8, bytes: 4096 } as const;
/** For a device with another history. unconfirmed: that a longer one only makes AECS longer; the field of its write position has room for 32 KiB. */
export const decompressAecsBytes = (history: number): number => DECOMPRESS_AECS_BYTES + Math.max(0, history - DECOMPRESS_HISTORY.bytes);

/** Capabilities of IAX from 2.0 on. Linux drivers/dma/idxd/registers.h, union iaa_cap_reg. */
export const IAACAP_OFFSET = 0x180;
export const IaaCap = /* @__PURE__ */ layout('IAACAP', 8, {
  0: {
    aecsFormat2: '0',
    dropInitialBits: '1',
    chaining: '2',
    forceArray: '3',
    loadPartialAecs: '4',
    earlyAbort: '5',
    nestedCompression: '6',
    dictionary: '7',
    headerGeneration: '8',
    cryptoGcm: '9',
    cryptoCfb: '10',
    cryptoXts: '11',
  },
});
