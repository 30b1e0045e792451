/**
 * Facts of the vfio-user protocol: commands, structures, flags. No behaviour. Source: QEMU, docs/interop/vfio-user.rst ("vfio-user Protocol
 * Specification"), and where noted libvfio-user's include/vfio-user.h. Offsets of payloads count from the end of the header; all values are little
 * endian. Structures that are those of linux/vfio.h are in `@siov/vfio-mdev/uapi`.
 */
import { layout, oneOf } from '@siov/layout';

/** "Header". */
export const Header = /* @__PURE__ */ layout('header', 16, {
  0: { id: '15:0', command: '31:16' },
  4: { size: '31:0' },
  8: { type: oneOf('3:0', { command: 0, reply: 1 }), noReply: '4', error: '5' },
  12: { errno: '31:0' },
});
export const HEADER_BYTES = 16;
export const HeaderFlag = { REPLY: 1, TYPE: 0xf, NO_REPLY: 1 << 4, ERROR: 1 << 5 } as const;

/** "Commands". The server sends DMA_READ and DMA_WRITE, the client all others. */
export const Command = {
  VERSION: 1,
  DMA_MAP: 2,
  DMA_UNMAP: 3,
  DEVICE_GET_INFO: 4,
  DEVICE_GET_REGION_INFO: 5,
  DEVICE_GET_REGION_IO_FDS: 6,
  DEVICE_GET_IRQ_INFO: 7,
  DEVICE_SET_IRQS: 8,
  REGION_READ: 9,
  REGION_WRITE: 10,
  DMA_READ: 11,
  DMA_WRITE: 12,
  DEVICE_RESET: 13,
  REGION_WRITE_MULTI: 15,
  DEVICE_FEATURE: 16,
  MIG_DATA_READ: 17,
  MIG_DATA_WRITE: 18,
} as const;
export type Command = (typeof Command)[keyof typeof Command];
export const commandNames: Readonly<Record<number, string>> = /* @__PURE__ */ Object.fromEntries(
  Object.entries(Command).map(([name, value]) => [value, name]),
);

/** The only major version; minor versions up to this one are understood. */
export const VERSION_MAJOR = 0;
export const VERSION_MINOR = 2;
/** "Version": defaults of the capabilities that a message leaves out. */
export const Default = { maxMsgFds: 1, maxDataXferSize: 1 << 20, maxDmaMaps: 65_535, pageSizes: 4096 } as const;

/** Followed by JSON and a NUL. */
export const Version = /* @__PURE__ */ layout('VERSION', 4, { 0: { major: '15:0', minor: '31:16' } });

/** A file descriptor comes with it when the region can be mapped. */
export const DmaMap = /* @__PURE__ */ layout('DMA_MAP', 32, {
  0: { argsz: '31:0' },
  4: { flags: '31:0' },
  8: { offsetLow: '31:0' },
  12: { offsetHigh: '31:0' },
  16: { addressLow: '31:0' },
  20: { addressHigh: '31:0' },
  24: { sizeLow: '31:0' },
  28: { sizeHigh: '31:0' },
});
/** READ, WRITE: what the device may do. MMAP and FILE_IO are libvfio-user's: how the descriptor is to be used. */
export const DmaMapFlag = { READ: 1, WRITE: 2, MMAP: 4, FILE_IO: 8 } as const;
export const DmaUnmap = /* @__PURE__ */ layout('DMA_UNMAP', 24, {
  0: { argsz: '31:0' },
  4: { flags: '31:0' },
  8: { addressLow: '31:0' },
  12: { addressHigh: '31:0' },
  16: { sizeLow: '31:0' },
  20: { sizeHigh: '31:0' },
});
/** The specification calls the flags unused; libvfio-user and QEMU know these (linux/vfio.h has the same). */
export const DmaUnmapFlag = { GET_DIRTY_BITMAP: 1, ALL: 2 } as const;
/** After DMA_UNMAP with GET_DIRTY_BITMAP; the bitmap follows in the reply. libvfio-user. */
export const UnmapBitmap = /* @__PURE__ */ layout('bitmap', 16, {
  0: { pageSizeLow: '31:0' },
  4: { pageSizeHigh: '31:0' },
  8: { sizeLow: '31:0' },
  12: { sizeHigh: '31:0' },
});

/** As vfio_device_info, without its capabilities. */
export const DeviceInfo = /* @__PURE__ */ layout('DEVICE_INFO', 16, {
  0: { argsz: '31:0' },
  4: { flags: '31:0' },
  8: { regions: '31:0' },
  12: { irqs: '31:0' },
});

export const RegionIoFds = /* @__PURE__ */ layout('REGION_IO_FDS', 16, {
  0: { argsz: '31:0' },
  4: { flags: '31:0' },
  8: { index: '31:0' },
  12: { count: '31:0' },
});
/**
 * One sub-region. The specification's has 40 bytes, without the shadow; libvfio-user's has 48 and its data match at 40 (vfio-user.h,
 * vfio_user_sub_region_ioeventfd). A client takes the size from argsz and count.
 */
export const IoFd = /* @__PURE__ */ layout('sub-region', 40, {
  0: { offsetLow: '31:0' },
  4: { offsetHigh: '31:0' },
  8: { sizeLow: '31:0' },
  12: { sizeHigh: '31:0' },
  16: { fdIndex: '31:0' },
  20: { type: oneOf('31:0', { ioeventfd: 0, ioregionfd: 1, shadow: 2 }) },
  24: { flags: '31:0' },
  28: { padding: '31:0' },
  32: { dataLow: '31:0' },
  36: { dataHigh: '31:0' },
});
export const ShadowIoFd = /* @__PURE__ */ layout('sub-region', 48, {
  0: { offsetLow: '31:0' },
  4: { offsetHigh: '31:0' },
  8: { sizeLow: '31:0' },
  12: { sizeHigh: '31:0' },
  16: { fdIndex: '31:0' },
  20: { type: oneOf('31:0', { ioeventfd: 0, ioregionfd: 1, shadow: 2 }) },
  24: { flags: '31:0' },
  28: { shadowFdIndex: '31:0' },
  32: { shadowOffset: '31:0' },
  36: { padding: '31:0' },
  40: { dataLow: '31:0' },
  44: { dataHigh: '31:0' },
});

/** REGION_READ and REGION_WRITE; the data follow. */
export const RegionAccess = /* @__PURE__ */ layout('region', 16, {
  0: { offsetLow: '31:0' },
  4: { offsetHigh: '31:0' },
  8: { region: '31:0' },
  12: { count: '31:0' },
});
/** REGION_WRITE_MULTI: how many writes follow; in the reply, how many were done. */
export const WriteMulti = /* @__PURE__ */ layout('REGION_WRITE_MULTI', 8, { 0: { countLow: '31:0' }, 4: { countHigh: '31:0' } });
export const MultiWrite = /* @__PURE__ */ layout('write', 24, {
  0: { offsetLow: '31:0' },
  4: { offsetHigh: '31:0' },
  8: { region: '31:0' },
  12: { count: '31:0' },
  16: { dataLow: '31:0' },
  20: { dataHigh: '31:0' },
});

/** DMA_READ and DMA_WRITE; the data follow. */
export const DmaAccess = /* @__PURE__ */ layout('dma', 16, {
  0: { addressLow: '31:0' },
  4: { addressHigh: '31:0' },
  8: { countLow: '31:0' },
  12: { countHigh: '31:0' },
});

/** "VFIO_USER_DEVICE_FEATURE": numbers as in linux/vfio.h. */
export const Feature = {
  MIGRATION: 1,
  MIG_DEVICE_STATE: 2,
  DMA_LOGGING_START: 6,
  DMA_LOGGING_STOP: 7,
  DMA_LOGGING_REPORT: 8,
} as const;
export const featureNames: Readonly<Record<number, string>> = /* @__PURE__ */ Object.fromEntries(
  Object.entries(Feature).map(([name, value]) => [value, name]),
);
export const MigrationFlag = { STOP_COPY: 1, P2P: 2, PRE_COPY: 4 } as const;
export const MigrationState = { ERROR: 0, STOP: 1, RUNNING: 2, STOP_COPY: 3, RESUMING: 4, RUNNING_P2P: 5, PRE_COPY: 6, PRE_COPY_P2P: 7 } as const;
export type MigrationState = (typeof MigrationState)[keyof typeof MigrationState];
export const migrationStateNames: readonly string[] = /* @__PURE__ */ Object.keys(MigrationState);
export const FeatureMigration = /* @__PURE__ */ layout('MIGRATION', 8, { 0: { flagsLow: '31:0' }, 4: { flagsHigh: '31:0' } });
export const FeatureState = /* @__PURE__ */ layout('MIG_DEVICE_STATE', 8, { 0: { state: '31:0' }, 4: { dataFd: '31:0' } });
/** Followed by ranges. */
export const LoggingStart = /* @__PURE__ */ layout('DMA_LOGGING_START', 16, {
  0: { pageSizeLow: '31:0' },
  4: { pageSizeHigh: '31:0' },
  8: { ranges: '31:0' },
  12: { reserved: '31:0' },
});
export const LoggingRange = /* @__PURE__ */ layout('range', 16, {
  0: { iovaLow: '31:0' },
  4: { iovaHigh: '31:0' },
  8: { lengthLow: '31:0' },
  12: { lengthHigh: '31:0' },
});
/** The bitmap follows in the reply: bit n is page n from iova. */
export const LoggingReport = /* @__PURE__ */ layout('DMA_LOGGING_REPORT', 24, {
  0: { iovaLow: '31:0' },
  4: { iovaHigh: '31:0' },
  8: { lengthLow: '31:0' },
  12: { lengthHigh: '31:0' },
  16: { pageSizeLow: '31:0' },
  20: { pageSizeHigh: '31:0' },
});

/** MIG_DATA_READ and MIG_DATA_WRITE; the data follow. */
export const MigrationData = /* @__PURE__ */ layout('migration data', 8, { 0: { argsz: '31:0' }, 4: { size: '31:0' } });
